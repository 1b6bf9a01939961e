"""Long texts in pieces, each of which a model reads well."""

import re

PASSAGE = 200
"""Words; about 256 tokens of English."""

_WORD = re.compile(r"\S+\s*")


def passages_of(text: str, words: int = PASSAGE) -> list[str]:
    """A text in pieces of so many words, the last one of fewer; nothing is lost or changed.

    >>> passages_of("To be,  or not to be", 2)
    ['To be,  ', 'or not ', 'to be']
    >>> passages_of("")
    ['']
    """
    begins = [0, *(match.start() for number, match in enumerate(_WORD.finditer(text)) if number and number % words == 0)]
    return [text[begin:end] for begin, end in zip(begins, [*begins[1:], len(text)], strict=True)]
