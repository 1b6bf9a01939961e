"""The 60,000 real texts of the end-to-end record, as JSON lines: every string of more than 40 characters in the sets, shuffled with seed 0.

python dev/real_texts.py sets texts.jsonl
modernbert bench inference --out records --part embed --texts texts.jsonl --tokenizer modernbert/pretrained/tiny
"""

import gzip
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COUNT, LEAST = 60_000, 41


def strings(value: Any) -> Iterator[str]:
    """Every long string of a JSON value, in its order."""
    if isinstance(value, str):
        if len(value) >= LEAST:
            yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)


def main(folder: str, target: str) -> None:
    texts: list[str] = []
    for file in sorted(Path(folder).rglob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                texts += strings(json.loads(line))
    random.seed(0)
    random.shuffle(texts)
    Path(target).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[:COUNT]))
    print(f"{len(texts):,} strings")


if __name__ == "__main__":
    main(*sys.argv[1:])
