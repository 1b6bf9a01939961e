"""Multiple choice: which of several answers continues a text best.

B examples · each has the same number of choices.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from modernbert.batch import Batch
from modernbert.config import ModelConfig
from modernbert.errors import DataError
from modernbert.model.heads import MultipleChoice
from modernbert.tasks import metrics
from modernbert.tasks.sequence import encode_texts
from modernbert.tasks.task import Encoded, Example, Row, cell, checked_text, tensor_on, text_of, with_names
from modernbert.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChoiceTask:
    """One of several answers to a question."""

    text: str = "text"
    """Column of the question or of the text that is to go on."""
    choices: str = "choices"
    """Column with the list of answers; all rows have the same number of them."""
    label: str = "label"
    """Column with the number of the right one, from 0."""
    count: int = 0
    """Answers a question; 0 means: as many as the first training row has."""
    metric: Literal["accuracy"] = "accuracy"

    @property
    def head(self) -> type[nn.Module]:
        return MultipleChoice

    def fit(self, rows: Sequence[Row]) -> "ChoiceTask":
        found = cell(rows[0], self.choices)
        return dataclasses.replace(self, count=self.count or (len(found) if isinstance(found, list) else 0))

    def configure(self, config: ModelConfig) -> ModelConfig:
        return with_names(config, [f"choice {i}" for i in range(self.count)])

    def encode(self, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> Encoded:
        labels, choices = [self.label_of(row) for row in rows], [self.choices_of(row) for row in rows]
        texts = [text_of(row, self.text) for row in rows for _ in range(self.count)]
        token_rows, cut = encode_texts(texts, [choice for row in choices for choice in row], tokenizer, max_length)
        examples = [
            Example(rows=tuple(token_rows[i * self.count : (i + 1) * self.count]), label=label, weight=1, row=i)
            for i, label in enumerate(labels)
        ]
        return Encoded(examples=examples, cut=cut)

    def loss(self, model: nn.Module, batch: Batch, examples: Sequence[Example]) -> Tensor:
        """Cross-entropy over the choices."""
        logits_BC = model(batch, self.count).float()
        labels_B = tensor_on(logits_BC.device, [example.label for example in examples])
        return F.cross_entropy(logits_BC, labels_B, reduction="sum")

    def answers(self, model: nn.Module, batch: Batch, examples: Sequence[Example]) -> list[np.ndarray]:
        """The scores of each example's choices."""
        return list(model(batch, self.count).float().numpy(force=True))

    def score(self, rows: Sequence[Row], examples: Sequence[Example], answers: Sequence[np.ndarray]) -> dict[str, float]:
        gold_B = np.array([example.label for example in examples])
        return {"accuracy": metrics.accuracy(gold_B, np.array(answers).argmax(-1))}

    def choices_of(self, row: Row) -> list[str]:
        """The answers to choose from. Raises DataError: names row and column."""
        choices = cell(row, self.choices)
        if not isinstance(choices, list) or len(choices) != self.count or not all(isinstance(c, str) for c in choices):
            shown = f"{len(choices)} choices" if isinstance(choices, list) else repr(choices)[:40]
            raise DataError(
                f"{row[0]}: {shown} in column {self.choices!r}; wanted a list of {max(2, self.count)} texts, as in the first row"
            )
        return [checked_text(choice, row, self.choices) for choice in choices]

    def label_of(self, row: Row) -> int:
        """The number of the right one. Raises DataError: names row and column."""
        label = cell(row, self.label)
        if isinstance(label, str) and label.isdecimal():
            label = int(label)
        if not isinstance(label, int) or not 0 <= label < self.count:
            raise DataError(f"{row[0]}: {label!r} in column {self.label!r}; wanted a choice's number, 0 to {self.count - 1}")
        return label
