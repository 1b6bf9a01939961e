"""Texts to rows of token ids that a model can read. What is too long is an error, or cut and reported: never cut in silence."""

import concurrent.futures
import itertools
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from modernbert.errors import TextError
from modernbert.text.tokenizer import Tokenizer
from modernbert.vectors import VectorSettings, prompt_of

FIRST_CHUNK, CHUNK, CHUNKS_AHEAD = 1024, 8192, 2
"""Texts that are tokenised together: few at first, so that the model can begin, then half as many again each time: twice as many took as
long to tokenise as the chunk before takes a GPU, which waited; and how many chunks wait for the model at most."""


class TruncationWarning(UserWarning):
    """Texts were cut to what the model reads, as `truncate=True` asks; says which, and how many tokens each lost."""


def list_of(texts: Any) -> list[Any]:
    """The texts as a list; one string becomes a list of one.

    Raises:
        TextError: it is neither a text nor several.
    """
    if not isinstance(texts, Iterable) or isinstance(texts, bytes | Mapping):
        raise TextError(f"wanted a text or a list of texts, got {type(texts).__name__}")
    return [texts] if isinstance(texts, str) else list(texts)


def rows_of(tokenizer: Tokenizer, texts: Any, *, limit: int, truncate: bool | None = False) -> list[list[int]]:
    """Token ids of each text, none longer than the model reads.

    Args:
        tokenizer: the model's.
        texts: a text, or several.
        limit: tokens of the longest row that the model reads, or that its folder wants.
        truncate: cut longer texts at their end and warn, in place of the error; None where the caller has no such choice to offer.

    Raises:
        TextError: a text is too long for the model or is not valid Unicode; says which.
    """
    rows = tokenizer.encode(list_of(texts))
    too_long = {number: len(row) for number, row in enumerate(rows) if len(row) > limit}
    if not too_long:
        return rows
    report(too_long, limit, truncate, alone=isinstance(texts, str))
    kept = limit - 1  # and the [SEP]
    return [row[:kept] + row[-1:] if number in too_long else row for number, row in enumerate(rows)]


def rows_ahead(
    tokenizer: Tokenizer, texts: Sequence[Any], *, limit: int, truncate: bool, too_long: dict[int, int]
) -> Iterator[list[list[int]]]:
    """As `rows_of`, in chunks, which a thread makes while the caller works on those before; the tokenizer does not hold Python up.

    Args:
        too_long: takes the tokens of each text that was cut, for the caller to report.

    Raises:
        TextError: as `rows_of`, once the chunk comes.
    """

    def make(start: int, end: int) -> list[list[int]]:
        try:
            rows = tokenizer.encode(texts[start:end])
        except TextError:
            rows_of(tokenizer, texts, limit=limit, truncate=truncate)  # says the same under the text's number among all
            raise
        for number, row in enumerate(rows):
            if len(row) > limit:
                too_long[start + number] = len(row)
                rows[number] = row[: limit - 1] + row[-1:]  # and the [SEP]
        if too_long and not truncate:
            report(too_long, limit, truncate, alone=False)
        return rows

    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="tokenise") as thread:
        places = _chunks(len(texts))
        coming = deque(thread.submit(make, *place) for place in itertools.islice(places, CHUNKS_AHEAD))
        try:
            while coming:
                rows = coming.popleft().result()
                coming.extend(thread.submit(make, *place) for place in itertools.islice(places, 1))
                yield rows
        finally:
            for chunk in coming:
                chunk.cancel()


def _chunks(texts: int) -> Iterator[tuple[int, int]]:
    """Where each chunk begins and ends.

    >>> list(_chunks(20_000))
    [(0, 1024), (1024, 2560), (2560, 4864), (4864, 8320), (8320, 13504), (13504, 20000)]
    """
    start, size = 0, FIRST_CHUNK
    while start < texts:
        yield start, min(start + size, texts)
        start, size = start + size, min(size + size // 2, CHUNK)


def prompted(
    tokenizer: Tokenizer, settings: VectorSettings, texts: Any, prompt: str | None, prompt_name: str | None
) -> tuple[Any, int]:
    """Texts to embed behind their prompt, and how many tokens at the beginning of each row are not pooled.

    Raises:
        TextError: it is neither a text nor several.
        ConfigError: the prompt is given twice, or its name is unknown.
    """
    before = prompt_of(settings, prompt, prompt_name)
    # what is no text goes on as it is, for the tokenizer to name
    items = [before + text if isinstance(text, str) else text for text in list_of(texts)]
    skip = 0 if settings.include_prompt or not before else len(tokenizer.encode([before])[0]) - 1
    return (items[0] if isinstance(texts, str) else items), skip


def report(too_long: Mapping[int, int], limit: int, truncate: bool | None, *, alone: bool) -> None:
    """Says which texts are too long: as a warning with what they lose, or as an error.

    Args:
        too_long: tokens of each text that has more than `limit`, by its number.
        limit: tokens that the model reads.
        truncate: whether they are cut; None where that is not on offer.
        alone: there is but one text, so it needs no number.

    Raises:
        TextError: unless `truncate`.
    """
    if not truncate:
        number, length = next(iter(too_long.items()))
        raise TextError(
            f"{name(number, alone)} has {length:,} tokens and the model reads at most {limit:,}; cut or split it"
            + ("" if truncate is None else ", or pass truncate=True")
        )
    shown = ", ".join(f"{name(number, alone)} lost {length - limit:,}" for number, length in list(too_long.items())[:10])
    more = f" and {len(too_long) - 10:,} texts more were cut" if len(too_long) > 10 else ""
    warnings.warn(f"cut to {limit:,} tokens: {shown}{more}", TruncationWarning, stacklevel=5)  # the caller of the engine


def name(number: int, alone: bool) -> str:
    """What a message calls a text."""
    return "the text" if alone else f"text {number}"
