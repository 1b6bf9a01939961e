"""The Hugging Face folder both ways: config.json and safetensors, in one file or in shards.

Keys are the published ones (facts §1.5). A bare encoder is saved without the `model.` prefix, as `ModernBertModel` is.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from modernbert.checkpoint.atomic import staged
from modernbert.checkpoint.float8 import FLOAT8, to_float8
from modernbert.checkpoint.int8 import INT8
from modernbert.checkpoint.names import resolve
from modernbert.checkpoint.settings import CONFIG, read_config, read_pooling
from modernbert.checkpoint.weights import (
    INDEX,
    SHARDS,
    WEIGHTS,
    few,
    read_weights,
    shape,
    weight_names,
    write_int8,
    write_json,
    write_weights,
)
from modernbert.config import ModelConfig
from modernbert.errors import CheckpointError
from modernbert.model.encoder import Encoder
from modernbert.model.heads import (
    Embedder,
    LateInteraction,
    MaskedLM,
    MultipleChoice,
    QuestionAnswerer,
    SequenceClassifier,
    TokenClassifier,
)
from modernbert.model.init import init_weights

ARCHITECTURES: dict[type[nn.Module], str] = {
    Encoder: "ModernBertModel",
    Embedder: "ModernBertModel",
    MaskedLM: "ModernBertForMaskedLM",
    SequenceClassifier: "ModernBertForSequenceClassification",
    TokenClassifier: "ModernBertForTokenClassification",
    QuestionAnswerer: "ModernBertForQuestionAnswering",
    MultipleChoice: "ModernBertForMultipleChoice",
    LateInteraction: "ModernBertForLateInteraction",  # ours alone; read with `load_model`
}
"""What `architectures` in config.json calls each class."""

_TASK_PARTS = ("head.", "decoder.", "classifier.", "linear.")

M = TypeVar("M", bound=nn.Module)


@runtime_checkable
class Saves(Protocol):
    """Whatever writes its own files beside the weights: a tokenizer."""

    def save(self, folder: Path) -> None: ...


def class_of(folder: Path) -> type[nn.Module]:
    """The class that config.json names under `architectures`; a masked language model, or a bare encoder, where it names none.

    Raises:
        CheckpointError: it names another.
    """
    named = read_config(folder).extra.get("architectures") or []
    masked_lm = ARCHITECTURES[MaskedLM]
    if not named or named[0] in (masked_lm, ARCHITECTURES[Encoder]):
        # encoders that were trained further often keep the name of what they came from
        return MaskedLM if named[:1] != [ARCHITECTURES[Encoder]] and "decoder.bias" in weight_names(folder) else Encoder
    for cls, name in ARCHITECTURES.items():
        if name == named[0]:
            return cls
    known = ", ".join(dict.fromkeys(ARCHITECTURES.values()))
    raise CheckpointError(f"{folder}: config.json names the architecture {named[0]}; wanted one of {known}")


def load_model(
    cls: type[M],
    name_or_folder: str | Path | None = None,
    *,
    config: ModelConfig | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    fresh: tuple[str, ...] = (),
    seed: int = 0,
) -> M:
    """Builds a model and gives it a folder's weights, without initialising them first.

    Args:
        cls: one of `ARCHITECTURES`. Encoder and Embedder take the encoder out of any checkpoint.
        name_or_folder: what `names.resolve` understands; None is the packaged default.
        config: replaces the folder's, for another number of classes or other dropouts; None reads the folder's.
        dtype: of the weights; None keeps the stored one, and is float32 where int8 or float8 is stored.
        device: None is the CPU, with weights mapped from the file.
        fresh: parts to initialise anew, such as ("classifier",) or ("head", "classifier"), whatever the folder holds
            for them. Heads that the folder has and `cls` lacks are then left out too: so fine-tuning begins.
        seed: of the fresh parts.

    Returns:
        The model, in eval mode.

    Raises:
        CheckpointError: nothing has that name, or its weights do not fit: the keys are named.
        ConfigError: its config.json is not a ModernBERT's.

    Source of the initialisation: facts §1.4 (`model/init.py`).
    """
    folder = resolve(name_or_folder)
    if config is None:
        config = read_config(folder)
        if cls is Embedder:
            config = config.with_(classifier_pooling=read_pooling(folder))
    with torch.device("meta"), _Bare():
        model = cls(config)
    fresh = tuple(f"{part.rstrip('.')}." for part in fresh)
    found = _select(read_weights(folder), model, config, fresh, folder)
    made = {name: tensor for name, tensor in model.named_parameters() if name.startswith(fresh)} if fresh else {}
    _check_fit({name: tensor for name, tensor in model.named_parameters() if name not in made}, found, cls, folder)
    stored = next(iter(found.values())).dtype
    found |= {name: torch.empty_like(tensor, dtype=stored, device="cpu") for name, tensor in made.items()}
    found = {name: tensor.to(device=device, dtype=dtype) for name, tensor in found.items()}
    model.load_state_dict(found, strict=False, assign=True)  # not strict: the tied decoder is not among them
    if isinstance(model, MaskedLM):
        model.tie_weights()
    if fresh:
        init_weights(model, config, torch.Generator(device or "cpu").manual_seed(seed), only=fresh)
    return model.eval()


def save_model(
    model: nn.Module,
    config: ModelConfig,
    folder: str | Path,
    *,
    tokenizer: Saves | None = None,
    max_shard_bytes: int = 5_000_000_000,
    dtype: torch.dtype | None = None,
) -> None:
    """Writes a folder that `load_model` and transformers' `from_pretrained` read; a file appears whole or not at all.

    Args:
        model: an instance of one of `ARCHITECTURES`.
        config: the model's.
        folder: made if need be; other files in it stay.
        tokenizer: written beside the weights.
        max_shard_bytes: weights beyond this are cut into shards with an index.
        dtype: of the written weights; None keeps the model's. `torch.int8` writes one file of a quarter of the size, which `load_model`
            makes into floats again, and which no other library reads (`checkpoint/int8.py`); `torch.float8_e4m3fn` one of the same
            size that transformers reads too (`checkpoint/float8.py`).
    """
    assert type(model) in ARCHITECTURES, f"unwrap the model first: {type(model).__name__} is not one of ours"
    folder = Path(folder)
    architecture = ARCHITECTURES[type(model)]
    as_int8, as_float8 = dtype == torch.int8, dtype == FLOAT8
    cast = None if as_int8 or as_float8 else dtype
    tensors = {k: v.detach().to(device="cpu", dtype=cast).contiguous() for k, v in model.state_dict().items()}
    if config.tie_word_embeddings:
        tensors.pop("decoder.weight", None)
    if architecture == "ModernBertModel":
        tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    if as_float8:
        tensors, dtype = to_float8(tensors), torch.float32  # what others shall load it in
    written = config_json(type(model), config, dtype or next(iter(tensors.values())).dtype)
    with staged(folder) as stage:
        write_json(stage / CONFIG, written)
        names = write_int8(stage, tensors) if as_int8 else write_weights(stage, tensors, max_shard_bytes)
        if tokenizer is not None:
            tokenizer.save(stage)
    for stale in (*folder.glob(SHARDS), folder / WEIGHTS, folder / INDEX, folder / INT8):
        if stale.name not in names:
            stale.unlink(missing_ok=True)


def config_json(cls: type[nn.Module], config: ModelConfig, dtype: torch.dtype) -> dict[str, Any]:
    """The contents of the config.json of a model of that class, with what other readers ask of it."""
    if cls is QuestionAnswerer:
        config = config.with_(num_labels=2)  # start and end; transformers sizes its classifier by this
    architecture, stored = ARCHITECTURES[cls], str(dtype).removeprefix("torch.")
    written = {**config.to_json(), "architectures": [architecture], "dtype": stored, "torch_dtype": stored}
    written["num_labels"] = config.num_labels  # TEI counts by this key alone, others by id2label
    if architecture.endswith("Classification"):  # TEI starts no classifier without both of these
        written["id2label"] = written.get("id2label") or {str(i): f"LABEL_{i}" for i in range(config.num_labels)}
        written["label2id"] = written.get("label2id") or {name: int(i) for i, name in written["id2label"].items()}
    return written


class _Bare(TorchFunctionMode):
    """Modules are built without their initial weights. On the meta device these cost nothing to draw, yet PyTorch imports its compiler
    for it: 2.5 of the 2.6 s that loading took."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _select(
    found: dict[str, Tensor], model: nn.Module, config: ModelConfig, fresh: tuple[str, ...], folder: Path
) -> dict[str, Tensor]:
    """The tensors that concern the model, under its own names."""
    if ARCHITECTURES[type(model)] == "ModernBertModel":
        found = {name: tensor for name, tensor in found.items() if not name.startswith(_TASK_PARTS)}
    if isinstance(model, Encoder):
        found = {name.removeprefix("model."): tensor for name, tensor in found.items()}
    if config.tie_word_embeddings and "decoder.weight" in found:
        embeddings = found.get("model.embeddings.tok_embeddings.weight")
        if embeddings is not None and not torch.equal(found["decoder.weight"], embeddings):
            raise CheckpointError(
                f"{folder}: config.json ties decoder.weight to the embeddings, yet both are stored and differ; "
                "set tie_word_embeddings to false in it if the decoder was trained on its own"
            )
        del found["decoder.weight"]
    if not fresh:
        return found
    foreign = tuple(part for part in _TASK_PARTS if not hasattr(model, part.rstrip(".")))
    return {name: tensor for name, tensor in found.items() if not name.startswith(fresh + foreign)}


