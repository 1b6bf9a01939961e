"""The one way through the model for every task: rows of token ids in, float32 arrays out, in the order of the rows.

T tokens in the batch · B rows · D hidden · C classes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from modernbert.batch import Batch, pack
from modernbert.checkpoint.folder import ARCHITECTURES
from modernbert.config import Pooling
from modernbert.engine.batching import BATCH_TOKENS, CPU_TOKENS, GPU_TOKENS, each_group, grouped_as_they_come
from modernbert.engine.stream import FILLING, Stream, shape_of
from modernbert.errors import CheckpointError, ConfigError
from modernbert.kernels.attention import SHORT
from modernbert.kernels.attention_flash import flash_runs_on
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

PIECE = 64
"""Tokens of a row that are added one after the other, where the order must not depend on the batch."""

TOGETHER = 256
"""Vectors behind the encoder that are computed together, where it must not depend on how many there are: that chooses kernels."""


class Runner:
    """A model where it shall run, with its tokenizer. The engine's tasks are functions over it."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, *, batch_invariant: bool = False) -> None:
        """Puts the parts together.

        Args:
            batch_invariant: whether a row's result is bitwise the same in any batch: each has one count of tokens, so that the
                same kernels run, sums within a row go in its own order, and heads see one count of vectors.
        """
        self.model = model
        encoder = model if isinstance(model, Encoder) else model.model
        assert isinstance(encoder, Encoder)
        self.encoder = encoder
        self.config = self.encoder.config
        self.tokenizer = tokenizer
        self.device = next(model.parameters()).device
        self.limit = self.config.max_position_embeddings
        """Longest row in tokens, special tokens included."""
        self.batch_invariant = batch_invariant
        never_waits = flash_runs_on(self.encoder.final_norm.weight)  # other attention reads lengths back from the device
        self._tokens = GPU_TOKENS - 1 if never_waits else BATCH_TOKENS  # one of filling
        least = (
            self._tokens + 1 if self.device.type == "cuda" else 0
        )  # half as many cost many texts twice as much: 14 % against 6
        bounds = tuple(sorted({SHORT, max(self.limit, SHORT)}))  # short rows have kernels of their own
        self.stream = Stream(self.device, fixed=(max(least, self.limit + FILLING), bounds) if batch_invariant else None)
        self._apart = SHORT if batch_invariant else 0
        self._streams = batch_invariant or never_waits

    def pool(self, x_TD: Tensor, batch: Batch, pooling: Pooling) -> Tensor:
        """`heads.pool`; on a GPU its sums are of no certain order, which `batch_invariant` must have."""
        if pooling == "cls" or not self.batch_invariant:
            return pool(x_TD, batch, pooling)
        return mean_in_order(x_TD, batch)

    def each_alike(self, compute: Callable[[Tensor], Tensor], x_XD: Float[Tensor, "X D"]) -> Float[Tensor, "X ..."]:
        """`compute` of vectors, each by itself; with `batch_invariant`, of so many at a time that the same kernels run for any of them."""
        if not self.batch_invariant:
            return compute(x_XD)
        parts = F.pad(x_XD, (0, 0, 0, -len(x_XD) % TOGETHER)).split(TOGETHER)
        return torch.cat([compute(x_ND) for x_ND in parts])[: len(x_XD)]

    def packed(self, rows: Sequence[Sequence[int]]) -> Batch:
        """The rows as a batch on the model's device, as every other way through it has them."""
        if self.stream.fixed is None:
            return pack(rows).to(self.device)
        return self.stream.staged(rows, shape_of([len(row) for row in rows], self.stream.fixed))

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

    def groups(self, rows: Sequence[Sequence[int]], doing: str, batch_tokens: int | None = None) -> Iterator[list[int]]:
        """Numbers of the rows that go through the model together, at most `budget(batch_tokens)`."""
        return each_group([len(row) for row in rows], self.budget(batch_tokens), doing, self._apart)

    def budget(self, batch_tokens: int | None) -> int:
        """Tokens of a batch: what is asked for, or what this device is fast with; at most `CPU_TOKENS` on a CPU, and all of one number
        where results must not depend on it.

        Raises:
            ConfigError: less than one token is asked for.
        """
        if batch_tokens is not None and batch_tokens < 1:
            raise ConfigError(f"batch_tokens={batch_tokens}: wanted 1 or more, or None for what this device is fast with")
        if self.stream.fixed is not None:
            return self.stream.fixed[0] - 1
        wanted = self._tokens if batch_tokens is None else batch_tokens
        return min(wanted, CPU_TOKENS) if self.device.type == "cpu" else wanted

    def each(
        self,
        rows: Sequence[Sequence[int]],
        compute: Callable[[Batch], Tensor],
        doing: str,
        batch_tokens: int | None = None,
        key: str | None = None,
    ) -> Iterator[tuple[list[int], list[int], Tensor]]:
        """Yields groups of rows with what `compute` makes of them; not in order, so that a group's rows are of like length.

        Args:
            rows: token ids; none longer than the model reads.
            compute: from a batch on the model's device to scores; runs without gradients.
            doing: name of the progress bar.
            batch_tokens: tokens that go through the model together; None leaves it to the device.
            key: a name for `compute`, if a CUDA graph may be kept of it: the same for the same computation.

        Returns:
            Numbers of the rows in the group, their lengths, and the result in float32 on the CPU, perhaps with more behind.
        """
        groups = ((group, [rows[i] for i in group]) for group in self.groups(rows, doing, batch_tokens))
        for group, given, result in self._each(groups, compute, key):
            yield group, [len(row) for row in given], result

    def _each(
        self, groups: Iterable[tuple[list[int], list[Sequence[int]]]], compute: Callable[[Batch], Tensor], key: str | None
    ) -> Iterator[tuple[list[int], list[Sequence[int]], Tensor]]:
        if self._streams:
            yield from self.stream.each(groups, compute, key)
            return
        for group, given in groups:
            with torch.inference_mode():
                result = compute(pack(given).to(self.device)).float().cpu()
            yield group, given, result

    def vectors(
        self,
        rows: Sequence[Sequence[int]],
        compute: Callable[[Batch], Tensor],
        doing: str,
        batch_tokens: int | None = None,
        key: str | None = None,
    ) -> np.ndarray:
        """One vector a row, float32 [rows, width], where `compute` gives one for each row of its batch."""
        return self.vectors_of_chunks([rows], len(rows), compute, doing, batch_tokens, key)

    def vectors_of_chunks(
        self,
        chunks: Iterable[Sequence[Sequence[int]]],
        total: int,
        compute: Callable[[Batch], Tensor],
        doing: str,
        batch_tokens: int | None = None,
        key: str | None = None,
    ) -> np.ndarray:
        """As `vectors`, of rows that come in chunks: the device works on one while the next is made.

        Args:
            chunks: the rows, in their order.
            total: how many there are in all of them.
        """
        found: np.ndarray | None = None
        groups = grouped_as_they_come(chunks, total, self.budget(batch_tokens), doing, self._apart)
        for group, _, x_BD in self._each(groups, compute, key):
            if found is None:
                found = np.empty((total, x_BD.shape[-1]), dtype=np.float32)
            found[group] = x_BD[: len(group)].numpy()
        return np.empty((0, 0), dtype=np.float32) if found is None else found

    def per_token(
        self,
        rows: Sequence[Sequence[int]],
        compute: Callable[[Batch], Tensor],
        doing: str,
        batch_tokens: int | None = None,
        key: str | None = None,
    ) -> list[np.ndarray]:
        """For each row a float32 [tokens, width], where `compute` gives one vector for each token of its batch."""
        found: list[np.ndarray] = [np.empty(0)] * len(rows)
        for group, lengths, x_TD in self.each(rows, compute, doing, batch_tokens, key):
            for i, x_LD in zip(group, x_TD[: sum(lengths)].split(lengths), strict=True):
                found[i] = x_LD.numpy().copy()  # a view would keep the whole batch, and pinned on a GPU
        return found

    def row_logits(self, rows: Sequence[Sequence[int]], task: str) -> np.ndarray:
        """Scores of each row over the classes, float32 [rows, classes].

        Raises:
            CheckpointError: the model has no sequence-classification head.
        """
        model = self.head(SequenceClassifier, task)

        def scores(batch: Batch) -> Tensor:
            pooled_BD = self.pool(self.encoder(batch), batch, self.config.classifier_pooling)
            # bf16 logits have steps of 1/64 near 3: classes would tie
            return self.each_alike(lambda x_XD: model.classifier(model.head(x_XD).float()), pooled_BD)

        return self.vectors(rows, scores, task, key="row_logits").reshape(len(rows), self.config.num_labels)

    def token_logits(self, rows: Sequence[Sequence[int]], wanted: type[Classifier], task: str) -> list[np.ndarray]:
        """Scores of each token over the classes, float32 [tokens, classes] for each row.

        Raises:
            CheckpointError: the model has another head than `wanted`.
        """
        model = self.head(wanted, task)
        return self.per_token(
            rows, lambda batch: model.classifier(model.head(self.encoder(batch)).float()), task, key="token_logits"
        )


