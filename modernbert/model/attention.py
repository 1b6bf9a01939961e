"""One attention layer: two products around `kernels.attention.attention`.

T tokens in the batch · D hidden · N heads · H per head · L positions · K = H / 2.
"""

from jaxtyping import Float
from torch import Tensor, nn

from modernbert.batch import Batch
from modernbert.config import ModelConfig, Rope
from modernbert.kernels.attention import attention
from modernbert.model.layers import Linear, add

Rotary = dict[Rope, tuple[Tensor, Tensor]]
"""Cosine and sine tables by what decides them."""


class Attention(nn.Module):
    """Self-attention of layer `layer`: over the whole row, or within the sliding window.

    Rows of `Wqkv` are ordered queries, keys, values, each head by head. Dropout acts on the output, as in ModernBERT's training.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.Wqkv = Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.Wo = Linear(config.hidden_size, config.hidden_size, bias=False)
        self.out_drop = nn.Dropout(config.attention_dropout)
        self.head_dim = config.head_dim
        self.window = config.window(layer)
        self.rope = config.rope(layer)

    def forward(
        self,
        onto_TD: Float[Tensor, "T D"],
        x_TD: Float[Tensor, "T D"],
        batch: Batch,
        rotary: Rotary,
        backend: str | None = None,
    ) -> Float[Tensor, "T D"]:
        """onto + attention(x)."""
        qkv_T3NH = self.Wqkv(x_TD).unflatten(-1, (3, -1, self.head_dim))
        cos_LK, sin_LK = rotary[self.rope]
        o_TNH = attention(qkv_T3NH, cos_LK, sin_LK, batch.pos_T, batch.cu_seqlens, batch.max_seqlen, self.window, backend)
        if self.training and self.out_drop.p:
            return onto_TD + self.out_drop(self.Wo(o_TNH.flatten(1)))
        return add(onto_TD, self.Wo, o_TNH.flatten(1))
