"""FlashAttention over whole rows or a window, with our rotation before it.

Rotation, attention and their gradients are one operator of PyTorch's library: `torch.compile` takes it whole. The kernels are PyTorch's own
FlashAttention-2 (Ampere or newer); for whole rows on Hopper FlashAttention-3's forward pass, where the package `fa3-fwd` is installed.

T tokens in the batch · B rows · N heads · H per head · L positions · K = H / 2.
"""

import importlib.util
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modernbert.errors import HardwareError
from modernbert.kernels.compiled import constant_in_graphs, generation_of, runs_plain
from modernbert.kernels.rope_packed import gradient_packed, rotate_packed

WHOLE = -1
"""Reach of a token that sees its whole row, as the libraries spell it."""

FA3_FROM = 512
"""Longest row of a batch from which on FlashAttention-3 is the faster one (bench/results/attention_h200_2026-11-26.md)."""


def flash_runs_on(x: Tensor) -> bool:
    """Whether this tensor's device and dtype have the kernel: CUDA from Ampere (8.0) on, in bfloat16 or float16."""
    return x.is_cuda and torch.version.hip is None and x.dtype in (torch.bfloat16, torch.float16) and _has_flash(x.device)


@constant_in_graphs
def _has_flash(device: torch.device) -> bool:
    return generation_of(device) >= 8 and torch.backends.cuda.flash_sdp_enabled()


def fa3_runs_on(x: Tensor) -> bool:
    """Whether FlashAttention-3's forward pass is installed and runs on this tensor: Hopper alone, in bfloat16."""
    return _FA3_IS_HERE and x.dtype == torch.bfloat16 and flash_runs_on(x) and generation_of(x.device) == 9


_FA3_IS_HERE = importlib.util.find_spec("fa3_fwd_interface") is not None


def attention_flash(
    qkv_T3NH: Float[Tensor, "T 3 N H"],
    cos_LK: Float[Tensor, "L K"],
    sin_LK: Float[Tensor, "L K"],
    pos_T: Int[Tensor, "T"],
    cu_seqlens: Int[Tensor, "B_plus_1"],
    max_seqlen: int,
    window: int | None,
) -> Float[Tensor, "T N H"]:
    """Runs on a GPU with FlashAttention. Arguments and result as `attention`.

    Raises:
        HardwareError: the tensor is on a device or in a dtype that has no such kernel.
    """
    if not flash_runs_on(qkv_T3NH):
        raise HardwareError(
            f"the flash backend needs bf16 or fp16 on a CUDA GPU of capability 8.0 or newer; got {qkv_T3NH.dtype} on "
            f"{qkv_T3NH.device}. Use backend='banded', which runs everywhere"
        )
    reach = WHOLE if window is None else window  # both count keys on each side of the query, beside the query itself
    forward = _forward_now if runs_plain(qkv_T3NH) else _forward
    return forward(qkv_T3NH, cos_LK, sin_LK, pos_T, cu_seqlens, max_seqlen, reach)[0]


def _forward_now(
    qkv: Tensor, cos: Tensor, sin: Tensor, pos: Tensor, cu_seqlens: Tensor, max_seqlen: int, reach: int
) -> tuple[Tensor, Tensor]:
    """Values [T, N, H] and the logsumexp of each score row [N, T].

    Turned queries and keys are not kept for the way back: turning them again takes 0.15 ms a layer (base, 65,536 tokens, H100), keeping
    them a fifth of its memory.
    """
    qk = rotate_packed(qkv, cos, sin, pos)
    # Asked here, so that no graph is compiled anew for longer rows.
    third = reach == WHOLE and max_seqlen >= FA3_FROM and fa3_runs_on(qkv)
    return (_third if third else _second)(qk[0], qk[1], qkv[:, 2], cu_seqlens, max_seqlen, reach)


_forward = torch.library.custom_op("modernbert::attention_flash", _forward_now, mutates_args=())


def _second(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, reach: int) -> tuple[Tensor, Tensor]:
    o, lse, *_ = torch.ops.aten._flash_attention_forward(
        q,
        k,
        v,
        cu_seqlens,
        cu_seqlens,
        max_seqlen,
        max_seqlen,
        0.0,
        False,
        False,
        window_size_left=reach,
        window_size_right=reach,
    )
    return o, lse


def _third(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, reach: int) -> tuple[Tensor, Tensor]:
    from fa3_fwd_interface import _flash_attn_forward  # 100 MB of kernels, which few need

    o, lse, *_ = _flash_attn_forward(
        q, k, v, cu_seqlens_q=cu_seqlens, cu_seqlens_k=cu_seqlens, max_seqlen_q=max_seqlen, max_seqlen_k=max_seqlen,
        softmax_scale=q.shape[-1] ** -0.5,
    )  # fmt: skip
    return o, lse


@torch.library.custom_op("modernbert::attention_flash_backward", mutates_args=())
def _backward(
    do: Tensor, qkv: Tensor, cos: Tensor, sin: Tensor, pos: Tensor, cu_seqlens: Tensor, o: Tensor, lse: Tensor, max_seqlen: int, reach: int
) -> Tensor:  # fmt: skip
    qk = rotate_packed(qkv, cos, sin, pos)
    dq, dk, dv = _gradient(do.contiguous(), qk[0], qk[1], qkv[:, 2], o, lse, cu_seqlens, max_seqlen, reach)
    return gradient_packed(dq, dk, dv, cos, sin, pos)


def _gradient(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, cu_seqlens: Tensor, max_seqlen: int, reach: int
) -> tuple[Tensor, Tensor, Tensor]:
    """FlashAttention-2's, whose logsumexp is the third's, too."""
    nothing = torch.empty(2, dtype=torch.uint64, device=do.device)  # the state of a random generator: there is no dropout
    dq, dk, dv = torch.ops.aten._flash_attention_backward(
        do, q, k, v, o, lse, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, 0.0, False, nothing, nothing,
        window_size_left=reach, window_size_right=reach,
    )  # fmt: skip
    return dq, dk, dv


@_forward.register_fake
def _(
    qkv: Tensor, cos: Tensor, sin: Tensor, pos: Tensor, cu_seqlens: Tensor, max_seqlen: int, reach: int
) -> tuple[Tensor, Tensor]:
    tokens, _, heads, width = qkv.shape
    return qkv.new_empty(tokens, heads, width), qkv.new_empty(heads, tokens, dtype=torch.float32)


@_backward.register_fake
def _(
    do: Tensor, qkv: Tensor, cos: Tensor, sin: Tensor, pos: Tensor, cu_seqlens: Tensor, o: Tensor, lse: Tensor, max_seqlen: int, reach: int
) -> Tensor:  # fmt: skip
    return qkv.new_empty(qkv.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.max_seqlen, ctx.reach = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx: Any, do: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return _backward(do, *ctx.saved_tensors, ctx.max_seqlen, ctx.reach), *[None] * 6


_forward.register_autograd(_gradients, setup_context=_keep)
