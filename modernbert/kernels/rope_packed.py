"""Rotation of the packed QKV in one pass, and its way back in one: `torch.compile` makes ten times as much time of it (dev/LOG.md).

Plain and fast side by side: `…_reference` says what is meant, and runs where Triton does not.

T tokens in the batch · N heads · H per head · L positions · K = H / 2.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modernbert.kernels.compiled import HERE, INTERPRETED, triton_runs_on
from modernbert.kernels.rope import rotate

if HERE:
    from modernbert.kernels import rope_triton as kernels

TOKENS, HEADS = (64, 32) if INTERPRETED else (16, 8)
"""What one program turns."""


def rotate_packed_reference(
    qkv_T3NH: Float[Tensor, "T 3 N H"], cos_LK: Float[Tensor, "L K"], sin_LK: Float[Tensor, "L K"], pos_T: Int[Tensor, "T"]
) -> Float[Tensor, "2 T N H"]:
    """Queries and keys, turned, each without gaps."""
    q_TNH, k_TNH, _ = qkv_T3NH.unbind(1)
    return torch.stack([rotate(x_TNH, cos_LK, sin_LK, pos_T) for x_TNH in (q_TNH, k_TNH)])


def rotate_packed(
    qkv_T3NH: Float[Tensor, "T 3 N H"], cos_LK: Float[Tensor, "L K"], sin_LK: Float[Tensor, "L K"], pos_T: Int[Tensor, "T"]
) -> Float[Tensor, "2 T N H"]:
    """As the reference; for use within operators, since autograd does not see through it."""
    tokens, _, heads, width = qkv_T3NH.shape
    if not tokens or not triton_runs_on(qkv_T3NH):
        return rotate_packed_reference(qkv_T3NH, cos_LK, sin_LK, pos_T)
    qkv_T3NH, qk_2TNH = qkv_T3NH.contiguous(), qkv_T3NH.new_empty(2, tokens, heads, width)
    grid = (-(-tokens // TOKENS), -(-2 * heads // HEADS))
    with torch.cuda.device_of(qkv_T3NH):
        kernels.rotate_packed[grid](
            qkv_T3NH, cos_LK, sin_LK, pos_T, qk_2TNH, tokens, heads, width // 2, TOKENS, HEADS, num_warps=4
        )
    return qk_2TNH


def gradient_packed_reference(
    dq_TNH: Float[Tensor, "T N H"],
    dk_TNH: Float[Tensor, "T N H"],
    dv_TNH: Float[Tensor, "T N H"],
    cos_LK: Float[Tensor, "L K"],
    sin_LK: Float[Tensor, "L K"],
    pos_T: Int[Tensor, "T"],
) -> Float[Tensor, "T 3 N H"]:
    """Gradient of the packed QKV from those of turned queries, turned keys, and values: a turn by the opposite angle."""
    dq_TNH, dk_TNH = (rotate(x_TNH, cos_LK, -sin_LK, pos_T) for x_TNH in (dq_TNH, dk_TNH))
    return torch.stack([dq_TNH, dk_TNH, dv_TNH], dim=1)


def gradient_packed(
    dq_TNH: Float[Tensor, "T N H"],
    dk_TNH: Float[Tensor, "T N H"],
    dv_TNH: Float[Tensor, "T N H"],
    cos_LK: Float[Tensor, "L K"],
    sin_LK: Float[Tensor, "L K"],
    pos_T: Int[Tensor, "T"],
) -> Float[Tensor, "T 3 N H"]:
    """As the reference."""
    tokens, heads, width = dq_TNH.shape
    if not tokens or not triton_runs_on(dq_TNH):
        return gradient_packed_reference(dq_TNH, dk_TNH, dv_TNH, cos_LK, sin_LK, pos_T)
    dq_TNH, dk_TNH, dv_TNH = (x_TNH.contiguous() for x_TNH in (dq_TNH, dk_TNH, dv_TNH))
    dqkv_T3NH = dq_TNH.new_empty(tokens, 3, heads, width)
    grid = (-(-tokens // TOKENS), -(-heads // HEADS))
    with torch.cuda.device_of(dq_TNH):
        kernels.gradient_packed[grid](
            dq_TNH, dk_TNH, dv_TNH, cos_LK, sin_LK, pos_T, dqkv_T3NH, tokens, heads, width // 2, TOKENS, HEADS, num_warps=4
        )
    return dqkv_T3NH
