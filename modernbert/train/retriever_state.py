"""A retriever's checkpoints: weights, optimizer tensors and progress, as data."""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from modernbert.checkpoint.training_state import latest_state, load_state, retain, save_state, state_folder
from modernbert.errors import TrainingError
from modernbert.train.state import Progress

Optimizers = list[torch.optim.Optimizer]


def save(checkpoints: Path, module: nn.Module, optimizers: Optimizers, progress: Progress, keep: int) -> None:
    """Writes a checkpoint and deletes all but the newest `keep`.

    Raises:
        TrainingError: a weight is not finite; the checkpoints from before stay.
    """
    for name, p in module.named_parameters():
        if not torch.isfinite(p).all():
            raise TrainingError(
                f"{name} is not finite after step {progress.step}, so no checkpoint is written; the ones in {checkpoints} are from before. "
                "Lower the learning rate and start again in another folder"
            )
    tensors = {f"module.{name}": p for name, p in module.named_parameters()}
    groups = []
    for i, optimizer in enumerate(optimizers):
        found = optimizer.state_dict()
        groups.append(found["param_groups"])
        for index, entries in found["state"].items():
            tensors |= {f"optimizer.{i}.{index}.{key}": tensor for key, tensor in entries.items()}
    save_state(
        state_folder(checkpoints, progress.step), tensors, {"progress": dataclasses.asdict(progress), "param_groups": groups}
    )
    retain(checkpoints, keep=keep)


@torch.no_grad()
def resume(checkpoints: Path, module: nn.Module, optimizers: Optimizers) -> tuple[Progress, Path] | None:
    """Restores the newest checkpoint; returns its progress and folder, or None where there is none.

    Raises:
        CheckpointError: the newest checkpoint is damaged.
    """
    folder = latest_state(checkpoints)
    if folder is None:
        return None
    tensors, values = load_state(folder)
    for name, p in module.named_parameters():
        p.copy_(tensors[f"module.{name}"])
    for i, (optimizer, groups) in enumerate(zip(optimizers, values["param_groups"], strict=True)):
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(f"optimizer.{i}."):
                index, key = name.removeprefix(f"optimizer.{i}.").split(".", 1)
                state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    return Progress(**values["progress"]), folder
