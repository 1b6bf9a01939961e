"""THE attention function: one signature, a table of backends, and the one meaning of `window`.

A backend rotates queries and keys, attends within each row, and returns the weighted values. `window` is the reach to each side in
tokens, ends included: 64 for `local_attention = 128`, so a token sees itself and up to 64 on either side, 129 keys. None is the
whole row. Rotation is part of the definition so that a backend may fuse it.

T tokens in the batch · B rows · N heads · H per head · L positions · K = H / 2.

Source: Warner et al. 2024 (arXiv 2412.13663) §2.1, alternating attention; the window as the released kernels have it (facts, trap 3).
"""

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor

from modernbert.errors import HardwareError
from modernbert.kernels.attention_banded import attention_banded
from modernbert.kernels.attention_flash import attention_flash, flash_runs_on
from modernbert.kernels.attention_reference import attention_reference
from modernbert.kernels.attention_window import attention_window, window_runs_on

BACKENDS: dict[str, Callable[..., Tensor]] = {
    "window": attention_window,  # our Triton kernels, rotation within: CUDA, Ampere or newer
    "flash": attention_flash,  # PyTorch's own varlen FlashAttention, or the package fa3-fwd: CUDA, Ampere or newer, bf16 or fp16
    "banded": attention_banded,  # plain PyTorch, cost T·window in local layers: CPU, older GPUs, Apple, fp32 anywhere
    "reference": attention_reference,  # dense T × T: slow, plain, and the truth that the others are tested against
}


def attention(
    qkv_T3NH: Float[Tensor, "T 3 N H"],
    cos_LK: Float[Tensor, "L K"],
    sin_LK: Float[Tensor, "L K"],
    pos_T: Int[Tensor, "T"],
    cu_seqlens: Int[Tensor, "B_plus_1"],
    max_seqlen: int,
    window: int | None,
    backend: str | None = None,
) -> Float[Tensor, "T N H"]:
    """Attends within each packed row, at most `window` tokens to either side.

    Args:
        qkv_T3NH: queries, keys and values of one layer, not yet rotated.
        cos_LK, sin_LK: `rope.rotary_tables` of at least `max_seqlen` positions.
        pos_T: position of each token within its row.
        cu_seqlens: where each row begins, int32, from 0 to T; empty rows are allowed.
        max_seqlen: no row is longer.
        window: reach to each side in tokens, ends included; None is the whole row.
        backend: a name in `BACKENDS`; None chooses the fastest that runs on this tensor's device and dtype.

    Returns:
        Weighted values in the dtype of `qkv_T3NH`; the softmax runs in float32.

    Raises:
        HardwareError: the backend asked for cannot run here.
    """
    name = backend or choose_backend(qkv_T3NH, window, max_seqlen)
    if name not in BACKENDS:
        raise HardwareError(f"no attention backend named {name!r}; there are {', '.join(BACKENDS)}")
    return BACKENDS[name](qkv_T3NH, cos_LK, sin_LK, pos_T, cu_seqlens, max_seqlen, window)


SHORT = 256
"""Longest row up to which the window kernels are the faster ones for whole rows too: for short texts of 69 tokens 0.55 against 0.74 ms
forward and 1.5 against 3.6 backward; for rows of 512 it is 0.57 against 0.49 forward (bench/results/attention_h100_2026-11-26.md)."""


def choose_backend(qkv_T3NH: Tensor, window: int | None, max_seqlen: int) -> str:
    """The fastest backend for a tensor of this device, dtype and head width, a layer of this window, and rows of at most `max_seqlen`.

    >>> import torch
    >>> choose_backend(torch.zeros(4, 3, 2, 64), 64, 4)
    'banded'
    """
    if not flash_runs_on(qkv_T3NH):
        return "banded"
    narrow = window is not None or max_seqlen <= SHORT
    return "window" if narrow and window_runs_on(qkv_T3NH) else "flash"
