"""Suites: many fine-tuning jobs as one, in order, with a report after each; a suite that was killed goes on where it was.

for each member that lies in the data folder
    rows as the task reads them       OUT/data/NAME/train.jsonl, dev.jsonl
    a plain baseline, if asked for    OUT/NAME/baseline.json
    all learning rates and seeds      OUT/NAME: a fine-tuning job
    the report so far                 OUT/suite.json, OUT/suite.md
"""

import dataclasses
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from modernbert.checkpoint.names import resolve, resolve_data
from modernbert.checkpoint.settings import read_config
from modernbert.checkpoint.weights import write_json
from modernbert.data.labelled import Source, write_rows
from modernbert.data.tables import read_table
from modernbert.engine.engine import load
from modernbert.engine.hardware import choose_device, commit, environment
from modernbert.errors import ConfigError, DataError, TrainingError
from modernbert.tasks.task import Row, Task
from modernbert.train.finetune import FinetuneConfig, finetune
from modernbert.train.finetune_folder import digest
from modernbert.train.finetune_result import FinetuneResult
from modernbert.train.suite_report import Baseline, Outcome, SuiteReport

HYPOTHESIS = "This text is about {}."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """A data set of a suite, and how a model is fine-tuned for it."""

    name: str
    config: FinetuneConfig
    """Of a recipe; its files and its folder are set by the suite."""
    sources: tuple[Source, ...]
    """Where its rows may lie; the first that is there is read."""
    begins_from: str | None = None
    """The member whose model it begins from; None is the suite's model."""
    zero_shot: tuple[str, ...] = ()
    """Nothing is trained: these classes are told apart by inference (Yin et al. 2019), with the model of `begins_from`."""
    published: float | None = None
    """What somebody reports for the metric, for the table."""


BaselineOf = Callable[[Member, Task, Sequence[Row], Sequence[Row]], tuple[str, dict[str, float]]]
"""A plain method's name and its scores on the dev rows, from a member, its task, the training rows and the dev rows."""


def run_suite(
    members: Sequence[Member],
    model: str | Path | None,
    data: str | Path,
    out: str | Path,
    *,
    baseline: BaselineOf | None = None,
) -> SuiteReport:
    """Runs what is not done yet, and reports everything.

    Args:
        members: of a suite; one comes after the one that it begins from.
        model: where they begin: a packaged model, a folder, or a name on the hub; None runs the baselines alone.
        data: a folder that holds the sets, or the name of one on the hub.
        out: gets everything, rows included: keep it to yourself where the sets may not be passed on.
        baseline: to measure beside.

    Raises:
        ConfigError, DataError, CheckpointError, TokenizerError: as `finetune`, or no set of the suite is in `data`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("a suite runs in one process; start several with a GPU, --only and an --out of their own")
    folder, out = resolve_data(data), Path(out)
    start = None if model is None else resolve(model)
    outcomes: list[Outcome] = []
    for member in members:
        source = next((source for source in member.sources if source.is_in(folder)), None)
        if source is None:
            outcomes.append(Outcome(name=member.name, metric=member.config.task.metric, note="not in the data folder"))
            continue
        tqdm.write(f"{time.strftime('%H:%M:%S')} {member.name}", file=sys.stderr)
        train, dev = write_rows(source, folder, out / "data" / member.name)
        config = dataclasses.replace(member.config, train=str(train), dev=str(dev), out=str(out / member.name))
        outcome = Outcome(name=member.name, metric=config.task.metric, published=member.published)
        if baseline is not None:
            outcome = dataclasses.replace(outcome, baseline=_baseline(baseline, member, config))
        if start is not None:
            outcome = _trained(member, config, start, out, outcome)
        outcomes.append(outcome)
        report = _report(outcomes, str(start), config)
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "suite.json", report.to_json())
        (out / "suite.md").write_text(report.to_markdown() + "\n")
    if all(outcome.note == "not in the data folder" for outcome in outcomes):
        names = ", ".join(pattern for member in members[:3] for pattern in (member.sources[0].dev,))
        raise DataError(f"none of the suite's sets is in {folder}; wanted files such as {names}")
    return report


def _trained(member: Member, config: FinetuneConfig, start: Path, out: Path, outcome: Outcome) -> Outcome:
    """The outcome with the model's scores."""
    if member.begins_from:
        trained = out / member.begins_from / "model"
        if not trained.exists() and member.zero_shot:
            return dataclasses.replace(outcome, note=f"needs the model of {member.begins_from}")
        note = "" if trained.exists() else f"not from {member.begins_from}, which did not run"
        start, outcome = trained if trained.exists() else start, dataclasses.replace(outcome, note=note)
    if member.zero_shot:
        started = time.perf_counter()
        accuracy = zero_shot_accuracy(start, config, member.zero_shot)
        seconds = time.perf_counter() - started
        return dataclasses.replace(
            outcome, scores=(accuracy,), seconds=seconds, note=f"zero-shot, by the model of {member.begins_from}"
        )
    longest = read_config(start).max_position_embeddings
    if config.max_length > longest:  # longer contexts are read through windows, longer texts lose their end
        config = dataclasses.replace(config, max_length=longest)
        note = "; ".join(filter(None, [outcome.note, f"rows of {longest:,} tokens, which the model reads"]))
        outcome = dataclasses.replace(outcome, note=note)
    try:
        return _with(outcome, finetune(config, start))
    except TrainingError as error:
        if "every run failed" not in str(error):
            raise
        return dataclasses.replace(outcome, note=str(error))


