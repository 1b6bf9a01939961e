"""Pairs of functions with their docstrings, and what somebody might type into a search box to find them.

    python dev/web_pairs.py PAIRS

PAIRS has code_docstring.jsonl and docstring-python.jsonl of `modernbert prepare pairs`, and gets web-python.jsonl. The query is the
docstring's first sentence with words left out, in small letters, `python` or `how to … in python` around it; four functions of five get
their docstring back, as most functions of the world have one.
"""

import json
import random
import re
import sys
from pathlib import Path

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n|:param|Args:|Parameters")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_']*|\d+")
_SMALL = re.compile("an?|the|of|to|for|is|are|this|that|be|by|with|its?|given|and|or|from|in|on")
_VERB_S = re.compile("(return|get|set|check|convert|create|compute|read|write|load|print|remove|add|make|find|parse|calculate)s")
_AROUND = ("python {}", "{} python", "{} in python", "how to {} in python", "{}")
_OFTEN = (0.4, 0.15, 0.15, 0.15, 0.15)


def main() -> None:
    folder, rng, count = Path(sys.argv[1]), random.Random("web"), 0
    with (folder / "web-python.jsonl").open("w", encoding="utf-8") as file:
        for name in ("code_docstring", "docstring-python"):
            with (folder / f"{name}.jsonl").open(encoding="utf-8") as lines:
                for number, row in enumerate(map(json.loads, lines)):
                    if query := typed(row["query"], rng):
                        document = documented(row["document"], row["query"]) if rng.random() < 0.8 else row["document"]
                        pair = {"query": query, "document": document, "source": "web-python", "group": f"{name} {number}"}
                        file.write(json.dumps(pair, ensure_ascii=False) + "\n")
                        count += 1
    print(f"{count:>10,}  web-python")


def typed(docstring: str, rng: random.Random) -> str:
    """The words of a docstring's first sentence that somebody would type; nothing where it is too short or too long."""
    words = _WORD.findall(_SENTENCE_END.split(docstring.strip())[0].lower())
    if not 3 <= len(words) <= 30:
        return ""
    if said := _VERB_S.fullmatch(words[0]):
        words[0] = said[1]
    kept = [word for word in words if rng.random() > (0.5 if _SMALL.fullmatch(word) else 0.12)][: rng.randint(6, 12)]
    return rng.choices(_AROUND, _OFTEN)[0].format(" ".join(kept)) if len(kept) >= 3 else ""


def documented(code: str, docstring: str) -> str:
    """A function with its docstring below its head."""
    lines = code.split("\n")
    head = next((place for place, line in enumerate(lines) if line.rstrip().endswith(":")), None)
    if head is None:
        return code
    indent = lines[head][: len(lines[head]) - len(lines[head].lstrip())] + "    "
    said = docstring.strip().replace('"""', "'''")[:600]
    return "\n".join([*lines[: head + 1], f'{indent}"""{said}"""', *lines[head + 1 :]])


if __name__ == "__main__":
    main()
