"""The two padding functions that transformers imports beside the kernels."""

import torch


def unpad_input(x, mask, unused_mask=None):
    lengths = mask.sum(-1, dtype=torch.int32)
    kept = mask.flatten().nonzero().flatten()
    cu_seqlens = torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    return x.flatten(0, 1)[kept], kept, cu_seqlens, int(lengths.max()), lengths


def pad_input(x, kept, rows, length):
    out = x.new_zeros((rows * length, *x.shape[1:]))
    out[kept] = x
    return out.view(rows, length, *x.shape[1:])
