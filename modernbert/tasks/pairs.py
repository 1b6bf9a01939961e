"""Pairs of texts that belong together: read from rows, each text once as tokens, the pairs as numbers of texts.

A row has a query and a document, and may have more: `negatives`, a list of documents that are wrong; `scores`, a teacher's for the document
and then for each negative; `source`, a name; `group`, a name that pairs share which must not be each other's negatives.

T tokens · N texts · P pairs.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from modernbert.batch import Batch
from modernbert.errors import DataError
from modernbert.tasks.task import Row, cell, checked_text, text_of

Encode = Callable[[Sequence[str], bool], tuple[list[list[int]], int]]
"""From texts, and whether they are queries, to token rows that fit, and how many were cut."""

CHUNK = 8192
"""Texts that are tokenised together."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TokenRows:
    """Rows of token ids end to end: a million texts take as much memory as their tokens."""

    ids_T: np.ndarray
    """int32."""
    begins: np.ndarray
    """int64 [N + 1]."""

    @classmethod
    def of(cls, rows: Iterable[Sequence[int] | np.ndarray]) -> "TokenRows":
        """Lays rows end to end.

        >>> TokenRows.of([[5, 6], [7]]).lengths.tolist()
        [2, 1]
        """
        parts = [np.asarray(row, dtype=np.int32) for row in rows]
        begins = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return cls(ids_T=np.concatenate([np.empty(0, np.int32), *parts]), begins=begins)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.begins)

    def __getitem__(self, number: int) -> np.ndarray:
        return self.ids_T[self.begins[number] : self.begins[number + 1]]

    def pack(self, numbers: Sequence[int]) -> Batch:
        """Some rows as a batch, in the order of their numbers.

        >>> TokenRows.of([[5, 6], [7]]).pack([1, 0]).ids_T.tolist()
        [7, 5, 6]
        """
        rows = [self[number] for number in numbers]
        cu_seqlens = np.cumsum([0, *map(len, rows)], dtype=np.int32)
        pos_T = np.concatenate([np.arange(len(row), dtype=np.int32) for row in rows])
        return Batch(
            ids_T=torch.from_numpy(np.concatenate(rows)),
            pos_T=torch.from_numpy(pos_T),
            cu_seqlens=torch.from_numpy(cu_seqlens),
            max_seqlen=max(map(len, rows)),
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """All pairs of a training, and their texts."""

    rows: TokenRows
    """Of every distinct text in each of its two uses."""
    texts: list[str]
    """Distinct texts in the order of their first appearance: row by row the query, the document, the negatives."""
    text_of_row: np.ndarray
    """Number of the text that a token row is of."""
    query_P: np.ndarray
    document_P: np.ndarray
    """Numbers of token rows."""
    negatives: list[tuple[int, ...]]
    """For each pair, numbers of token rows."""
    scores: list[tuple[float, ...]] | None
    """For each pair, the teacher's for the document and each negative."""
    group_P: np.ndarray
    """Number of the group; −1 for none."""
    source_P: np.ndarray
    sources: list[str]
    right: dict[int, set[int]]
    """For each query, all documents that some pair gives it."""
    cut: int
    """Texts that lost their end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairColumns:
    """Where a row has what."""

    query: str = "query"
    """Column of the query."""
    document: str = "document"
    """Column of the document that is right for it."""
    negatives: str = "negatives"
    """Column with a list of documents that are wrong; rows need not have it."""
    scores: str = "scores"
    """Column with a teacher's scores, of the document and then of each negative; rows need not have it."""


def read_pairs(rows: Iterable[tuple[str, Row]], columns: PairColumns, encode: Encode) -> Pairs:
    """Pairs from rows.

    Args:
        rows: each with the name of its source, where the row itself names none.
        columns: where a row has what.
        encode: makes token rows of texts.

    Raises:
        DataError: a cell is missing, empty or of another kind, or only some rows have scores; names row and column.
    """
    numbers: dict[str, int] = {}
    uses: dict[tuple[int, bool], int] = {}
    groups: dict[str, int] = {}
    sources: dict[str, int] = {}
    right: dict[int, set[int]] = {}
    query_P, document_P, group_P, source_P = [], [], [], []
    negatives: list[tuple[int, ...]] = []
    scores: list[tuple[float, ...]] = []

    def use(text: str, is_query: bool) -> int:
        return uses.setdefault((numbers.setdefault(text, len(numbers)), is_query), len(uses))

    for source, row in rows:
        query, document = use(text_of(row, columns.query), True), use(text_of(row, columns.document), False)
        wrong = [use(checked_text(text, row, columns.negatives), False) for text in _texts(row, columns.negatives)]
        query_P.append(query)
        document_P.append(document)
        negatives.append(tuple(wrong))
        right.setdefault(query, set()).add(document)
        group = row[1].get("group")
        group_P.append(-1 if group is None else groups.setdefault(str(group), len(groups)))
        source_P.append(sources.setdefault(str(row[1].get("source") or source), len(sources)))
        found = _scores(row, columns.scores, 1 + len(wrong))
        if bool(found) != bool(scores) and len(query_P) > 1:
            raise DataError(
                f"{row[0]}: {'has' if found else 'lacks'} {columns.scores!r}, unlike the rows before; all rows need it, or none"
            )
        if found:
            scores.append(found)
    if not query_P:
        raise DataError("the files of pairs have 0 rows; at least one is needed")
    texts = list(numbers)
    token_rows, cut = _token_rows(texts, list(uses), encode)
    return Pairs(
        rows=token_rows,
        texts=texts,
        text_of_row=np.array([number for number, _ in uses]),
        query_P=np.array(query_P),
        document_P=np.array(document_P),
        negatives=negatives,
        scores=scores or None,
        group_P=np.array(group_P),
        source_P=np.array(source_P),
        sources=list(sources),
        right=right,
        cut=cut,
    )


def _token_rows(texts: list[str], uses: list[tuple[int, bool]], encode: Encode) -> tuple[TokenRows, int]:
    """Token rows in the order of the uses, tokenised in chunks so that lists of Python numbers stay few."""
    parts: list[np.ndarray] = [np.empty(0, np.int32)] * len(uses)
    cut = 0
    for is_query in (True, False):
        mine = [place for place, (_, query) in enumerate(uses) if query == is_query]
        for first in range(0, len(mine), CHUNK):
            places = mine[first : first + CHUNK]
            rows, lost = encode([texts[uses[place][0]] for place in places], is_query)
            cut += lost
            for place, row in zip(places, rows, strict=True):
                parts[place] = np.array(row, dtype=np.int32)
    return TokenRows.of(parts), cut


def _texts(row: Row, column: str) -> list[str]:
    value = row[1].get(column)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise DataError(f"{row[0]}: {str(value)[:40]!r} in column {column!r}; wanted a list of texts")
    return value


def _scores(row: Row, column: str, wanted: int) -> tuple[float, ...]:
    if column not in row[1]:
        return ()
    value: Any = cell(row, column)
    try:
        found = tuple(float(score) for score in value)
    except (TypeError, ValueError):
        found = ()
    if len(found) != wanted or not np.isfinite(found).all():
        raise DataError(
            f"{row[0]}: {str(value)[:40]} in column {column!r}; wanted {wanted} finite numbers: the document's, then one for each negative"
        )
    return found
