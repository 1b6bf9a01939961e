"""Pairs of SQL with the paragraph that says what it does, out of manuals as HTML, such as PostgreSQL's (Debian's postgresql-doc).

python dev/listing_pairs.py /usr/share/doc/postgresql-doc-15/html postgresql PAIRS
"""

import html
import json
import re
import sys
from pathlib import Path

_LISTING = re.compile(
    r'<p>((?:(?!</p>).)*)</p>\s*(?:<a[^>]*></a>)?\s*<pre class="(?:programlisting|synopsis|screen)">(.*?)</pre>', re.S
)
_SQL = re.compile(r"\b(select|insert|update|delete|create|alter|drop|grant|with)\b", re.I)
_COLON = re.compile(r",? ?(for example|as follows|like this)?:$")


def main() -> None:
    folder, name, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    pairs: dict[tuple[str, str], None] = {}
    for file in sorted(folder.rglob("*.html")):
        for said, listing in _LISTING.findall(file.read_text(encoding="utf-8", errors="replace")):
            query, code = _COLON.sub("", " ".join(plain(said).split())), plain(listing).strip()
            if len(query) >= 25 and len(code) >= 20 and _SQL.search(code):
                pairs[" ".join(query.split()[-60:]), code[:2000]] = None
    with (out / f"listing-{name}.jsonl").open("w", encoding="utf-8") as file:
        for query, code in pairs:
            row = {"query": query, "document": code, "source": f"listing-{name}", "group": query}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{len(pairs):>10,}  listing-{name}")


def plain(text: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", text))


if __name__ == "__main__":
    main()
