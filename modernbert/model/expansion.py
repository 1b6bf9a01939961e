"""Rows with tokens that nobody attends to, though they attend themselves: ColBERT's query expansion, as PyLate does it by default.

The masks that fill a query up look at the query's own tokens, and neither those nor other masks look at them. Packed rows have no
such half-seen tokens; queries are short and all of one length, so this is dense. The encoder's own layers do the rest.

B rows · L tokens of each · T = B · L · D hidden · N heads · H per head.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from modernbert.kernels.rope import rotary_tables, rotate
from modernbert.model.encoder import Encoder, EncoderLayer


def encode_half_seen(encoder: Encoder, ids_BL: Int[Tensor, "B L"], seen_BL: Bool[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
    """Hidden states of every token, with attention to the seen ones only.

    Args:
        encoder: in eval mode; its dropouts are left out.
        ids_BL: token ids of rows of one length.
        seen_BL: which tokens are attended to; at least one of each row.

    Returns:
        What transformers' ModernBertModel gives for `attention_mask = seen_BL`, at all positions.
    """
    rows, length = ids_BL.shape
    pos_L = torch.arange(length, device=ids_BL.device)
    pos_T, far_LL = pos_L.repeat(rows), (pos_L[:, None] - pos_L[None, :]).abs()
    x_TD = encoder.embeddings(ids_BL.flatten())
    x_TD = x_TD.to(encoder.compute_dtype or x_TD.dtype)
    for layer in encoder.layers:
        assert isinstance(layer, EncoderLayer)
        attn = layer.attn
        cos_LK, sin_LK = rotary_tables(length, attn.head_dim, attn.rope.theta, x_TD.device, attn.rope.factor, attn.rope.length)
        q_TNH, k_TNH, v_TNH = attn.Wqkv(layer.attn_norm(x_TD)).unflatten(-1, (3, -1, attn.head_dim)).unbind(1)
        q_TNH, k_TNH = (rotate(x_TNH, cos_LK, sin_LK, pos_T) for x_TNH in (q_TNH, k_TNH))
        q_BNLH, k_BNLH, v_BNLH = (x_TNH.unflatten(0, (rows, length)).transpose(1, 2) for x_TNH in (q_TNH, k_TNH, v_TNH))
        visible_B1LL = seen_BL[:, None, None, :] & (far_LL <= (length if attn.window is None else attn.window))
        o_BNLH = F.scaled_dot_product_attention(q_BNLH, k_BNLH, v_BNLH, attn_mask=visible_B1LL)
        x_TD = x_TD + attn.Wo(o_BNLH.transpose(1, 2).reshape(rows * length, -1))
        x_TD = layer.mlp(x_TD, layer.mlp_norm(x_TD))
    return encoder.final_norm(x_TD).unflatten(0, (rows, length))
