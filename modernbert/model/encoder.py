"""ModernBERT's encoder, from token ids to hidden states, packed all the way. Read this file first.

    ids ─→ embedding ─→ norm ─→ [ + attention(norm(x)) ─→ + mlp(norm(x)) ] × layers ─→ norm ─→ hidden states

Every third layer attends to the whole row, the others to 64 tokens on each side. No biases, no position table, no padding: rows lie
end to end in a `Batch`. Module and parameter names are those of the published checkpoints.

T tokens in the batch · D hidden · I inside the MLP · V vocabulary.

Source: Warner et al. 2024 (arXiv 2412.13663) §2.1.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modernbert.batch import Batch
from modernbert.config import ModelConfig
from modernbert.kernels.geglu import geglu, geglu_mlp, geglu_mlp_pays
from modernbert.kernels.rope import kept_rotary_tables, rotary_tables
from modernbert.model.attention import Attention, Rotary
from modernbert.model.layers import LayerNorm, Linear, add


class Embeddings(nn.Module):
    """Token embedding and norm; positions come from rotation inside attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.norm_eps)
        self.drop = nn.Dropout(config.embedding_dropout)

    def forward(self, ids_T: Int[Tensor, "T"]) -> Float[Tensor, "T D"]:
        return self.drop(self.norm(self.tok_embeddings(ids_T)))


class MLP(nn.Module):
    """GeGLU: the first half of `Wi` is activated (exact GELU), the second half gates it (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.Wi = Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.Wo = Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.drop = nn.Dropout(config.mlp_dropout)

    def forward(self, onto_TD: Float[Tensor, "T D"], x_TD: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """onto + mlp(x)."""
        if self.training and self.drop.p:
            return onto_TD + self.Wo(self.drop(geglu(self.Wi(x_TD))))
        if type(self.Wi) is type(self.Wo) is Linear and geglu_mlp_pays(x_TD):
            return onto_TD + geglu_mlp(x_TD, self.Wi.weight.to(x_TD.dtype), self.Wo.weight.to(x_TD.dtype))
        return add(onto_TD, self.Wo, geglu(self.Wi(x_TD)))


class EncoderLayer(nn.Module):
    """Attention and MLP, each behind its norm and added to what is there; the first layer's attention needs no norm, the embedding has
    just been normed. On a GPU and without gradients the sums lie where the input lay."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attn_norm = LayerNorm(config.hidden_size, config.norm_eps) if layer else nn.Identity()
        self.attn = Attention(config, layer)
        self.mlp_norm = LayerNorm(config.hidden_size, config.norm_eps)
        self.mlp = MLP(config)

    def forward(
        self, x_TD: Float[Tensor, "T D"], batch: Batch, rotary: Rotary, backend: str | None = None
    ) -> Float[Tensor, "T D"]:
        x_TD = self.attn(x_TD, self.attn_norm(x_TD), batch, rotary, backend)
        return self.mlp(x_TD, self.mlp_norm(x_TD))


class Encoder(nn.Module):
    """The stack. `compute_dtype` is the dtype of everything after the embedding; None is the dtype of the weights.

    Float32 weights with `compute_dtype = torch.bfloat16` train in mixed precision; weights cast to bf16 infer in bf16. With `recompute`,
    each layer keeps its input alone for the way back and runs again there: less memory, a third more work, the same gradients.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype: torch.dtype | None = None
        self.backend: str | None = None
        self.recompute = False
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(EncoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.final_norm = LayerNorm(config.hidden_size, config.norm_eps)

    def set_rope(self, **changes: float) -> None:
        """Changes fields of the config that decide the rotation, as context extension does; weights stay."""
        self.config = self.config.with_(**changes)
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, EncoderLayer)
            layer.attn.rope = self.config.rope(i)

    def forward(self, batch: Batch) -> Float[Tensor, "T D"]:
        """Hidden states after the final norm, one a token, in the order of the batch."""
        x_TD = self.embeddings(batch.ids_T)
        x_TD = x_TD.to(self.compute_dtype or x_TD.dtype)
        rotary = self._rotary(batch.max_seqlen, x_TD.device)
        if x_TD.is_cuda and x_TD.dtype != torch.float32:
            # Still rounded finer than what they turn; the window's kernels, which read them most, take 5 to 8 % less.
            rotary = {rope: (cos_LK.half(), sin_LK.half()) for rope, (cos_LK, sin_LK) in rotary.items()}
        for layer in self.layers:
            if self.recompute and torch.is_grad_enabled():
                x_TD = checkpoint(layer, x_TD, batch, rotary, self.backend, use_reentrant=False)
            else:
                x_TD = layer(x_TD, batch, rotary, self.backend)
        return self.final_norm(x_TD)

    def _rotary(self, length: int, device: torch.device) -> Rotary:
        if device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return {r: kept_rotary_tables(length, self.config.head_dim, r.theta, r.factor, r.length) for r in self.config.ropes()}
        return {r: rotary_tables(length, self.config.head_dim, r.theta, device, r.factor, r.length) for r in self.config.ropes()}
