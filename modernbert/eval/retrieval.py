"""How well systems search: nDCG, MRR, recall on sets with judged documents, all systems in one run, with intervals.

An interval is the middle 95 % of means over queries drawn with replacement (percentile bootstrap); the difference from the first system
is drawn over the same queries, so it is sharper than its two intervals.
"""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from modernbert.data.retrieval import RetrievalSet, RetrievalSource, read_retrieval
from modernbert.engine.hardware import commit, environment
from modernbert.errors import ConfigError
from modernbert.eval.systems import DEPTH, Ranking, System
from modernbert.tasks.metrics import spread
from modernbert.tasks.ranking import METRICS, ranking_scores

RESAMPLES = 2_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """One system on one set."""

    system: str
    data: str
    metric: str
    """The figure that stands for the set; the interval and the difference are its."""
    seeds: tuple[dict[str, float], ...]
    """Every metric, for each model that bears the system's name."""
    interval: tuple[float, float]
    difference: tuple[float, float, float] | None
    """From the first system: mean, and the ends of its interval."""
    seconds: float
    """Wall time to embed or index, and to search; of all seeds."""

    @property
    def values(self) -> list[float]:
        return [scores[self.metric] for scores in self.seeds]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalReport:
    """All systems on all sets."""

    scores: tuple[Score, ...]
    record: dict[str, Any]
    """Sets with their digests and sizes, versions, hardware, commit."""

    @property
    def systems(self) -> list[str]:
        return list(dict.fromkeys(score.system for score in self.scores))

    @property
    def sets(self) -> list[str]:
        return list(dict.fromkeys(score.data for score in self.scores))

    def score(self, system: str, data: str) -> Score:
        return next(score for score in self.scores if (score.system, score.data) == (system, data))

    def to_json(self) -> dict[str, Any]:
        return {**self.record, "scores": [dataclasses.asdict(score) for score in self.scores]}

    def to_markdown(self) -> str:
        """A line for each set, in percent: each system with its interval, and from the second on the difference from the first."""
        systems = self.systems
        lines = [["set", "queries", "figure", *systems], ["---"] * (len(systems) + 3)]
        for name in self.sets:
            cells = [_cell(self.score(system, name)) for system in systems]
            lines.append([name, f"{self.record['sets'][name]['queries']:,}", self.score(systems[0], name).metric, *cells])
        means = [f"{100 * np.mean([self.score(system, name).mean for name in self.sets]):.1f}" for system in systems]
        lines.append(["**mean**", "", "", *means])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def evaluate_retrieval(
    systems: Sequence[System],
    sources: Iterable[RetrievalSource | RetrievalSet],
    *,
    depth: int = DEPTH,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> RetrievalReport:
    """Lets every system search every set.

    Args:
        systems: those that bear one name are seeds of one system, and give mean ± standard deviation.
        sources: where the sets lie, or sets.
        depth: documents of a ranking; recall@100 needs 100.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ConfigError: a set's metric is none of ours, or two sets have one name.
        DataError: a set cannot be read.
    """
    scores: list[Score] = []
    sets: dict[str, Any] = {}
    for source in sources:
        if source.metric not in METRICS:
            raise ConfigError(f"no metric named {source.metric!r}; there are {', '.join(METRICS)}")
        data = source if isinstance(source, RetrievalSet) else read_retrieval(source)
        if data.name in sets:
            raise ConfigError(f"two sets are called {data.name!r}; rename a file or folder, or measure them one by one")
        sets[data.name] = {"documents": len(data.documents), "queries": len(data.queries), "sha256": data.digest}
        first: np.ndarray | None = None
        for name in tqdm(dict.fromkeys(system.name for system in systems), desc=data.name, disable=None, leave=False):
            started = time.perf_counter()
            per_query = [measured(data, system.rank(data, depth)) for system in systems if system.name == name]
            seconds = time.perf_counter() - started
            main_Q = np.mean([found[data.metric] for found in per_query], axis=0)
            difference = None
            if first is not None:
                ends = interval(main_Q - first, resamples, seed)
                difference = (float((main_Q - first).mean()), *ends)
            first = main_Q if first is None else first
            scores.append(
                Score(
                    system=name,
                    data=data.name,
                    metric=data.metric,
                    seeds=tuple({metric: float(values.mean()) for metric, values in found.items()} for found in per_query),
                    interval=interval(main_Q, resamples, seed),
                    difference=difference,
                    seconds=round(seconds, 2),
                )
            )
    device = next((system.device for system in systems if hasattr(system, "device")), "cpu")
    settings = {"depth": depth, "resamples": resamples, "seed": seed}
    record = {"settings": settings, "environment": {**environment(torch.device(device)), "commit": commit()}, "sets": sets}
    return RetrievalReport(scores=tuple(scores), record=record)


def measured(data: RetrievalSet, rankings: Sequence[Ranking]) -> dict[str, np.ndarray]:
    """Every metric for each query."""
    found = [
        ranking_scores([grades.get(int(place), 0) for place in ranking.places], [*grades.values(), *missing])
        for ranking, grades, missing in zip(rankings, data.grades, data.missing, strict=True)
    ]
    return {metric: np.array([scores[metric] for scores in found]) for metric in METRICS}


def interval(values_Q: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """The ends of the middle 95 % of means over values drawn with replacement.

    >>> interval(np.array([0.5, 0.5]), 100, 0)
    (0.5, 0.5)

    Source: Efron and Tibshirani 1993, percentile bootstrap.
    """
    rng = np.random.default_rng(seed)
    means = [rng.choice(values_Q, len(values_Q)).mean() for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _cell(score: Score) -> str:
    low, high = (100 * end for end in score.interval)
    shown = f"{spread([100 * value for value in score.values], 1)} ({low:.1f}–{high:.1f})"
    if score.difference is None:
        return shown
    mean, least, most = (100 * end for end in score.difference)
    return f"{shown}; {mean:+.1f} ({least:+.1f} … {most:+.1f})"
