"""Training batches from token shards: packed, masked, of one shape, with an exact place to resume from."""

import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from modernbert.data.assembly import TrainingBatch, assemble, attention_rows_bound, masked_bound
from modernbert.data.mixture import BEGIN, Documents, Mixture
from modernbert.data.packing import SPECIALS, Upsampling, generator
from modernbert.data.shards import TokenShards
from modernbert.errors import DataError

PREFETCH = 16
"""Batches made ahead: planning a block of rows takes as long as a few steps."""

State = dict[str, Any]
Item = tuple[TrainingBatch, State]


class Loader:
    """Endless training batches: iterating gives pairs of a batch and the state that follows it, a small dict for JSON.

    A batch is `rows_per_batch` rows of `length` tokens. A row holds pieces of documents, `[CLS] piece [SEP]`, each of
    them a row for attention; what is left at its end is padding and another such row, seen by nothing else. Shapes never
    change: `cu_seqlens` is filled up with empty rows, `masked_M` with position 0 and label −100.

    The order of rows depends on shards, weights, upsampling, length and seed only; of `world` ranks, rank r takes rows r,
    r + world, … of each run of rows_per_batch · world. Masks depend on (seed, number of the row): they do not change with
    the cut into batches and ranks. So a loader that is given a state goes on exactly as the one that gave the state would
    have. Epochs of a folder follow each other without a break.
    """

    def __init__(
        self,
        shards: TokenShards | Sequence[TokenShards],
        *,
        length: int,
        rows_per_batch: int,
        mask_rate: float,
        seed: int,
        mask_share: float = 0.8,
        random_share: float = 0.1,
        weights: Sequence[float] = (),
        upsampling: Upsampling = (),
        state: State | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Sets the shapes, by planning the first block of rows of each folder.

        Args:
            shards: the documents, in one folder or several of one tokenizer.
            length: tokens of a row.
            rows_per_batch: rows in a batch of this rank.
            mask_rate: probability that a token is chosen for prediction.
            seed: of the order, the cuts, the draws between folders, and the masks.
            mask_share, random_share: of the chosen tokens, how many become [MASK] and how many a random token (BERT's by default).
            weights: share of the rows that each folder gives; empty is in proportion to the tokens of its epoch.
            upsampling: lengths from which documents are read several times an epoch.
            state: from which to go on; None is the beginning.
            rank, world: this process among those that share the rows.

        Raises:
            DataError: the state is of other shards, settings or seed, or a row has no room for text, or the folders are of
                different tokenizers, or the weights do not fit them.
        """
        self.documents = Documents([shards] if isinstance(shards, TokenShards) else shards)
        self.length, self.rows_per_batch, self.mask_rate = length, rows_per_batch, mask_rate
        self.seed, self.rank, self.world = seed, rank, world
        self.weights, self.upsampling = weights, upsampling
        self.shares = (mask_share, random_share)
        settings = {
            "seed": seed,
            "length": length,
            "weights": list(weights),
            "upsampling": [list(pair) for pair in upsampling],
            "data": [folder.manifest.documents_sha256 for folder in self.documents.folders],
        }
        begin = {"rows_seen": 0, "places": [BEGIN] * len(self.documents.folders), **settings}
        self.state: State = dict(state or begin)
        """Where iterating begins."""
        if missing := begin.keys() - self.state.keys():
            raise DataError(f"the loader's state lacks {', '.join(sorted(missing))}; resume from another checkpoint")
        for name, wanted in settings.items():
            if self.state[name] != wanted:
                raise DataError(
                    f"cannot resume the data: the state is for {name} {self.state[name]!r}, "
                    f"not {wanted!r}; use the same one, or start without a state"
                )
        self.attention_rows = attention_rows_bound(self._mixture().first_blocks(), rows_per_batch)
        """B of every batch."""
        self.masked = masked_bound(length * rows_per_batch, mask_rate)
        """M of every batch."""

    def __iter__(self) -> Generator[Item, None, None]:
        """Batches from `self.state` on, made ahead by a thread that ends when the iterator is closed or forgotten."""
        made: queue.Queue[Item | BaseException] = queue.Queue(PREFETCH)
        stop = threading.Event()
        thread = threading.Thread(target=_make, args=(self._items(), made, stop), name="loader", daemon=True)
        thread.start()
        try:
            while True:
                item = made.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()

    def _mixture(self) -> Mixture:
        return Mixture(
            self.documents,
            self.length,
            seed=self.seed,
            weights=self.weights,
            upsampling=self.upsampling,
            rows_seen=self.state["rows_seen"],
            places=self.state["places"],
        )

    def _items(self) -> Iterator[Item]:
        mixture = self._mixture()
        while True:
            first = mixture.rows_seen
            together = mixture.take(self.rows_per_batch * self.world)
            numbers = range(first, mixture.rows_seen)[self.rank :: self.world]
            uniform_R2L = [generator(2, self.seed, number).random((2, self.length)) for number in numbers]
            batch = assemble(
                together.every(self.world, self.rank),
                self.documents,
                np.concatenate(uniform_R2L, axis=1),
                length=self.length,
                mask_rate=self.mask_rate,
                shares=self.shares,
                attention_rows=self.attention_rows,
                masked=self.masked,
                tokens=int(together.pieces.length.sum()) + SPECIALS * len(together.pieces),
            )
            yield batch, self.state | {"rows_seen": mixture.rows_seen, "places": list(mixture.places)}


def _make(items: Iterator[Item], made: "queue.Queue[Item | BaseException]", stop: threading.Event) -> None:
    """Fills the queue until `stop`; an error is the last thing in it."""
    pin = torch.cuda.is_available()
    try:
        for batch, state in items:
            if not _put((batch.pin_memory() if pin else batch, state), made, stop):
                return
    except BaseException as error:
        _put(error, made, stop)


def _put(item: Item | BaseException, made: "queue.Queue[Item | BaseException]", stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            made.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False
