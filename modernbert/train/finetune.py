"""Fine-tuning: one loop for every supervised task. `finetune(config)` runs a job: all learning rates, each with all seeds.

    torchrun --nproc-per-node 2 -m modernbert finetune RECIPE …     several GPUs share each step's examples; the curve stays

    for each learning rate and seed
        for each epoch                shuffled by the seed
            for each step             `batch_rows` examples, packed, in micro-batches of at most `micro_batch_tokens` tokens
                loss of each micro-batch, divided by the terms of the whole step
                optimizer step at the schedule's rate
            now and then              dev scores; the best weights are kept

A job's folder holds `config.json` (the resolved settings), `log.jsonl`, `runs.jsonl` (what is done), `model/` (the best run's best
checkpoint: a Hugging Face folder with its tokenizer) and, at the end, `result.json`.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from modernbert.checkpoint.folder import load_model, save_model
from modernbert.checkpoint.lock import alone_in
from modernbert.checkpoint.names import resolve
from modernbert.checkpoint.settings import read_config
from modernbert.checkpoint.weights import read_weights, write_json
from modernbert.config import ModelConfig, preset
from modernbert.data.tables import contexts_beside, read_table
from modernbert.engine.batching import group_by_tokens
from modernbert.engine.engine import tokenizer_of
from modernbert.engine.hardware import choose_dtype, commit, environment
from modernbert.errors import ConfigError, DataError, TrainingError
from modernbert.eval.supervised import answers_of, pack_examples
from modernbert.tasks.task import Example, Row, Task
from modernbert.text.tokenizer import Tokenizer
from modernbert.train.adapters import add_adapters, merge_adapters
from modernbert.train.distributed import World, join
from modernbert.train.finetune_folder import RunLog, claim, digest, note
from modernbert.train.finetune_result import FinetuneResult, Run
from modernbert.train.optimizers import OptimizerConfig, OptimizerName, build_optimizers, set_learning_rates
from modernbert.train.replay import Replayed, replays
from modernbert.train.schedules import wsd

BASE_WIDTH = preset("base").hidden_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Everything that decides a fine-tuning job. Defaults follow the paper's GLUE protocol (app. E.1)."""

    task: Task
    train: str = "train.jsonl"
    """File of labelled rows: .jsonl (also .gz, .zst), .csv, .tsv or .parquet."""
    dev: str = "dev.jsonl"
    """File of rows that choose the best checkpoint; of the same kinds."""
    out: str = "runs/finetune"
    """The job's folder."""
    max_length: int = 512
    """Longest row in tokens. Longer texts lose their end, which is reported; tags and answers are read through windows."""
    epochs: int = 3
    """Of a recipe: for models of base's width; `modernbert finetune` takes more for narrower ones, three times as many for `tiny`."""
    max_steps: int | None = None
    """Steps after which a run ends, and over which the rate falls; None goes through all epochs."""
    batch_rows: int = 32
    """Examples that make one optimizer step."""
    micro_batch_tokens: int = 16_384
    """Tokens that go through the model at once, on each device: what fits the memory, as results do not depend on it."""
    recompute: bool = False
    """Gradient checkpointing: less memory for a third more work, and the same gradients."""
    learning_rates: tuple[float, ...] = (5e-5,)
    """Peak rates; each is tried with every seed. Of a recipe: for models of base's width; `modernbert finetune` takes greater ones for
    narrower models, four times as great for `tiny`."""
    seeds: tuple[int, ...] = (0,)
    """Of the new classifier, of the order of rows and of dropout."""
    warmup: float = 0.06
    """Share of the steps in which the rate rises; then it falls to 0 in a line (6 % in the paper's repository)."""
    optimizer: OptimizerName = "stableadamw"
    """muon moves the matrices inside the layers at five times `learning_rates`, as `tiny` was pre-trained."""
    weight_decay: float = 5e-6
    """As in pre-training: stableadamw's is not multiplied by the rate, adamw's is."""
    trains: Literal["all", "classifier", "adapters"] = "all"
    """Which weights move: all, the classifier and its prediction head alone, or these and low-rank adapters in the encoder's matrices
    (LoRA, Hu et al. 2021), which the saved model has merged into them."""
    adapter_rank: int = 16
    """Rank of the adapters; their output counts twice (alpha is 2 × rank)."""
    dropout: float = 0.1
    """Of attention's output, as ModernBERT was trained with, and before the classifier. The saved config keeps the model's own."""
    replay: bool = True
    """On a single GPU and for a small model, whether the steps of a shape that comes often are replayed as CUDA graphs: the same
    computation without waiting for the host, and other draws of dropout."""
    evaluations: int = 1
    """Of the dev rows in each epoch."""
    patience: int | None = None
    """Evaluations without a better score after which a run ends; None goes through all epochs."""
    device: str | None = None
    """None takes the best one here, and under torchrun each process a GPU of its own; on a GPU that has bfloat16 the model computes in
    it, elsewhere in float32."""
    log_every_steps: int = 20

    def for_width(self, hidden_size: int) -> "FinetuneConfig":
        """Settings that were chosen for a model as wide as ModernBERT-base, for another: a narrower one takes greater steps, and more.

        For `tiny`, half as wide, four times the rates and three times the epochs; nothing narrower has been measured, so it counts as
        `tiny`. Wider ones take the settings as they are. Source: bench/results/widths_2026-11-27.md.

        >>> from modernbert.tasks.sequence import SequenceTask
        >>> config = FinetuneConfig(task=SequenceTask(), learning_rates=(5e-5,), epochs=3).for_width(384)
        >>> config.learning_rates, config.epochs
        ((0.0002,), 9)
        """
        times = min(max(BASE_WIDTH / hidden_size, 1), 2)
        rates = tuple(float(f"{rate * times**2:.3g}") for rate in self.learning_rates)
        return dataclasses.replace(self, learning_rates=rates, epochs=round(self.epochs * (2 * times - 1)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What all runs of a job share."""

    config: FinetuneConfig
    task: Task
    folder: Path
    model_config: ModelConfig
    world: World
    train: list[Example]
    dev: list[Example]
    dev_rows: list[Row]
    digests: dict[str, str]
    """SHA-256 of the model and of the files of rows."""

    @property
    def data(self) -> dict[str, Any]:
        """Where the examples come from, for the record."""
        found = {"train": (self.config.train, self.train), "dev": (self.config.dev, self.dev)}
        return {
            name: {"file": file, "examples": len(examples), "sha256": self.digests[name]}
            for name, (file, examples) in found.items()
        }

    @property
    def steps(self) -> int:
        return min(self.config.epochs * self.steps_per_epoch, self.config.max_steps or sys.maxsize)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train) / self.config.batch_rows)


def finetune(config: FinetuneConfig, model: str | Path | None = None) -> FinetuneResult:
    """Fine-tunes a model for a task, once for each learning rate and seed, and keeps the best.

    A job that was killed goes on when it is started again: runs that are done are kept, and the one that was cut off begins anew; of
    a finished job the result comes back. A run whose loss is not finite is noted as failed, and the others go on.

    Args:
        config: of a recipe.
        model: where every run begins: a packaged model, a folder, or a name on the hub; None is our own. Its classifier, if it
            has one, is replaced, and all else is kept: so RTE goes on from MNLI.

    Raises:
        ConfigError: settings that do not fit together.
        DataError: a file or a row of it cannot be used; names file, row and column.
        CheckpointError, TokenizerError: the model is missing, foreign or damaged.
        TrainingError: the folder holds another job, another process writes there, or every run failed.
        MissingExtraError: adapters need peft.
    """
    check(config)
    folder = resolve(model)
    tokenizer = tokenizer_of(folder)
    job = prepare(config, folder, tokenizer)
    torch.set_float32_matmul_precision("high")
    out = Path(config.out)
    with alone_in(out, TrainingError) if job.world.leads else contextlib.nullcontext():
        result = run_all(job, out, tokenizer)
    job.world.leave()
    return result


def run_all(job: Job, out: Path, tokenizer: Tokenizer) -> FinetuneResult:
    """Every learning rate with every seed; what is done already is not done again."""
    config, metric = job.config, job.task.metric
    settings = json.loads(json.dumps({"model": str(job.folder), **vars(config), "task": vars(job.task), "digests": job.digests}))
    runs = job.world.gather(claim(out, settings) if job.world.leads else [])[0]
    done = {(run.learning_rate, run.seed) for run in runs}
    for learning_rate, seed in itertools.product(config.learning_rates, config.seeds):
        if (learning_rate, seed) in done:
            continue
        run, trained = train_once(job, learning_rate, seed)
        if trained and job.world.leads and all(run.scores[metric] > other.scores[metric] for other in runs if not other.failed):
            kept = read_config(job.folder)
            kept = trained.config.with_(attention_dropout=kept.attention_dropout, classifier_dropout=kept.classifier_dropout)
            save_model(trained, kept, out / "model", tokenizer=tokenizer)
        runs.append(run)
        if job.world.leads:
            note(out, run)
    if all(run.failed for run in runs):
        raise TrainingError(f"every run failed: {runs[0].failed}; take lower learning_rates, and another folder")
    path = out / "result.json"
    record = {"settings": settings, "data": job.data, "environment": {**environment(job.world.device), "commit": commit()}}
    if len(done) == len(runs) and path.exists():  # nothing was left to do: it was made where the file says
        record = {name: json.loads(path.read_text())[name] for name in record}
    result = FinetuneResult(metric=metric, runs=tuple(runs), model=out / "model", record=record)
    if job.world.leads:
        write_json(path, result.to_json())
    return result


def train_once(job: Job, learning_rate: float, seed: int, start: nn.Module | None = None) -> tuple[Run, Any]:
    """One run from the checkpoint, or from `start`, to its best evaluation; and the model with the weights that it had there, or None if
    it failed."""
    config, task, world, started = job.config, job.task, job.world, time.perf_counter()
    torch.manual_seed(world.seed(seed, 0))  # dropout, and the adapters' weights
    model: Any = start_model(job, seed) if start is None else start
    settings = OptimizerConfig(
        name=config.optimizer, lr=learning_rate, muon_lr=5 * learning_rate, weight_decay=config.weight_decay
    )
    optimizers = build_optimizers(model, settings)
    parallel = world.parallel(model)
    replayed = None
    if config.replay and world.size == 1 and not config.recompute and replays(model, job.model_config, world.device):
        replayed = Replayed(model, longest=max(len(row) for example in job.train for row in example.rows))
    log = RunLog(Path(config.out), learning_rate, seed, steps=job.steps, steps_per_epoch=job.steps_per_epoch, world=world)
    best: Run | None = None
    best_weights: dict[str, Tensor] = {}
    due = {round(n * job.steps_per_epoch / config.evaluations) for n in range(1, config.epochs * config.evaluations + 1)} | {
        job.steps
    }
    worse = 0

    model.train()
    for step, examples in enumerate(each_step(job, seed), start=1):
        share = world.size / sum(example.weight for example in examples)  # processes average gradients
        mine = examples[world.rank :: world.size]
        if not mine:  # every process must take part: one without examples repeats one that does not count
            mine, share = examples[:1], 0.0
        groups = group_by_tokens([example.tokens for example in mine], config.micro_batch_tokens)
        called = replayed if replayed is not None and len(groups) == 1 else parallel
        for number, group in enumerate(groups, start=1):
            part = [mine[i] for i in group]
            with world.without_sync(parallel) if number < len(groups) else contextlib.nullcontext():
                loss = task.loss(called, pack_examples(part).to(world.device, non_blocking=True), part) * share
                loss.backward()
            log.add(loss.detach() / world.size)
        rate = wsd(
            step - 1,
            warmup_tokens=config.warmup * job.steps,
            decay_tokens=(1 - config.warmup) * job.steps,
            total_tokens=job.steps,
            decay_shape="linear",
        )
        set_learning_rates(optimizers, rate)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

        if step % config.log_every_steps == 0 or step in due:
            try:
                log.write_loss(step, rate)
            except TrainingError as error:
                log.close()
                epoch, seconds = step / job.steps_per_epoch, time.perf_counter() - started
                return Run(
                    learning_rate=learning_rate, seed=seed, epoch=epoch, scores={}, seconds=seconds, failed=str(error)
                ), None
        if step not in due:
            continue
        scores = evaluate(job, model)
        log.write(step, {"dev": scores})
        if best is None or scores[task.metric] > best.scores[task.metric]:
            epoch, seconds = step / job.steps_per_epoch, time.perf_counter() - started
            best = Run(learning_rate=learning_rate, seed=seed, epoch=epoch, scores=scores, seconds=seconds)
            best_weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
            worse = 0
        else:
            worse += 1
        if step == job.steps or (config.patience is not None and worse > config.patience):
            break
        model.train()
    log.close()
    assert best is not None, "the last step is always due"
    model.load_state_dict(best_weights)
    if config.trains == "adapters":
        merge_adapters(model)
    return dataclasses.replace(best, seconds=time.perf_counter() - started), model


def evaluate(job: Job, model: nn.Module) -> dict[str, float]:
    """The dev scores; each process answers for its share of the examples, and all get the same figures."""
    world = job.world
    mine = answers_of(model, job.task, job.dev[world.rank :: world.size], batch_tokens=job.config.micro_batch_tokens)
    answers: list[Any] = [None] * len(job.dev)
    for rank, part in enumerate(world.gather(mine)):
        answers[rank :: world.size] = part
    return job.task.score(job.dev_rows, job.dev, answers)


def each_step(job: Job, seed: int) -> Iterator[list[Example]]:
    """The examples of each step of all epochs; every epoch has every example once, in an order of its own."""
    order = torch.Generator().manual_seed(seed)
    for _ in range(job.config.epochs):
        shuffled = torch.randperm(len(job.train), generator=order).tolist()
        for start in range(0, len(shuffled), job.config.batch_rows):
            yield [job.train[i] for i in shuffled[start : start + job.config.batch_rows]]


def start_model(job: Job, seed: int) -> nn.Module:
    """The checkpoint with a new classifier; its prediction head stays where it has one, as in transformers."""
    fresh = ("classifier",) if "head.dense.weight" in read_weights(job.folder) else ("head", "classifier")
    model: Any = load_model(
        job.task.head, job.folder, config=job.model_config, dtype=torch.float32, device=job.world.device, fresh=fresh, seed=seed
    )
    model.model.compute_dtype, model.model.recompute = choose_dtype(job.world.device), job.config.recompute
    if job.config.trains != "all":
        model.model.requires_grad_(False)
    if job.config.trains == "adapters":
        add_adapters(model.model, job.config.adapter_rank)
    return model


def check(config: FinetuneConfig) -> None:
    """Raises ConfigError where a setting makes no sense."""
    for name, least in (
        ("max_length", 16),
        ("epochs", 1),
        ("batch_rows", 1),
        ("micro_batch_tokens", 1),
        ("evaluations", 1),
        ("adapter_rank", 1),
    ):
        if getattr(config, name) < least:
            raise ConfigError(f"{name}={getattr(config, name)}: at least {least} is needed")
    for name in ("learning_rates", "seeds"):
        if not getattr(config, name):
            raise ConfigError(f"{name} is empty: at least one is needed")
    if config.max_steps is not None and config.max_steps < 1:
        raise ConfigError(f"max_steps={config.max_steps}: at least 1 is needed, or None")
    if not 0 <= config.warmup < 1 or not 0 <= config.dropout < 1:
        raise ConfigError(f"warmup={config.warmup}, dropout={config.dropout}: wanted shares from 0 to below 1")


def prepare(config: FinetuneConfig, folder: Path, tokenizer: Tokenizer) -> Job:
    """Reads and encodes the rows."""
    found, world = read_config(folder), join(config.device or "auto")
    if config.max_length > found.max_position_embeddings:
        raise ConfigError(f"max_length={config.max_length}: the model reads at most {found.max_position_embeddings} tokens")
    files = {"train": Path(config.train), "dev": Path(config.dev)}
    rows = {name: list(read_table(file)) for name, file in files.items()}
    for name, file in files.items():
        if not rows[name]:
            raise DataError(f"{file} has 0 rows; {name}= needs at least one")
    task = config.task.fit(rows["train"])
    examples = {}
    for name, some in rows.items():
        encoded = task.encode(some, tokenizer, config.max_length)
        if not any(example.weight for example in encoded.examples):
            raise DataError(f"{some[0][0]} and all that follow: nothing to learn from, no word has a token")
        if encoded.cut and world.leads:
            tqdm.write(f"{name}: {encoded.cut:,} of {len(some):,} rows were cut to {config.max_length} tokens", file=sys.stderr)
        examples[name] = encoded.examples
    learned = {hash(str(example.rows)) for example in examples["train"]}
    again = sum(hash(str(example.rows)) in learned for example in examples["dev"])
    if again and world.leads:
        tqdm.write(
            f"dev: {again:,} of {len(examples['dev']):,} examples are in train as well: the scores flatter", file=sys.stderr
        )
    return Job(
        config=config,
        task=task,
        folder=folder,
        model_config=task.configure(found).with_(attention_dropout=config.dropout, classifier_dropout=config.dropout),
        world=world,
        train=[example for example in examples["train"] if example.weight],
        dev=examples["dev"],
        dev_rows=rows["dev"],
        digests={
            "model": digest(folder.glob("*.safetensors")),
            **{name: digest(filter(None, (file, contexts_beside(file)))) for name, file in files.items()},
        },
    )
