"""Window attention of our own: one pass over the packed QKV, rotation included, no padding, no atomics.

The kernels (attention_window_triton.py) cut every row into tiles from its own start, so that a row's result depends on that row alone:
bit for bit the same by itself, in any batch, at any place. Nothing is read back from the device, and nothing is built beside the
batch: a program finds its row in `cu_seqlens`.

T tokens in the batch · B rows · N heads · H per head · L positions · K = H / 2.
"""

import dataclasses
import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modernbert.errors import HardwareError
from modernbert.kernels.compiled import HERE, runs_plain, triton_runs_on
from modernbert.kernels.rope_packed import rotate_packed

if HERE:
    from modernbert.kernels import attention_window_triton as kernels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiles:
    """How a kernel cuts its work. Any choice gives the same values but for rounding."""

    own: int
    """Tokens whose result one program makes."""
    step: int
    """Tokens of the other side that it meets at once."""
    warps: int
    stages: int
    """Steps whose loads are in flight together."""
    register_cap: int | None = None
    """At most so many for a thread, so that a processor holds more programs; None leaves it to the compiler, as do wider heads."""

    def options(self, head_bytes: int) -> dict[str, int | None]:
        """What Triton's compiler is told, for heads of so many bytes: 64 numbers of 16 bits are what the cap on registers is for, and
        wider heads leave no shared memory for loads ahead, but on the largest GPUs.

        >>> Tiles(own=64, step=32, warps=4, stages=3, register_cap=128).options(128)
        {'num_warps': 4, 'num_stages': 3, 'maxnreg': 128}
        >>> Tiles(own=64, step=32, warps=4, stages=3, register_cap=128).options(512)
        {'num_warps': 4, 'num_stages': 1, 'maxnreg': None}
        """
        wide = head_bytes > 128
        return {
            "num_warps": self.warps,
            "num_stages": 1 if wide else self.stages,
            "maxnreg": None if wide else self.register_cap,
        }


TILES = {
    "forward": Tiles(own=64, step=64, warps=4, stages=1, register_cap=128),
    "backward_queries": Tiles(own=64, step=32, warps=4, stages=3, register_cap=128),
    "backward_keys": Tiles(own=64, step=32, warps=4, stages=2, register_cap=128),
}
"""The fastest of 78 choices forward, of 28 each on the way back (bench/results/inference_h200_2026-11-27.md): four or five programs
share a processor, so that some compute while others wait for memory, and hardly anything spills."""


def window_runs_on(x: Tensor) -> bool:
    """Whether the kernels run on this tensor: heads of 32, 64 or 128, where Triton runs."""
    return x.shape[-1] in (32, 64, 128) and triton_runs_on(x)


def attention_window(
    qkv_T3NH: Float[Tensor, "T 3 N H"],
    cos_LK: Float[Tensor, "L K"],
    sin_LK: Float[Tensor, "L K"],
    pos_T: Int[Tensor, "T"],
    cu_seqlens: Int[Tensor, "B_plus_1"],
    max_seqlen: int,
    window: int | None,
) -> Float[Tensor, "T N H"]:
    """Reads `qkv_T3NH` in place where it is contiguous, and a copy elsewhere. Arguments and result as `attention`.

    Queries and keys turn by their distance from a token nearby, not from the start of the row: products are the same but for rounding,
    which is smaller. The tables must therefore be rotary tables, angles proportional to positions.

    Raises:
        HardwareError: Triton is missing, or cannot compile for this device, dtype or head width.
    """
    if not window_runs_on(qkv_T3NH):
        raise HardwareError(
            "the window backend needs triton>=3.6, a CUDA GPU of capability 8.0 or newer, bf16, fp16 or fp32, and heads of 32, 64 or "
            f"128; got {qkv_T3NH.dtype} on {qkv_T3NH.device}, heads of {qkv_T3NH.shape[-1]}, triton "
            f"{'there' if HERE else 'missing'}. Use backend='banded', which runs everywhere"
        )
    if not len(qkv_T3NH):
        return qkv_T3NH[:, 2]
    reach = max_seqlen if window is None else window
    forward = _forward_now if runs_plain(qkv_T3NH) else _forward
    return forward(qkv_T3NH, cos_LK, sin_LK, pos_T, cu_seqlens, reach)[0]


