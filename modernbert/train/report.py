"""A run's page: curves and a summary, made from its log. `modernbert report RUN`."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

from modernbert.errors import MissingExtraError, TrainingError
from modernbert.train.settings import Phase

Lines = list[dict[str, Any]]

CURVES = {
    "loss": "loss, nats a masked token",
    "accuracy": "share right at the first guess",
    "rate": "learning rate, relative",
    "tokens_per_second": "tokens a second",
    "fill": "share of the rows' places with a token",
    "epochs": "passes over each folder of shards, in this phase",
}
"""What is drawn, by its name in the log."""


def report(run: str | Path) -> Path:
    """Writes `report.png` and `report.md` into a run's folder and returns the page.

    Raises:
        TrainingError: the folder holds no log, or one without a loss.
        MissingExtraError: matplotlib is not installed.
    """
    run = Path(run)
    log, sessions = read_log(run)
    config = json.loads((run / "config.json").read_text())
    validation = validation_of(run)
    draw(log, validation, config, run / "report.png")
    page = run / "report.md"
    page.write_text(summary(log, sessions, validation, config))
    return page


def read_log(run: Path) -> tuple[Lines, Lines]:
    """The log's lines, each step once, and the sessions (starts of the process) that wrote them.

    A killed run repeats the steps after its last checkpoint: the repetition counts. A line that a full disk cut short is left out.

    Raises:
        TrainingError: no log is there, or no loss in it yet.
    """
    path = run / "log.jsonl"
    if not path.exists():
        raise TrainingError(f"no log.jsonl in {run}; wanted the folder of a pre-training run, such as runs/tiny")
    lines = _lines(path)
    log = _each_step_once(lines, "loss")
    if not log:
        raise TrainingError(f"{path} holds no loss yet; wait for the first, which is written after log_every_steps")
    return log, [line for line in lines if "started" in line]


def validation_of(run: Path) -> Lines:
    """The log's lines about held-out shards, each step once; none where a run has no such shards."""
    return _each_step_once(_lines(run / "log.jsonl"), "validation_loss")


def _lines(path: Path) -> Lines:
    lines = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return lines


def _each_step_once(lines: Lines, name: str) -> Lines:
    steps = {line["step"]: line for line in lines if name in line}
    return [steps[step] for step in sorted(steps)]


def summary(log: Lines, sessions: Lines, validation: Lines, config: dict[str, Any]) -> str:
    """The run in words and numbers, as Markdown."""
    last, speeds = log[-1], sorted(line["tokens_per_second"] for line in log)
    planned = sum(phase["tokens"] for phase in config["phases"])
    fills = [line["fill"] for line in log if "fill" in line]
    rows = {
        "tokens": f"{last['tokens']:,} of {planned:,} planned",
        "steps": f"{last['step']:,}",
        "time in training": f"{sum(line['seconds'] for line in ends_of_sessions(log)) / 60:.1f} minutes",
        "tokens a second": f"{speeds[len(speeds) // 2]:,} (median of {len(speeds)} lines; {speeds[0]:,} to {speeds[-1]:,})",
        **({"rows filled": f"{sum(fills) / len(fills):.2%} with tokens"} if fills else {}),
        **_epochs(log, config),
        **_shares(log),
        "last loss": f"{last['loss']:.4f} nats a masked token, {last['accuracy']:.1%} right",
        **{f"session {i}": ", ".join(f"{k} {v}" for k, v in line.items()) for i, line in enumerate(sessions, 1)},
    }
    if validation:
        best = min(validation, key=lambda line: line["validation_loss"])
        rows["held out"] = (
            f"loss {validation[-1]['validation_loss']:.4f} at the last checkpoint, {best['validation_loss']:.4f} at step {best['step']:,}"
        )
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"# {config['out']}\n\n![curves](report.png)\n\n| | |\n|---|---|\n{table}\n\n{_phases(config['phases'])}\n"


