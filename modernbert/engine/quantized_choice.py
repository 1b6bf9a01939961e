"""Which layers of a model run in int8, as chosen once on this machine: choosing takes a second or more, reading it again milliseconds.

    weights, texts, bounds, this code, the chip's levels ─→ ~/.cache/modernbert/int8-HASH.json

Deleting the file chooses again; where it cannot be read or written, each process chooses for itself.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from modernbert.batch import Batch
from modernbert.checkpoint.atomic import staged
from modernbert.engine.measured import cache_file


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerError:
    """How a Linear layer takes int8."""

    name: str
    """As `layers.3.mlp.Wo`."""
    error: float
    """How far it alone, in int8, moves the mean of a text in the hidden state behind its attention or MLP, as a share of how far tokens lie
    from each other there (root mean squares). Not the tokens but their mean, since what differs from token to token cancels out in a
    vector, and what rounded weights do does not; and nothing that all tokens share, as outlier channels make, hides an error."""
    int8: bool
    """Whether it runs in int8."""


def choice_file(encoder: nn.Module, batch: Batch, *decided_by: object) -> Path:
    """Where a choice is kept: its name is a hash of the encoder's parameters, of the texts and of what else decides it."""
    code = Path(__file__).with_name("quantized.py").read_bytes()
    found = hashlib.sha256(code + repr((torch.__version__, *decided_by, batch.ids_T.tolist())).encode())
    for name, parameter in encoder.named_parameters():
        found.update(name.encode())
        found.update(parameter.detach().contiguous().flatten().view(torch.uint8).numpy().data)  # 1.5 GB a second, as it is stored
    return cache_file().with_name(f"int8-{found.hexdigest()[:16]}.json")


def read_choice(path: Path, names: Sequence[str]) -> list[LayerError] | None:
    """What the file says of the layers with these names, in their order; None where it is missing or damaged."""
    try:
        layers = [LayerError(**fields) for fields in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        return None
    return layers if [layer.name for layer in layers] == list(names) else None


def write_choice(path: Path, layers: Sequence[LayerError]) -> None:
    """Keeps it, where the folder can be written."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged(path.parent) as stage:
            (stage / path.name).write_text(json.dumps([dataclasses.asdict(layer) for layer in layers]))
