"""What a fine-tuning job found: every run, and a table of mean ± standard deviation over seeds."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modernbert.tasks.metrics import spread


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One learning rate and one seed, at its best evaluation."""

    learning_rate: float
    seed: int
    epoch: float
    """Passes over the training rows at the best evaluation."""
    scores: dict[str, float]
    """Empty where the run failed."""
    seconds: float
    failed: str | None = None
    """Why it has no scores."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneResult:
    """All runs of a job, at least one with scores, and where the best one's model is."""

    metric: str
    """What chose the best evaluations and the best run."""
    runs: tuple[Run, ...]
    model: Path
    record: dict[str, Any]
    """Settings, digests, versions and hardware."""

    @property
    def done(self) -> list[Run]:
        """The runs that have scores."""
        return [run for run in self.runs if not run.failed]

    @property
    def best(self) -> Run:
        return max(self.done, key=lambda run: run.scores[self.metric])

    def to_json(self) -> dict[str, Any]:
        runs = [dataclasses.asdict(run) for run in self.runs]
        return {
            "metric": self.metric,
            "best": dataclasses.asdict(self.best),
            "runs": runs,
            "model": str(self.model),
            **self.record,
        }

    def to_markdown(self) -> str:
        """A line for each learning rate. The dev rows chose the epoch, so the figures flatter a little."""
        names = list(self.best.scores)
        lines = [["lr", "seeds", "epoch", *names, "seconds"], ["---"] * (4 + len(names))]
        for rate in dict.fromkeys(run.learning_rate for run in self.runs):
            lines.append(self._line(rate, names))
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def _line(self, rate: float, names: Sequence[str]) -> list[str]:
        every = [run for run in self.runs if run.learning_rate == rate]
        runs = [run for run in every if not run.failed]
        lost = f" ({len(every) - len(runs)} failed)" if len(runs) < len(every) else ""
        columns = [
            [run.epoch for run in runs],
            *([run.scores[name] for run in runs] for name in names),
            [r.seconds for r in every],
        ]
        digits = [1, *[4] * len(names), 1]
        cells = [spread(column, n) for column, n in zip(columns, digits, strict=True)]
        return [f"{rate:g}", f"{len(every)}{lost}", *cells]
