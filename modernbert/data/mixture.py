"""Rows from several folders of token shards, by weight: an endless sequence with an exact place in every folder.

    row 0   row 1   row 2   row 3   …      each row draws its folder by weight, from (seed, number of the row)
    web     code    web     web
    block   block                           each folder goes through its own epochs and blocks (data/packing.py)

All pieces of a row come from one folder, and rows are full, so shares of rows are shares of tokens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from modernbert.data.packing import EpochPlan, Ints, Rows, Upsampling, generator
from modernbert.data.shards import TokenShards
from modernbert.errors import DataError

DRAWS = 4096
"""Rows whose folders are drawn together."""


class Documents:
    """The documents of several folders under one numbering, folder after folder."""

    def __init__(self, folders: Sequence[TokenShards]) -> None:
        """Joins opened folders.

        Raises:
            DataError: there is none, or they were made with different tokenizers.
        """
        if not folders:
            raise DataError("no folder of token shards is named; wanted at least one, as `modernbert prepare tokens` writes it")
        first, *others = folders
        for other in others:
            if other.manifest.tokenizer_sha256 != first.manifest.tokenizer_sha256:
                raise DataError(
                    f"{first.folder} and {other.folder} hold tokens of different tokenizers; prepare them again with one of the two"
                )
        self.folders = list(folders)
        self.manifest = first.manifest
        """Of the first folder: its vocabulary and special ids are those of all."""
        self.first = np.cumsum([0] + [len(folder) for folder in folders])
        """Number of the first document of each folder; then of all."""
        self.tokens = [tokens for folder in folders for tokens in folder.tokens]
        """Token ids of each shard, one document after the other."""
        before = np.cumsum([0] + [len(folder.tokens) for folder in folders])
        if others:
            self.starts: Ints = np.concatenate([folder.starts for folder in folders])
            self.shard_of: Ints = np.concatenate([folder.shard_of + n for folder, n in zip(folders, before, strict=False)])
        else:  # no copy: a document takes 26 bytes of index
            self.starts, self.shard_of = first.starts, first.shard_of

    def shard_path(self, shard: int) -> str:
        """The file that holds a shard's tokens, for messages."""
        for folder in self.folders:
            if shard < len(folder.tokens):
                return str(folder.folder / folder.manifest.shards[shard]["files"]["tokens"]["name"])
            shard -= len(folder.tokens)
        raise AssertionError(shard)


class Stream:
    """The rows of one folder, epoch after epoch."""

    def __init__(
        self, lengths: Ints, length: int, *, seed: int, number: int, upsampling: Upsampling, place: dict[str, Any]
    ) -> None:
        self.lengths, self.length, self.seed, self.number, self.upsampling = lengths, length, seed, number, upsampling
        self.epoch, self.block, self.row = (place[name] for name in ("epoch", "block", "row"))
        self.plan = self._plan(self.epoch)
        self.rows = self.plan.block(self.block)

    def _plan(self, epoch: int) -> EpochPlan:
        return EpochPlan(self.lengths, self.length, self.seed, epoch, folder=self.number, upsampling=self.upsampling)

    def first_block(self) -> Rows:
        """The first rows of all, wherever the stream stands now."""
        return self.rows if self.epoch == self.block == 0 else self._plan(0).block(0)

    def take(self, count: int) -> Rows:
        """The next rows."""
        parts: list[Rows] = []
        while count:
            if self.row == len(self.rows):
                self.block, self.row = self.block + 1, 0
                if self.block == self.plan.blocks:
                    self.epoch, self.block = self.epoch + 1, 0
                    self.plan = self._plan(self.epoch)
                self.rows = self.plan.block(self.block)
            taken = min(count, len(self.rows) - self.row)
            parts.append(self.rows.slice(self.row, self.row + taken))
            self.row, count = self.row + taken, count - taken
        return Rows.join(parts)

    @property
    def place(self) -> dict[str, Any]:
        """Where the next row is; `epochs` says the same as one number, for people."""
        epochs = self.epoch + (self.block + self.row / len(self.rows)) / self.plan.blocks
        return {"epoch": self.epoch, "block": self.block, "row": self.row, "epochs": round(epochs, 4)}


BEGIN: dict[str, Any] = {"epoch": 0, "block": 0, "row": 0, "epochs": 0.0}
"""The place in a folder of which nothing was read."""


class Mixture:
    """Endless rows of all folders, by weight."""

    def __init__(
        self,
        documents: Documents,
        length: int,
        *,
        seed: int,
        weights: Sequence[float],
        upsampling: Upsampling,
        rows_seen: int,
        places: Sequence[dict[str, Any]],
    ) -> None:
        """Plans the first block of each folder that has a weight.

        Args:
            documents: of all folders.
            length: tokens of a row.
            seed: of the folders' order and of the draws between them.
            weights: of each folder, not negative; empty means in proportion to the tokens of an epoch.
            upsampling: documents that are read more than once an epoch.
            rows_seen: rows that were taken before.
            places: where each folder stands.

        Raises:
            DataError: as many weights as folders are wanted, one above zero.
        """
        folders = documents.folders
        if weights and (len(weights) != len(folders) or min(weights) < 0 or not sum(weights) > 0):
            raise DataError(
                f"weights={','.join(map(str, weights))} do not fit {len(folders)} folders of token shards; "
                "wanted one for each, none below 0 and one above"
            )
        used = [weight > 0 for weight in weights] or [True] * len(folders)
        self.documents, self.seed, self.rows_seen, self.places = documents, seed, rows_seen, list(places)
        self.streams = [
            Stream(folder.lengths, length, seed=seed, number=number, upsampling=upsampling, place=place) if used[number] else None
            for number, (folder, place) in enumerate(zip(folders, places, strict=True))
        ]
        shares = np.array(weights or [stream.plan.tokens for stream in self.streams if stream], np.float64)
        self.shares = shares / shares.sum()
        """Of each folder."""
        self.chunk = -1

    def first_blocks(self) -> list[tuple[Rows, float]]:
        """Rows of each folder that has a weight, with its share: what any batch is made of."""
        return [(stream.first_block(), share) for stream, share in zip(self.streams, self.shares.tolist(), strict=True) if stream]

    def take(self, count: int) -> Rows:
        """The next rows, their documents numbered as in `Documents`."""
        folder_R = self._folders(self.rows_seen, self.rows_seen + count)
        self.rows_seen += count
        parts, place_R = [], np.argsort(folder_R, kind="stable")
        for number, taken in enumerate(np.bincount(folder_R, minlength=len(self.streams)).tolist()):
            stream = self.streams[number]
            if stream and taken:
                parts.append(stream.take(taken).renumbered(int(self.documents.first[number])))
                self.places[number] = stream.place
        return Rows.join(parts).rearranged(place_R)

    def _folders(self, start: int, stop: int) -> Ints:
        """The folder of rows start … stop − 1."""
        if len(self.streams) == 1:
            return np.zeros(stop - start, np.int64)
        chunks = [self._drawn(chunk) for chunk in range(start // DRAWS, -(-stop // DRAWS))]
        first = start // DRAWS * DRAWS
        return np.concatenate(chunks)[start - first : stop - first]

    def _drawn(self, chunk: int) -> Ints:
        if chunk != self.chunk:
            uniform = generator(3, self.seed, chunk).random(DRAWS)
            # the last edge is 1 up to rounding: leave it out, and a draw beyond it is of the last folder with a share
            edges = np.cumsum(self.shares)[: np.flatnonzero(self.shares)[-1]]
            self.chunk, self.drawn = chunk, np.searchsorted(edges, uniform, side="right")
        return self.drawn
