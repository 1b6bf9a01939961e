"""The texts of labelled sets' training rows, each once and without labels, as a text to pre-train on.

    python dev/task_texts.py SETS task-texts.jsonl

SETS holds a folder a set, with `*train.jsonl.gz` in it. What stands in a dev row of GLUE as well is left out: punctuation and case aside,
from four words on.
"""

import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COLUMNS = ("text", "text_a", "text_b", "question", "query", "context", "answer", "title")
LONGEST = 2000
"""Characters that are read of a text."""


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") as lines:
        yield from map(json.loads, lines)


def texts_of(row: dict[str, Any]) -> list[str]:
    """The strings of a row that somebody wrote."""
    found = [row.get(column) for column in COLUMNS]
    found += [candidate.get("text") for candidate in row.get("candidates", ()) if isinstance(candidate, dict)]
    if isinstance(row.get("tokens"), list):
        found.append(" ".join(row["tokens"]))
    return [text[:LONGEST] for text in found if isinstance(text, str) and text.strip()]


def words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def main() -> None:
    sets, out = Path(sys.argv[1]), Path(sys.argv[2])
    dev = {words(text) for path in sorted(sets.glob("glue_*/dev.jsonl.gz")) for row in rows(path) for text in texts_of(row)}
    measured = {text for text in dev if text.count(" ") >= 3}
    seen: set[str] = set()
    with out.open("w", encoding="utf-8") as file:
        for path in sorted(sets.glob("*/*train.jsonl.gz")):
            for row in rows(path):
                new = [text for text in dict.fromkeys(texts_of(row)) if text not in seen and words(text) not in measured]
                seen.update(new)
                if new:
                    file.write(json.dumps({"text": "\n".join(new)}, ensure_ascii=False) + "\n")
    print(f"{out}: {len(seen):,} texts, {sum(map(len, seen)):,} characters")


if __name__ == "__main__":
    main()
