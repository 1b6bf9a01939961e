"""What int8 costs a model in accuracy, on texts of your own: layer by layer, token by token, text by text.

B texts · D width of a vector.
"""

import bisect
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modernbert.batch import Batch, pack
from modernbert.checkpoint.folder import class_of, load_model
from modernbert.checkpoint.names import resolve
from modernbert.engine.engine import tokenizer_of
from modernbert.engine.quantized import Int8Linear, quantize_model, sample, try_layers
from modernbert.engine.quantized_choice import LayerError
from modernbert.engine.runner import Runner
from modernbert.errors import HardwareError, TextError
from modernbert.kernels.linear_int8 import weight_levels
from modernbert.model.encoder import Encoder
from modernbert.model.heads import pool

TRIED = 4096
"""Layers are tried on the first texts that have so many tokens together; cosines are of all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Int8Report:
    """What `int8_report` found."""

    layers: list[LayerError]
    """Errors on the texts; whether a layer runs in int8 is what `load` decides, on its own sample."""
    texts: np.ndarray
    """[B], cosine between the float and the int8 mean of each text's (or piece's) last hidden states."""
    tokens: np.ndarray
    """[tokens], cosine between the last hidden states themselves."""
    levels: int
    """Highest level of the weights on this chip: 127, or 64."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "levels": self.levels,
            "texts": _summary(self.texts),
            "tokens": _summary(self.tokens),
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
        }

    def to_markdown(self) -> str:
        """Two tables for people: cosines, and the error of each kind of layer with those that stay in float."""
        lines = ["| cosine to float32 | n | least | 1 % | median |", "| --- | ---: | ---: | ---: | ---: |"]
        for name, cosines in (("of texts", self.texts), ("of tokens", self.tokens)):
            s = _summary(cosines)
            lines.append(f"| {name} | {s['n']:,} | {s['min']:.5f} | {s['percentile_1']:.5f} | {s['median']:.5f} |")
        lines += ["", "| layers | in int8 | median error | greatest | in float32 |", "| --- | ---: | ---: | ---: | --- |"]
        for kind in ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"):
            found = [layer for layer in self.layers if layer.name.endswith(kind)]
            errors = [layer.error for layer in found]
            floats = ", ".join(f"{layer.name.split('.')[1]} ({layer.error:.3f})" for layer in found if not layer.int8)
            in_int8 = f"{sum(layer.int8 for layer in found)} of {len(found)}"
            lines.append(f"| {kind} | {in_int8} | {np.median(errors):.3f} | {max(errors):.3f} | {floats or '–'} |")
        return "\n".join(lines)


def int8_report(name_or_folder: str | Path | None, texts: Sequence[str]) -> Int8Report:
    """Runs texts through a model in float32 and as `load(..., dtype="int8")` makes it.

    Args:
        name_or_folder: as `load`.
        texts: what the model shall be judged on, one at least; longer ones than it reads are judged in pieces.

    Raises:
        CheckpointError, ConfigError, TextError, TokenizerError: as `load` and `embed`; TextError, too, where there is no text.
        HardwareError: this PyTorch has no exact int8 product for this chip.
    """
    if not texts:
        raise TextError("no text to judge the model on; give one or more")
    levels = weight_levels()
    if levels is None:
        raise HardwareError("this PyTorch has no exact int8 product for this CPU; ask where it has, on x86 with oneDNN")
    folder = resolve(name_or_folder)
    tokenizer = tokenizer_of(folder)
    plain = Runner(load_model(Encoder, folder, device="cpu", dtype=torch.float32), tokenizer)
    whole = tokenizer.encode(list(texts))
    rows = [row[begin : begin + plain.limit] for row in whole for begin in range(0, len(row), plain.limit)]
    small = Runner(load_model(class_of(folder), folder), tokenizer)
    chosen = {layer.name: layer.int8 for layer in quantize_model(small.model, sample(tokenizer))}
    fits = bisect.bisect(list(itertools.accumulate(map(len, rows))), TRIED) or 1
    tried = try_layers(plain.encoder, pack(rows[:fits]), Int8Linear)

    def cosines(batch: Batch) -> Tensor:
        one_TD, other_TD = plain.encoder(batch), small.encoder(batch)
        means = pool(one_TD, batch, "mean"), pool(other_TD, batch, "mean")
        return torch.cat([torch.cosine_similarity(one_TD, other_TD), torch.cosine_similarity(*means)])

    found = [(len(group), cosines_X.numpy()) for group, _, cosines_X in plain.each(rows, cosines, "eval int8")]
    return Int8Report(
        layers=[LayerError(name=name, error=error, int8=chosen[name]) for name, (_, error) in tried.items()],
        texts=np.concatenate([cosines_X[-texts:] for texts, cosines_X in found]),
        tokens=np.concatenate([cosines_X[:-texts] for texts, cosines_X in found]),
        levels=levels,
    )


def _summary(cosines: np.ndarray) -> dict[str, Any]:
    least, low, median = np.percentile(cosines, [0, 1, 50]).tolist()
    return {"n": len(cosines), "min": least, "percentile_1": low, "median": median}
