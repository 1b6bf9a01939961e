"""Attention that runs wherever PyTorch does: a band of blocks where the window cuts, a row at a time where it does not.

The T tokens are cut into blocks of queries. Each block meets only its own keys and a halo of `window` on both sides:

    keys    ┊ halo │     block      │ halo ┊
    queries        │     block      │

so a local layer costs T · (block + 2 · window), at any row length, and rows need no loop: the mask keeps them apart.

T tokens in the batch · B rows · G blocks · Q queries in a block · S keys a block meets · N heads · H per head · L positions · K = H / 2.
"""

from itertools import groupby

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from modernbert.kernels.rope import rotate

BLOCK = 64
"""Queries in a block: with a window of 64 two thirds of the scores are in use. Forwards and backwards on one AMD EPYC core, float32,
64 takes 7 to 14 % less time than 32 and 15 % less than 128, at 1,024 and 4,096 tokens (dev/LOG.md)."""

BLOCK_FORWARD = 32
"""The same on a CPU without gradients: 8 % less time than 64, a quarter less than 128."""

SHORT = 256
"""Rows up to this length are one band away from the CPU: a launch a row should cost more there than the scores that the mask throws
away. Reasoned, not measured on a GPU yet."""


def attention_banded(
    qkv_T3NH: Float[Tensor, "T 3 N H"],
    cos_LK: Float[Tensor, "L K"],
    sin_LK: Float[Tensor, "L K"],
    pos_T: Int[Tensor, "T"],
    cu_seqlens: Int[Tensor, "B_plus_1"],
    max_seqlen: int,
    window: int | None,
) -> Float[Tensor, "T N H"]:
    """Needs no kernel but PyTorch's scaled_dot_product_attention. Arguments and result as `attention`."""
    v_TNH = qkv_T3NH[:, 2]
    if not len(v_TNH):
        return v_TNH
    qk_TXH = rotate(qkv_T3NH[:, :2].flatten(1, 2), cos_LK, sin_LK, pos_T)  # X: the heads of queries, then those of keys
    q_TNH, k_TNH = qk_TXH.chunk(2, dim=1)
    reach = max_seqlen - 1  # of a whole row: a wider window cuts nothing
    if window is not None and window < reach:
        return _band(q_TNH, k_TNH, v_TNH, cu_seqlens, window)
    if max_seqlen <= SHORT and not q_TNH.is_cpu:
        return _band(q_TNH, k_TNH, v_TNH, cu_seqlens, reach)
    return _row_by_row(q_TNH, k_TNH, v_TNH, cu_seqlens)


def _row_by_row(q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Neighbours of one length go together: an engine's batches are sorted, so that its short rows are a few calls."""
    runs = [(length, len(list(rows))) for length, rows in groupby(cu_seqlens.diff().tolist()) if length]
    # Split, not sliced: the gradient of a slice is as large as the whole batch, so that B of them cost T · B.
    parts = [x_TNH.split([length * rows for length, rows in runs]) for x_TNH in (q_TNH, k_TNH, v_TNH)]
    found = []
    for (length, _), *qkv in zip(runs, *parts, strict=True):
        o_BNLH = scaled_dot_product_attention(*(x_XNH.unflatten(0, (-1, length)).transpose(1, 2) for x_XNH in qkv))
        found.append(o_BNLH.transpose(1, 2).flatten(0, 1))
    return torch.cat(found)


def _band(q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, cu_seqlens: Tensor, window: int) -> Tensor:
    tokens = len(q_TNH)
    block = BLOCK_FORWARD if q_TNH.is_cpu and not q_TNH.requires_grad else BLOCK
    rest = -tokens % block
    span = block + 2 * window
    q_GNQH = pad(q_TNH, (0, 0, 0, 0, 0, rest)).unflatten(0, (-1, block)).transpose(1, 2)
    k_GNSH, v_GNSH = (
        pad(x_TNH, (0, 0, 0, 0, window, window + rest)).unfold(0, span, block).transpose(2, 3) for x_TNH in (k_TNH, v_TNH)
    )
    bias_G1QS = _bias(tokens, cu_seqlens, window, block, q_TNH.dtype)
    o_GNQH = scaled_dot_product_attention(q_GNQH, k_GNSH, v_GNSH, attn_mask=bias_G1QS)
    return o_GNQH.transpose(1, 2).flatten(0, 1)[:tokens]


def _bias(tokens: int, cu_seqlens: Tensor, window: int, block: int, dtype: torch.dtype) -> Tensor:
    """0 where a query sees a key, elsewhere far below any score: SDPA would make numbers of truths, in each layer and at three times
    the cost."""
    device, span, rest = cu_seqlens.device, block + 2 * window, -tokens % block
    row_T = torch.bucketize(torch.arange(tokens, device=device), cu_seqlens[1:], right=True).float()
    # Padding is a row of its own, −1: every padded query still sees itself, so no softmax is empty and no gradient NaN.
    row_GQ = pad(row_T, (0, rest), value=-1).view(-1, block)
    row_GS = pad(row_T, (window, window + rest), value=-1).unfold(0, span, block)
    offset_QS = torch.arange(span, device=device)[None, :] - torch.arange(block, device=device)[:, None] - window
    outside_QS = (offset_QS.abs() > window).float()
    apart_GQS = (row_GQ[:, :, None] - row_GS[:, None, :]).ne_(0).maximum(outside_QS)
    lowest = max(torch.finfo(dtype).min, torch.finfo(torch.float32).min) / 2  # float64 has a lower one than float32 can hold
    return apart_GQS.mul_(lowest).to(dtype)[:, None]
