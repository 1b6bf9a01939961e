"""The same fine-tuning by our loop and by transformers' Trainer: scores and wall time, seed by seed, in one process.

Both begin from the same weights (the new classifier included), read the same token ids in steps of as many rows, take AdamW with the
same rates, decay and warm-up, compute in bf16 on a GPU, evaluate the dev rows after each epoch and count the best. What differs: our
rows are packed, Trainer's are padded to the longest of a step; the order of rows; draws of dropout. Attention is what transformers
chooses by itself, and the record says which, but for one kernel that spoils the gradients (`without_cudnn`).
"""

import contextlib
import dataclasses
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modernbert.bench.record import environment
from modernbert.bench.timing import synchronize
from modernbert.checkpoint.folder import save_model
from modernbert.checkpoint.names import resolve, resolve_data
from modernbert.data.labelled import write_rows
from modernbert.engine.engine import tokenizer_of
from modernbert.engine.hardware import commit
from modernbert.errors import DataError, MissingExtraError
from modernbert.model.heads import TokenClassifier
from modernbert.model.losses import IGNORE
from modernbert.tasks.metrics import spread
from modernbert.train.finetune import FinetuneConfig, Job, evaluate, prepare, start_model, train_once
from modernbert.train.suite import Member

try:
    import accelerate  # noqa: F401  (Trainer wants it)
    import transformers
except ImportError as error:
    raise MissingExtraError("this record compares with transformers' Trainer: pip install 'modernbert[bench,hf]'") from error


def trainer_record(members: Sequence[Member], model: str | Path | None, data: str | Path, out: str | Path) -> dict[str, Any]:
    """Trains every member with every seed, ours and theirs in turn; `OUT/trainer.json` is written after each, and what it holds
    is not run again.

    Args:
        members: for classes or tags; the first learning rate counts.
        model: where all begin.
        data: a folder that holds the sets.
        out: gets rows and the record.

    Raises:
        DataError: a set is not in `data`.
    """
    folder, out = resolve_data(data), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "trainer.json"
    record = json.loads(path.read_text()) if path.exists() else {"runs": []}
    record |= {"model": str(model), "environment": environment("torch", "transformers", "accelerate"), "commit": commit()}
    done = {(run["set"], run["seed"]) for run in record["runs"]}
    for member in members:
        source = next((source for source in member.sources if source.is_in(folder)), None)
        if source is None:
            raise DataError(f"{member.name} is not in {folder}; wanted files such as {member.sources[0].dev}")
        train, dev = write_rows(source, folder, out / "data" / member.name)
        config = dataclasses.replace(
            member.config, train=str(train), dev=str(dev), out=str(out / member.name), optimizer="adamw", weight_decay=0.01
        )
        Path(config.out).mkdir(exist_ok=True)
        start = resolve(model)
        job = prepare(config, start, tokenizer_of(start))
        for seed in config.seeds:
            if (member.name, seed) not in done:
                record["runs"].append({"set": member.name, "seed": seed, "metric": job.task.metric, **compare(job, seed)})
                path.write_text(json.dumps(record, indent=1))
    return record


def compare(job: Job, seed: int) -> dict[str, Any]:
    """Best score and seconds of both, from a folder to the end, the one that goes first changing with the seed."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        save_model(start_model(job, seed), job.model_config, Path(folder) / "start")  # for theirs; no part of its time
        for side in ("ours", "theirs") if seed % 2 == 0 else ("theirs", "ours"):
            synchronize(job.world.device)
            started = time.perf_counter()
            result = _ours(job, seed) if side == "ours" else _theirs(job, seed, folder)
            synchronize(job.world.device)
            found[side] = {**result, "seconds": time.perf_counter() - started}
    return found


def markdown(record: dict[str, Any]) -> str:
    """A line for each set: scores in percent and seconds, mean ± standard deviation over seeds, and how many times as fast."""
    lines = [["set", "figure", "ours", "Trainer", "seconds", "Trainer's", "times as fast"], ["---"] * 7]
    for name in dict.fromkeys(run["set"] for run in record["runs"]):
        runs = [run for run in record["runs"] if run["set"] == name]
        scores = [spread([100 * run[side]["score"] for run in runs], 1) for side in ("ours", "theirs")]
        seconds = [spread([run[side]["seconds"] for run in runs], 1) for side in ("ours", "theirs")]
        ratio = statistics.median(run["theirs"]["seconds"] / run["ours"]["seconds"] for run in runs)
        lines.append([name, runs[0]["metric"], *scores, *seconds, f"{ratio:.2f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ours(job: Job, seed: int) -> dict[str, Any]:
    run, _ = train_once(job, job.config.learning_rates[0], seed)
    return {"score": run.scores.get(job.task.metric, 0.0)}


class _Padded(nn.Module):
    """Their class behind our call: packed rows are padded for it, so that one evaluation scores both."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.tokens = model, "TokenClassification" in type(model).__name__

    def forward(self, batch: Any) -> torch.Tensor:
        ends = batch.cu_seqlens.tolist()
        rows = [batch.ids_T[start:end] for start, end in itertools.pairwise(ends)]
        ids_BL = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.model.config.pad_token_id)
        mask_BL = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        logits = self.model(input_ids=ids_BL, attention_mask=mask_BL).logits
        return logits[mask_BL.bool()] if self.tokens else logits