def _check_fit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], cls: type[nn.Module], folder: Path) -> None:
    missing = [f"{name} {shape(tensor)}" for name, tensor in wanted.items() if name not in found]
    extra = [f"{name} {shape(tensor)}" for name, tensor in found.items() if name not in wanted]
    wrong = [
        f"{name}: wanted {shape(tensor)}, found {shape(found[name])}"
        for name, tensor in wanted.items()
        if name in found and (found[name].shape != tensor.shape or not found[name].is_floating_point())
    ]
    faults = [
        f"{kind} {few(names)}" for kind, names in (("missing", missing), ("unexpected", extra), ("misshapen", wrong)) if names
    ]
    if not faults:
        return
    parts = {part.rstrip(".") for part in _TASK_PARTS if any(line.startswith(part) for line in missing + wrong)}
    if parts and all(line.startswith(_TASK_PARTS) for line in missing + extra + wrong):
        advice = f"to start a new task from it, pass fresh={tuple(sorted(parts, reverse=True))!r}: they are initialised anew"
    elif all(line.startswith(_TASK_PARTS) for line in extra) and not missing and not wrong:
        advice = "the folder holds another head: load it with the class that its config.json names under architectures"
    else:
        advice = "its config.json and its weights disagree, or it is another architecture: fetch both again from one place"
    raise CheckpointError(
        f"the weights in {folder} do not fit {cls.__name__}: {'; '.join(faults)}. {advice[0].upper()}{advice[1:]}"
    )
