"""A model with int8 weights: the encoder's Linear layers multiply in int8; embeddings are looked up as bfloat16, or as int8 rows where a
decoder shares them.

    float model ─→ some texts through it ─→ each layer's error in int8 ─→ the worst stay in float, until vectors are near enough

(`embed.quantize` is another thing: it makes vectors smaller, not the model.)

B texts · T tokens · I inputs · O outputs · V vocabulary · D hidden.
"""

import bisect
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from modernbert.batch import Batch, pack
from modernbert.engine.mapped import page_out
from modernbert.engine.measured import one_thread
from modernbert.engine.quantized_choice import LayerError, choice_file, read_choice, write_choice
from modernbert.kernels import native
from modernbert.kernels.linear_int8 import linear_int8, pack_weight, quantize_rows, weight_levels
from modernbert.model.attention import Attention
from modernbert.model.encoder import MLP, Encoder
from modernbert.model.heads import MaskedLM, pool
from modernbert.text.tokenizer import Tokenizer

BOUND = 0.015
"""Layers that err by more (`LayerError.error`) stay in float whatever becomes of vectors. Without outliers they err by 0.001 to 0.002,
those of `tiny` by 0.011 at most."""

NEAR = 0.9987
"""Cosine between float and int8 vectors, in the median of the texts, until which the worst layers are taken out of int8. The least of 3,372
other texts' vectors by `tiny-embed` is then 0.9957 (bench/results/int8_2026-11-27.md)."""

SAMPLE = (
    "def mean(values):\n    return sum(values) / len(values)",
    "Straße, 東京: $1,250.00!",
    "no",
    "A ghastly, lugubrious sequel.",
    "Haven't you ever tasted rhubarb crumble?",
    "Why does my sourdough collapse?",
    "Gillian's skateboard clatters down the stairwell",
    "how to revert a merge in git",
    "Statins lowered cardiovascular mortality in diabetic patients.",
    "Porcupines climb trees; otters don't.",
    "vintage typewriter ribbons, unused",
    "The stubborn old bassoonist finally smiled.",
    "SELECT name FROM users WHERE age > 21;",
    "Neither witty nor plausible, it drags.",
    "interest rates rose again on Thursday",
)
"""What the layers are tried on: prose, code, numbers, capitals, other scripts, and short texts of rare words, whose vectors err most."""


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


class Bf16Embedding(nn.Module):
    """Embeddings in bfloat16, for models without a decoder: where a file has them so, they stay in it, and a look-up reads its rows alone.
    Int8 rows cost vectors of `tiny-embed` half as much as all of its layers that stay in int8."""

    def __init__(self, weight_VD: Float[Tensor, "V D"]) -> None:
        super().__init__()
        self.weight_VD = weight_VD.detach().bfloat16()

    def forward(self, ids_T: Int[Tensor, "T"]) -> Float[Tensor, "T D"]:
        return self.weight_VD[ids_T].float()


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


