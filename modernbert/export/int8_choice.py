"""What of an exported int8 graph stays float: decided as `engine.quantized` does, on layers that round as the graph will."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from modernbert.engine.quantized import choose_layers, sample
from modernbert.kernels.linear_int8 import quantize_rows
from modernbert.model.encoder import Encoder
from modernbert.model.heads import MaskedLM
from modernbert.text.tokenizer import Tokenizer

TABLE = "model.embeddings.tok_embeddings.weight"


class RoundedLinear(nn.Module):
    """A Linear layer with weights and tokens on int8's levels, as float32."""

    def __init__(self, weight_OI: Float[Tensor, "O I"]) -> None:
        super().__init__()
        self.weight_OI = _rounded(weight_OI.detach())

    def forward(self, x_TI: Float[Tensor, "T I"]) -> Float[Tensor, "T O"]:
        return F.linear(_rounded(x_TI), self.weight_OI)


def float_weights(model: nn.Module, tokenizer: Tokenizer) -> frozenset[str]:
    """Names of the encoder's weights that would cost vectors too much in int8, as the graph knows them; the table is among them where no
    decoder shares it."""
    encoder = copy.deepcopy(model if isinstance(model, Encoder) else model.model)
    assert isinstance(encoder, Encoder)
    layers = choose_layers(encoder, sample(tokenizer), RoundedLinear)
    shared = isinstance(model, MaskedLM) and model.config.tie_word_embeddings
    return frozenset(f"model.{layer.name}.weight" for layer in layers if not layer.int8) | (set() if shared else {TABLE})


def _rounded(x_XI: Float[Tensor, "X I"]) -> Float[Tensor, "X I"]:
    levels_XI, scale_X = quantize_rows(x_XI)
    return torch.mul(levels_XI, scale_X[:, None])
