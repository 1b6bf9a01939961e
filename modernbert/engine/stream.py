"""Batches through a device without waiting for it: pinned memory, copies beside the work, several batches on their way at once.

    rows ─→ Staged (host, pinned) ─→ Batch on the device ─→ compute ─→ result (host, pinned) ─→ as soon as its event has passed

A batch is filled up to one of few counts of tokens, by rows of their own, which nobody reads. Small batches replay a CUDA graph, because
starting some 180 kernels one by one takes longer than running them; full ones do once many of their shape have come, because what else
runs in Python keeps the kernels waiting otherwise.

T tokens in the batch · B rows.
"""

import dataclasses
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modernbert.batch import Batch
from modernbert.engine.batching import GPU_TOKENS

GRAPH_TOKENS = 1024
"""Batches of at most so many tokens, filling included, run as CUDA graphs."""
STEP = 256
"""Larger batches have a multiple of so many tokens, so that memory of one is used again for the next."""
FILLING = 256
"""Tokens of the longest row that fills a batch up: its attention costs little. None is longer than the batch's own longest."""
IN_FLIGHT = 4
"""Batches that the device has been given and not yet handed back: enough to hide the host's work, few enough to bound memory."""
FULL_FROM = GPU_TOKENS - GPU_TOKENS // 16
"""Batches of so many tokens up to `GPU_TOKENS` count as full ones: they are filled up to that and have one of few shapes."""
SHORTEST = 256
"""Least bound of a full batch's longest row; the others are its doubles. Up to it, bounds choose nothing (`kernels.attention.SHORT`)."""
USES_BEFORE_CAPTURE, FULL_USES_BEFORE_CAPTURE = 2, 8
"""A shape that comes once or twice is not worth the time and memory of a graph; recording a full one, while the GPU stands still, takes
what so many of them gain."""

Compute = Callable[[Batch], Tensor]

Fixed = tuple[int, tuple[int, ...]]
"""Tokens of every batch, and bounds of its longest row, rising."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """What decides which kernels run; the rest of a batch is data."""

    tokens: int
    rows: int
    max_seqlen: int


def shape_of(lengths: Sequence[int], fixed: Fixed | None = None) -> Shape:
    """The shape that rows are filled up to. One token of filling at least, so that no row begins at the end of the batch.

    Args:
        lengths: tokens of each row.
        fixed: tokens of every batch and bounds of its longest row, the least of which that holds is taken, where results must not depend
            on the batch: they choose kernels.

    >>> shape_of([16])
    Shape(tokens=32, rows=9, max_seqlen=32)
    >>> shape_of([500, 8000]).tokens
    8704
    >>> shape_of([30] * 2100)
    Shape(tokens=65536, rows=4096, max_seqlen=256)
    """
    real = sum(lengths) + 1
    full = fixed is None and FULL_FROM < real <= GPU_TOKENS
    if fixed is not None:
        assert real <= fixed[0]
        assert max(lengths) <= fixed[1][-1]
        tokens = fixed[0]
    elif full:
        tokens = GPU_TOKENS
    elif real <= GRAPH_TOKENS:
        tokens = max(32, _power_from(real))
    else:
        tokens = -(-real // STEP) * STEP
    longest = max(lengths)
    if fixed is not None:
        longest = next(bound for bound in fixed[1] if longest <= bound)
    elif full:
        longest = max(SHORTEST, _power_from(longest))
    elif tokens <= GRAPH_TOKENS:
        longest = tokens
    rows = len(lengths) + -(-(tokens - sum(lengths)) // min(FILLING, longest))
    if fixed is None and tokens <= GRAPH_TOKENS:
        rows = max(rows, tokens // 4 + 1)  # enough for rows of 4 tokens; more is another shape
    return Shape(tokens=tokens, rows=_power_from(rows) if full else rows, max_seqlen=longest)


def _power_from(number: int) -> int:
    """The least power of two that is not less.

    >>> [_power_from(number) for number in (1, 2, 3, 64, 65)]
    [1, 2, 4, 64, 128]
    """
    return 1 << (number - 1).bit_length()


def stage(rows: Sequence[Sequence[int]], shape: Shape, staged: np.ndarray) -> None:
    """Writes ids, positions and row starts of a batch, one after the other, into int32 memory of `size_of(shape)`.

    Behind the rows come empty ones, as many as the shape has room for, then those that fill the batch up.

    >>> staged = np.zeros(size_of(Shape(tokens=4, rows=3, max_seqlen=4)), np.int32)
    >>> stage([[7, 8, 9]], Shape(tokens=4, rows=3, max_seqlen=4), staged)
    >>> staged.tolist()
    [7, 8, 9, 0, 0, 1, 2, 0, 0, 3, 3, 4]
    """
    tokens, real = shape.tokens, sum(map(len, rows))
    longest = min(FILLING, shape.max_seqlen)
    filling = -(-(tokens - real) // longest)
    starts = np.full(shape.rows + 1, real, np.int32)
    starts[0] = 0
    np.cumsum([len(row) for row in rows], out=starts[1 : len(rows) + 1])
    starts[shape.rows + 1 - filling :] = np.minimum(real + longest * np.arange(1, filling + 1), tokens)
    staged[:real] = np.fromiter(chain.from_iterable(rows), np.int32, count=real)
    staged[real:tokens] = 0
    staged[tokens : 2 * tokens] = np.arange(tokens, dtype=np.int32) - np.repeat(starts[:-1], np.diff(starts))
    staged[2 * tokens :] = starts


def size_of(shape: Shape) -> int:
    """Numbers that `stage` writes."""
    return 2 * shape.tokens + shape.rows + 1


def batch_of(given: Tensor, shape: Shape) -> Batch:
    """Views of what `stage` wrote."""
    ids_T, pos_T, cu_seqlens = given.split([shape.tokens, shape.tokens, shape.rows + 1])
    return Batch(ids_T=ids_T, pos_T=pos_T, cu_seqlens=cu_seqlens, max_seqlen=shape.max_seqlen)


class Stream:
    """Runs batches on one device."""

    def __init__(self, device: torch.device, *, fixed: Fixed | None = None) -> None:
        self.device = device
        self.fixed = fixed
        self.graphs = Graphs(device) if device.type == "cuda" and fixed is None else None
        self._pinned = device.type == "cuda"

    def each(
        self, groups: Iterable[tuple[list[int], list[Sequence[int]]]], compute: Compute, key: str | None = None
    ) -> Iterator[tuple[list[int], list[Sequence[int]], Tensor]]:
        """Yields each group with its result, in the order of the groups.

        Args:
            groups: numbers of rows, and the rows.
            compute: from a batch on the device to one vector a row, or one a token.
            key: a name for `compute`, the same for the same computation; None where no graph can be made of it.

        Returns:
            Numbers, rows, and the result in float32 on the CPU, those of the filling included.
        """
        flying: deque[tuple[list[int], list[Sequence[int]], Tensor, torch.cuda.Event | None]] = deque()
        for numbers, rows in groups:
            result, done = self._start(rows, compute, key)
            flying.append((numbers, rows, result, done))
            if len(flying) >= IN_FLIGHT:
                yield _landed(*flying.popleft())
        while flying:
            yield _landed(*flying.popleft())

    def _start(self, rows: list[Sequence[int]], compute: Compute, key: str | None) -> tuple[Tensor, torch.cuda.Event | None]:
        shape = shape_of([len(row) for row in rows], self.fixed)
        given = self._given(rows, shape)
        with torch.inference_mode():
            if key is not None and self.graphs is not None:
                replayed = self.graphs.replayed(key, shape, given, compute)
                if replayed is not None:
                    return replayed
            result = compute(batch_of(given.to(self.device, non_blocking=True), shape)).float()
            return _on_its_way(result) if self._pinned else (result.cpu(), None)

    def staged(self, rows: Sequence[Sequence[int]], shape: Shape) -> Batch:
        """The rows, filled up, on their way to the device."""
        return batch_of(self._given(rows, shape).to(self.device, non_blocking=True), shape)

    def _given(self, rows: Sequence[Sequence[int]], shape: Shape) -> Tensor:
        numbers = torch.empty(size_of(shape), dtype=torch.int32, pin_memory=self._pinned)
        stage(rows, shape, numbers.numpy())
        return numbers


def _on_its_way(result: Tensor) -> "tuple[Tensor, torch.cuda.Event]":
    """Where a result on a GPU will lie in the host's memory, and what passes once it does."""
    host = torch.empty(result.shape, dtype=torch.float32, pin_memory=True)
    host.copy_(result, non_blocking=True)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(result.device))
    return host, done


