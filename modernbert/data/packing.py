"""Best-fit packing: which pieces of which documents share a row, as pure functions of the documents' lengths.

An epoch visits the documents in a random order, in blocks of about `BLOCK_TOKENS`. In a block, documents longer than a
row are cut into pieces, the pieces are packed into rows, and the rows are shuffled. Every token of every document stands
in exactly one row of an epoch; or, where documents of some length are read several times an epoch, in exactly as many. A block
depends on (lengths, row length, upsampling, seed, folder, epoch, block) and nothing else.

Random orders come from numpy's PCG64DXSM: the reference's other generator was biased at 10^9 samples (facts §2.1).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modernbert.errors import DataError

BLOCK_TOKENS = 1 << 26
"""Tokens packed together: 65,536 rows of 1,024 leave nothing unfilled, and are planned in a fraction of a second."""

SPECIALS = 2
"""[CLS] and [SEP] around each piece."""

Ints = NDArray[np.int64]

Upsampling = Sequence[tuple[int, float]]
"""Lengths in tokens, ascending, each with how many times an epoch reads the documents of at least that length."""


def generator(*key: int) -> np.random.Generator:
    """A random generator that depends on nothing but the numbers of its key.

    The first number is the use: 4 · folder and 4 · folder + 1 are a folder's order and blocks, 2 is masks, 3 is draws of folders.
    """
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(key)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pieces:
    """Parts of documents, each to stand between [CLS] and [SEP] in a row; columns of one length."""

    document: Ints
    """Index of the document."""
    start: Ints
    """First token within the document."""
    length: Ints
    """Tokens, without the two special ones."""

    def __len__(self) -> int:
        return len(self.document)

    def take(self, which: NDArray[Any] | slice) -> "Pieces":
        """The pieces at these places, in this order."""
        return Pieces(document=self.document[which], start=self.start[which], length=self.length[which])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of pieces, in order."""

    pieces: Pieces
    row: Ints
    """The row of each piece; never decreases, from 0."""
    count: int
    """Number of rows; each has a piece."""

    def __len__(self) -> int:
        return self.count

    def slice(self, start: int, stop: int) -> "Rows":
        """Rows start … stop − 1."""
        first, last = np.searchsorted(self.row, [start, stop])
        return Rows(pieces=self.pieces.take(slice(first, last)), row=self.row[first:last] - start, count=stop - start)

    def every(self, step: int, start: int) -> "Rows":
        """Rows start, start + step, start + 2 · step, …"""
        mine = self.row % step == start
        count = len(range(start, self.count, step))
        return Rows(pieces=self.pieces.take(mine), row=self.row[mine] // step, count=count)

    def renumbered(self, first: int) -> "Rows":
        """The same rows with documents numbered from `first`."""
        if not first:
            return self
        return dataclasses.replace(self, pieces=dataclasses.replace(self.pieces, document=self.pieces.document + first))

    def rearranged(self, place: Ints) -> "Rows":
        """Row i goes to `place[i]`, a permutation."""
        row = place[self.row]
        sort = np.argsort(row, kind="stable")
        return dataclasses.replace(self, pieces=self.pieces.take(sort), row=row[sort])

    @classmethod
    def join(cls, parts: "list[Rows]") -> "Rows":
        """The rows of all parts, one part after the other."""
        if len(parts) == 1:
            return parts[0]
        before = np.cumsum([0] + [part.count for part in parts])
        fields = [field.name for field in dataclasses.fields(Pieces)]
        pieces = {name: np.concatenate([getattr(part.pieces, name) for part in parts]) for name in fields}
        row = np.concatenate([part.row + rows for part, rows in zip(parts, before, strict=False)])
        return cls(pieces=Pieces(**pieces), row=row, count=int(before[-1]))


class EpochPlan:
    """The rows of one epoch, planned block by block."""

    def __init__(
        self, lengths: NDArray[Any], length: int, seed: int, epoch: int, *, folder: int = 0, upsampling: Upsampling = ()
    ) -> None:
        """Draws the order of the documents and the borders of the blocks.

        Args:
            lengths: tokens of each document, without special ones.
            length: tokens of a row, with the special ones of its pieces.
            seed: of the order of documents, the cuts and the order of rows.
            epoch: each has its own order and cuts.
            folder: the number of the folder among several; each has its own order.
            upsampling: how often documents of some lengths are read in an epoch.

        Raises:
            DataError: a row has no room for a token between [CLS] and [SEP], or no document has a token.
        """
        if length <= SPECIALS:
            raise DataError(f"rows of {length} tokens hold no text between [CLS] and [SEP]; wanted {SPECIALS + 1} or more")
        self.length, self.seed, self.epoch, self.kind = length, seed, epoch, 4 * folder
        rng = generator(self.kind, seed, epoch)
        documents = np.arange(len(lengths))
        if upsampling:
            documents = np.repeat(documents, copies(lengths, upsampling, rng))
        order = rng.permutation(documents)
        self.order = order[lengths[order] > 0]
        if not len(self.order):
            raise DataError(f"{len(lengths)} documents without a token to read; wanted at least one with text")
        self.lengths = lengths[self.order]
        ends = np.cumsum(self.lengths, dtype=np.int64)
        self.tokens = int(ends[-1])
        """Tokens of the epoch, without special ones."""
        blocks = max(1, round(self.tokens / BLOCK_TOKENS))
        edges = np.searchsorted(ends, np.arange(1, blocks) * (self.tokens // blocks))
        self.edges = np.unique([0, *edges, len(self.order)]).tolist()  # a document of several blocks' size is one block
        self.blocks = len(self.edges) - 1

    def block(self, index: int) -> Rows:
        """The rows of one block, shuffled."""
        rng = generator(self.kind + 1, self.seed, self.epoch, index)
        first, last = self.edges[index], self.edges[index + 1]
        pieces = cut(self.lengths[first:last], self.length - SPECIALS, rng)
        order, edges = best_fit(pieces.length + SPECIALS, self.length)
        rows = len(edges) - 1
        place = np.repeat(rng.permutation(rows), np.diff(edges))
        sort = np.argsort(place, kind="stable")
        pieces = pieces.take(order[sort])
        pieces = dataclasses.replace(pieces, document=self.order[first:last][pieces.document])
        return Rows(pieces=pieces, row=place[sort], count=rows)


def copies(lengths: NDArray[Any], upsampling: Upsampling, rng: np.random.Generator) -> Ints:
    """How often an epoch reads each document: once below the first length, then as the last length that it reaches says.

    A number such as 2.5 is 2 for half of the documents and 3 for the others, drawn anew in each epoch.

    >>> copies(np.array([5, 10, 99, 100, 500]), [(10, 2.0), (100, 3.0)], generator(0)).tolist()
    [1, 2, 2, 3, 3]
    """
    times = np.array([1.0, *(times for _, times in upsampling)])
    wanted = times[np.searchsorted([length for length, _ in upsampling], lengths, side="right")]
    whole = np.floor(wanted)
    return (whole + (rng.random(len(lengths)) < wanted - whole)).astype(np.int64)


def cut(lengths: NDArray[Any], max_piece: int, rng: np.random.Generator) -> Pieces:
    """Cuts each document that is too long into pieces of `max_piece` tokens, after a first one of random length.

    The first length is uniform in 1 … max_piece, so epochs see different borders. That both ends have random lengths
    matters for packing: ends as long as possible fit no gap (96.7 % fill instead of 99.9 % on log-normal documents of
    median 2,000 in rows of 1,024). Empty documents give no piece.

    Args:
        lengths: tokens of each document.
        max_piece: tokens that a piece may hold.
        rng: decides the first lengths.

    >>> pieces = cut(np.array([3, 0, 10]), 4, generator(0))
    >>> pieces.document.tolist(), pieces.start.tolist(), pieces.length.tolist()
    ([0, 2, 2, 2], [0, 0, 3, 7], [3, 3, 4, 3])
    """
    lengths = lengths.astype(np.int64)
    shift = np.where(lengths > max_piece, rng.integers(0, max_piece, len(lengths)), 0)
    count = -(-(lengths + shift) // max_piece)
    document = np.repeat(np.arange(len(lengths)), count)
    number = np.arange(len(document)) - np.repeat(np.cumsum(count) - count, count)
    edge = number * max_piece - shift[document]
    start = np.maximum(edge, 0)
    stop = np.minimum(edge + max_piece, lengths[document])
    return Pieces(document=document, start=start, length=stop - start)


def best_fit(sizes: NDArray[Any], capacity: int) -> tuple[Ints, Ints]:
    """Packs pieces into bins by best-fit decreasing.

    Taken from the largest down, each piece goes into the fullest bin that still has room for it, or opens a new one.
    Sizes and free spaces are small integers, so all pieces of one size and all bins of one free space are handled
    at once: the time is that of sorting, plus a few array operations for each pair of size and space that meet.

    Args:
        sizes: of the pieces, 1 … capacity.
        capacity: of each bin.

    Returns:
        The pieces' indices, bin after bin; and where each bin begins among them, followed by the number of pieces.

    >>> order, edges = best_fit(np.array([5, 2, 7, 3, 3]), 10)
    >>> [order[a:b].tolist() for a, b in zip(edges[:-1], edges[1:])]
    [[2, 3], [0, 4, 1]]
    """
    by_size = np.argsort(-sizes.astype(np.int64), kind="stable")
    bin_of = np.empty(len(sizes), np.int64)  # in the order of by_size
    spaces = _Spaces()
    opened = done = 0
    counts = np.bincount(sizes, minlength=1)
    for size in np.flatnonzero(counts)[::-1].tolist():
        end = done + int(counts[size])
        while done < end:
            left = end - done
            space, bins = spaces.take_fullest(size, left)
            if not len(bins):
                space = capacity
                bins = np.arange(opened, opened - (-left // (capacity // size)))
                opened += len(bins)
            # as one by one would: the bin that just took a piece is the fullest that fits, so it takes the next one too
            each = space // size
            full, rest = divmod(left, each)
            total = min(left, each * len(bins))
            bin_of[done : done + total] = np.repeat(bins[: full + 1], each)[:total]
            done += total
            spaces.put(space - each * size, bins[:full])
            if full < len(bins):
                spaces.put(space - rest * size, bins[full : full + 1])
                spaces.put(space, bins[full + 1 :])
    held = np.bincount(bin_of, minlength=opened)
    return by_size[np.argsort(bin_of, kind="stable")], np.concatenate([[0], np.cumsum(held)])


class _Spaces:
    """Bins by free space; "the smallest space of at least this size" is one step on an integer's bits."""

    def __init__(self) -> None:
        self.groups: dict[int, list[Ints]] = {}
        self.bits = 0

    def take_fullest(self, size: int, most: int) -> tuple[int, Ints]:
        """Removes up to `most` bins of the smallest free space that holds `size`; returns the space and the bins."""
        fitting = self.bits >> size
        if not fitting:
            return 0, np.empty(0, np.int64)
        space = size + (fitting & -fitting).bit_length() - 1
        self.bits ^= 1 << space
        groups = self.groups.pop(space)
        bins = groups[0] if len(groups) == 1 else np.concatenate(groups)
        self.put(space, bins[most:])
        return space, bins[:most]

    def put(self, space: int, bins: Ints) -> None:
        """Files bins under their free space; full ones are forgotten."""
        if space and len(bins):
            self.bits |= 1 << space
            self.groups.setdefault(space, []).append(bins)
