"""Rotation of packed queries and keys as Triton kernels: each number read once, written once. `rope_packed` launches them.

A program turns TOKENS tokens by HEADS heads. A head is two halves, a and b, which rotation pairs (NeoX layout).
"""

from typing import no_type_check

import triton
import triton.language as tl

SIZES = ("tokens",)
"""Nothing recompiles because a batch has one token, or a multiple of 16."""


@triton.jit
@no_type_check
def _angles(cos, sin, pos, t_T, tokens, K: tl.constexpr):
    """Cosines and sines of the tokens' positions, [TOKENS, 1, K]."""
    position_T = tl.load(pos + t_T, mask=t_T < tokens, other=0).to(tl.int32)
    at_T1K = position_T[:, None, None] * K + tl.arange(0, K)[None, None, :]
    return tl.load(cos + at_T1K), tl.load(sin + at_T1K)


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def rotate_packed(
    qkv, cos, sin, pos, qk, tokens,
    N: tl.constexpr, K: tl.constexpr, TOKENS: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """Queries and keys of [T, 3, N, 2K], turned, as [2, T, N, 2K]."""
    t_T = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    x_X = tl.program_id(1) * HEADS + tl.arange(0, HEADS)  # the heads of queries, then those of keys
    cos_T1K, sin_T1K = _angles(cos, sin, pos, t_T, tokens, K)
    k_K = tl.arange(0, K)[None, None, :]
    within_TXK = x_X[None, :, None] * (2 * K) + k_K
    there_TX1 = (t_T < tokens)[:, None, None] & (x_X < 2 * N)[None, :, None]
    source = qkv + t_T.to(tl.int64)[:, None, None] * (6 * N * K) + within_TXK
    a_TXK = tl.load(source, mask=there_TX1, other=0.0).to(tl.float32)
    b_TXK = tl.load(source + K, mask=there_TX1, other=0.0).to(tl.float32)
    part_X = x_X // N
    at_TX1 = (part_X.to(tl.int64)[None, :] * tokens + t_T[:, None])[:, :, None] * (2 * N * K)
    target = qk + at_TX1 + (x_X - part_X * N)[None, :, None] * (2 * K) + k_K
    tl.store(target, (a_TXK * cos_T1K - b_TXK * sin_T1K).to(qk.dtype.element_ty), mask=there_TX1)
    tl.store(target + K, (b_TXK * cos_T1K + a_TXK * sin_T1K).to(qk.dtype.element_ty), mask=there_TX1)


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def gradient_packed(
    dq, dk, dv, cos, sin, pos, dqkv, tokens,
    N: tl.constexpr, K: tl.constexpr, TOKENS: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """Gradient of [T, 3, N, 2K] from those of turned queries, turned keys, and values, each [T, N, 2K]."""
    t_T = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    n_X = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    cos_T1K, sin_T1K = _angles(cos, sin, pos, t_T, tokens, K)
    k_K = tl.arange(0, K)[None, None, :]
    within_TXK = n_X[None, :, None] * (2 * K) + k_K
    there_TX1 = (t_T < tokens)[:, None, None] & (n_X < N)[None, :, None]
    source = t_T.to(tl.int64)[:, None, None] * (2 * N * K) + within_TXK
    target = dqkv + t_T.to(tl.int64)[:, None, None] * (6 * N * K) + within_TXK
    dtype = dqkv.dtype.element_ty
    for part in tl.static_range(2):
        x = dq if part == 0 else dk
        a_TXK = tl.load(x + source, mask=there_TX1, other=0.0).to(tl.float32)
        b_TXK = tl.load(x + source + K, mask=there_TX1, other=0.0).to(tl.float32)
        at = target + part * 2 * N * K
        tl.store(at, (a_TXK * cos_T1K + b_TXK * sin_T1K).to(dtype), mask=there_TX1)
        tl.store(at + K, (b_TXK * cos_T1K - a_TXK * sin_T1K).to(dtype), mask=there_TX1)
    at = target + 4 * N * K
    tl.store(at, tl.load(dv + source, mask=there_TX1, other=0.0), mask=there_TX1)
    tl.store(at + K, tl.load(dv + source + K, mask=there_TX1, other=0.0), mask=there_TX1)
