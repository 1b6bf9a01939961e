"""LayerNorm without bias for inference on a GPU, in one pass; and one that gives its result in e4m3, as an fp8 product reads it.

PyTorch's own takes 2.6 times as long for 65,536 tokens of 768 (bench/results/encoder_h200_2026-11-27.md).

T tokens in the batch · D hidden.
"""

import torch
from jaxtyping import Float, Float8e4m3fn
from torch import Tensor
from torch.nn import functional as F

from modernbert.kernels.compiled import HERE, INTERPRETED, triton_pays_on
from modernbert.kernels.linear_fp8 import quantize_rows_fp8

if HERE:
    from modernbert.kernels import norm_triton as kernels

ROWS, WARPS = (64, 1) if INTERPRETED else (2, 1)
"""Tokens that one program norms, and its warps: the best of nine choices (bench/results/encoder_h200_2026-11-27.md)."""


def norm_reference(x_TD: Float[Tensor, "T D"], weight_D: Float[Tensor, "D"], eps: float) -> Float[Tensor, "T D"]:
    """The definition."""
    return F.layer_norm(x_TD, weight_D.shape, weight_D, None, eps)


def norm(x_TD: Float[Tensor, "T D"], weight_D: Float[Tensor, "D"], eps: float) -> Float[Tensor, "T D"]:
    """What the reference defines, where `triton_pays_on`."""
    y_TD = x_TD.new_empty(x_TD.shape)
    _launch("norm", x_TD, weight_D, (y_TD,), eps)
    return y_TD


def norm_fp8(
    x_TD: Float[Tensor, "T D"], weight_D: Float[Tensor, "D"], eps: float
) -> tuple[Float8e4m3fn[Tensor, "T D"], Float[Tensor, "T 1"]]:
    """`quantize_rows_fp8` of the reference."""
    if not triton_pays_on(x_TD):
        return quantize_rows_fp8(norm_reference(x_TD, weight_D, eps))
    y_TD = x_TD.new_empty(x_TD.shape, dtype=torch.float8_e4m3fn)
    scale_T1 = x_TD.new_empty(len(x_TD), 1, dtype=torch.float32)
    _launch("norm_fp8", x_TD, weight_D, (y_TD, scale_T1), eps)
    return y_TD, scale_T1


def _launch(name: str, x_TD: Tensor, weight_D: Tensor, made: tuple[Tensor, ...], eps: float) -> None:
    tokens, width = x_TD.shape
    if not tokens:
        return
    columns = 1 << (width - 1).bit_length()
    with torch.cuda.device_of(x_TD):
        getattr(kernels, name)[(-(-tokens // ROWS),)](
            x_TD.contiguous(), weight_D, *made, tokens, eps, width, ROWS, columns, num_warps=WARPS
        )