def _forward_now(qkv: Tensor, cos: Tensor, sin: Tensor, pos: Tensor, cu_seqlens: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Values [T, N, H] and the logsumexp of each score row, base 2 [N, T]."""
    qkv, cos, sin = qkv.contiguous(), cos.contiguous(), sin.contiguous()
    tokens, _, heads, width = qkv.shape
    o, lse = qkv.new_empty(tokens, heads, width), qkv.new_empty(heads, tokens, dtype=torch.float32)
    launch("forward", (qkv, cos, sin, cu_seqlens, o, lse), reach)
    return o, lse


# Operators of PyTorch's library: torch.compile takes them whole, without a break and without looking inside.
_forward = torch.library.custom_op("modernbert::attention_window", _forward_now, mutates_args=())


@torch.library.custom_op("modernbert::attention_window_backward", mutates_args=())
def _backward(
    qkv: Tensor, cos: Tensor, sin: Tensor, pos: Tensor, cu_seqlens: Tensor, reach: int, o: Tensor, lse: Tensor, do: Tensor
) -> Tensor:
    qkv, cos, sin, o, lse, do = (x.contiguous() for x in (qkv, cos, sin, o, lse, do))
    dqkv, delta = qkv.new_empty(qkv.shape), lse.new_empty(lse.shape)
    qk = rotate_packed(qkv, cos, sin, pos)
    launch("backward_queries", (qk, qkv, cos, sin, cu_seqlens, o, lse, do, dqkv, delta), reach)
    launch("backward_keys", (qk, qkv, cos, sin, cu_seqlens, lse, do, dqkv, delta), reach)
    return dqkv


def launch(name: str, tensors: tuple[Tensor, ...], reach: int) -> None:
    """Runs a kernel, cut as `TILES` says.

    Args:
        name: "forward", "backward_queries" or "backward_keys".
        tensors: those of its signature, contiguous, in the same order.
        reach: how many tokens to each side are visible.
    """
    qkv, cos, _, cu_seqlens = tensors[name != "forward" :][:4]
    tokens, _, heads, width = qkv.shape
    rows, tiles = len(cu_seqlens) - 1, TILES[name]
    slots = tokens // tiles.own + rows  # at least the tiles of all rows; the rest leave at once
    first_stride = 1
    while first_stride * kernels.FAN.value < rows:
        first_stride *= kernels.FAN.value
    scale = width**-0.5
    with torch.cuda.device_of(qkv):  # where Triton starts kernels
        getattr(kernels, name)[(slots * heads,)](
            *tensors, tokens, rows, first_stride, len(cos), reach, scale * math.log2(math.e), scale,
            heads, width, tiles.own, tiles.step, **tiles.options(width * qkv.element_size()),
        )  # fmt: skip


@_forward.register_fake
def _(qkv: Tensor, cos: Tensor, sin: Tensor, pos: Tensor, cu_seqlens: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    tokens, _, heads, width = qkv.shape
    return qkv.new_empty(tokens, heads, width), qkv.new_empty(heads, tokens, dtype=torch.float32)


@_backward.register_fake
def _(
    qkv: Tensor, cos: Tensor, sin: Tensor, pos: Tensor, cu_seqlens: Tensor, reach: int, o: Tensor, lse: Tensor, do: Tensor
) -> Tensor:
    return qkv.new_empty(qkv.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.reach = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx: Any, do: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, o, lse = ctx.saved_tensors
    return _backward(*tensors, ctx.reach, o, lse, do), *[None] * 5


_forward.register_autograd(_gradients, setup_context=_keep)
