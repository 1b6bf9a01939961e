"""The one way through the model for every task: rows of token ids in, float32 arrays out, in the order of the rows.

T tokens in the batch · B rows · D hidden · C classes.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from modernbert.batch import Batch, pack
from modernbert.checkpoint.folder import ARCHITECTURES
from modernbert.engine.batching import BATCH_TOKENS, CPU_TOKENS, each_group
from modernbert.errors import CheckpointError
from modernbert.model.encoder import Encoder
from modernbert.model.heads import (
    Classifier,
    LateInteraction,
    MaskedLM,
    QuestionAnswerer,
    SequenceClassifier,
    TokenClassifier,
    pool,
)
from modernbert.text.tokenizer import Tokenizer

M = TypeVar("M", bound=nn.Module)

HEADS: dict[type[nn.Module], str] = {
    MaskedLM: "masked-language-model",
    SequenceClassifier: "sequence-classification",
    TokenClassifier: "token-classification",
    QuestionAnswerer: "question-answering",
    LateInteraction: "late-interaction",
}
"""What each head is called in messages."""


class Runner:
    """A model where it shall run, with its tokenizer. The engine's tasks are functions over it."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        self.model = model
        encoder = model if isinstance(model, Encoder) else model.model
        assert isinstance(encoder, Encoder)
        self.encoder = encoder
        self.config = self.encoder.config
        self.tokenizer = tokenizer
        self.device = next(model.parameters()).device
        self.limit = self.config.max_position_embeddings
        """Longest row in tokens, special tokens included."""

    def head(self, wanted: type[M], task: str) -> M:
        """The model, if it has the head that a task needs.

        Raises:
            CheckpointError: it has another head, or none.
        """
        if isinstance(self.model, wanted):
            return self.model
        raise CheckpointError(
            f"this model is a {ARCHITECTURES[type(self.model)]} and has no {HEADS[wanted]} head, which {task} needs; "
            f"load a {ARCHITECTURES[wanted]}, or fine-tune this one into it"
        )

    def groups(self, rows: Sequence[Sequence[int]], doing: str, batch_tokens: int = BATCH_TOKENS) -> Iterator[list[int]]:
        """Numbers of the rows that go through the model together: at most `batch_tokens`, and on a CPU at most `CPU_TOKENS`."""
        budget = min(batch_tokens, CPU_TOKENS) if self.device.type == "cpu" else batch_tokens
        return each_group([len(row) for row in rows], budget, doing)

    def each(
        self, rows: Sequence[Sequence[int]], compute: Callable[[Batch], Tensor], doing: str, batch_tokens: int = BATCH_TOKENS
    ) -> Iterator[tuple[list[int], Batch, Tensor]]:
        """Yields groups of rows with what `compute` makes of them; not in order, so that a group's rows are of like length.

        Args:
            rows: token ids; none longer than the model reads.
            compute: from a batch on the model's device to scores; runs without gradients.
            doing: name of the progress bar.
            batch_tokens: tokens that go through the model together.

        Returns:
            Numbers of the rows in the group, the group as a batch on the model's device, and the result in float32 on the CPU.
        """
        for group in self.groups(rows, doing, batch_tokens):
            batch = pack([rows[i] for i in group]).to(self.device)
            with torch.inference_mode():
                result = compute(batch).float().cpu()
            yield group, batch, result

    def vectors(self, rows: Sequence[Sequence[int]], compute: Callable[[Batch], Tensor], doing: str, **batch: int) -> np.ndarray:
        """One vector a row, float32 [rows, width], where `compute` gives one for each row of its batch."""
        found: list[np.ndarray] = [np.empty(0)] * len(rows)
        for group, _, x_BD in self.each(rows, compute, doing, **batch):
            for i, vector in zip(group, x_BD.numpy(), strict=True):
                found[i] = vector
        return np.stack(found) if rows else np.empty((0, 0), dtype=np.float32)

    def per_token(
        self, rows: Sequence[Sequence[int]], compute: Callable[[Batch], Tensor], doing: str, **batch: int
    ) -> list[np.ndarray]:
        """For each row a float32 [tokens, width], where `compute` gives one vector for each token of its batch."""
        found: list[np.ndarray] = [np.empty(0)] * len(rows)
        for group, b, x_TD in self.each(rows, compute, doing, **batch):
            for i, x_LD in zip(group, x_TD.split(b.cu_seqlens.diff().tolist()), strict=True):
                found[i] = x_LD.numpy()
        return found

    def row_logits(self, rows: Sequence[Sequence[int]], task: str) -> np.ndarray:
        """Scores of each row over the classes, float32 [rows, classes].

        Raises:
            CheckpointError: the model has no sequence-classification head.
        """
        model = self.head(SequenceClassifier, task)

        def scores(batch: Batch) -> Tensor:
            pooled_BD = pool(model.model(batch), batch, self.config.classifier_pooling)
            return model.classifier(model.head(pooled_BD).float())  # bf16 logits have steps of 1/64 near 3: classes would tie

        return self.vectors(rows, scores, task).reshape(len(rows), self.config.num_labels)

    def token_logits(self, rows: Sequence[Sequence[int]], wanted: type[Classifier], task: str) -> list[np.ndarray]:
        """Scores of each token over the classes, float32 [tokens, classes] for each row.

        Raises:
            CheckpointError: the model has another head than `wanted`.
        """
        model = self.head(wanted, task)
        return self.per_token(rows, lambda batch: model.classifier(model.head(model.model(batch)).float()), task)


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """Exponentials along the axis, scaled to add up to one.

    >>> softmax(np.array([0.0, 0.0]))
    array([0.5, 0.5])
    """
    shifted = np.exp(x - x.max(axis=axis, keepdims=True))
    return shifted / shifted.sum(axis=axis, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 ÷ (1 + e⁻ˣ), without overflow.

    >>> sigmoid(np.array([0.0, -1000.0]))
    array([0.5, 0. ])
    """
    return np.where(x >= 0, 1, np.exp(-np.abs(x))) / (1 + np.exp(-np.abs(x)))
