"""Window attention as three Triton kernels. `attention_window` launches them; read its head first.

Every program owns one tile of one row and one head, and meets the other side in steps:

    forward, backward_queries   a tile of queries goes along the keys within its reach
    backward_keys               a tile of keys goes along the queries within its reach

Tokens count from the start of the row. Heads come as two halves, a and b, because rotation pairs them (NeoX layout).

The way forward rotates what it reads, relative to the leftmost token within reach of the program's tile: a product of query and key
depends on their distance only, so every program reads the same few lines of the tables, which stay in the caches, and the product of two
rotated vectors is a·a + b·b. On the way back every vector is met by three programs of each kernel, so `rope_packed` rotates them all
beforehand (qk: [2, T, N, H]), and loads go to shared memory while products run.

Scores are in units of log2: exp2(scores · scale · log2 e − lse).

Source: Dao 2023 (arXiv 2307.08691) for the online softmax and for the backward pass from the saved logsumexp.
"""

from typing import no_type_check

import triton
import triton.language as tl

SIZES = ("tokens", "rows", "first_stride", "positions", "window")
"""Arguments that change from batch to batch: nothing recompiles because one of them is 1 or divides by 16."""

FAN = tl.constexpr(128)
"""Rows that one step of the search for a slot's row looks at: one a thread."""


