"""FlashAttention over whole rows or a window, by one of several libraries' kernels, with our rotation before it.

Rotation, attention and their gradients are one operator of PyTorch's library: `torch.compile` takes it whole.

    flash   PyTorch's own FlashAttention-2: Ampere or newer
    fa3     FlashAttention-3's forward pass from the package `fa3-fwd`: Hopper, bf16, whole rows; gradients by PyTorch's
    cudnn   cuDNN's, which comes with PyTorch: Hopper or newer, whole rows

T tokens in the batch · B rows · N heads · H per head · L positions · K = H / 2.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modernbert.errors import HardwareError
from modernbert.kernels import attention_window
from modernbert.kernels.compiled import constant_in_graphs, generation_of
from modernbert.kernels.rope_packed import gradient_packed, rotate_packed

WHOLE = -1
"""Reach of a token that sees its whole row, as the libraries spell it."""

SHORT, LONG = 256, 2048
"""Longest row for which the window kernels should be the fastest (reasoned), and up to which cuDNN's kernels beat FlashAttention-3's
(bench/results/attention_h200_2026-11-26.md, on rows of one length)."""


def flash_runs_on(x: Tensor) -> bool:
    """Whether this tensor's device and dtype have the kernel: CUDA from Ampere (8.0) on, in bfloat16 or float16."""
    return x.is_cuda and torch.version.hip is None and x.dtype in (torch.bfloat16, torch.float16) and _has_flash(x.device)


@constant_in_graphs
def _has_flash(device: torch.device) -> bool:
    return generation_of(device) >= 8 and torch.backends.cuda.flash_sdp_enabled()


def fa3_runs_on(x: Tensor) -> bool:
    """Whether FlashAttention-3's kernels are installed and run on this tensor: Hopper alone, in bfloat16."""
    return _fa3_is_here() and x.dtype == torch.bfloat16 and flash_runs_on(x) and generation_of(x.device) == 9


_FA3 = importlib.util.find_spec("fa3_fwd_interface") is not None


def _fa3_is_here() -> bool:
    return _FA3


def cudnn_runs_on(x: Tensor) -> bool:
    """Whether cuDNN's kernels run on this tensor and are worth it: from Hopper on, in bfloat16 or float16."""
    return flash_runs_on(x) and generation_of(x.device) >= 9


def attention_whole(
    qkv_T3NH: Float[Tensor, "T 3 N H"],
    cos_LK: Float[Tensor, "L K"],
    sin_LK: Float[Tensor, "L K"],
    pos_T: Int[Tensor, "T"],
    cu_seqlens: Int[Tensor, "B_plus_1"],
    max_seqlen: int,
    window: int | None,
) -> Float[Tensor, "T N H"]:
    """Takes the fastest kernels for whole rows of this length. Arguments and result as `attention`.

    The choice falls when the operator runs: no graph is compiled anew because rows are longer.

    Raises:
        HardwareError: as `attention_flash`, or a window is asked for.
    """
    if not flash_runs_on(qkv_T3NH) or window is not None:
        raise HardwareError(
            f"the whole backend needs bf16 or fp16 on a CUDA GPU of capability 8.0 or newer, and whole rows; got {qkv_T3NH.dtype} on "
            f"{qkv_T3NH.device}, window {window}. Use backend='banded', which runs everywhere"
        )
    trains = torch.is_grad_enabled() and qkv_T3NH.requires_grad
    library = "fastest, with gradients" if trains else "fastest"
    return _forward(qkv_T3NH, cos_LK, sin_LK, pos_T, cu_seqlens, max_seqlen, WHOLE, library)[0]


def fastest(qkv_T3NH: Float[Tensor, "T 3 N H"], max_seqlen: int, *, trains: bool) -> str:
    """Which kernels are the fastest for whole rows, the longest of `max_seqlen` tokens.

    Source: bench/results/attention_h200_2026-11-26.md.
    """
    if max_seqlen <= SHORT and attention_window.window_runs_on(qkv_T3NH):
        return "window"
    if trains:
        return "cudnn" if cudnn_runs_on(qkv_T3NH) else "flash"
    return "fa3" if max_seqlen > LONG and fa3_runs_on(qkv_T3NH) else "cudnn" if cudnn_runs_on(qkv_T3NH) else "flash"


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
    return _forward(qkv_T3NH, cos_LK, sin_LK, pos_T, cu_seqlens, max_seqlen, reach, "flash")[0]


