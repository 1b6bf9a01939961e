"""Weights stored in a byte each, for packages and slow lines: every matrix as rows of int8, each with a scale.

    X.weight         int8 [out, in]     row r of the matrix is X.weight[r] · X.weight_scale[r]
    X.weight_scale   float32 [out]

Norms and biases stay float32, and so does the classifier, which is small and says the result. The file is `model_int8.safetensors`, not
`model.safetensors`: no other library reads this form, and by that name each of them says that there are no weights, where it
might else have taken the numbers for floats.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from modernbert.errors import CheckpointError
from modernbert.kernels.linear_int8 import quantize_rows

INT8 = "model_int8.safetensors"

_SCALE = "_scale"


def to_int8(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they are stored: matrices in int8 with their scales beside them, the rest in float32.

    >>> {name: tensor.tolist() for name, tensor in to_int8({"a.weight": torch.tensor([[-1.0, 0.5]])}).items()}
    {'a.weight': [[-127, 64]], 'a.weight_scale': [0.007874015718698502]}
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and name != "classifier.weight":
            stored[name], stored[name + _SCALE] = quantize_rows(tensor.float())
        else:
            stored[name] = tensor.float()
    return stored


def from_int8(stored: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The tensors that were stored, in float32.

    Raises:
        CheckpointError: a matrix has no scale, a scale has no matrix, or the two do not fit.
    """
    scales = {name.removesuffix(_SCALE) for name in stored if name.endswith(_SCALE)}
    matrices = {name for name, tensor in stored.items() if tensor.dtype == torch.int8}
    for name in sorted(scales ^ matrices):
        lacks = f"{name}{_SCALE}" if name in matrices else f"{name} in int8"
        raise CheckpointError(
            f"{file} holds {name if name in matrices else name + _SCALE} without {lacks}; fetch or write it again"
        )
    return {name: _multiply(name, stored, file) if name in matrices else stored[name] for name in names_from_int8(stored)}


def names_from_int8(stored: Iterable[str]) -> list[str]:
    """Names of the tensors that were stored, without those of the scales.

    >>> names_from_int8(["a.weight", "a.weight_scale", "norm.weight"])
    ['a.weight', 'norm.weight']
    """
    return [name for name in stored if not name.endswith(_SCALE)]


def _multiply(name: str, stored: Mapping[str, Tensor], file: Path) -> Tensor:
    rows, scale = stored[name], stored[name + _SCALE]
    if rows.ndim != 2 or scale.shape != rows.shape[:1] or scale.dtype != torch.float32:
        raise CheckpointError(
            f"{file}: {name} {tuple(rows.shape)} has scales {tuple(scale.shape)} in {str(scale.dtype).removeprefix('torch.')}; "
            "wanted a matrix, and a float32 for each of its rows: fetch or write it again"
        )
    return rows * scale[:, None]
