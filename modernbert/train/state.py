"""A run's checkpoints: weights, optimizer tensors and progress, copied at once and written by a thread while training goes on.

A checkpoint holds whole tensors under their own names, however the processes share them: a run that was begun on one process goes on
with many, and the other way round.
"""

import dataclasses
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from modernbert.checkpoint.folder import save_model
from modernbert.checkpoint.training_state import latest_state, load_state, retain, save_state, state_folder
from modernbert.config import ModelConfig
from modernbert.errors import TrainingError
from modernbert.model.heads import MaskedLM
from modernbert.text.tokenizer import Tokenizer
from modernbert.train.distributed import World

Optimizers = list[torch.optim.Optimizer]


@dataclasses.dataclass(kw_only=True)
class Progress:
    """Where a run stands; saved with each checkpoint."""

    step: int = 0
    tokens: int = 0
    phase: int = 0
    phase_tokens: int = 0
    loader: dict[str, Any] | None = None


def save(checkpoints: Path, model: nn.Module, optimizers: Optimizers, progress: Progress, keep: int) -> None:
    """Writes a checkpoint and deletes all but the newest `keep`; for a run on one process, or whose processes hold all of the model.

    Raises:
        TrainingError: a weight is not finite; the checkpoints from before stay.
    """
    tensors, groups = _state(model, optimizers)
    _write(checkpoints, tensors, {"progress": dataclasses.asdict(progress), "param_groups": groups}, keep, 0)


@torch.no_grad()
def resume(checkpoints: Path, model: nn.Module, optimizers: Optimizers) -> tuple[Progress, Path] | None:
    """Restores the newest checkpoint; returns its progress and folder, or None where there is none.

    Raises:
        CheckpointError: the newest checkpoint is damaged.
    """
    folder = latest_state(checkpoints)
    if folder is None:
        return None
    tensors, values = load_state(folder)
    for name, p in model.named_parameters():
        p.copy_(_shared_as(p, tensors[f"model.{name}"]))
    for i, (optimizer, groups) in enumerate(zip(optimizers, values["param_groups"], strict=True)):
        params = [p for group in optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(f"optimizer.{i}."):
                index, key = name.removeprefix(f"optimizer.{i}.").split(".", 1)
                state.setdefault(int(index), {})[key] = _shared_as(params[int(index)], tensor)
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    return Progress(**values["progress"]), folder


class Checkpoints:
    """Writes `checkpoints/step-…` and `model/` of a run's folder while training goes on. Every process enters it and calls it; the
    first one writes.

    `save` copies the tensors and returns; a thread writes the files, and the next `save` waits for it. What the thread could not do is
    raised by the next `check`, `save`, or at the end of the block, which also waits.
    """

    def __init__(
        self, run: Path, model: MaskedLM, optimizers: Optimizers, tokenizer: Tokenizer, world: World, *, keep: int, keep_best: int
    ) -> None:
        self.run, self.model, self.optimizers, self.tokenizer, self.world = run, model, optimizers, tokenizer, world
        self.keep, self.keep_best = keep, keep_best
        self.folder = run / "checkpoints"
        self.thread = ThreadPoolExecutor(1, "checkpoints")
        self.writing: Future[None] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.thread.shutdown(wait=True)
        if error is None:
            self.check()

    def check(self) -> None:
        """Raises what went wrong in writing, if that is known by now.

        Raises:
            TrainingError: a weight was not finite; the checkpoints from before stay.
            CheckpointError: the files could not be written.
        """
        if self.writing is not None and self.writing.done():
            self.writing.result()

    def save(self, progress: Progress, validation_loss: float | None) -> None:
        """Copies the run's state, and has it written. Raises what `check` does, of the checkpoint before."""
        if self.writing is not None:
            self.writing.result()
        tensors, groups = _state(self.model, self.optimizers)
        copies: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor  # every process has a part in this
            if self.world.leads:
                copies[name] = whole.detach().to("cpu", copy=True)
        if self.world.leads:
            values = {"progress": dataclasses.asdict(progress), "param_groups": groups, "validation_loss": validation_loss}
            self.writing = self.thread.submit(self._write, self.model.config, copies, values)

    def _write(self, config: ModelConfig, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        _write(self.folder, tensors, values, self.keep, self.keep_best)
        with torch.device("meta"):
            model = MaskedLM(config)
        weights = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
        model.load_state_dict(weights, strict=False, assign=True)  # not strict: the tied decoder is not among them
        model.tie_weights()
        save_model(model, config, self.run / "model", tokenizer=self.tokenizer)  # to look at while the run goes on


def _state(model: nn.Module, optimizers: Optimizers) -> tuple[dict[str, Tensor], list[Any]]:
    """All tensors under flat names, and the optimizers' settings."""
    tensors: dict[str, Tensor] = {f"model.{name}": p for name, p in model.named_parameters()}
    groups = []
    for i, optimizer in enumerate(optimizers):
        found = optimizer.state_dict()
        groups.append(found["param_groups"])
        for index, entries in found["state"].items():
            tensors |= {f"optimizer.{i}.{index}.{key}": tensor for key, tensor in entries.items()}
    return tensors, groups


def _write(folder: Path, tensors: dict[str, Tensor], values: dict[str, Any], keep: int, keep_best: int) -> None:
    step = values["progress"]["step"]
    for name, tensor in tensors.items():
        if name.startswith("model.") and not tensor.isfinite().all():
            raise TrainingError(
                f"{name.removeprefix('model.')} is not finite after step {step}, so no checkpoint is written; the ones in {folder} "
                "are from before. Lower the learning rate and start again in another folder"
            )
    save_state(state_folder(folder, step), tensors, values)
    retain(folder, keep=keep, best=keep_best)


def _shared_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A whole tensor cut among the processes as a parameter of its shape is; numbers such as Adam's step stay whole."""
    if isinstance(parameter, DTensor) and tensor.shape == parameter.shape:
        return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
    return tensor
