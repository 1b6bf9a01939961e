"""Batches through a device without waiting for it: pinned memory, copies beside the work, several batches on their way at once.

    rows ─→ Staged (host, pinned) ─→ Batch on the device ─→ compute ─→ result (host, pinned) ─→ as soon as its event has passed

A batch is filled up to one of few counts of tokens, by rows of their own, which nobody reads. Small batches replay a CUDA graph, because
starting some 180 kernels one by one takes longer than running them.

T tokens in the batch · B rows.
"""

import dataclasses
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from modernbert.batch import Batch

GRAPH_TOKENS = 1024
"""Batches of at most so many tokens, filling included, run as CUDA graphs."""
STEP = 256
"""Larger batches have a multiple of so many tokens, so that memory of one is used again for the next."""
FILLING = 256
"""Tokens of the longest row that fills a batch up: its attention costs little. None is longer than the batch's own longest."""
IN_FLIGHT = 4
"""Batches that the device has been given and not yet handed back: enough to hide the host's work, few enough to bound memory."""
USES_BEFORE_CAPTURE = 2
"""A shape that comes once or twice is not worth the time and memory of a graph."""

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
    """
    real = sum(lengths) + 1
    if fixed is not None:
        assert real <= fixed[0]
        assert max(lengths) <= fixed[1][-1]
        tokens = fixed[0]
    elif real <= GRAPH_TOKENS:
        tokens = max(32, 1 << (real - 1).bit_length())
    else:
        tokens = -(-real // STEP) * STEP
    longest = max(lengths)
    if fixed is not None:
        longest = next(bound for bound in fixed[1] if longest <= bound)
    elif tokens <= GRAPH_TOKENS:
        longest = tokens
    rows = len(lengths) + -(-(tokens - sum(lengths)) // min(FILLING, longest))
    if fixed is None and tokens <= GRAPH_TOKENS:
        rows = max(rows, tokens // 4 + 1)  # enough for rows of 4 tokens; more is another shape
    return Shape(tokens=tokens, rows=rows, max_seqlen=longest)


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
    """Runs batches on one device. Graphs are kept by what they compute and by shape."""

    def __init__(self, device: torch.device, *, fixed: Fixed | None = None) -> None:
        self.device = device
        self.fixed = fixed
        self._pinned = device.type == "cuda"
        self._graphs: dict[tuple[str, Shape], _Graph] = {}
        self._uses: Counter[tuple[str, Shape]] = Counter()
        self._lock = threading.Lock()

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
        if key is not None and self._pinned and self.fixed is None and shape.tokens <= GRAPH_TOKENS:
            with self._lock:
                graph = self._graph(key, shape, compute)
                if graph is not None:
                    return graph.run(rows), None
        with torch.inference_mode():
            result = compute(self.staged(rows, shape)).float()
            if not self._pinned:
                return result.cpu(), None
            host = torch.empty(result.shape, dtype=torch.float32, pin_memory=True)
            host.copy_(result, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self.device))
        return host, done

    def staged(self, rows: Sequence[Sequence[int]], shape: Shape) -> Batch:
        """The rows, filled up, on their way to the device."""
        numbers = torch.empty(size_of(shape), dtype=torch.int32, pin_memory=self._pinned)
        stage(rows, shape, numbers.numpy())
        return batch_of(numbers.to(self.device, non_blocking=True), shape)

    def _graph(self, key: str, shape: Shape, compute: Compute) -> "_Graph | None":
        place = (key, shape)
        if place not in self._graphs:
            self._uses[place] += 1
            if self._uses[place] <= USES_BEFORE_CAPTURE:
                return None
            self._graphs[place] = _Graph(shape, compute, self.device)
        return self._graphs[place]


def _landed(
    numbers: list[int], rows: list[Sequence[int]], result: Tensor, done: "torch.cuda.Event | None"
) -> tuple[list[int], list[Sequence[int]], Tensor]:
    if done is not None:
        done.synchronize()
    return numbers, rows, result


class _Graph:
    """One computation at one shape, recorded once and replayed: its memory is fixed, so only one replay runs at a time."""

    def __init__(self, shape: Shape, compute: Compute, device: torch.device) -> None:
        self.shape = shape
        self.staged = torch.zeros(size_of(shape), dtype=torch.int32, pin_memory=True)
        stage([[0] * min(4, shape.tokens - 1)], shape, self.staged.numpy())
        self.stream = torch.cuda.Stream(device)
        self.graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.device(device):
            self.given = self.staged.to(device)
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                for _ in range(2):  # kernels are compiled, and libraries take their workspaces, before anything is recorded
                    compute(batch_of(self.given, shape)).float()
            self.stream.synchronize()
            with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
                self.result = compute(batch_of(self.given, shape)).float()
            self.host = torch.empty(self.result.shape, dtype=torch.float32, pin_memory=True)

    def run(self, rows: Sequence[Sequence[int]]) -> Tensor:
        stage(rows, self.shape, self.staged.numpy())
        with torch.inference_mode(), torch.cuda.stream(self.stream):
            self.given.copy_(self.staged, non_blocking=True)
            self.graph.replay()
            self.host.copy_(self.result, non_blocking=True)
            self.stream.synchronize()
            return self.host.clone()