def _theirs(job: Job, seed: int, folder: str) -> dict[str, Any]:
    """The best dev score of transformers' Trainer, and the attention that transformers chose."""
    tagging = issubclass(job.task.head, TokenClassifier)
    auto = transformers.AutoModelForTokenClassification if tagging else transformers.AutoModelForSequenceClassification
    model = auto.from_pretrained(Path(folder) / "start")
    best = _Best(job, model)
    trainer = transformers.Trainer(
        model=model,
        args=_arguments(job.config, job, seed, folder),
        train_dataset=[{"input_ids": example.rows[0], "labels": example.label} for example in job.train],
        data_collator=_Collate(job.model_config.pad_token_id),
        callbacks=[best],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    attention = model.config._attn_implementation
    lengths = [len(example.rows[0]) for example in job.train]
    if attention == "sdpa" and max(lengths) - min(lengths) > model.config.sliding_window:
        with without_cudnn():
            trainer.train()
        return {"score": best.score, "attention": "sdpa without cuDNN"}
    trainer.train()
    return {"score": best.score, "attention": attention}


@contextlib.contextmanager
def without_cudnn() -> Iterator[None]:
    """Takes PyTorch's other attention kernels: cuDNN's gives NaN for the gradient of a query that has no key, in rows of 64 tokens more
    than a multiple of 128 (pytorch/pytorch#196678; PyTorch 2.11 on an H200). Padding farther than the window from a row's last token
    has no key, so on long rows of unlike lengths Trainer's model would learn nothing.
    """
    allowed = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(allowed)


def _arguments(config: FinetuneConfig, job: Job, seed: int, folder: str) -> transformers.TrainingArguments:
    cuda = job.world.device.type == "cuda"
    return transformers.TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=config.batch_rows,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rates[0],
        weight_decay=config.weight_decay,
        adam_beta1=0.9,
        adam_beta2=0.98,
        adam_epsilon=1e-6,
        max_grad_norm=0.0,
        warmup_steps=round(config.warmup * job.steps),
        lr_scheduler_type="linear",
        bf16=cuda,
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=seed,
    )


@dataclasses.dataclass(frozen=True)
class _Collate:
    """Pads the rows of a step to the longest of them."""

    pad_id: int

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)

        def padded(values: list[int], fill: int) -> list[int]:
            return values + [fill] * (longest - len(values))

        labels = [row["labels"] for row in rows]
        if isinstance(labels[0], list):
            labels = [padded(label, IGNORE) for label in labels]
        return {
            "input_ids": torch.tensor([padded(row["input_ids"], self.pad_id) for row in rows]),
            "attention_mask": torch.tensor([padded([1] * len(row["input_ids"]), 0) for row in rows]),
            "labels": torch.tensor(labels),
        }


class _Best(transformers.TrainerCallback):
    """Scores the dev rows after each epoch, as our loop does."""

    def __init__(self, job: Job, model: Any) -> None:
        self.job, self.model, self.score = job, _Padded(model), 0.0

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        cuda = self.job.world.device.type == "cuda"
        with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            scores = evaluate(self.job, self.model)
        self.score = max(self.score, scores[self.job.task.metric])
