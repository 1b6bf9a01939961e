"""More pairs out of CodeNN's few: words of the question left out, a part of the code, names exchanged with other snippets' names.

python dev/swapped_pairs.py PAIRS

PAIRS has codenn_sql.jsonl, codenn_csharp.jsonl and codenn_python.jsonl of `modernbert prepare pairs`, and gets swapped_sql.jsonl and so
on: code that says the same of other tables, so that a student learns from its teacher what is common to them. Names that the question
has, and words that many snippets have, stay. Copies of one pair are one group, so none is another's negative.
"""

import json
import random
import re
import sys
from collections import Counter
from pathlib import Path

_NAME = re.compile(r"[A-Za-z_]\w*", re.A)
_PIECE = re.compile(rf"{_NAME.pattern}|\s+|[^A-Za-z_\s]+", re.A)
_COPIES = {"sql": (8, 60), "csharp": (2, 150), "python": (3, 60)}
"""Copies of each pair; and how many snippets there are for one that must have a word before it counts as the language's own."""


def main() -> None:
    folder = Path(sys.argv[1])
    for language, (copies, rare) in _COPIES.items():
        with (folder / f"codenn_{language}.jsonl").open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        rng = random.Random(language)
        counts = Counter(name for row in rows for name in {found.lower() for found in _NAME.findall(row["document"])})
        own = {name for name, count in counts.items() if count >= len(rows) / rare}
        names = sorted(name for name in counts if name not in own and len(name) > 1)
        count = 0
        with (folder / f"swapped_{language}.jsonl").open("w", encoding="utf-8") as file:
            for number, row in enumerate(rows):
                for _ in range(copies):
                    pair = {"query": fewer_words(row["query"], rng), "document": other_names(row, own, names, rng)}
                    if all(pair.values()):
                        more = {"source": f"swapped_{language}", "group": f"{language} {number}"}
                        file.write(json.dumps(pair | more, ensure_ascii=False) + "\n")
                        count += 1
        print(f"{count:>10,}  swapped_{language}")


def fewer_words(query: str, rng: random.Random) -> str:
    words = query.split()
    kept = [word for word in words if rng.random() > 0.15]
    return " ".join(kept if len(kept) >= 3 else words)


def other_names(row: dict[str, str], own: set[str], names: list[str], rng: random.Random) -> str:
    """The code, half of it cut to a part, in which half of the names are others', the same one each time."""
    pieces = _PIECE.findall(row["document"])
    if len(pieces) > 30 and rng.random() < 0.5:
        size = rng.randint(int(0.6 * len(pieces)), len(pieces))
        first = rng.randint(0, len(pieces) - size)
        pieces = pieces[first : first + size]
    stay = own | {name.lower() for name in _NAME.findall(row["query"])}
    swapped: dict[str, str] = {}
    for piece in pieces:
        if _NAME.fullmatch(piece) and piece.lower() not in stay and piece.lower() not in swapped:
            swapped[piece.lower()] = rng.choice(names) if rng.random() < 0.5 else piece
    return "".join(swapped.get(piece.lower(), piece) for piece in pieces).strip()


if __name__ == "__main__":
    main()
