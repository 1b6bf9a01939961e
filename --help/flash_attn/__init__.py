"""Stand-in for flash-attn 2 on PyTorch's own FlashAttention-2 kernels; see flash_attn_standin.py."""

import torch
from torch.nn.attention.varlen import varlen_attn

__version__ = "2.8.3"
flash_attn_with_kvcache = None


def flash_attn_varlen_func(
    q,
    k,
    v,
    cu_seqlens_q=None,
    cu_seqlens_k=None,
    max_seqlen_q=None,
    max_seqlen_k=None,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    **unused,
):
    return varlen_attn(
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        int(max_seqlen_q),
        int(max_seqlen_k),
        scale=softmax_scale,
        window_size=tuple(window_size),
    )


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), **unused):
    rows, length, heads, width = q.shape
    cu_seqlens = torch.arange(0, (rows + 1) * length, length, dtype=torch.int32, device=q.device)
    flat = [x.reshape(rows * length, heads, width) for x in (q, k, v)]
    out = varlen_attn(*flat, cu_seqlens, cu_seqlens, length, length, scale=softmax_scale, window_size=tuple(window_size))
    return out.view(rows, length, heads, width)
