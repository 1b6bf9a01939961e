"""Pairs of texts to rows of token ids that the model can read; `text/rows.py` has single texts."""

from collections.abc import Sequence
from typing import NamedTuple

from modernbert.engine.runner import Runner
from modernbert.errors import TextError
from modernbert.text.rows import report
from modernbert.text.tokenizer import Tokenizer


class Template(NamedTuple):
    """The special tokens that a tokenizer writes around one text and between two, such as `[CLS] A [SEP] B [SEP]`."""

    head: list[int]
    middle: list[int]
    tail: list[int]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Template":
        """Reads it off the tokens of empty texts."""
        (single,), (pair,) = tokenizer.encode([""]), tokenizer.encode_pairs([("", "")])
        head, tail = single[:-1], single[-1:]
        return cls(head, pair[len(head) : len(pair) - len(tail)], tail)

    def pair(self, first: Sequence[int], second: Sequence[int]) -> list[int]:
        """The row of two texts."""
        return [*self.head, *first, *self.middle, *second, *self.tail]

    @property
    def pair_cost(self) -> int:
        """Special tokens in the row of a pair."""
        return len(self.head) + len(self.middle) + len(self.tail)


def pair_rows(
    runner: Runner, pairs: Sequence[tuple[str, str]], *, truncate: bool = False, alone: bool = False, per_text: int = 1
) -> list[list[int]]:
    """Token ids of each pair, `[CLS] A [SEP] B [SEP]`, none longer than the model reads. A text that occurs often is read once.

    Args:
        pairs: two texts each.
        truncate: cut the longer of the two at its end and warn, in place of the error.
        alone: there is but one text, so messages need no number.
        per_text: how many pairs in turn the caller made of one text, for the numbers in messages.

    Raises:
        TextError: a pair is too long for the model or is not valid Unicode; says which.
    """
    tokenizer = runner.tokenizer
    distinct = list(dict.fromkeys(part for pair in pairs for part in pair))
    try:
        ids = dict(zip(distinct, tokenizer.encode(distinct, special=False), strict=True))
    except TextError:
        tokenizer.encode_pairs(pairs)  # says the same under the number of the pair
        raise
    template = Template.of(tokenizer)
    room = runner.limit - template.pair_cost
    rows: list[list[int]] = []
    too_long: dict[int, int] = {}
    for number, (first, second) in enumerate(pairs):
        a, b = ids[first], ids[second]
        if len(a) + len(b) > room:
            too_long.setdefault(number // per_text, len(a) + len(b) + template.pair_cost)
            keep_a, keep_b = shares(len(a), len(b), room)
            a, b = a[:keep_a], b[:keep_b]
        rows.append(template.pair(a, b))
    if too_long:
        report(too_long, runner.limit, truncate, alone=alone)
    return rows


def shares(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each of two texts stay: the longer one is cut until both fit or are equally long.

    >>> shares(10, 100, 50), shares(100, 90, 51), shares(3, 4, 50)
    ((10, 40), (26, 25), (3, 4))

    Source: the "longest first" truncation of Hugging Face tokenizers.
    """
    if first + second <= room:
        return first, second
    if min(first, second) <= room // 2:
        return (first, room - first) if first <= second else (room - second, second)
    return (room // 2, room - room // 2) if first <= second else (room - room // 2, room // 2)