def quantize_model(
    model: nn.Module, batch: Batch, bound: float = BOUND, near: float = NEAR, *, remember: bool = False
) -> list[LayerError]:
    """Makes a model int8 in place, but for layers that would cost too much; everything else becomes float32.

    Args:
        model: in eval mode on the CPU, in any float dtype. Weights that are mapped from a file stay there, and memory never holds more
            than one layer of them as float32.
        batch: texts that the layers are tried on.
        bound, near: as for `choose_layers`.
        remember: take what was chosen before for the same weights on this machine, else keep it (`engine.quantized_choice`).

    Returns:
        Each Linear of the encoder with its error, in their order.
    """
    encoder = model if isinstance(model, Encoder) else model.model
    assert isinstance(encoder, Encoder)
    encoder.compute_dtype = torch.float32
    weights = {name: module.weight for name, module in encoder.named_modules() if isinstance(module, nn.Linear)}
    path = choice_file(encoder, batch, bound, near, weight_levels(), sorted(map(str, native.kinds()))) if remember else None
    layers = read_choice(path, list(weights)) if path else None
    with one_thread():
        if layers is None:
            layers = choose_layers(encoder, batch, Int8Linear, bound, near)
            if path:
                write_choice(path, layers)
        for name in (layer.name for layer in layers if layer.int8):
            if not isinstance(encoder.get_submodule(name), Int8Linear):  # the choice was kept
                encoder.set_submodule(name, Int8Linear(weights[name]))
            page_out(weights[name])
    table_VD = encoder.embeddings.tok_embeddings.weight
    rows: nn.Module = Bf16Embedding(table_VD)
    if isinstance(model, MaskedLM) and model.config.tie_word_embeddings:
        rows = Int8Embedding(table_VD)
        model.set_submodule("decoder", Int8Decoder(rows, model.decoder.bias))
        page_out(table_VD)
    encoder.embeddings.set_submodule("tok_embeddings", rows)
    model.float()
    return layers


Make = Callable[[Tensor], nn.Module]
"""A float weight → its Linear layer in int8."""


@torch.no_grad()
def choose_layers(encoder: Encoder, batch: Batch, make: Make, bound: float = BOUND, near: float = NEAR) -> list[LayerError]:
    """Puts int8 layers in place of the encoder's Linear layers, in place, and leaves as few in float as the two numbers allow.

    Args:
        encoder: in eval mode on the CPU.
        batch: texts that the layers are tried on.
        make: makes a layer in int8.
        bound: for `LayerError.error`.
        near: least cosine to the float means of the texts' last hidden states, in their median.

    Returns:
        Each Linear with its error, in their order.
    """
    wanted_BD = pool(encoder(batch), batch, "mean")
    tried = try_layers(encoder, batch, make)
    floats = {name: encoder.get_submodule(name) for name in tried}
    worst = sorted(tried, key=lambda name: tried[name][1], reverse=True)

    def leave(count: int) -> None:
        for i, name in enumerate(worst):
            encoder.set_submodule(name, floats[name] if i < count else tried[name][0])

    def is_near(count: int) -> bool:
        leave(count)
        return torch.cosine_similarity(pool(encoder(batch), batch, "mean"), wanted_BD).median().item() >= near

    bad = sum(not error <= bound for _, error in tried.values())
    count = bad if is_near(bad) else bisect.bisect_left(range(len(worst)), True, lo=bad + 1, key=is_near)
    leave(count)
    return [LayerError(name=name, error=error, int8=name not in worst[:count]) for name, (_, error) in tried.items()]


@torch.no_grad()
def try_layers(encoder: Encoder, batch: Batch, make: Make) -> dict[str, tuple[nn.Module, float]]:
    """Each Linear of the encoder in int8 with its `LayerError.error`, on the inputs that the batch gives it in float."""
    tried: dict[str, tuple[nn.Module, float]] = {}

    def trial(at: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def hook(block: nn.Module, inputs: tuple[Any, ...], y_TD: Tensor) -> None:
            apart = torch.dist(y_TD, y_TD.mean(0)) / len(y_TD) ** 0.5
            for name, linear in list(block.named_children()):
                if isinstance(linear, nn.Linear):
                    made = make(linear.weight)
                    block.set_submodule(name, made)
                    moved_BD = pool(block.forward(*inputs) - y_TD, batch, "mean")
                    block.set_submodule(name, linear)
                    tried[f"{at}.{name}"] = made, (moved_BD.norm() / len(moved_BD) ** 0.5 / apart).item()

        return hook

    blocks = {
        name: module for name, module in encoder.layers.named_modules(prefix="layers") if isinstance(module, Attention | MLP)
    }
    hooks = [block.register_forward_hook(trial(name)) for name, block in blocks.items()]
    encoder(batch)
    for handle in hooks:
        handle.remove()
    return tried
