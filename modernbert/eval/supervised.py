"""How well a model does its task: examples in groups of equal work, packed, and the task's own figures.

`evaluate_file` measures a fine-tuned folder on labelled rows; training calls the functions below it.
"""

import dataclasses
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from modernbert.batch import Batch, pack
from modernbert.checkpoint.folder import class_of, load_model
from modernbert.checkpoint.names import resolve
from modernbert.checkpoint.settings import read_config
from modernbert.data.tables import read_table
from modernbert.engine.batching import BATCH_TOKENS, each_group
from modernbert.engine.classify import label_names
from modernbert.engine.engine import tokenizer_of
from modernbert.engine.hardware import choose_device, choose_dtype, commit, environment
from modernbert.engine.native_layers import use_native_layers
from modernbert.engine.quantized import quantize_model, sample
from modernbert.errors import CheckpointError, ConfigError, DataError
from modernbert.model.heads import MultipleChoice, QuestionAnswerer, SequenceClassifier, TokenClassifier
from modernbert.tasks.choice import ChoiceTask
from modernbert.tasks.sequence import SequenceTask
from modernbert.tasks.spans import SpanTask
from modernbert.tasks.tagging import TaggingTask
from modernbert.tasks.task import Example, Row, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisedResult:
    """A model's scores on one file."""

    scores: dict[str, float]
    record: dict[str, Any]
    """Model, data with their digest and size, task, versions, hardware, commit."""

    def to_json(self) -> dict[str, Any]:
        return {"scores": self.scores, **self.record}

    def to_markdown(self) -> str:
        lines = [["rows", *self.scores], ["---"] * (1 + len(self.scores))]
        lines.append([f"{self.record['rows']:,}", *(f"{score:.4f}" for score in self.scores.values())])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def task_of(model: str | Path | None) -> Task:
    """The task that a fine-tuned model's config states, with the columns that our recipes read.

    Raises:
        CheckpointError: the model has no head for a supervised task, or nothing has that name.

    A model with one class and no `problem_type` is a regression, as a cross-encoder is.
    """
    folder = resolve(model)
    config, cls = read_config(folder), class_of(folder)
    names = tuple(label_names(config))
    if issubclass(cls, SequenceClassifier):
        kind = config.extra.get("problem_type") or ("regression" if len(names) == 1 else "single_label_classification")
        if kind == "regression":
            return SequenceTask(label="score", problem_type="regression", metric="spearman")
        if kind == "multi_label_classification":
            return SequenceTask(label="labels", problem_type="multi_label_classification", metric="f1_micro", labels=names)
        return SequenceTask(labels=names)
    if issubclass(cls, TokenClassifier):
        return TaggingTask(labels=names, metric="f1" if any(name.startswith("B-") for name in names) else "accuracy")
    if issubclass(cls, QuestionAnswerer):
        return SpanTask()
    if issubclass(cls, MultipleChoice):
        return ChoiceTask()
    raise CheckpointError(
        f"{folder} holds a {cls.__name__}; wanted a model that was fine-tuned for classes, numbers, tags, answers or choices: "
        "see `modernbert finetune`"
    )


def evaluate_file(
    model: str | Path | None,
    file: str | Path,
    task: Task | None = None,
    *,
    max_length: int | None = None,
    device: str | None = None,
    int8: bool = False,
) -> SupervisedResult:
    """A fine-tuned model's scores on the labelled rows of a file.

    Args:
        model: a folder, a packaged model's name or one on the hub.
        file: of any kind that `read_table` reads.
        task: None is the one that the model's config states.
        max_length: longest row in tokens; None is what the model reads. Rows that are cut are reported on stderr.
        device: None takes the best one here; the CPU for int8.
        int8: whether the encoder runs as `load(..., dtype="int8")` makes it, whatever is faster here.

    Raises:
        CheckpointError, TokenizerError: the model is missing, foreign or damaged, or has no head for a supervised task.
        ConfigError: a row would be shorter than 16 tokens, or longer than the model reads.
        DataError: a row of the file cannot be used; names file, row and column.
        HardwareError: the device is not there.
    """
    folder, where = resolve(model), choose_device("cpu" if int8 else device)
    config = read_config(folder)
    longest = config.max_position_embeddings if max_length is None else max_length
    if not 16 <= longest <= config.max_position_embeddings:
        raise ConfigError(f"max_length={longest}: wanted 16 to {config.max_position_embeddings:,} tokens, which the model reads")
    rows = list(read_table(file))
    if not rows:
        raise DataError(f"{file} has 0 rows; at least one is needed")
    task = (task or task_of(folder)).fit(rows)
    tokenizer = tokenizer_of(folder)
    encoded = task.encode(rows, tokenizer, longest)
    if encoded.cut:
        tqdm.write(f"{encoded.cut:,} of {len(rows):,} rows were cut to {longest} tokens", file=sys.stderr)
    trained: Any = load_model(task.head, folder, dtype=torch.float32, device=where)
    if int8:
        quantize_model(trained, sample(tokenizer))
        use_native_layers(trained)
    else:
        trained.model.compute_dtype = choose_dtype(where)
    scores = evaluate_supervised(trained, task, rows, encoded.examples)
    record = {
        "model": str(folder),
        "file": str(file),
        "rows": len(rows),
        "sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest(),
        "task": vars(task),
        "int8": int8,
        "environment": {**environment(where), "commit": commit()},
    }
    return SupervisedResult(scores=scores, record=record)


def pack_examples(examples: Sequence[Example]) -> Batch:
    """The token rows of some examples, in their order."""
    return pack([row for example in examples for row in example.rows])


@torch.no_grad()
def answers_of(
    model: nn.Module, task: Task, examples: Sequence[Example], *, batch_tokens: int = BATCH_TOKENS
) -> list[np.ndarray]:
    """What the model says of each example, in their order; it is left in eval mode.

    Args:
        model: of the task's head class, on the device that it shall run on.
        task: fitted.
        examples: of `task.encode`.
        batch_tokens: tokens that go through the model together; the answers do not depend on it.
    """
    model.eval()
    device = next(model.parameters()).device
    answers: list[np.ndarray] = [np.empty(0)] * len(examples)
    for group in each_group([example.tokens for example in examples], batch_tokens, "eval"):
        chosen = [examples[i] for i in group]
        for i, answer in zip(group, task.answers(model, pack_examples(chosen).to(device), chosen), strict=True):
            answers[i] = answer
    return answers


def evaluate_supervised(
    model: nn.Module, task: Task, rows: Sequence[Row], examples: Sequence[Example], *, batch_tokens: int = BATCH_TOKENS
) -> dict[str, float]:
    """The task's metrics of a model on labelled rows and their examples; arguments as for `answers_of`."""
    return task.score(rows, examples, answers_of(model, task, examples, batch_tokens=batch_tokens))
