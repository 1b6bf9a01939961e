"""Another library's encoder, fine-tuned by our loop with our recipes: what is compared is the pre-training alone.

Everything that `train_once` does stays: rows and their order, steps, optimizer, rates, evaluations. What differs is the model, any BERT of
transformers behind a `Batch`, with its own tokenizer, its pooler's vector of the first token under the classifier, and its own dropout.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from modernbert.batch import Batch
from modernbert.bench.record import environment
from modernbert.checkpoint.names import resolve_data
from modernbert.checkpoint.weights import write_json
from modernbert.config import ModelConfig
from modernbert.data.labelled import write_rows
from modernbert.data.tables import read_table
from modernbert.engine.hardware import commit
from modernbert.errors import DataError, MissingExtraError
from modernbert.tasks.metrics import spread
from modernbert.text.tokenizer import Tokenizer
from modernbert.train.distributed import join
from modernbert.train.finetune import FinetuneConfig, Job, train_once
from modernbert.train.suite import Member

try:
    import transformers
except ImportError as error:
    raise MissingExtraError("another library's encoder needs transformers: pip install 'modernbert[hf]'") from error


class PaddedEncoder(nn.Module):
    """A sequence classifier of transformers behind our call: packed rows are padded for it."""

    def __init__(self, model: Any, sep_id: int) -> None:
        super().__init__()
        self.padded, self.sep_id = model, sep_id

    def forward(self, batch: Batch) -> Tensor:
        lengths_B = batch.cu_seqlens.diff()
        row_T = torch.arange(batch.rows, device=batch.device).repeat_interleave(lengths_B, output_size=len(batch.ids_T))
        shape = (batch.rows, batch.max_seqlen)
        ids_BL = torch.full(shape, self.padded.config.pad_token_id, dtype=torch.long, device=batch.device)
        ids_BL[row_T, batch.pos_T.long()] = batch.ids_T.long()
        mask_BL = (torch.arange(batch.max_seqlen, device=batch.device) < lengths_B[:, None]).long()
        ends_BL = (ids_BL == self.sep_id).long()
        types_BL = ((ends_BL.cumsum(1) - ends_BL) > 0).long() * mask_BL  # all after the first text's end
        with torch.autocast("cuda", torch.bfloat16, enabled=ids_BL.is_cuda):
            return self.padded(input_ids=ids_BL, attention_mask=mask_BL, token_type_ids=types_BL).logits

    def save_encoder(self, path: Path) -> None:
        """Its weights without the classifier, as `peer_start` reads them."""
        save_file(self.padded.base_model.state_dict(), path)


def peer_record(members: Sequence[Member], folder: str | Path, data: str | Path, out: str | Path) -> dict[str, Any]:
    """Every learning rate with every seed for each member, as a suite does it; one that begins from another takes its best run's encoder.

    Args:
        members: of sequence classification.
        folder: of a BERT in transformers' layout.
        data: a folder that holds the sets.
        out: gets rows and `peer.json`, which is written after each run; what it holds is not run again.

    Raises:
        DataError: a set is not in `data`.
    """
    root, out = resolve_data(data), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "peer.json"
    record = json.loads(path.read_text()) if path.exists() else {"runs": []}
    record |= {"model": str(folder), "environment": environment("torch", "transformers"), "commit": commit()}
    done = {(run["set"], run["learning_rate"], run["seed"]) for run in record["runs"]}
    for member in members:
        job = _prepare(member, Path(folder), root, out)
        best = max((run["score"] for run in record["runs"] if run["set"] == member.name), default=-2.0)
        for rate, seed in itertools.product(job.config.learning_rates, job.config.seeds):
            if (member.name, rate, seed) in done:
                continue
            started = time.perf_counter()
            before = out / f"{member.begins_from}.safetensors"
            start = peer_start(Path(folder), job.model_config.num_labels, job.world.device, seed, before)
            run, model = train_once(job, rate, seed, start)
            score = run.scores.get(job.task.metric, -1.0)
            if model is not None and score > best:
                best = score
                model.save_encoder(out / f"{member.name}.safetensors")
            line = {"set": member.name, "metric": job.task.metric, "learning_rate": rate, "seed": seed, "score": score}
            record["runs"].append({**line, "epoch": run.epoch, "seconds": time.perf_counter() - started})
            write_json(path, record)
    return record


def markdown(record: dict[str, Any]) -> str:
    """A line for each set and learning rate: scores in percent, mean ± standard deviation over seeds."""
    lines = [["set", "figure", "lr", "score", "seeds"], ["---"] * 5]
    for key in dict.fromkeys((run["set"], run["metric"], run["learning_rate"]) for run in record["runs"]):
        scores = [100 * run["score"] for run in record["runs"] if (run["set"], run["metric"], run["learning_rate"]) == key]
        lines.append([key[0], key[1], f"{key[2]:g}", spread(scores, 1), str(len(scores))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _prepare(member: Member, folder: Path, root: Path, out: Path) -> Job:
    source = next((source for source in member.sources if source.is_in(root)), None)
    if source is None:
        raise DataError(f"{member.name} is not in {root}; wanted files such as {member.sources[0].dev}")
    train, dev = write_rows(source, root, out / "data" / member.name)
    return peer_job(dataclasses.replace(member.config, train=str(train), dev=str(dev), out=str(out / member.name)), folder)


def peer_job(config: FinetuneConfig, folder: Path) -> Job:
    """What the runs of a config share, with another library's tokenizer; makes the config's folder."""
    Path(config.out).mkdir(parents=True, exist_ok=True)
    rows = {"train": list(read_table(config.train)), "dev": list(read_table(config.dev))}
    task, tokenizer = config.task.fit(rows["train"]), Tokenizer.load(folder)
    encoded = {name: task.encode(some, tokenizer, config.max_length) for name, some in rows.items()}
    tqdm.write(f"{config.out}: {encoded['train'].cut} and {encoded['dev'].cut} rows were cut to {config.max_length} tokens")
    return Job(
        config=config,
        task=task,
        folder=folder,
        model_config=task.configure(ModelConfig()),
        world=join(config.device or "auto"),
        train=encoded["train"].examples,
        dev=encoded["dev"].examples,
        dev_rows=rows["dev"],
        digests={},
    )


def peer_start(folder: Path, classes: int, device: torch.device, seed: int, encoder: Path | None = None) -> PaddedEncoder:
    """The peer with a new classifier, and with the encoder's weights of a run before, if there is such a file."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=classes, dtype=torch.float32)
    if encoder is not None and encoder.exists():
        model.base_model.load_state_dict(load_file(encoder))
    return PaddedEncoder(model, Tokenizer.load(folder).sep_id).to(device)
