"""GeGLU and its way back as Triton kernels: each number read once, written once. `geglu` launches them.

A program makes ROWS tokens by COLUMNS of the I inside; J = 2 · I.
"""

from typing import no_type_check

import triton
import triton.language as tl

SIZES = ("tokens",)
"""Nothing recompiles because a batch has one token, or a multiple of 16."""


@triton.jit
@no_type_check
def _halves(u_TJ, tokens, I: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Activated half and gate in float32, where they and their product lie, and which of them exist."""
    t_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    i_C = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there_RC = (t_R < tokens)[:, None] & (i_C < I)[None, :]
    at_RC = t_R.to(tl.int64)[:, None] * (2 * I) + i_C[None, :]
    inside_RC = t_R.to(tl.int64)[:, None] * I + i_C[None, :]
    a_RC = tl.load(u_TJ + at_RC, mask=there_RC, other=0.0).to(tl.float32)
    g_RC = tl.load(u_TJ + at_RC + I, mask=there_RC, other=0.0).to(tl.float32)
    return a_RC, g_RC, at_RC, inside_RC, there_RC


@triton.jit
@no_type_check
def _below(a):
    """Φ, the share of a normal distribution below a; GELU is a · Φ(a)."""
    return 0.5 + 0.5 * tl.math.erf(a * 0.7071067811865476)


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def forward(u_TJ, h_TI, tokens, I: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    a_RC, g_RC, _, inside_RC, there_RC = _halves(u_TJ, tokens, I, ROWS, COLUMNS)
    tl.store(h_TI + inside_RC, (a_RC * _below(a_RC) * g_RC).to(h_TI.dtype.element_ty), mask=there_RC)


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def backward(u_TJ, dh_TI, h_TI, du_TJ, tokens, I: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Gradient of both halves; and the product once more, which the weights behind it need, so that it need not be kept."""
    a_RC, g_RC, at_RC, inside_RC, there_RC = _halves(u_TJ, tokens, I, ROWS, COLUMNS)
    dh_RC = tl.load(dh_TI + inside_RC, mask=there_RC, other=0.0).to(tl.float32)
    below_RC = _below(a_RC)
    gelu_RC = a_RC * below_RC
    slope_RC = below_RC + a_RC * 0.3989422804014327 * tl.exp2(
        a_RC * a_RC * -0.7213475204444817
    )  # Φ + a · φ, φ(a) = e^(−a²/2) / √2π
    dtype = h_TI.dtype.element_ty
    tl.store(h_TI + inside_RC, (gelu_RC * g_RC).to(dtype), mask=there_RC)
    tl.store(du_TJ + at_RC, (dh_RC * g_RC * slope_RC).to(dtype), mask=there_RC)
    tl.store(du_TJ + at_RC + I, (dh_RC * gelu_RC).to(dtype), mask=there_RC)
