"""What a suite found: one table, one picture, one file for programs. `modernbert report OUT` draws it."""

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

from modernbert.tasks.metrics import spread
from modernbert.train.report import figure_class


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """A plain method on the same rows."""

    name: str
    scores: dict[str, float]
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """One set."""

    name: str
    metric: str
    scores: tuple[float, ...] = ()
    """Of each seed, at the learning rate with the best mean; empty where nothing was trained."""
    learning_rate: float | None = None
    seconds: float = 0.0
    """Of all runs."""
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Files, sizes and digests."""
    baseline: Baseline | None = None
    published: float | None = None
    note: str = ""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteReport:
    """All sets of a suite."""

    outcomes: tuple[Outcome, ...]
    record: dict[str, Any]
    """Model, versions, hardware, commit."""

    def to_json(self) -> dict[str, Any]:
        return {**self.record, "outcomes": [dataclasses.asdict(outcome) for outcome in self.outcomes]}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "SuiteReport":
        outcomes = [
            Outcome(**{**one, "scores": tuple(one["scores"]), "baseline": one["baseline"] and Baseline(**one["baseline"])})
            for one in found["outcomes"]
        ]
        return cls(outcomes=tuple(outcomes), record={name: value for name, value in found.items() if name != "outcomes"})

    def to_markdown(self) -> str:
        """A line for each set: mean ± standard deviation over seeds, in percent; the dev rows chose epoch and rate, so it flatters."""
        columns = ["set", "figure", "score", "seeds"]
        columns += ["baseline", "by"] * any(one.baseline for one in self.outcomes)
        columns += ["published"] * any(one.published is not None for one in self.outcomes)
        columns += ["lr", "minutes", "note"]
        lines = [columns, ["---"] * len(columns)]
        for one in self.outcomes:
            cells = {
                "set": one.name,
                "figure": one.metric,
                "score": spread([100 * score for score in one.scores], 1),
                "seeds": str(len(one.scores) or ""),
                "baseline": f"{100 * one.baseline.scores[one.metric]:.1f}" if one.baseline else "",
                "by": one.baseline.name if one.baseline else "",
                "published": f"{100 * one.published:.1f}" if one.published is not None else "",
                "lr": f"{one.learning_rate:g}" if one.learning_rate else "",
                "minutes": f"{one.seconds / 60:.1f}" if one.scores else "",
                "note": one.note,
            }
            lines.append([cells[column] for column in columns])
        done = [one for one in self.outcomes if one.scores]
        if len(done) > 1:
            mean = f"{100 * statistics.fmean(one.mean for one in done):.1f}"
            lines.append([f"**mean of {len(done)}**", "", mean, *[""] * (len(columns) - 3)])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def draw(self, path: str | Path) -> None:
        """Writes a .png with a bar for each set, and a mark for its baseline. Raises MissingExtraError: matplotlib is not installed."""
        shown = [one for one in self.outcomes if one.scores or one.baseline]
        figure = figure_class()(figsize=(max(6.0, 0.42 * len(shown) + 1.5), 4.8), layout="constrained")
        axes = figure.subplots()
        trained = [(place, one) for place, one in enumerate(shown) if one.scores]
        axes.bar(
            [place for place, _ in trained],
            [100 * one.mean for _, one in trained],
            0.7,
            yerr=[100 * statistics.stdev(one.scores) if len(one.scores) > 1 else 0 for _, one in trained],
            error_kw={"linewidth": 0.9, "ecolor": "0.2"},
            color="#4c78a8",
            label="fine-tuned, ± sd over seeds",
        )
        baselines = [None if one.baseline is None else one.baseline.scores[one.metric] for one in shown]
        for label, color, values in (
            ("baseline", "#e45756", baselines),
            ("published", "#54a24b", [one.published for one in shown]),
        ):
            places = [place for place, value in enumerate(values) if value is not None]
            heights = [100 * value for value in values if value is not None]
            if places:
                axes.scatter(places, heights, marker="_", s=180, linewidths=2.2, color=color, label=label, zorder=3)
        axes.set_xticks(range(len(shown)), [f"{one.name} ({one.metric})" for one in shown], rotation=60, ha="right")
        axes.set(ylabel="percent", ylim=(0, 102))
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        figure.legend(ncols=3, loc="outside upper center", frameon=False)
        figure.savefig(path, dpi=110)


def report_suite(out: str | Path) -> Path:
    """Draws `suite.png` beside `suite.json` and writes `suite.md` with the table, the picture and the record; returns the page."""
    out = Path(out)
    report = SuiteReport.from_json(json.loads((out / "suite.json").read_text()))
    report.draw(out / "suite.png")
    record = "\n".join(f"- {name}: {json.dumps(value)}" for name, value in report.record.items())
    page = out / "suite.md"
    page.write_text(f"# {out.name}\n\n{report.to_markdown()}\n\n![scores](suite.png)\n\n{record}\n")
    return page
