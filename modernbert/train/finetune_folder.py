"""What a fine-tuning job keeps in its folder, so that a killed one goes on: settings, the runs that are done, and their log."""

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from modernbert.checkpoint.atomic import staged, sweep
from modernbert.errors import TrainingError
from modernbert.train.distributed import World
from modernbert.train.finetune_result import Run

CONFIG, LOG, RUNS = "config.json", "log.jsonl", "runs.jsonl"

FREE = {"model", "train", "dev", "out", "device", "micro_batch_tokens", "recompute", "log_every_steps"}
"""Settings that may change when a job goes on: they do not change its results, or their digests say that they are the same."""


def claim(out: Path, settings: dict[str, Any]) -> list[Run]:
    """Writes the settings of a job into its folder and returns the runs that are done there already.

    What a run that was killed had logged is deleted: it begins anew.

    Raises:
        TrainingError: the folder holds another job, or its settings cannot be read.
    """
    path = out / CONFIG
    if path.exists():
        try:
            theirs = json.loads(path.read_text())
        except ValueError as error:
            raise TrainingError(f"{path} is damaged ({error}); give out= another folder, or delete this one") from error
        changed = [name for name in settings if name not in FREE and settings[name] != theirs.get(name)]
        if changed:
            raise TrainingError(
                f"{out} holds a fine-tuning with other settings ({', '.join(changed)} differ); "
                "give out= another folder, or the same settings"
            )
    sweep(out)
    _write(out, CONFIG, json.dumps(settings, indent=2) + "\n")
    runs = [Run(**line) for line in _lines(out / RUNS)]
    done = {(run.learning_rate, run.seed) for run in runs}
    log = [line for line in _lines(out / LOG) if (line["learning_rate"], line["seed"]) in done]
    _write(out, LOG, "".join(json.dumps(line) + "\n" for line in log))
    return runs


def note(out: Path, run: Run) -> None:
    """Adds a run to those that are done."""
    with (out / RUNS).open("a") as file:
        file.write(json.dumps(dataclasses.asdict(run)) + "\n")


def digest(files: Iterable[Path]) -> str:
    """SHA-256 of the bytes of some files, in the order of their names."""
    found = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def _write(out: Path, name: str, text: str) -> None:
    with staged(out) as stage:
        (stage / name).write_text(text)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON; one that a kill or a full disk cut short is left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


class RunLog:
    """Lines of JSON for programs, a progress bar for people; sums losses on the device, so that no step waits for the host."""

    def __init__(self, out: Path, learning_rate: float, seed: int, *, steps: int, steps_per_epoch: int, world: World) -> None:
        self.path, self.world = out / LOG, world
        self.run = {"learning_rate": learning_rate, "seed": seed}
        self.steps_per_epoch = steps_per_epoch
        quiet = None if world.leads else True  # None: shown where the output is a terminal
        self.bar = tqdm(total=steps, desc=f"lr {learning_rate:g}, seed {seed}", unit="step", disable=quiet, leave=False)
        self.loss = torch.zeros((), device=world.device)
        self.last = 0

    def add(self, loss: Tensor) -> None:
        self.loss += loss

    def write_loss(self, step: int, rate: float) -> None:
        """Writes the mean loss of the steps since the last line. Every process must call this.

        Raises:
            TrainingError: it is not finite.
        """
        loss = self.world.sum(self.loss).item() / max(1, step - self.last)
        if step > self.last:
            self.write(step, {"loss": round(loss, 6), "rate": round(rate, 6)})
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {step} with learning rate {self.run['learning_rate']:g} and seed {self.run['seed']}"
            )
        self.bar.update(step - self.last)
        self.bar.set_postfix(loss=f"{loss:.4f}")
        self.loss.zero_()
        self.last = step

    def write(self, step: int, found: dict[str, Any]) -> None:
        line = {**self.run, "step": step, "epoch": round(step / self.steps_per_epoch, 3), **found}
        if self.world.leads:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        self.bar.close()