def attention_fa3(
    qkv_T3NH: Float[Tensor, "T 3 N H"],
    cos_LK: Float[Tensor, "L K"],
    sin_LK: Float[Tensor, "L K"],
    pos_T: Int[Tensor, "T"],
    cu_seqlens: Int[Tensor, "B_plus_1"],
    max_seqlen: int,
    window: int | None,
) -> Float[Tensor, "T N H"]:
    """Runs on Hopper with `fa3-fwd`. Arguments and result as `attention`.

    Raises:
        HardwareError: the package is missing, the tensor is elsewhere or in another dtype, or a window is asked for.
    """
    if not fa3_runs_on(qkv_T3NH) or window is not None:
        raise HardwareError(
            "the fa3 backend needs `pip install fa3-fwd`, a Hopper GPU, bf16 and whole rows; got "
            f"{qkv_T3NH.dtype} on {qkv_T3NH.device}, window {window}. Use backend='flash' or 'window'"
        )
    return _forward(qkv_T3NH, cos_LK, sin_LK, pos_T, cu_seqlens, max_seqlen, WHOLE, "fa3")[0]


def attention_cudnn(
    qkv_T3NH: Float[Tensor, "T 3 N H"],
    cos_LK: Float[Tensor, "L K"],
    sin_LK: Float[Tensor, "L K"],
    pos_T: Int[Tensor, "T"],
    cu_seqlens: Int[Tensor, "B_plus_1"],
    max_seqlen: int,
    window: int | None,
) -> Float[Tensor, "T N H"]:
    """Runs on Hopper or newer, with gradients. Arguments and result as `attention`.

    Raises:
        HardwareError: the tensor is elsewhere or in another dtype, or a window is asked for.
    """
    if not cudnn_runs_on(qkv_T3NH) or window is not None:
        raise HardwareError(
            f"the cudnn backend needs a GPU of Hopper's generation or newer, bf16 or fp16 and whole rows; got {qkv_T3NH.dtype} on "
            f"{qkv_T3NH.device}, window {window}. Use backend='flash' or 'window'"
        )
    return _forward(qkv_T3NH, cos_LK, sin_LK, pos_T, cu_seqlens, max_seqlen, WHOLE, "cudnn")[0]


