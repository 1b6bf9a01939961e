"""Long texts in pieces, each of which a model reads well."""

import re

PASSAGE = 100
"""Words; about 130 tokens of English."""

STEP = 50
"""Words from the beginning of one passage to that of the next: they overlap by half, so that no sentence stands at edges alone."""

BEST = 3
"""Passages that speak for their text, which scores as the mean of so many best ones: what answers seldom stands in one place, and one
passage may be near by chance. All three values are measured: bench/results/tiny_embed_2026-11-27.md."""

_WORD = re.compile(r"\S+\s*")


def passages_of(text: str, words: int = PASSAGE, step: int = STEP) -> list[str]:
    """A text in passages of so many words, one after every `step` words; the last one has fewer, and nothing is lost or changed.

    Args:
        text: any.
        words: a multiple of `step`.
        step: equal to `words` where passages shall not overlap.

    >>> passages_of("To be,  or not to be", 2, 2)
    ['To be,  ', 'or not ', 'to be']
    >>> passages_of("To be,  or not to be", 4, 2)
    ['To be,  or not ', 'or not to be']
    >>> passages_of("")
    ['']
    """
    begins = [0, *(match.start() for number, match in enumerate(_WORD.finditer(text)) if number and number % step == 0)]
    ends = [*begins[words // step :], len(text)]
    return [text[begin:end] for begin, end in zip(begins, ends, strict=False)]
