"""LayerNorm as Triton kernels: each number read once, written once. `norm` launches them.

A program norms ROWS tokens of D hidden; COLUMNS is the power of two that holds them.
"""

from typing import no_type_check

import triton
import triton.language as tl

SIZES = ("tokens",)
"""Nothing recompiles because a batch has one token, or a multiple of 16."""


@triton.jit
@no_type_check
def _normed(x_TD, weight_D, tokens, eps, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Normed rows in float32, where they lie, and which of their numbers exist."""
    t_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d_C = tl.arange(0, COLUMNS)
    there_RC = (t_R < tokens)[:, None] & (d_C < D)[None, :]
    at_RC = t_R.to(tl.int64)[:, None] * D + d_C[None, :]
    x_RC = tl.load(x_TD + at_RC, mask=there_RC, other=0.0).to(tl.float32)
    from_mean_RC = tl.where(there_RC, x_RC - (tl.sum(x_RC, 1) / D)[:, None], 0.0)
    inverse_R = tl.rsqrt(tl.sum(from_mean_RC * from_mean_RC, 1) / D + eps)
    weight_C = tl.load(weight_D + d_C, mask=d_C < D, other=0.0).to(tl.float32)
    return from_mean_RC * inverse_R[:, None] * weight_C[None, :], t_R, at_RC, there_RC


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def norm(x_TD, weight_D, y_TD, tokens, eps, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    y_RC, _, at_RC, there_RC = _normed(x_TD, weight_D, tokens, eps, D, ROWS, COLUMNS)
    tl.store(y_TD + at_RC, y_RC.to(y_TD.dtype.element_ty), mask=there_RC)


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def norm_fp8(x_TD, weight_D, y_TD, scale_T, tokens, eps, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """In e4m3 with a scale for each token: `linear_fp8.quantize_rows_fp8` of `norm`, whose result never leaves the program."""
    y_RC, t_R, at_RC, there_RC = _normed(x_TD, weight_D, tokens, eps, D, ROWS, COLUMNS)
    y_RC = y_RC.to(x_TD.dtype.element_ty).to(tl.float32)
    scale_R = tl.maximum(tl.max(tl.abs(y_RC), 1), 1e-30) / 448.0
    tl.store(y_TD + at_RC, (y_RC / scale_R[:, None]).to(tl.float8e4nv), mask=there_RC)
    tl.store(scale_T + t_R, scale_R, mask=t_R < tokens)
