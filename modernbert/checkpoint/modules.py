"""What a sentence-transformers, CrossEncoder or PyLate folder says beyond the encoder: pooling, Dense layers, prompts, lengths.

Both dialects are read. The older is written, because every reader knows it: TEI, vLLM, llama.cpp, PyLate and all releases of
sentence-transformers (facts for serving, §6.4). Each writer makes the whole folder, weights and all.

X vectors or tokens · E features in · O features out.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from modernbert.checkpoint.folder import Saves, load_model, save_model
from modernbert.checkpoint.settings import (
    CONFIG,
    LENGTHS,
    MODULES,
    SETTINGS,
    module_entries,
    read_config,
    read_json,
    read_vector_settings,
)
from modernbert.checkpoint.weights import WEIGHTS, read_weights, shape, write_json
from modernbert.config import ModelConfig, Pooling
from modernbert.errors import CheckpointError
from modernbert.model.encoder import Encoder
from modernbert.model.heads import Embedder, LateInteraction, SequenceClassifier
from modernbert.vectors import LateSettings, VectorSettings

Activation = Literal["identity", "tanh", "relu", "gelu", "sigmoid"]

_CLASSES: dict[Activation, str] = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
    "relu": "torch.nn.modules.activation.ReLU",
    "gelu": "torch.nn.modules.activation.GELU",
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
}
_FUNCTIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "relu": F.relu,
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
}
_POOLING_FLAGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
_FLAG_OF: dict[Pooling, str] = {"cls": "cls_token", "mean": "mean_tokens"}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dense:
    """A linear layer behind the encoder: activation(x · weightᵀ + bias), and x, or its projection, added where it is residual."""

    weight_OE: Float[Tensor, "O E"]
    bias_O: Float[Tensor, "O"] | None = None
    activation: Activation = "identity"
    residual: bool = False
    residual_OE: Float[Tensor, "O E"] | None = None
    """Projects x where `residual` and O differs from E."""

    def __call__(self, x_XE: Float[Tensor, "X E"]) -> Float[Tensor, "X O"]:
        """The layer's output, on the device and in the dtype of its input."""
        bias_O = None if self.bias_O is None else self.bias_O.to(x_XE)
        x_XO = _FUNCTIONS[self.activation](F.linear(x_XE, self.weight_OE.to(x_XE), bias_O))
        if not self.residual:
            return x_XO
        return x_XO + (x_XE if self.residual_OE is None else F.linear(x_XE, self.residual_OE.to(x_XE)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Modules(VectorSettings):
    """What comes after the encoder, in this order: pooling, Dense layers, normalisation."""

    dense: tuple[Dense, ...] = ()


def read_modules(folder: str | Path) -> Modules | None:
    """Reads what a sentence-transformers or PyLate folder says, in either dialect.

    Returns:
        None where there is no modules.json: a plain model folder.

    Raises:
        CheckpointError: a file is missing or damaged, or asks for what is not implemented; it is named.
    """
    folder = Path(folder)
    settings = read_vector_settings(folder)
    if settings is None:
        return None
    dense = tuple(_read_dense(path) for kind, path in module_entries(folder) if kind == "Dense")
    return Modules(**vars(settings), dense=dense)


def save_sentence_transformer(
    model: Embedder, config: ModelConfig, folder: str | Path, modules: Modules, *, tokenizer: Saves | None = None
) -> None:
    """Writes a folder that `SentenceTransformer(folder)` loads, and so do TEI, vLLM and `load_model(Embedder, folder)`.

    Raises:
        CheckpointError: `modules` has no pooling, or a Dense that does not fit: say `save_late_interaction` for token vectors.
    """
    folder = Path(folder)
    if modules.pooling is None:
        raise CheckpointError("a sentence-transformers folder pools, cls or mean; save_late_interaction writes token vectors")
    save_model(model, config.with_(classifier_pooling=modules.pooling), folder, tokenizer=tokenizer)
    write_modules(folder, config, modules)


def write_modules(folder: Path, config: ModelConfig, modules: Modules) -> None:
    """Writes what comes after the encoder into a folder that has the encoder: pooling, Dense layers, normalisation, settings."""
    assert modules.pooling is not None, "late interaction has a dialect of its own"
    width = config.hidden_size
    entries = [("", "sentence_transformers.models.Transformer"), ("1_Pooling", "sentence_transformers.models.Pooling")]
    (folder / "1_Pooling").mkdir(exist_ok=True)
    flags = {f"pooling_mode_{flag}": flag == _FLAG_OF[modules.pooling] for flag in _POOLING_FLAGS}
    pooled = {"word_embedding_dimension": width, **flags, "include_prompt": modules.include_prompt}
    write_json(folder / "1_Pooling" / CONFIG, pooled)
    for dense in modules.dense:
        path = f"{len(entries)}_Dense"
        entries.append((path, "sentence_transformers.models.Dense"))
        width = _write_dense(dense, folder / path, width)
    if modules.normalize:
        entries.append((f"{len(entries)}_Normalize", "sentence_transformers.models.Normalize"))
        (folder / entries[-1][0]).mkdir(exist_ok=True)
    _write_settings(folder, entries, modules, config, {})


def save_late_interaction(
    model: LateInteraction, config: ModelConfig, folder: str | Path, settings: LateSettings, *, tokenizer: Saves | None = None
) -> None:
    """Writes a folder in PyLate's dialect, which PyLate and sentence-transformers' `MultiVectorEncoder` load.

    The prefixes must be tokens of the tokenizer: the readers add what they do not find, with untrained rows.
    """
    folder = Path(folder)
    encoder = model.model
    save_model(encoder, config, folder, tokenizer=tokenizer)
    _write_dense(Dense(weight_OE=model.linear.weight.detach()), folder / "1_Dense", config.hidden_size)
    write_json(folder / "1_Dense" / CONFIG, {**read_json(folder / "1_Dense" / CONFIG), "use_residual": False})
    said = dataclasses.asdict(settings)
    said["do_query_expansion"] = said.pop("query_expansion")
    modules = Modules(pooling=None, similarity="MaxSim", max_seq_length=settings.document_length - 1, late=settings)
    entries = [("", "sentence_transformers.models.Transformer"), ("1_Dense", "pylate.models.Dense.Dense")]
    _write_settings(folder, entries, modules, config, {"model_type": "ColBERT", **said})


def load_late_interaction(folder: str | Path) -> tuple[LateInteraction, LateSettings]:
    """Loads what `save_late_interaction` or PyLate wrote, to train it further; `read_modules` serves for inference.

    Raises:
        CheckpointError: the folder is another, or its projection is not a single linear layer of our width without bias.
    """
    modules = read_modules(folder)
    if modules is None or modules.late is None:
        raise CheckpointError(f"{folder} has no late-interaction modules; wanted a folder as PyLate saves it")
    config = read_config(folder)
    model = LateInteraction(config)
    fits = [
        dense.weight_OE
        for dense in modules.dense
        if dense.bias_O is None and dense.activation == "identity" and not dense.residual
    ]
    if len(fits) != 1 or len(modules.dense) != 1 or fits[0].shape != model.linear.weight.shape:
        found = ", ".join(shape(dense.weight_OE) for dense in modules.dense) or "none"
        raise CheckpointError(
            f"{folder}: wanted one Dense of {shape(model.linear.weight)}, linear and without bias; found {found}"
        )
    model.model = load_model(Encoder, folder)
    model.linear.weight = nn.Parameter(fits[0])
    return model.eval(), modules.late


def save_cross_encoder(
    model: SequenceClassifier,
    config: ModelConfig,
    folder: str | Path,
    activation: Activation = "sigmoid",
    *,
    tokenizer: Saves | None = None,
) -> None:
    """Writes a sequence-classification folder that `CrossEncoder(folder)` loads, with the activation of its scores."""
    said = {"activation_fn": _CLASSES[activation], "version": _VERSION}
    save_model(model, config.with_(extra={**config.extra, "sentence_transformers": said}), folder, tokenizer=tokenizer)


def score_activation(config: ModelConfig) -> Activation:
    """What a cross-encoder does to its logits: as its config.json says, else sigmoid for one class and nothing for several.

    >>> score_activation(ModelConfig(num_labels=1)), score_activation(ModelConfig(num_labels=3))
    ('sigmoid', 'identity')

    Raises:
        CheckpointError: an activation that is not implemented.
    """
    said = (config.extra.get("sentence_transformers") or {}).get("activation_fn")
    said = said or config.extra.get("sbert_ce_default_activation_function")  # before release 4
    return _activation(said, CONFIG) if said else ("sigmoid" if config.num_labels == 1 else "identity")


_VERSION = "3.0.0"
"""The release of sentence-transformers whose dialect is written: the first with `similarity_fn_name`."""


def _read_dense(path: Path) -> Dense:
    said, found = read_json(path / CONFIG), read_weights(path)
    residual = bool(said.get("use_residual", False))
    if "linear.weight" not in found:
        raise CheckpointError(f"{path} holds {', '.join(found)}; wanted linear.weight")
    source = said.get("module_input_name", "sentence_embedding")
    if (said.get("module_output_name") or source) != source:
        raise CheckpointError(f"{path / CONFIG}: a Dense whose input and output have different names is not implemented")
    return Dense(
        weight_OE=found["linear.weight"],
        bias_O=found.get("linear.bias"),
        activation=_activation(said.get("activation_function", _CLASSES["tanh"]), path / CONFIG),
        residual=residual,
        residual_OE=found.get("residual.weight"),
    )


def _write_dense(dense: Dense, path: Path, width: int) -> int:
    """Writes one layer; returns how many features come out."""
    out, into = dense.weight_OE.shape
    if into != width:
        raise CheckpointError(f"{path.name} takes {into} features, {width} come in; put the Dense layers in their order")
    if dense.residual:
        raise CheckpointError(f"{path.name} is residual: older readers would leave that out, so it is not written")
    path.mkdir(exist_ok=True)
    said = {
        "in_features": into,
        "out_features": out,
        "bias": dense.bias_O is not None,
        "activation_function": _CLASSES[dense.activation],
    }
    write_json(path / CONFIG, said)
    tensors = {"linear.weight": dense.weight_OE} | ({} if dense.bias_O is None else {"linear.bias": dense.bias_O})
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path / WEIGHTS, metadata={"format": "pt"})
    return out


def _write_settings(
    folder: Path, entries: list[tuple[str, str]], modules: Modules, config: ModelConfig, more: Mapping[str, Any]
) -> None:
    length = modules.max_seq_length or config.max_position_embeddings
    write_json(folder / LENGTHS, {"max_seq_length": length, "do_lower_case": False})
    said = {
        "__version__": {"sentence_transformers": _VERSION},
        "prompts": dict(modules.prompts),
        "default_prompt_name": modules.default_prompt,
        "similarity_fn_name": modules.similarity,
        **more,
    }
    write_json(folder / SETTINGS, said)
    listed = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(entries)]
    (folder / MODULES).write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")


def _activation(said: str, where: str | Path) -> Activation:
    name = said.rpartition(".")[2].lower()
    if name not in _FUNCTIONS or not said.startswith("torch.nn."):
        raise CheckpointError(f"{where} asks for the activation {said}; wanted one of {', '.join(_CLASSES.values())}")
    return next(known for known in _CLASSES if known == name)
