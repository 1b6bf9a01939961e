"""The texts of labelled sets' training rows, each once and without labels, as a text to pre-train on.

    python dev/task_texts.py SETS task-texts.jsonl

SETS holds a folder a set, with `*train.jsonl.gz` in it. What stands in a dev row of GLUE as well is left out: punctuation and case aside,
from four words on.
"""

import json
import sys
from pathlib import Path
from typing import Any

from modernbert.data.documents import read_rows
from modernbert.data.labelled import DISTINCT, words_of

COLUMNS = ("text", "text_a", "text_b", "question", "query", "context", "answer", "title")
LONGEST = 2000
"""Characters that are read of a text."""


def texts_of(row: dict[str, Any]) -> list[str]:
    """The strings of a row that somebody wrote."""
    found = [row.get(column) for column in COLUMNS]
    found += [candidate.get("text") for candidate in row.get("candidates", ()) if isinstance(candidate, dict)]
    if isinstance(row.get("tokens"), list):
        found.append(" ".join(row["tokens"]))
    return [text[:LONGEST] for text in found if isinstance(text, str) and text.strip()]


def main() -> None:
    sets, out = Path(sys.argv[1]), Path(sys.argv[2])
    dev = [row for path in sets.glob("glue_*/dev.jsonl.gz") for _, row in read_rows(path)]
    measured = {words for row in dev for text in texts_of(row) if len(words := words_of(text)) >= DISTINCT}
    seen: set[str] = set()
    with out.open("w", encoding="utf-8") as file:
        for path in sorted(sets.glob("*/*train.jsonl.gz")):
            for _, row in read_rows(path):
                new = [text for text in dict.fromkeys(texts_of(row)) if text not in seen and words_of(text) not in measured]
                seen.update(new)
                if new:
                    file.write(json.dumps({"text": "\n".join(new)}, ensure_ascii=False) + "\n")
    print(f"{out}: {len(seen):,} texts, {sum(map(len, seen)):,} characters")


if __name__ == "__main__":
    main()
