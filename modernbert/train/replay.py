"""Steps of a small model on a GPU, recorded once and replayed: to start its few hundred kernels one by one takes longer than to run them.

    batch ─→ and a row that fills it up to a shape ─→ forward graph ─→ what it says of the batch's own rows or tokens ─→ loss
                                                 ←── backward graph ←──

A forward and a backward pass are one CUDA graph each for each shape that comes often; the loss, the optimizer and the rest of a step stay
as they are. A graph's gradients are overwritten by its next replay: a step may replay once, and adds nothing to gradients that are there.
"""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from modernbert.batch import Batch
from modernbert.config import ModelConfig
from modernbert.model.encoder import Encoder

MOST_PARAMETERS, MOST_TOKENS = 50_000_000, 16_384
"""A larger model, or a larger batch, keeps a GPU busy by itself."""
MOST_GRAPHS = 16
"""Each holds a gradient of every weight."""
USES_BEFORE_CAPTURE = 2
"""A shape that comes once or twice is not worth the time and memory of a graph."""
LEAST_STEP = 128
"""Batches have a multiple of so many tokens, or of an eighth of the power of two below: few shapes, and at most an eighth of filling."""


def filled_tokens(tokens: int) -> int:
    """The tokens of a batch with its filling, which has one token at least.

    >>> filled_tokens(800), filled_tokens(896), filled_tokens(9_000)
    (896, 1024, 9216)
    """
    step = max(LEAST_STEP, (1 << (tokens.bit_length() - 1)) // 8)
    return (tokens // step + 1) * step


def fill_up(batch: Batch, tokens: int, max_seqlen: int) -> Batch:
    """The batch and one more row, of as many tokens 0 as are missing.

    >>> from modernbert.batch import pack
    >>> fill_up(pack([[5, 6]]), 5, 8).cu_seqlens.tolist()
    [0, 2, 5]
    """
    missing = tokens - len(batch.ids_T)
    return Batch(
        ids_T=nn.functional.pad(batch.ids_T, (0, missing)),
        pos_T=torch.cat([batch.pos_T, torch.arange(missing, dtype=batch.pos_T.dtype, device=batch.device)]),
        cu_seqlens=nn.functional.pad(batch.cu_seqlens, (0, 1), value=tokens),
        max_seqlen=max_seqlen,
    )


def replays(model: nn.Module, config: ModelConfig, device: torch.device) -> bool:
    """Whether it pays: on a GPU, for a model of ours whose steps are mostly starting kernels. YaRN builds its tables on the host."""
    ours = isinstance(getattr(model, "model", None), Encoder)
    small = sum(p.numel() for p in model.parameters()) <= MOST_PARAMETERS
    return device.type == "cuda" and ours and small and all(rope.factor == 1 for rope in config.ropes())


class Replayed(nn.Module):
    """A model that takes a `Batch`, called as the model is, and replayed where a shape has come before.

    Args:
        model: on a GPU, in training mode whenever it is called; one pass back follows each call.
        longest: tokens of the longest row that will come.
    """

    def __init__(self, model: nn.Module, longest: int) -> None:
        super().__init__()
        self.model = model
        self.longest = longest
        self._uses: Counter[tuple[int, int]] = Counter()
        self._graphs: dict[tuple[int, int], Any] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._start = torch.zeros((), requires_grad=True)  # what PyTorch's record of a replay begins from

    def forward(self, batch: Batch, *rest: Any) -> Any:
        """What the model says of the batch."""
        own, rows = len(batch.ids_T), batch.rows
        tokens = filled_tokens(own)
        shape = (tokens, rows)
        self._uses[shape] += 1
        known = shape in self._graphs or (self._uses[shape] > USES_BEFORE_CAPTURE and len(self._graphs) < MOST_GRAPHS)
        if rest or not known or tokens > MOST_TOKENS:
            return self.model(batch, *rest)
        filled = fill_up(batch, tokens, self._max_seqlen(tokens))
        if shape not in self._graphs:
            self._graphs[shape] = Recorded(self.model, filled, self._pool)
        found = _Replay.apply(self._start, self._graphs[shape], filled)
        if isinstance(found, tuple):
            return tuple(_own(one, own, rows) for one in found)
        return _own(found, own, rows)

    def _max_seqlen(self, tokens: int) -> int:
        """Of every batch alike, as it chooses kernels; the filling is never longer than the tokens' step."""
        return max(self.longest, LEAST_STEP, tokens // 8)


def _own(found: Tensor, tokens: int, rows: int) -> Tensor:
    """Without what was said of the row that fills up."""
    return found[:rows] if len(found) == rows + 1 else found[:tokens]


class Recorded:
    """A pass forward and one back at one shape, as two graphs, and the memory that they read and write.

    The graphs know the weights under other names that share their memory, so that nothing of PyTorch's record of the weights' own gradients
    gets into them.
    """

    def __init__(self, model: nn.Module, batch: Batch, pool: Any) -> None:
        self.batch = Batch(
            ids_T=batch.ids_T.clone(), pos_T=batch.pos_T.clone(), cu_seqlens=batch.cu_seqlens.clone(), max_seqlen=batch.max_seqlen
        )
        self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        shared = {name: p.detach().requires_grad_() for name, p in self.weights.items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # kernels are compiled, and libraries take their workspaces, before anything is recorded
                found = self._run(model, shared)
                _gradients(found, shared, [torch.zeros_like(one) for one in found])
                del found
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self.forward, self.backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.forward, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self.found = self._run(model, shared)
        self.given = [torch.zeros_like(one) for one in self.found]
        with torch.cuda.graph(self.backward, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self.gradients = _gradients(self.found, shared, self.given)

    def _run(self, model: nn.Module, weights: dict[str, Tensor]) -> tuple[Tensor, ...]:
        found = torch.func.functional_call(model, weights, (self.batch,))
        return found if isinstance(found, tuple) else (found,)


def _gradients(found: tuple[Tensor, ...], weights: dict[str, Tensor], given: list[Tensor]) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(found, list(weights.values()), given, allow_unused=True)


class _Replay(torch.autograd.Function):
    """Both graphs as one operation, whose way back leaves the gradients where the optimizer looks for them."""

    @staticmethod
    def forward(ctx: Any, _: Tensor, recorded: Recorded, batch: Batch) -> Any:
        ctx.recorded = recorded
        for name in ("ids_T", "pos_T", "cu_seqlens"):
            getattr(recorded.batch, name).copy_(getattr(batch, name))
        recorded.forward.replay()
        found = tuple(one.detach() for one in recorded.found)
        return found if len(found) > 1 else found[0]

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        recorded = ctx.recorded
        for place, one in zip(recorded.given, given, strict=True):
            place.copy_(one)
        recorded.backward.replay()
        for weight, gradient in zip(recorded.weights.values(), recorded.gradients, strict=True):
            weight.grad = gradient
        return None, None, None