@torch.library.custom_op("modernbert::attention_flash", mutates_args=())
def _forward(
    qkv: Tensor, cos: Tensor, sin: Tensor, pos: Tensor, cu_seqlens: Tensor, max_seqlen: int, reach: int, library: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Values [T, N, H], the logsumexp of each score row [N, T], and the turned queries and keys [2, T, N, H], which the window kernels
    leave as they are."""
    library = _library(library, qkv, max_seqlen)
    if library == "window":
        return *attention_window._forward(qkv, cos, sin, cu_seqlens, max_seqlen), _turned(qkv)
    qk = rotate_packed(qkv, cos, sin, pos)
    o, lse = FORWARD[library](qk[0], qk[1], qkv[:, 2], cu_seqlens, max_seqlen, reach)
    return o, lse, qk


@torch.library.custom_op("modernbert::attention_flash_backward", mutates_args=())
def _backward(
    do: Tensor, qkv: Tensor, cos: Tensor, sin: Tensor, pos: Tensor, cu_seqlens: Tensor, max_seqlen: int, reach: int, library: str,
    o: Tensor, lse: Tensor, qk: Tensor,
) -> Tensor:  # fmt: skip
    library = _library(library, qkv, max_seqlen)
    if library == "window":
        return attention_window._backward(qkv, cos, sin, cu_seqlens, max_seqlen, o, lse, do)
    back = _cudnn_backward if library == "cudnn" else _flash_backward
    dq, dk, dv = back(do.contiguous(), qk[0], qk[1], qkv[:, 2], o, lse, cu_seqlens, max_seqlen, reach)
    return gradient_packed(dq, dk, dv, cos, sin, pos)


def _library(wanted: str, qkv: Tensor, max_seqlen: int) -> str:
    return fastest(qkv, max_seqlen, trains=wanted != "fastest") if wanted.startswith("fastest") else wanted


def _turned(qkv: Tensor) -> Tensor:
    tokens, _, heads, width = qkv.shape
    return qkv.new_empty(2, tokens, heads, width)


def _flash(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, reach: int) -> tuple[Tensor, Tensor]:
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


def _flash_backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, cu_seqlens: Tensor, max_seqlen: int, reach: int
) -> tuple[Tensor, Tensor, Tensor]:
    nothing = torch.empty(2, dtype=torch.uint64, device=do.device)  # the state of a random generator: there is no dropout
    dq, dk, dv = torch.ops.aten._flash_attention_backward(
        do, q, k, v, o, lse, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, 0.0, False, nothing, nothing,
        window_size_left=reach, window_size_right=reach,
    )  # fmt: skip
    return dq, dk, dv


def _cudnn(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, reach: int) -> tuple[Tensor, Tensor]:
    cu_seqlens, longest = _few_shapes(cu_seqlens, max_seqlen, len(q))
    o, lse, *_ = torch.ops.aten._cudnn_attention_forward(
        q, k, v.contiguous(), None, cu_seqlens, cu_seqlens, longest, longest, True, 0.0, False, False, scale=q.shape[-1] ** -0.5
    )
    return o, lse.reshape(q.shape[1], len(q))  # as it lies in memory, a head's numbers of one token after another's


def _cudnn_backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, cu_seqlens: Tensor, max_seqlen: int, reach: int
) -> tuple[Tensor, Tensor, Tensor]:
    cu_seqlens, longest = _few_shapes(cu_seqlens, max_seqlen, len(q))
    nothing = torch.empty((), dtype=torch.int64, device=do.device)  # the state of a random generator: there is no dropout
    dq, dk, dv = torch.ops.aten._cudnn_attention_backward(
        do, q, k, v.contiguous(), o, lse.reshape(len(q), q.shape[1], 1), nothing, nothing, None, cu_seqlens, cu_seqlens,
        longest, longest, 0.0, False, scale=q.shape[-1] ** -0.5,
    )  # fmt: skip
    return dq, dk, dv


def _few_shapes(cu_seqlens: Tensor, max_seqlen: int, tokens: int) -> tuple[Tensor, int]:
    """Rows in eighths of a power of two, the rest empty, and a length that is a power of two: cuDNN plans anew for each pair of them."""
    rows = len(cu_seqlens) - 1
    step = max(1, 1 << max(0, rows.bit_length() - 3))
    padded = torch.nn.functional.pad(cu_seqlens, (0, -rows % step), value=tokens)
    return padded, max(64, 1 << (max_seqlen - 1).bit_length())


def _fa3(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, reach: int) -> tuple[Tensor, Tensor]:
    from fa3_fwd_interface import _flash_attn_forward  # 100 MB of kernels, which few need

    o, lse, *_ = _flash_attn_forward(
        q, k, v, cu_seqlens_q=cu_seqlens, cu_seqlens_k=cu_seqlens, max_seqlen_q=max_seqlen, max_seqlen_k=max_seqlen,
        softmax_scale=q.shape[-1] ** -0.5,
    )  # fmt: skip
    return o, lse


FORWARD: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"flash": _flash, "fa3": _fa3, "cudnn": _cudnn}


@_forward.register_fake
def _(
    qkv: Tensor, cos: Tensor, sin: Tensor, pos: Tensor, cu_seqlens: Tensor, max_seqlen: int, reach: int, library: str
) -> tuple[Tensor, Tensor, Tensor]:
    tokens, _, heads, width = qkv.shape
    lse = qkv.new_empty(heads, tokens, dtype=torch.float32)
    return qkv.new_empty(tokens, heads, width), lse, _turned(qkv)


@_backward.register_fake
def _(
    do: Tensor, qkv: Tensor, cos: Tensor, sin: Tensor, pos: Tensor, cu_seqlens: Tensor, max_seqlen: int, reach: int, library: str,
    o: Tensor, lse: Tensor, qk: Tensor,
) -> Tensor:  # fmt: skip
    return qkv.new_empty(qkv.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.max_seqlen, ctx.reach, ctx.library = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(*output[1:])


def _gradients(ctx: Any, do: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    qkv, cos, sin, pos, cu_seqlens, o, lse, qk = ctx.saved_tensors
    return _backward(do, qkv, cos, sin, pos, cu_seqlens, ctx.max_seqlen, ctx.reach, ctx.library, o, lse, qk), *[None] * 7


_forward.register_autograd(_gradients, setup_context=_keep)
