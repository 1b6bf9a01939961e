"""Look up a key among many: made-up long documents, of any length, with one right answer at a known depth.

A row is a question (the key), a context (a JSON object with random keys and values) and an answer (the key's value, by its characters),
as tasks for question answering read it.

Source: the key-value retrieval of Liu et al. 2023 (arXiv 2307.03172), whose contexts these equal in form.
"""

import json
import random
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from modernbert.text.tokenizer import Tokenizer

DEPTHS = 10
"""Places of the answer that are told apart: the first tenth of the pairs, the second, …"""


def lookup_row(records: Sequence[Sequence[str]], key: str) -> dict[str, Any]:
    """The row that asks for a key's value.

    >>> row = lookup_row([["a", "1"], ["b", "2"]], "b")
    >>> row["context"], row["answers"], row["depth"]
    ('{"a": "1",\\n "b": "2"}', [{'text': '2', 'start': 18}], 5)
    """
    place = [name for name, _ in records].index(key)
    parts = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in records]
    before = "{" + "".join(part + ",\n " for part in parts[:place]) + json.dumps(key) + ': "'
    answer = records[place][1]
    return {
        "question": key,
        "context": "{" + ",\n ".join(parts) + "}",
        "answers": [{"text": answer, "start": len(before)}],
        "depth": place * DEPTHS // len(records),
    }


def lookups(count: int, *, pairs: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yields rows with as many at each depth, with random (version 4) UUIDs as keys and values; at least ten pairs, one a depth.

    >>> [row["depth"] for row in lookups(10, pairs=20, seed=0)]
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    assert pairs >= DEPTHS
    generator = random.Random(seed)
    for number in range(count):
        records = [[_uuid(generator), _uuid(generator)] for _ in range(pairs)]
        places = [place for place in range(pairs) if place * DEPTHS // pairs == number % DEPTHS]
        yield lookup_row(records, records[generator.choice(places)][0])


def lookups_of_all_lengths(count: int, *, longest: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yields rows of 2 to `longest` pairs to learn from, as many short as long ones on a scale of logarithms: what is found among two pairs
    first is found among hundreds later, and all long rows from the start teach a small model nothing.

    >>> sorted(len(json.loads(row["context"])) for row in lookups_of_all_lengths(6, longest=100, seed=0))
    [3, 4, 27, 44, 53, 54]
    """
    generator = random.Random(seed)
    for _ in range(count):
        pairs = round(2 * (longest / 2) ** generator.random())
        records = [[_uuid(generator), _uuid(generator)] for _ in range(pairs)]
        yield lookup_row(records, generator.choice(records)[0])


def pairs_of(tokens: int, tokenizer: Tokenizer) -> int:
    """How many pairs make a row of about so many tokens, at least one for each depth."""
    (row,) = lookups(1, pairs=40, seed=0)
    (ids,) = tokenizer.encode([row["context"]])
    return max(DEPTHS, tokens * 40 // len(ids))


def _uuid(generator: random.Random) -> str:
    return str(uuid.UUID(int=generator.getrandbits(128), version=4))
