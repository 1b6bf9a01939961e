"""The words at the masks of a text, in the shape of transformers' fill-mask pipeline; whatever model found them."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, TypedDict

from modernbert.errors import ConfigError, TextError
from modernbert.text.rows import name
from modernbert.text.tokenizer import Tokenizer


class Word(TypedDict):
    """A word for a mask."""

    score: float
    """Probability."""
    token: int
    token_str: str
    """The token as text, with the space that it begins with in running text."""
    sequence: str
    """The whole text with the word in place."""


def check_top_k(top_k: Any, vocab_size: int) -> None:
    """Raises ConfigError unless there are so many words to choose from."""
    if not isinstance(top_k, int) or not 1 <= top_k <= vocab_size:
        raise ConfigError(f"top_k={top_k!r}: wanted a number of words from 1 to {vocab_size:,}, the vocabulary")


def check_masks(tokenizer: Tokenizer, rows: Sequence[Sequence[int]], *, alone: bool) -> None:
    """Raises TextError where a row has no mask; says which."""
    for number, row in enumerate(rows):
        if tokenizer.mask_id not in row:
            mask = tokenizer.token(tokenizer.mask_id)
            raise TextError(f"{name(number, alone)} has no {mask}; write {mask} in place of the word to be found")


def words_of(
    tokenizer: Tokenizer, row: Sequence[int], found: Iterator[tuple[list[float], list[int]]]
) -> list[Word] | list[list[Word]]:
    """The words of one text.

    Args:
        tokenizer: the model's.
        row: token ids of the text.
        found: probabilities and tokens of each mask in turn, likeliest first; as many are taken as the row has masks.

    Returns:
        A list of words, or for several masks a list of such lists. `sequence` keeps special tokens only to show the other masks.
    """
    masks = [i for i, token in enumerate(row) if token == tokenizer.mask_id]
    lists = []
    for mask, (scores, tokens) in zip(masks, islice(found, len(masks)), strict=True):
        words: list[Word] = []
        for score, token in zip(scores, tokens, strict=True):
            filled = [id for id in (*row[:mask], token, *row[mask + 1 :]) if id != tokenizer.pad_id]
            word = tokenizer.decode([token], special=True)
            sequence = tokenizer.decode(filled, special=len(masks) > 1)
            words.append(Word(score=score, token=token, token_str=word, sequence=sequence))
        lists.append(words)
    return lists[0] if len(lists) == 1 else lists
