"""A model with int8 weights: the encoder's Linear layers multiply in int8, embeddings are looked up as int8 rows.

    float model ─→ some text through it, layer by layer ─→ int8 where its output stays near the float one, float32 elsewhere

(`embed.quantize` is another thing: it makes vectors smaller, not the model.)

T tokens · I inputs · O outputs · V vocabulary · D hidden.
"""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from modernbert.batch import Batch, pack
from modernbert.kernels import native
from modernbert.kernels.linear_int8 import linear_int8, pack_weight, quantize_rows, weight_levels
from modernbert.model.encoder import Encoder
from modernbert.model.heads import MaskedLM
from modernbert.text.tokenizer import Tokenizer

BOUND = 0.05
"""Layers that err by more (`LayerError.error`) stay in float32. Weights and activations without outliers err by 0.01 to 0.02. In a random
model of seven layers whose every layer errs by 0.02, vectors keep a cosine of 0.9994 to the float ones; at 0.06 0.996, at 0.15 0.96."""

SAMPLE = (
    "The river froze early that year, and by December people walked across it to the market on the other side.",
    "def mean(values: list[float]) -> float:\n    return sum(values) / len(values)  # fails on an empty list\n",
    "On 3 May 1998, flight BA-117 left at 06:45 with 212 passengers; tickets cost $1,250.00 (see https://example.org/x?id=7).",
    "WARNING!!! Do NOT open. — “Why?” she asked… naïve café, Straße, 東京, Привет, عربى 🙂",
    "Photosynthesis converts light energy into chemical energy; its overall equation is 6CO2 + 6H2O → C6H12O6 + 6O2.",
    "no",
)
"""What the layers are tried on: prose, code, numbers, capitals, other scripts, and almost nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerError:
    """How a Linear layer takes int8."""

    name: str
    """As `layers.3.mlp.Wo`."""
    error: float
    """‖int8 − float‖ ÷ ‖float − its mean over tokens‖: what int8 adds, as a share of what tells tokens apart. A large part that is the
    same for every token, as outlier channels make, says nothing and would hide the error of the rest."""
    int8: bool
    """Whether it runs in int8."""


class Int8Linear(nn.Module):
    """A Linear layer without bias, for inference on the CPU."""

    def __init__(self, weight_OI: Float[Tensor, "O I"]) -> None:
        super().__init__()
        levels = weight_levels()
        assert levels is not None, "ask hardware.int8_speedup first"
        self.native: native.Packed | None = None
        if torch.int8 in native.kinds() and native.fits(*weight_OI.shape):
            self.native = native.pack(*quantize_rows(weight_OI.detach(), native.levels()))
        else:
            weight_int8_OI, self.scale_O = quantize_rows(weight_OI.detach(), levels)
            self.packed = pack_weight(weight_int8_OI)

    def forward(self, x_TI: Float[Tensor, "T I"]) -> Float[Tensor, "T O"]:
        if self.native is None:
            return linear_int8(x_TI, self.packed, self.scale_O)
        y_TO = torch.empty(len(x_TI), self.native.outputs)
        native.product(native.rows(x_TI.float().contiguous(), torch.int8), self.native, y_TO)
        return y_TO.to(x_TI.dtype)


class Int8Embedding(nn.Module):
    """Embeddings as int8 rows; the decoder of a masked language model reads the same ones."""

    def __init__(self, weight_VD: Float[Tensor, "V D"]) -> None:
        super().__init__()
        # In parts: the floats of all rows would be the peak of memory.
        parts = [quantize_rows(part_VD) for part_VD in weight_VD.detach().split(4096)]
        self.weight_VD, self.scale_V = (torch.cat(tensors) for tensors in zip(*parts, strict=True))

    def forward(self, ids_T: Int[Tensor, "T"]) -> Float[Tensor, "T D"]:
        return self.weight_VD[ids_T] * self.scale_V[ids_T, None]


class Int8Decoder(nn.Module):
    """Scores over the vocabulary from an `Int8Embedding`. Its input stays float: words are decided by small differences."""

    chunk = 512
    """Rows that become float at a time: they stay in the cache, so that it takes as long as float weights would."""

    def __init__(self, rows: Int8Embedding, bias_V: Float[Tensor, "V"]) -> None:
        super().__init__()
        self.rows, self.bias_V = rows, bias_V.detach().float()

    def forward(self, x_MD: Float[Tensor, "M D"]) -> Float[Tensor, "M V"]:
        x_MD = x_MD.float()
        scores = [F.linear(x_MD, weight_VD.float()) for weight_VD in self.rows.weight_VD.split(self.chunk)]
        return torch.cat(scores, dim=1).mul_(self.rows.scale_V).add_(self.bias_V)


def sample(tokenizer: Tokenizer) -> Batch:
    """`SAMPLE` as a batch: some 200 tokens."""
    return pack(tokenizer.encode(list(SAMPLE)))


def quantize_model(model: nn.Module, batch: Batch, bound: float = BOUND) -> list[LayerError]:
    """Makes a model int8 in place, layer by layer where that is exact enough; everything else becomes float32.

    Args:
        model: in eval mode on the CPU, in any float dtype. Weights that are mapped from a file stay there, and memory never holds more
            than one layer of them as float32.
        batch: tokens that the layers are tried on.
        bound: for `LayerError.error`.

    Returns:
        Each Linear of the encoder with its error, in their order.
    """
    encoder = model if isinstance(model, Encoder) else model.model
    assert isinstance(encoder, Encoder)
    encoder.compute_dtype = torch.float32
    tried = try_layers(encoder, batch)
    for name, (made, error) in tried.items():
        if error <= bound:
            encoder.set_submodule(name, made)
    rows = Int8Embedding(encoder.embeddings.tok_embeddings.weight)
    if isinstance(model, MaskedLM) and model.config.tie_word_embeddings:
        model.set_submodule("decoder", Int8Decoder(rows, model.decoder.bias))
    encoder.embeddings.set_submodule("tok_embeddings", rows)
    model.float()
    return [LayerError(name=name, error=error, int8=error <= bound) for name, (_, error) in tried.items()]


def try_layers(encoder: Encoder, batch: Batch) -> dict[str, tuple[Int8Linear, float]]:
    """Each Linear of the encoder in int8 with its `LayerError.error`, on the inputs that the batch gives it in float32."""
    tried: dict[str, tuple[Int8Linear, float]] = {}

    def trial(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def hook(linear: nn.Module, inputs: tuple[Tensor], y_TO: Tensor) -> None:
            assert isinstance(linear, nn.Linear)
            made = Int8Linear(linear.weight)
            tried[name] = made, (torch.dist(made(*inputs), y_TO) / torch.dist(y_TO, y_TO.mean(0))).item()

        return hook

    linears = {name: module for name, module in encoder.layers.named_modules(prefix="layers") if isinstance(module, nn.Linear)}
    hooks = [linear.register_forward_hook(trial(name)) for name, linear in linears.items()]
    with torch.no_grad():
        encoder(batch)
    for handle in hooks:
        handle.remove()
    return tried
