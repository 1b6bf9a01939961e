"""Which pairs make a batch: rows from files, one source a batch, every pair once a pass."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from modernbert.data.documents import JSON_LINES, PARQUET, document_files, source_of
from modernbert.data.tables import read_table
from modernbert.errors import ConfigError, DataError
from modernbert.tasks.pairs import Pairs
from modernbert.tasks.task import Row

T = TypeVar("T")
U = TypeVar("U")


def pair_rows(paths: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """Every row of the files, with the name of its file's source. Raises DataError: a file is missing or of another kind."""
    for path in document_files(paths):
        if not path.name.endswith((*JSON_LINES, *PARQUET)):
            raise DataError(f"{path} cannot hold pairs: wanted a name that ends in {', '.join((*JSON_LINES, *PARQUET))}")
        for row in read_table(path):
            yield source_of(path), row


def source_shares(pairs: Pairs, weights: tuple[str, ...]) -> np.ndarray:
    """The share of batches of each source: its pairs times its weight.

    Raises:
        ConfigError: a weight is no NAME:NUMBER, or names no source.
    """
    factors = dict.fromkeys(pairs.sources, 1.0)
    for weight in weights:
        name, _, number = weight.rpartition(":")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if name not in factors or not value >= 0:
            raise ConfigError(f"weights={weight}: wanted NAME:NUMBER with a source of the pairs; there are {', '.join(factors)}")
        factors[name] = value
    shares = np.bincount(pairs.source_P) * np.array(list(factors.values()))
    if not shares.sum():
        raise ConfigError("weights are all 0: there is nothing to learn from")
    return shares / shares.sum()


def each_batch(source_P: np.ndarray, shares: np.ndarray, size: int, seed: int) -> Iterator[list[int]]:
    """Numbers of the pairs of each batch, without end: of one source, whose turn comes as often as its share says.

    A source is shuffled anew for each pass over it; the pairs that are left at the end of a pass begin the next one's first batch. A
    source that is smaller than a batch makes smaller batches.

    Args:
        source_P: number of each pair's source.
        shares: of each source.
        size: pairs of a batch.
        seed: of the shuffles.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(source_P == source) for source in range(len(shares))]
    queues = [np.empty(0, dtype=np.int64) for _ in members]
    credit = np.zeros(len(members))
    while True:
        credit += shares
        source = int(credit.argmax())
        credit[source] -= 1
        wanted = min(size, len(members[source]))
        if len(queues[source]) < wanted:
            left = queues[source]
            fresh = rng.permutation(np.setdiff1d(members[source], left))  # those that are left do not come twice in one batch
            queues[source] = np.concatenate([left, fresh, rng.permutation(left)])
        yield queues[source][:wanted].tolist()
        queues[source] = queues[source][wanted:]


def ahead(make: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """`map`, but a thread makes the next one while the caller works on the one before.

    >>> list(ahead(str, range(3)))
    ['0', '1', '2']
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming: deque[Future[U]] = deque()
        for item in items:
            coming.append(thread.submit(make, item))
            if len(coming) > 1:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def chosen_negatives(given: tuple[int, ...], most: int, rng: np.random.Generator) -> list[int]:
    """Places of the negatives that a pair brings along.

    >>> chosen_negatives((7, 8), 3, np.random.default_rng(0))
    [0, 1]
    """
    if len(given) <= most:
        return list(range(len(given)))
    return sorted(rng.choice(len(given), most, replace=False).tolist())


def filled(rows: list[Any], value: float) -> Tensor:
    """Rows of numbers of any lengths as one tensor, filled up with a value.

    >>> filled([[1, 2], [3]], -1).tolist()
    [[1, 2], [3, -1]]
    """
    width = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])
