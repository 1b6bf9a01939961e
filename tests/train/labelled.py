"""Small labelled rows that can be learned, and the jobs that learn them."""

import json
import random
from pathlib import Path

from modernbert.train.finetune import FinetuneConfig

WORDS = [
    "capital",
    "France",
    "Paris",
    "Italy",
    "Rome",
    "walked",
    "store",
    "café",
    "return",
    "minute",
    "week",
    "seven",
    "add",
    "sixty",
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def sentences(count, shortest=1):
    generator = random.Random(count)
    return [[generator.choice(WORDS) for _ in range(generator.randint(shortest, 20))] for _ in range(count)]


def job_of(tmp_path, task, rows, dev=None, **settings):
    defaults = {"epochs": 1, "batch_rows": 8, "learning_rates": (1e-3,), "device": "cpu", "dropout": 0.0, "max_length": 64}
    return FinetuneConfig(
        task=task,
        train=write(tmp_path / "train.jsonl", rows),
        dev=write(tmp_path / "dev.jsonl", rows if dev is None else dev),
        out=str(tmp_path / "out"),
        **{**defaults, **settings},
    )


def losses(config):
    lines = [json.loads(line) for line in Path(config.out, "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def has_paris(words):
    return {"text": " ".join(words), "label": "yes" if "Paris" in words else "no"}


def bio(words):
    return {"tokens": words, "tags": ["B-PLACE" if word in ("Paris", "Rome", "Italy", "France") else "O" for word in words]}