@triton.jit
@no_type_check
def _tile_of(slot, cu_seqlens, rows, first_stride, TILE: tl.constexpr):
    """Start and length of the row that owns a slot, and the slot's first token in it.

    Row b owns the slots from cu_seqlens[b] // TILE + b up to the next row's, which are enough for its tiles and need no table; a slot
    past the row's end comes back with first >= length.
    """
    low, stride = 0, first_stride
    while stride > 0:
        b_F = low + stride * tl.arange(0, FAN)
        begins_F = tl.load(cu_seqlens + b_F, mask=b_F < rows, other=2**31 - 1) // TILE + b_F
        low += stride * (tl.sum((begins_F <= slot).to(tl.int32)) - 1)
        stride //= FAN
    start = tl.load(cu_seqlens + low)
    length = tl.load(cu_seqlens + low + 1) - start
    return start.to(tl.int64), length, (slot - start // TILE - low) * TILE


@triton.jit
@no_type_check
def _angles(cos, sin, positions, distance_R, K: tl.constexpr):
    """Cosines and sines of distances, zero beyond the tables: no token of the row is that far away."""
    at_RK = distance_R[:, None] * K + tl.arange(0, K)[None, :]
    there_R1 = distance_R[:, None] < positions
    return tl.load(cos + at_RK, mask=there_R1, other=0.0), tl.load(sin + at_RK, mask=there_R1, other=0.0)


@triton.jit
@no_type_check
def _rotated(x, r_R, leftmost, length, cos, sin, positions, STRIDE: tl.constexpr, K: tl.constexpr):
    """Both halves of the vectors of tokens r, rotated relative to token `leftmost`, in the dtype that they are stored in."""
    at_RK = r_R[:, None] * STRIDE + tl.arange(0, K)[None, :]
    inside_R1 = r_R[:, None] < length
    a_RK = tl.load(x + at_RK, mask=inside_R1, other=0.0).to(tl.float32)
    b_RK = tl.load(x + at_RK + K, mask=inside_R1, other=0.0).to(tl.float32)
    cos_RK, sin_RK = _angles(cos, sin, positions, r_R - leftmost, K)
    dtype = x.dtype.element_ty
    return (a_RK * cos_RK - b_RK * sin_RK).to(dtype), (b_RK * cos_RK + a_RK * sin_RK).to(dtype)


@triton.jit
@no_type_check
def _store_unrotated(x, x_RH, r_R, length, cos, sin, positions, STRIDE: tl.constexpr, R: tl.constexpr, H: tl.constexpr):
    """Writes the gradient of unrotated vectors, from the gradient of those that were rotated by their place in the row."""
    K: tl.constexpr = H // 2
    a_RK, b_RK = tl.split(tl.permute(tl.reshape(x_RH, [R, 2, K]), (0, 2, 1)))
    cos_RK, sin_RK = _angles(cos, sin, positions, r_R, K)
    at_RK = r_R[:, None] * STRIDE + tl.arange(0, K)[None, :]
    inside_R1 = r_R[:, None] < length
    dtype = x.dtype.element_ty
    tl.store(x + at_RK, (a_RK * cos_RK + b_RK * sin_RK).to(dtype), mask=inside_R1)
    tl.store(x + at_RK + K, (b_RK * cos_RK - a_RK * sin_RK).to(dtype), mask=inside_R1)


@triton.jit
@no_type_check
def _vectors(x, r_R, length, STRIDE: tl.constexpr, H: tl.constexpr):
    at_RH = r_R[:, None] * STRIDE + tl.arange(0, H)[None, :]
    return tl.load(x + at_RH, mask=r_R[:, None] < length, other=0.0)


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def forward(
    qkv, cos, sin, cu_seqlens, o, lse, tokens, rows, first_stride, positions, window, score_scale, scale,
    N: tl.constexpr, H: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    slot, head = tl.program_id(0) // N, tl.program_id(0) % N
    start, length, first = _tile_of(slot, cu_seqlens, rows, first_stride, QUERIES)
    if first < length:
        STRIDE: tl.constexpr = 3 * N * H
        K: tl.constexpr = H // 2
        q = qkv + start * STRIDE + head * H
        leftmost = tl.maximum(first - window, 0)
        i_Q = first + tl.arange(0, QUERIES)
        lowest_Q, highest_Q = i_Q - window, tl.minimum(i_Q + window, length - 1)
        qa_QK, qb_QK = _rotated(q, i_Q, leftmost, length, cos, sin, positions, STRIDE, K)
        greatest_Q = tl.full([QUERIES], -1e30, tl.float32)  # not −∞: a query may meet only hidden keys in its first step
        total_Q = tl.zeros([QUERIES], tl.float32)
        o_QH = tl.zeros([QUERIES, H], tl.float32)
        for j in range(leftmost, tl.minimum(first + QUERIES + window, length), KEYS):
            j_S = j + tl.arange(0, KEYS)
            ka_SK, kb_SK = _rotated(q + N * H, j_S, leftmost, length, cos, sin, positions, STRIDE, K)
            v_SH = _vectors(q + 2 * N * H, j_S, length, STRIDE, H)
            s_QS = tl.dot(qa_QK, tl.trans(ka_SK), input_precision="ieee")
            s_QS = tl.dot(qb_QK, tl.trans(kb_SK), s_QS, input_precision="ieee")
            visible_QS = (j_S[None, :] >= lowest_Q[:, None]) & (j_S[None, :] <= highest_Q[:, None])
            s_QS = tl.where(visible_QS, s_QS, float("-inf"))
            higher_Q = tl.maximum(greatest_Q, tl.max(s_QS, 1) * score_scale)
            p_QS = tl.exp2(s_QS * score_scale - higher_Q[:, None])  # scaled here: one instruction with the difference
            shrink_Q = tl.exp2(greatest_Q - higher_Q)
            total_Q = total_Q * shrink_Q + tl.sum(p_QS, 1)
            o_QH = tl.dot(p_QS.to(v_SH.dtype), v_SH, o_QH * shrink_Q[:, None], input_precision="ieee")
            greatest_Q = higher_Q
        total_Q = tl.where(i_Q < length, total_Q, 1.0)
        at_QH = i_Q[:, None] * (N * H) + tl.arange(0, H)[None, :]
        o_QH = (o_QH / total_Q[:, None]).to(o.dtype.element_ty)
        tl.store(o + start * (N * H) + head * H + at_QH, o_QH, mask=i_Q[:, None] < length)
        tl.store(lse + head.to(tl.int64) * tokens + start + i_Q, greatest_Q + tl.log2(total_Q), mask=i_Q < length)


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def backward_queries(
    qk, qkv, cos, sin, cu_seqlens, o, lse, do, dqkv, delta, tokens, rows, first_stride, positions, window, score_scale, scale,
    N: tl.constexpr, H: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Gradients of queries, and delta, the sum of o · do, which backward_keys reads."""
    slot, head = tl.program_id(0) // N, tl.program_id(0) % N
    start, length, first = _tile_of(slot, cu_seqlens, rows, first_stride, QUERIES)
    if first < length:
        ROW: tl.constexpr = N * H
        one_head = start * ROW + head * H
        one_number = head.to(tl.int64) * tokens + start
        keys = qk + tokens.to(tl.int64) * ROW + one_head
        dq = dqkv + start * (3 * ROW) + head * H
        v = qkv + start * (3 * ROW) + 2 * ROW + head * H
        i_Q = first + tl.arange(0, QUERIES)
        lowest_Q, highest_Q = i_Q - window, tl.minimum(i_Q + window, length - 1)
        q_QH = _vectors(qk + one_head, i_Q, length, ROW, H)
        do_QH = _vectors(do + one_head, i_Q, length, ROW, H)
        o_QH = _vectors(o + one_head, i_Q, length, ROW, H)
        delta_Q = tl.sum(o_QH.to(tl.float32) * do_QH.to(tl.float32), 1)
        tl.store(delta + one_number + i_Q, delta_Q, mask=i_Q < length)
        lse_Q = tl.load(lse + one_number + i_Q, mask=i_Q < length, other=0.0)
        dq_QH = tl.zeros([QUERIES, H], tl.float32)
        for j in range(tl.maximum(first - window, 0), tl.minimum(first + QUERIES + window, length), KEYS):
            j_S = j + tl.arange(0, KEYS)
            k_SH = _vectors(keys, j_S, length, ROW, H)
            v_SH = _vectors(v, j_S, length, 3 * ROW, H)
            s_QS = tl.dot(q_QH, tl.trans(k_SH), input_precision="ieee")
            visible_QS = (j_S[None, :] >= lowest_Q[:, None]) & (j_S[None, :] <= highest_Q[:, None])
            p_QS = tl.exp2(tl.where(visible_QS, s_QS * score_scale - lse_Q[:, None], float("-inf")))
            dp_QS = tl.dot(do_QH, tl.trans(v_SH), input_precision="ieee")
            ds_QS = (p_QS * (dp_QS - delta_Q[:, None])).to(k_SH.dtype)
            dq_QH = tl.dot(ds_QS, k_SH, dq_QH, input_precision="ieee")
        _store_unrotated(dq, dq_QH * scale, i_Q, length, cos, sin, positions, 3 * ROW, QUERIES, H)


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def backward_keys(
    qk, qkv, cos, sin, cu_seqlens, lse, do, dqkv, delta, tokens, rows, first_stride, positions, window, score_scale, scale,
    N: tl.constexpr, H: tl.constexpr, KEYS: tl.constexpr, QUERIES: tl.constexpr,
):  # fmt: skip
    """Gradients of keys and values; scores lie transposed, keys down and queries across."""
    slot, head = tl.program_id(0) // N, tl.program_id(0) % N
    start, length, first = _tile_of(slot, cu_seqlens, rows, first_stride, KEYS)
    if first < length:
        ROW: tl.constexpr = N * H
        one_head = start * ROW + head * H
        one_number = head.to(tl.int64) * tokens + start
        dk = dqkv + start * (3 * ROW) + ROW + head * H
        v = qkv + start * (3 * ROW) + 2 * ROW + head * H
        j_S = first + tl.arange(0, KEYS)
        lowest_S, highest_S = j_S - window, tl.minimum(j_S + window, length - 1)
        k_SH = _vectors(qk + tokens.to(tl.int64) * ROW + one_head, j_S, length, ROW, H)
        v_SH = _vectors(v, j_S, length, 3 * ROW, H)
        dk_SH = tl.zeros([KEYS, H], tl.float32)
        dv_SH = tl.zeros([KEYS, H], tl.float32)
        for i in range(tl.maximum(first - window, 0), tl.minimum(first + KEYS + window, length), QUERIES):
            i_Q = i + tl.arange(0, QUERIES)
            q_QH = _vectors(qk + one_head, i_Q, length, ROW, H)
            do_QH = _vectors(do + one_head, i_Q, length, ROW, H)
            lse_Q = tl.load(lse + one_number + i_Q, mask=i_Q < length, other=0.0)
            delta_Q = tl.load(delta + one_number + i_Q, mask=i_Q < length, other=0.0)
            s_SQ = tl.dot(k_SH, tl.trans(q_QH), input_precision="ieee")
            visible_SQ = (i_Q[None, :] >= lowest_S[:, None]) & (i_Q[None, :] <= highest_S[:, None])
            p_SQ = tl.exp2(tl.where(visible_SQ, s_SQ * score_scale - lse_Q[None, :], float("-inf")))
            dv_SH = tl.dot(p_SQ.to(do_QH.dtype), do_QH, dv_SH, input_precision="ieee")
            dp_SQ = tl.dot(v_SH, tl.trans(do_QH), input_precision="ieee")
            ds_SQ = (p_SQ * (dp_SQ - delta_Q[None, :])).to(q_QH.dtype)
            dk_SH = tl.dot(ds_SQ, q_QH, dk_SH, input_precision="ieee")
        _store_unrotated(dk, dk_SH * scale, j_S, length, cos, sin, positions, 3 * ROW, KEYS, H)
        at_SH = j_S[:, None] * (3 * ROW) + tl.arange(0, H)[None, :]
        tl.store(dk + ROW + at_SH, dv_SH.to(dk.dtype.element_ty), mask=j_S[:, None] < length)
