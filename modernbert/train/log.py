"""The log of a training run: lines of JSON for programs, a progress bar for people."""

import contextlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from modernbert.config import ModelConfig
from modernbert.data.assembly import TrainingBatch
from modernbert.engine.hardware import environment
from modernbert.errors import TrainingError, naming
from modernbert.model.flops import forward_flops_per_token, peak_tflops
from modernbert.train.distributed import World
from modernbert.train.state import Progress
from modernbert.train.tracker import Tracker


class Log:
    """Sums losses on the device, so that no step waits for the host, and writes a line of JSON every so often.

    A session, which is one start of the process, begins with a line that says when and on what.
    """

    def __init__(self, path: Path, total_tokens: int, progress: Progress, world: World, *, tensorboard: bool = False) -> None:
        self.path, self.world = path, world
        self.tracker = Tracker(path.with_name("tensorboard"), progress.step) if tensorboard and world.leads else None
        self.began = time.perf_counter()
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        where = environment(world.device)
        self.peak = peak_tflops(where["device"])
        self._append({"started": started, "step": progress.step, "processes": world.size, **where})
        quiet = None if world.leads else True  # None: shown where the output is a terminal
        self.bar = tqdm(total=total_tokens, initial=progress.tokens, unit="tok", unit_scale=True, smoothing=0.05, disable=quiet)
        self.reset()

    def reset(self) -> None:
        self.sums = torch.zeros(3, device=self.world.device)  # loss and right of this process, labels of all
        self.tokens = self.slots = self.squares = 0
        self.waited = 0.0
        self.started = time.perf_counter()

    def add(self, loss: Tensor, right: Tensor) -> None:
        """Takes the summed loss and the right guesses of one micro-batch of this process."""
        self.sums[:2] += torch.stack([loss, right.float()])

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """A block in which training waits for batches."""
        began = time.perf_counter()
        yield
        self.waited += time.perf_counter() - began

    def count(self, batches: Sequence[TrainingBatch], labels: Tensor) -> None:
        """Takes what a step read: this process's batches, and the labels of all processes."""
        for batch in batches:
            lengths_B = batch.batch.cu_seqlens.diff().long()
            self.tokens += batch.tokens
            self.slots += len(batch.batch.ids_T)
            self.squares += int(lengths_B.square().sum())
        self.sums[2] += labels

    def validated(self, progress: Progress, loss: float, accuracy: float) -> None:
        """Appends a line for the loss on held-out shards."""
        now = {"step": progress.step, "tokens": progress.tokens}
        self._append(now | {"validation_loss": round(loss, 5), "validation_accuracy": round(accuracy, 5)})

    def write(self, progress: Progress, rate: float, model: ModelConfig) -> None:
        """Appends one line, with means over the steps since the last one. Every process must call this.

        Args:
            rate: learning-rate multiplier of the last step.
            model: for the floating-point operations behind the line's TFLOP/s.

        Raises:
            TrainingError: the loss is not finite.
        """
        self.world.sum(self.sums[:2])
        total_loss, right, labels = self.sums.tolist()
        loss = total_loss / labels
        seconds = time.perf_counter() - self.started
        speed = self.tokens / seconds
        flops_per_token = 3 * forward_flops_per_token(
            model, mean_length=self.squares / self.slots, masked_share=labels / self.tokens
        )
        line: dict[str, Any] = {
            "step": progress.step,
            "tokens": progress.tokens,
            "loss": round(loss, 5),
            "accuracy": round(right / labels, 5),
            "rate": round(rate, 6),
            "tokens_per_second": round(speed),
            "tflops": round(flops_per_token * speed / 1e12, 2),
            "fill": round(self.tokens / (self.slots * self.world.size), 5),
            "waiting": round(self.waited / seconds, 5),
            "epochs": [place["epochs"] for place in (progress.loader or {}).get("places", [])],
            "seconds": round(time.perf_counter() - self.began, 1),
        }
        shown = {"loss": f"{loss:.4f}", "accuracy": f"{line['accuracy']:.3f}"}
        if self.peak:
            line["of_peak"] = round(line["tflops"] / (self.peak * self.world.size), 4)
            shown["of_peak"] = f"{line['of_peak']:.1%}"
        self._append(line)
        self.bar.update(progress.tokens - self.bar.n)
        self.bar.set_postfix(shown)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {progress.step}; lower the learning rate and start again in another folder: "
                "the checkpoints from before stay in this one"
            )
        self.reset()

    def _append(self, line: dict[str, Any]) -> None:
        if self.world.leads:
            with naming(self.path), self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        if self.tracker:
            self.tracker.add(line)

    def close(self) -> None:
        self.bar.close()
        if self.tracker:
            self.tracker.close()
