"""Tensors in safetensors files, whole or in shards, under the published names (facts §1.5)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from modernbert.checkpoint.float8 import from_float8
from modernbert.checkpoint.int8 import INT8, from_int8, names_from_int8, to_int8
from modernbert.checkpoint.research import is_research, published_name
from modernbert.checkpoint.settings import read_json
from modernbert.errors import CheckpointError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARDS = "model-?????-of-?????.safetensors"

_ENCODER_PARTS = ("embeddings.", "layers.", "final_norm.")


def read_weights(folder: str | Path) -> dict[str, Tensor]:
    """Reads a folder's tensors, mapped from the files rather than copied, under the published names.

    The encoder's begin with `model.`, also where the files hold a bare encoder or research names. Where they hold int8 or float8
    (`checkpoint/int8.py`, `checkpoint/float8.py`), the tensors are made from it, in float32.

    Raises:
        CheckpointError: no safetensors here, a damaged file, a missing shard, or int8 without its scales.
    """
    folder = Path(folder)
    found = _read_files(folder)
    if _is_int8(folder):
        found = from_int8(found, folder / INT8)
    names = _published(list(found))
    return {names[name]: tensor for name, tensor in from_float8(found).items()}


def weight_names(folder: str | Path) -> list[str]:
    """The names in `read_weights`, without the work of it.

    Raises:
        CheckpointError: no safetensors here, a damaged file, or a missing shard.
    """
    found = list(_read_files(Path(folder)))
    return list(_published(names_from_int8(found) if _is_int8(Path(folder)) else found).values())


def write_weights(folder: Path, tensors: dict[str, Tensor], max_bytes: int) -> list[str]:
    """Writes the weights in one file, or in shards with an index; returns the names of the files."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > max_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    names = (
        [WEIGHTS] if len(shards) == 1 else [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    )
    for name, shard in zip(names, shards, strict=True):
        write_tensors(folder / name, shard)
    if len(shards) == 1:
        return names
    total = {"total_size": sum(tensor.nbytes for tensor in tensors.values())}
    weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
    write_json(folder / INDEX, {"metadata": total, "weight_map": weight_map})
    return [*names, INDEX]


def write_int8(folder: Path, tensors: Mapping[str, Tensor]) -> list[str]:
    """Writes the weights in a byte each, always in one file; returns its name."""
    write_tensors(folder / INT8, to_int8(tensors))
    return [INT8]


def write_tensors(file: Path, tensors: dict[str, Tensor]) -> None:
    """Writes one safetensors file.

    Raises:
        CheckpointError: the disk is full, or refuses otherwise.
    """
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        raise CheckpointError(
            f"cannot write {file.name} into {file.parent.parent} ({error}); make room, and give the same command again"
        ) from error


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object for people to read too."""
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def shape(tensor: Tensor) -> str:
    """Spells a shape, with the dtype where that is not a float.

    >>> import torch
    >>> shape(torch.empty(3, 4)), shape(torch.zeros(2, dtype=torch.int8))
    ('(3, 4)', '(2) int8')
    """
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"({', '.join(map(str, tensor.shape))}){kind}"


def few(lines: Sequence[str], show: int = 3) -> str:
    """Joins the first lines and counts the rest.

    >>> few(["a", "b", "c"], show=1)
    'a and 2 more'
    """
    more = f" and {len(lines) - show} more" if len(lines) > show else ""
    return ", ".join(lines[:show]) + more


def _read_files(folder: Path) -> dict[str, Tensor]:
    if (folder / WEIGHTS).exists():
        return _read_safetensors(folder / WEIGHTS)
    if (folder / INDEX).exists():
        return _read_shards(folder)
    if (folder / INT8).exists():
        return _read_safetensors(folder / INT8)
    raise CheckpointError(_no_weights(folder))


def _is_int8(folder: Path) -> bool:
    """Whether int8 is all that the folder holds: floats are read first."""
    return not (folder / WEIGHTS).exists() and not (folder / INDEX).exists()


def _published(names: Sequence[str]) -> dict[str, str]:
    """The published name of each."""
    if is_research(names):
        return {name: published_name(name) for name in names}
    return {name: f"model.{name}" if name.startswith(_ENCODER_PARTS) else name for name in names}


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt", device="cpu") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or cut short ({error}); fetch or write it again") from error


def _read_shards(folder: Path) -> dict[str, Tensor]:
    shard_of = read_json(folder / INDEX).get("weight_map")
    if not isinstance(shard_of, dict) or not all(isinstance(name, str) and Path(name).name == name for name in shard_of.values()):
        raise CheckpointError(f"{folder / INDEX} has no weight_map of keys to files beside it; fetch or write it again")
    shards = sorted(set(shard_of.values()))
    absent = [name for name in shards if not (folder / name).exists()]
    if absent:
        raise CheckpointError(f"{folder} lacks {few(absent)} of its {len(shards)} shards; fetch the whole folder again")
    found = {name: tensor for shard in shards for name, tensor in _read_safetensors(folder / shard).items()}
    lost = [name for name in shard_of if name not in found]
    if lost:
        raise CheckpointError(f"{folder}: {INDEX} names {few(lost)}, which its shards do not hold; fetch the whole folder again")
    return found


def _no_weights(folder: Path) -> str:
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
    if not pickles and (folder / "onnx").is_dir():
        return f"{folder} holds ONNX files and no {WEIGHTS}; fill-mask and embed run those, all else needs the exported folder"
    if not pickles:
        return f"no weights in {folder}; wanted {WEIGHTS}, or shards with {INDEX}"
    convert = (
        f"from transformers import AutoModelForMaskedLM as M; M.from_pretrained('{folder}').save_pretrained('{folder}-safe')"
    )
    return (
        f"{folder} holds its weights as a pickle ({few(pickles)}), which is refused: loading one runs code from the file. "
        f'If you trust it, convert it once where transformers is installed: python -c "{convert}"'
    )
