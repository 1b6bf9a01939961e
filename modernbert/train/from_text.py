"""From a folder of text to a model in one go: `from_text(config, text, …)`, stage by stage, each in its own folder.

    text ─→ held_out.jsonl   some documents, which training never sees
         ─→ tokenizer        of the others
         ─→ shards, held_out token ids
         ─→ run              every phase of the recipe, checkpoints, loss on what is held out
         ─→ average          the mean of the run's checkpoints
         ─→ evaluation.json  bits per masked byte of the last weights and of the average
         ─→ model            the better of the two, with its card: README.md and curves.png

A stage whose result is there is not done again; one that was stopped goes on where it was.
"""

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from modernbert.checkpoint.atomic import staged, sweep
from modernbert.checkpoint.folder import load_model
from modernbert.checkpoint.lock import alone_in
from modernbert.data.documents import Document, document_files, read_documents
from modernbert.data.shard_writing import write_shards
from modernbert.data.shards import TOKENIZER, read_manifest
from modernbert.engine.engine import load
from modernbert.errors import ConfigError, DataError, TrainingError
from modernbert.eval.masked import evaluate_masked
from modernbert.model.heads import MaskedLM
from modernbert.text.tokenizer import Tokenizer
from modernbert.text.train import train_tokenizer
from modernbert.train.average import average
from modernbert.train.card import write_card
from modernbert.train.pretrain import pretrain
from modernbert.train.report import figure_class, report
from modernbert.train.settings import PretrainConfig

HELD_OUT = 1000
"""Documents kept apart, at most; a hundredth of them where that is fewer, a fifth of the few documents of a trial."""

BEST = 3
"""Checkpoints of the lowest held-out loss that are averaged, with the newest (facts §2.1)."""


def from_text(config: PretrainConfig, text: str | Path, *, licence: Sequence[str] = (), command: str = "from_text") -> Path:
    """Makes a tokenizer, token shards and a trained model of a folder of text, and returns the model's folder.

    Args:
        config: a recipe; `out` is the folder of all stages, `model.vocab_size` the size of the tokenizer, `shards` is not used.
        text: a folder or file of documents, as `read_documents` reads them.
        licence: of the text, for the card; a line each.
        command: that was given, for the card.

    Raises:
        ConfigError: the recipe begins from the weights of a model, which has its tokenizer.
        DataError: the text cannot be read, holds fewer than two documents, or is not that of the stages that are there.
        TrainingError: another process works in the folder, or the run cannot go on.
        MissingExtraError: matplotlib is not installed, for the card's curves.
    """
    if config.begin_from:
        raise ConfigError(
            f"begin_from={config.begin_from} has a tokenizer of its own, and from-text makes another; use `modernbert prepare tokens` "
            "with that one, and `modernbert pretrain`"
        )
    figure_class()
    out = Path(config.out)
    with alone_in(out, TrainingError):
        sweep(out)
        every = _claim(out, Path(text))
        config = dataclasses.replace(
            config,
            out=str(out / "run"),
            shards=(str(out / "shards"),),
            validation=str(out / "held_out"),
            keep_best=max(config.keep_best, BEST),
        )
        tokenizer = _tokenizer(out, text, every, config.model.vocab_size)
        _hold_out(out / "held_out.jsonl", text, every)
        for name, kept in (("shards", False), ("held_out", True)):
            if _missing(out / name / TOKENIZER):
                write_shards(_part(text, every, kept), tokenizer, out / name)
        if _missing(out / "model"):
            pretrain(config)
            report(out / "run")
            _evaluate(out, length=min(1024, max(phase.length for phase in config.phases)))
            _finish(out, licence, command)
    return out / "model"


def _missing(folder: Path) -> bool:
    """Says so where a stage is done already."""
    if folder.exists():
        tqdm.write(f"{folder} is there", file=sys.stderr)
    return not folder.exists()


def _claim(out: Path, text: Path) -> int:
    """Every how many documents one is held out; remembers the files, which must be the same when the command is given again."""
    files = {str(file): file.stat().st_size for file in document_files([text])}
    path = out / "text.json"
    if path.exists():
        known = json.loads(path.read_text())
        if known["files"] != files:
            raise DataError(f"{out} was begun with other files than those of {text}; give out= another folder, or the same files")
        return int(known["every"])
    documents = sum(1 for _ in read_documents([text]))
    if documents < 2:
        raise DataError(f"{text} holds {documents} documents; wanted two or more, one of them to be held out for the evaluation")
    every = max(2, min(100, documents // 5), documents // HELD_OUT)
    _write_json(path, {"files": files, "documents": documents, "every": every})
    return every


def _part(text: str | Path, every: int, kept: bool) -> Iterator[Document]:
    """The documents that are held out, or all the others."""
    return (document for number, document in enumerate(read_documents([text]), 1) if (number % every == 0) == kept)


def _hold_out(file: Path, text: str | Path, every: int) -> None:
    if _missing(file):
        part = file.with_name(f"{file.name}.part")
        with part.open("w", encoding="utf-8") as lines:
            for document in _part(text, every, True):
                lines.write(json.dumps(dataclasses.asdict(document), ensure_ascii=False) + "\n")
        os.replace(part, file)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def _tokenizer(out: Path, text: str | Path, every: int, vocab_size: int) -> Tokenizer:
    folder = out / TOKENIZER
    if _missing(folder):
        trained = train_tokenizer((document.text for document in _part(text, every, False)), vocab_size)
        with staged(folder) as stage:
            trained.save(stage)
    return Tokenizer.load(folder)


def _evaluate(out: Path, length: int) -> None:
    """Writes evaluation.json: the last weights, the average, and the name of the better one."""
    if not _missing(out / "evaluation.json"):
        return
    averaged = [path.name for path in average(out / "run", out / "average")]
    file = out / "held_out.jsonl"
    found = {name: evaluate_masked(load(out / name), [file], length=length).to_json() for name in ("run/model", "average")}
    _write_json(
        out / "evaluation.json",
        {
            "best": min(found, key=lambda name: found[name]["total"]["bits_per_byte"]),
            "averaged": averaged,
            "held_out": sum(1 for _ in read_documents([file])),
            "parameters": sum(p.numel() for p in load_model(MaskedLM, out / "average", dtype=torch.float32).parameters()),
            "models": found,
        },
    )


def _finish(out: Path, licence: Sequence[str], command: str) -> None:
    evaluation = json.loads((out / "evaluation.json").read_text())
    manifest = read_manifest(out / "shards")
    assert manifest is not None
    with staged(out / "model") as stage:
        shutil.copytree(out / evaluation["best"], stage, dirs_exist_ok=True)
        shutil.copy(out / "run" / "report.png", stage / "curves.png")
        write_card(stage / "README.md", out.absolute().name, out / "run", manifest, evaluation, licence, command)