def _phases(phases: Lines) -> str:
    """A table of the phases: their tokens, lengths and masks, and of the other settings those that some phase changes."""
    defaults = {field.name: field.default for field in dataclasses.fields(Phase)}
    always = ("tokens", "length", "mask_rate")
    names = [name for name in phases[0] if name in always or any(phase.get(name) not in (defaults[name], []) for phase in phases)]
    values = [[_said(phase.get(name)) for name in names] for phase in phases]
    rows = [["phase", *names], ["---"] * (len(names) + 1), *([str(i), *row] for i, row in enumerate(values))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)


def _shares(log: Lines) -> dict[str, str]:
    """Medians of what the log says of the GPU's peak and of waiting for batches."""
    names = {"of_peak": "share of the bf16 peak", "waiting": "time spent waiting for batches"}
    found = {said: sorted(line[name] for line in log if name in line) for name, said in names.items()}
    return {said: f"{values[len(values) // 2]:.2%} (median)" for said, values in found.items() if values}


def _epochs(log: Lines, config: dict[str, Any]) -> dict[str, str]:
    """Passes over each folder of shards in the last phase; one folder has no name."""
    epochs, folders = log[-1].get("epochs"), config["shards"]
    if not epochs:
        return {}
    names = [Path(folder).name for folder in folders] if len(epochs) > 1 else [""]
    return {
        "passes in the last phase": ", ".join(f"{name} {passes:.2f}".strip() for name, passes in zip(names, epochs, strict=True))
    }


def ends_of_sessions(log: Lines) -> Lines:
    """The last line of each session: seconds start again at zero in the next one.

    >>> ends_of_sessions([{"seconds": 1}, {"seconds": 9}, {"seconds": 2}])
    [{'seconds': 9}, {'seconds': 2}]
    """
    return [line for line, after in zip(log, [*log[1:], {"seconds": 0}], strict=True) if after["seconds"] < line["seconds"]]


def figure_class() -> Any:
    """matplotlib's Figure, without pyplot: no window, no global state.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("a report needs matplotlib: pip install 'modernbert[report]'") from error
    return Figure


def draw(log: Lines, validation: Lines, config: dict[str, Any], path: Path) -> None:
    """Every curve of `CURVES` that the log has over tokens, with a line where a phase begins and dots for what was held out."""
    figure = figure_class()(figsize=(14, 7), layout="constrained")
    planned = sum(phase["tokens"] for phase in config["phases"])
    unit, size = next(
        (unit, size) for unit, size in (("billion", 1e9), ("million", 1e6), ("thousand", 1e3)) if planned >= size or size == 1e3
    )
    panels = dict(zip(CURVES, figure.subplots(2, 3).flat, strict=True))
    for name, axes in panels.items():
        lines = [line for line in log if name in line]  # a log of an older version lacks some
        axes.plot([line["tokens"] / size for line in lines], [line[name] for line in lines], linewidth=1.2)
        held_out = [line for line in validation if f"validation_{name}" in line]
        if held_out:
            dots = [line[f"validation_{name}"] for line in held_out]
            axes.plot(
                [line["tokens"] / size for line in held_out], dots, "o", markersize=3.5, color="tab:orange", label="held out"
            )
            axes.legend()
        axes.set(xlabel=f"{unit} tokens", title=CURVES[name])
        axes.grid(alpha=0.3)
        begin = 0.0
        for phase in config["phases"][:-1]:
            begin += phase["tokens"] / size
            if begin <= log[-1]["tokens"] / size:
                axes.axvline(begin, color="gray", linestyle=":")
    worst = max(line["loss"] for line in log[len(log) // 20 :])  # the first steps fall from the height of guessing
    panels["loss"].set_ylim(top=worst * 1.05)
    panels["tokens_per_second"].set_ylim(bottom=0)
    fastest = max(line["tokens_per_second"] for line in log)
    if fastest >= 1e5:
        panels["tokens_per_second"].yaxis.set_major_formatter(lambda speed, _: f"{speed / 1e6:g} M")
    lowest = min([1.0, *(line["fill"] for line in log if "fill" in line)])
    panels["fill"].set_ylim(min(lowest, 0.99) - 0.002, 1.002)
    folders = config["shards"]
    if isinstance(folders, list) and len(folders) > 1:
        panels["epochs"].legend(panels["epochs"].lines[: len(folders)], [Path(folder).name for folder in folders])
    figure.savefig(path, dpi=110)