def mean_in_order(x_TD: Float[Tensor, "T D"], batch: Batch) -> Float[Tensor, "B D"]:
    """Each row's mean, the same bits wherever the row lies: it is added in pieces of `PIECE` tokens from its start on, then the pieces.

    Row b owns the pieces from cu_seqlens[b] // PIECE + b on, which are enough, and whose count takes no look at the device; those behind
    the row's end are empty. In one piece, a batch would wait for 8,192 sums one after the other.

    P pieces.
    """
    begins_B1 = batch.cu_seqlens.long()
    first_B1 = begins_B1 // PIECE + torch.arange(len(begins_B1), device=x_TD.device)
    pieces = len(x_TD) // PIECE + batch.rows
    piece_P = torch.arange(pieces, device=x_TD.device)
    row_P = torch.bucketize(piece_P, first_B1[1:], right=True)
    begin_P = begins_B1[row_P] + PIECE * (piece_P - first_B1[row_P])
    lengths_P = (begins_B1[row_P + 1] - begin_P).clamp(0, PIECE)
    sums_PD = torch.segment_reduce(x_TD.float(), "sum", lengths=lengths_P, unsafe=True)
    sums_BD = torch.segment_reduce(sums_PD, "sum", lengths=first_B1.diff(), unsafe=True)
    return (sums_BD / begins_B1.diff()[:, None]).to(x_TD.dtype)


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
