"""A graph without weights beside a folder's `model.safetensors`: the model runs without torch, for a hundredth of its size on disk.

config.json  model.safetensors  tokenizer.json …      a folder of any model
graph.onnx                                            what `write_beside` adds; `modernbert.runtime` and the verbs find it
"""

import dataclasses
import json
import shutil
from pathlib import Path

import torch

from modernbert.checkpoint.atomic import staged
from modernbert.checkpoint.folder import class_of, load_model
from modernbert.checkpoint.modules import Modules, read_modules
from modernbert.checkpoint.settings import read_pooling
from modernbert.errors import ExportError
from modernbert.export.check import Agreement, compare
from modernbert.export.graph import FORMS, Place, PlacedGraph
from modernbert.export.heads import write_graph
from modernbert.model.encoder import Encoder
from modernbert.model.heads import Embedder, LateInteraction
from modernbert.runtime.session import BESIDE

WEIGHTS = "model.safetensors"


def write_beside(folder: str | Path) -> list[Agreement]:
    """Adds `graph.onnx` to a model's folder, with vectors of texts beside what its head gives; compared with the model before it appears.

    Args:
        folder: with its weights in one `model.safetensors`, in a float type.

    Returns:
        How close the head's output comes, then the vectors.

    Raises:
        CheckpointError, ConfigError: the folder is foreign or damaged.
        ExportError: it has no such file, it holds other types, or the graph's numbers are off.
    """
    folder = Path(folder)
    places = _places(folder / WEIGHTS)
    cls = class_of(folder)
    modules = read_modules(folder) or Modules(pooling=read_pooling(folder))
    model = load_model(cls, folder, dtype=torch.float32)
    with staged(folder) as stage:
        file = stage / "look" / BESIDE  # apart: ONNX Runtime reads weights from the graph's own folder alone
        file.parent.mkdir()
        shutil.copyfile(folder / WEIGHTS, file.parent / WEIGHTS)
        write_graph(model, modules, FORMS["fp32"], file, places, WEIGHTS)
        found = [compare(model, modules, FORMS["fp32"], file)]
        if cls not in (Encoder, Embedder, LateInteraction):
            found.append(compare(load_model(Embedder, folder, dtype=torch.float32), modules, FORMS["fp32"], file))
        size = file.stat().st_size / 1e6
        file.rename(stage / BESIDE)
        shutil.rmtree(file.parent)
    return [dataclasses.replace(one, megabytes=size) for one in found]


def _places(file: Path) -> dict[str, Place]:
    """Where each tensor lies in a safetensors file: 8 bytes with the length of a JSON header, the header, the numbers.

    Raises:
        ExportError: there is no such file, or it holds types that the graph cannot read.
    """
    if not file.is_file():
        raise ExportError(
            f"no {file}; a graph beside the weights needs them in that one file: save the model with save_model first"
        )
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
    header.pop("__metadata__", None)
    begin = 8 + size
    for name, entry in header.items():
        if entry["dtype"] not in PlacedGraph.types:
            raise ExportError(f"{file}: {name} is {entry['dtype']}; wanted one of {', '.join(PlacedGraph.types)}")
    return {
        name: (
            entry["dtype"],
            entry["shape"],
            begin + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in header.items()
    }
