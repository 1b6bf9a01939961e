"""A model's folder as ONNX files, in the layout that transformers.js, TEI and sentence-transformers read:

config.json  tokenizer.json  tokenizer_config.json  special_tokens_map.json
onnx/        model.onnx  model_fp16.onnx  model_quantized.onnx  model_q4.onnx  model_q4f16.onnx
modules.json, 1_Pooling/ …   of a model that embeds
"""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from modernbert.checkpoint.atomic import staged
from modernbert.checkpoint.folder import class_of, config_json, load_model
from modernbert.checkpoint.modules import Modules, read_modules, write_modules
from modernbert.checkpoint.names import resolve
from modernbert.checkpoint.settings import CONFIG, LENGTHS, MODULES, SETTINGS, read_pooling
from modernbert.checkpoint.weights import write_json
from modernbert.config import ModelConfig
from modernbert.engine.engine import tokenizer_of
from modernbert.errors import ConfigError
from modernbert.export.check import Agreement, compare
from modernbert.export.graph import FORMS
from modernbert.export.heads import write_graph
from modernbert.export.int8_choice import float_weights
from modernbert.model.encoder import Encoder
from modernbert.model.heads import Embedder

ONNX = "onnx"


def export(
    name_or_folder: str | Path | None, out: str | Path, *, embedding: bool = False, forms: Sequence[str] = tuple(FORMS)
) -> list[Agreement]:
    """Writes a model as ONNX files and compares each with the model; a file appears only where it agrees.

    Args:
        name_or_folder: what `checkpoint.names.resolve` understands; None is our own model.
        out: the folder, made if need be; other files in it stay.
        embedding: write the encoder and its pooling, whatever head the folder holds.
        forms: names in `graph.FORMS`.

    Returns:
        How close each file comes, in the order of `forms`.

    Raises:
        CheckpointError, ConfigError, TokenizerError: nothing has that name, or what it holds is foreign or damaged.
        ExportError: a file's numbers are off.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    unknown = [form for form in forms if form not in FORMS]
    if unknown or not forms:
        raise ConfigError(f"no form named {', '.join(map(repr, unknown))}; there are {', '.join(FORMS)}")
    folder, out = resolve(name_or_folder), Path(out)
    cls = Embedder if embedding else class_of(folder)
    model = load_model(cls, folder, dtype=torch.float32)
    config, tokenizer = model.config, tokenizer_of(folder)
    assert isinstance(config, ModelConfig)
    modules = read_modules(folder) or Modules(pooling=read_pooling(folder))
    with staged(out / ONNX) as stage:
        found = []
        for name in forms:
            form = FORMS[name]
            if form.products == "int8":
                form = dataclasses.replace(form, floats=float_weights(model, tokenizer))
            write_graph(model, modules, form, stage / form.file)
            found.append(compare(model, modules, form, stage / form.file))
    with staged(out) as stage:
        write_json(stage / CONFIG, config_json(cls, config, torch.float32))
        tokenizer.save(stage)
    if (folder / MODULES).exists():
        _copy_modules(folder, out)
    elif issubclass(cls, Encoder | Embedder):
        write_modules(out, config, modules)
    return found


def _copy_modules(folder: Path, out: Path) -> None:
    """What sentence-transformers and PyLate read beside the graph."""
    for name in (MODULES, SETTINGS, LENGTHS):
        if (folder / name).exists():
            shutil.copyfile(folder / name, out / name)
    for path in folder.glob("?_*/"):
        shutil.copytree(path, out / path.name, dirs_exist_ok=True)