def _landed(
    numbers: list[int], rows: list[Sequence[int]], result: Tensor, done: "torch.cuda.Event | None"
) -> tuple[list[int], list[Sequence[int]], Tensor]:
    if done is not None:
        done.synchronize()
    return numbers, rows, result


class Graphs:
    """Computations at one shape each, recorded once and replayed. All run on one stream, one after the other, and share their memory."""

    def __init__(self, device: torch.device) -> None:
        self.kept: dict[tuple[str, Shape], _Graph] = {}
        self._uses: Counter[tuple[str, Shape]] = Counter()
        self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
        self._lock = threading.Lock()

    def replayed(self, key: str, shape: Shape, given: Tensor, compute: Compute) -> "tuple[Tensor, torch.cuda.Event] | None":
        """The result on its way to the host; None where no graph is worth it, or not yet.

        Args:
            key: a name for `compute`.
            shape: of the batch.
            given: what `stage` wrote, in pinned memory.
            compute: from a batch on the device to what is wanted of it.
        """
        place, uses = (key, shape), uses_before_capture(shape)
        if uses is None:
            return None
        with self._lock:
            if place not in self.kept:
                self._uses[place] += 1
                if self._uses[place] <= uses:
                    return None
                self.kept[place] = _Graph(shape, given, compute, self._stream, self._pool)
            with torch.cuda.stream(self._stream):
                return _on_its_way(self.kept[place].replay(given))


def uses_before_capture(shape: Shape) -> int | None:
    """How often a shape runs kernel by kernel before a graph is made of it; None if always.

    >>> [uses_before_capture(shape_of([length] * 40)) for length in (16, 160, 1600)]
    [2, None, 8]
    """
    if shape.tokens == GPU_TOKENS:
        return FULL_USES_BEFORE_CAPTURE
    return USES_BEFORE_CAPTURE if shape.tokens <= GRAPH_TOKENS else None


class _Graph:
    """One computation at one shape: what it reads and what it makes lie at fixed places."""

    def __init__(self, shape: Shape, given: Tensor, compute: Compute, stream: "torch.cuda.Stream", pool: Any) -> None:
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(stream):
            self.given = given.to(stream.device)
            batch = batch_of(self.given, shape)
            compute(batch).float()  # kernels are compiled, and libraries take their workspaces, before anything is recorded
        stream.synchronize()
        with torch.cuda.graph(self.graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self.result = compute(batch).float()

    def replay(self, given: Tensor) -> Tensor:
        """What is computed of `given`, until the next replay, on the stream that is current."""
        self.given.copy_(given, non_blocking=True)
        self.graph.replay()
        return self.result