def _with(outcome: Outcome, result: FinetuneResult) -> Outcome:
    """The outcome with the figures of the learning rate that has the best mean."""
    by_rate = {
        run.learning_rate: [other for other in result.done if other.learning_rate == run.learning_rate] for run in result.done
    }
    rate, runs = max(by_rate.items(), key=lambda pair: sum(run.scores[result.metric] for run in pair[1]) / len(pair[1]))
    failed = len(result.runs) - len(result.done)
    return dataclasses.replace(
        outcome,
        scores=tuple(run.scores[result.metric] for run in runs),
        learning_rate=rate,
        seconds=sum(run.seconds for run in result.runs),
        data={name: dict(found) for name, found in result.record["data"].items()},
        note="; ".join(filter(None, [outcome.note, f"{failed} of {len(result.runs)} runs failed" if failed else ""])),
    )


def zero_shot_accuracy(model: str | Path, config: FinetuneConfig, labels: Sequence[str]) -> float:
    """How often the likeliest of some classes, by natural language inference, is the right one; long texts lose their end."""
    rows = [cells for _, cells in read_table(config.dev)]
    task: Any = config.task
    unknown = {str(row[task.label]) for row in rows} - set(labels)
    if unknown:
        raise ConfigError(f"{config.dev} has the classes {', '.join(sorted(unknown))}, which are not among {', '.join(labels)}")
    engine = load(model, device=config.device)
    found = engine.zero_shot([row[task.text] for row in rows], list(labels), HYPOTHESIS, truncate=True)
    return sum(one["labels"][0] == row[task.label] for one, row in zip(found, rows, strict=True)) / len(rows)


def _baseline(baseline: BaselineOf, member: Member, config: FinetuneConfig) -> Baseline:
    """What `OUT/NAME/baseline.json` says, if it is of these rows; else measured, and written there."""
    path = Path(config.out) / "baseline.json"
    task = json.loads(json.dumps(vars(config.task)))
    rows = {
        "train": digest([Path(config.train)]),
        "dev": digest([Path(config.dev)]),
        "task": hashlib.sha256(str(task).encode()).hexdigest(),
    }
    if path.exists():
        found = json.loads(path.read_text())
        if found.pop("rows") == rows:
            return Baseline(**found)
    train, dev = list(read_table(config.train)), list(read_table(config.dev))
    started = time.perf_counter()
    name, scores = baseline(member, config.task.fit(train), train, dev)
    measured = Baseline(name=name, scores=scores, seconds=time.perf_counter() - started)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**dataclasses.asdict(measured), "rows": rows})
    return measured


def _report(outcomes: Sequence[Outcome], model: str, config: FinetuneConfig) -> SuiteReport:
    where: torch.device = choose_device(config.device)
    return SuiteReport(
        outcomes=tuple(outcomes), record={"model": model, "environment": {**environment(where), "commit": commit()}}
    )
