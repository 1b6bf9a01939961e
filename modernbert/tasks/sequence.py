"""One answer a text, or a pair of texts: a class, several labels, or a number.

B examples · C classes.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from modernbert.batch import Batch
from modernbert.config import ModelConfig
from modernbert.errors import ConfigError, DataError
from modernbert.model.heads import SequenceClassifier
from modernbert.tasks import metrics
from modernbert.tasks.task import (
    Encoded,
    Example,
    Row,
    cell,
    name_of,
    number_in,
    number_of,
    ordered,
    tensor_on,
    text_of,
    with_names,
)
from modernbert.text.tokenizer import Tokenizer

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
ClassMetric = Literal["accuracy", "f1", "f1_macro", "f1_micro", "matthews"]
NumberMetric = Literal["spearman", "pearson"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceTask:
    """Classes, labels or a number for a text or a pair."""

    text: str = "text"
    """Column of the text."""
    text_pair: str | None = None
    """Column of the second text, where there is one."""
    label: str = "label"
    """Column of the answer: a class (text or whole number), a list of labels (or text with commas between them), or a number."""
    problem_type: ProblemType = "single_label_classification"
    """One class a text, any number of labels, or a number."""
    labels: tuple[str, ...] = ()
    """Names of the classes in the order of their numbers; empty means: those of the training rows, sorted."""
    metric: ClassMetric | NumberMetric = "accuracy"
    """Chooses the best checkpoint. f1 is that of the second of two classes; spearman and pearson are for numbers."""

    @property
    def head(self) -> type[nn.Module]:
        return SequenceClassifier

    def fit(self, rows: Sequence[Row]) -> "SequenceTask":
        fitting = get_args(NumberMetric if self.problem_type == "regression" else ClassMetric)
        if self.metric not in fitting:
            raise ConfigError(f"metric={self.metric} does not measure {self.problem_type}; there are {', '.join(fitting)}")
        if self.problem_type == "regression":
            return self
        labels = self.labels or ordered(name for row in rows for name in self._names(row))
        if len(labels) < (2 if self.problem_type == "single_label_classification" else 1):
            only = f"only {labels[0]!r}" if labels else "no label"
            raise DataError(f"{rows[0][0]} and all that follow: {only} in column {self.label!r}; there is nothing to tell apart")
        if (self.metric == "f1" and (self._many or len(labels) != 2)) or (self.metric == "matthews" and self._many):
            raise ConfigError(
                f"metric={self.metric} does not measure {len(labels)} classes of {self.problem_type}; take f1_macro or f1_micro"
            )
        return dataclasses.replace(self, labels=labels)

    def configure(self, config: ModelConfig) -> ModelConfig:
        return with_names(config, self.labels or (self.label,), self.problem_type)

    def encode(self, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> Encoded:
        labels = [self.label_of(row) for row in rows]
        texts = [text_of(row, self.text) for row in rows]
        pairs = [text_of(row, self.text_pair) for row in rows] if self.text_pair else None
        token_rows, cut = encode_texts(texts, pairs, tokenizer, max_length)
        weight = len(self.labels) if self._many else 1
        examples = [
            Example(rows=(ids,), label=label, weight=weight, row=i)
            for i, (ids, label) in enumerate(zip(token_rows, labels, strict=True))
        ]
        return Encoded(examples=examples, cut=cut)

    def loss(self, model: nn.Module, batch: Batch, examples: Sequence[Example]) -> Tensor:
        """Cross-entropy, binary cross-entropy of each label, or squared error."""
        logits_BC = model(batch).float()
        labels = tensor_on(logits_BC.device, [example.label for example in examples])
        if self.problem_type == "single_label_classification":
            return F.cross_entropy(logits_BC, labels, reduction="sum")
        if self._many:
            return F.binary_cross_entropy_with_logits(logits_BC, labels.float(), reduction="sum")
        return F.mse_loss(logits_BC[:, 0], labels, reduction="sum")

    def answers(self, model: nn.Module, batch: Batch, examples: Sequence[Example]) -> list[np.ndarray]:
        """The scores of each example's classes, before softmax or sigmoid; or its number."""
        return list(model(batch).float().numpy(force=True))

    def score(self, rows: Sequence[Row], examples: Sequence[Example], answers: Sequence[np.ndarray]) -> dict[str, float]:
        gold, scores_BC = np.array([example.label for example in examples]), np.array(answers)
        if self.problem_type == "regression":
            found_B = scores_BC[:, 0]
            error = float(np.sqrt(np.mean((gold - found_B) ** 2)))
            return {"spearman": metrics.spearman(gold, found_B), "pearson": metrics.pearson(gold, found_B), "rmse": error}
        found = scores_BC > 0 if self._many else scores_BC.argmax(-1)
        classes = np.eye(len(self.labels), dtype=bool)
        gold_BC, found_BC = (gold, found) if self._many else (classes[gold], classes[found])
        f1_C = metrics.f1_of_classes(gold_BC, found_BC)
        result = {"accuracy": metrics.accuracy(gold, found)}
        result |= {"f1_macro": float(f1_C.mean()), "f1_micro": metrics.f1_micro(gold_BC, found_BC)}
        if not self._many:
            result["matthews"] = metrics.matthews(gold, found, len(self.labels))
            if len(self.labels) == 2:
                result["f1"] = float(f1_C[1])
        return result

    @property
    def _many(self) -> bool:
        return self.problem_type == "multi_label_classification"

    def _names(self, row: Row) -> list[str]:
        if not self._many:
            return [name_of(row, self.label)]
        found = row[1].get(self.label)
        if found == "":  # a cell of CSV without labels
            return []
        found = cell(row, self.label)
        parts = [part.strip() for part in found.split(",")] if isinstance(found, str) else found
        if not isinstance(parts, list):
            raise DataError(f"{row[0]}: {found!r} in column {self.label!r}; wanted a list of labels")
        return [name_of(row, self.label, part) for part in parts]

    def label_of(self, row: Row) -> Any:
        """A class's number, a 0 or 1 for each label, or a number. Raises DataError: names row and column."""
        if self.problem_type == "regression":
            return number_of(row, self.label)
        numbers = [number_in(self.labels, name, row, self.label) for name in self._names(row)]
        return [int(i in numbers) for i in range(len(self.labels))] if self._many else numbers[0]


def encode_texts(
    texts: Sequence[str], pairs: Sequence[str] | None, tokenizer: Tokenizer, max_length: int
) -> tuple[list[list[int]], int]:
    """Token rows of texts or pairs; where one is too long, the end of the longer text goes. Also how many rows were cut."""
    whole = tokenizer.encode(texts) if pairs is None else tokenizer.encode_pairs(list(zip(texts, pairs, strict=True)))
    long = [i for i, row in enumerate(whole) if len(row) > max_length]
    for i in long:
        if pairs is None:
            whole[i] = [*whole[i][: max_length - 1], tokenizer.sep_id]
        else:
            first, second = tokenizer.encode([texts[i], pairs[i]], special=False)
            keep_first, keep_second = shared_room(len(first), len(second), max_length - 3)
            whole[i] = [tokenizer.cls_id, *first[:keep_first], tokenizer.sep_id, *second[:keep_second], tokenizer.sep_id]
    return whole, len(long)


def shared_room(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each of two texts fit, when the longer one gives way.

    >>> shared_room(100, 10, 50), shared_room(100, 100, 50), shared_room(3, 4, 50)
    ((40, 10), (25, 25), (3, 4))
    """
    keep_first = min(first, max(room - second, room - room // 2))
    return keep_first, min(second, room - keep_first)
