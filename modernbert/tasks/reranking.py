"""How well a document answers a query, read together: cross-encoders, from labelled pairs or from lists.

B pairs of a query and a document.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from modernbert.batch import Batch
from modernbert.config import ModelConfig
from modernbert.errors import DataError
from modernbert.model.heads import SequenceClassifier
from modernbert.tasks.ranking import METRICS, order_of, ranking_scores
from modernbert.tasks.sequence import encode_texts
from modernbert.tasks.task import Encoded, Example, Row, checked_text, number_of, tensor_on, text_of, with_names
from modernbert.text.tokenizer import Tokenizer

ACTIVATION = {"activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "3.0.0"}
"""What config.json says of the scores, under `sentence_transformers`: CrossEncoder and `Engine.rerank` read it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RerankTask:
    """Scores for documents of a query. A row is of one of three kinds, told apart by its columns:

    a document with a label; a document that is right, with a list of negatives; a list of candidates, each with text and label.
    """

    query: str = "query"
    """Column of the query."""
    document: str = "document"
    """Column of the document."""
    label: str = "label"
    """Column of the document's grade; above 0 is right."""
    negatives: str = "negatives"
    """Column of a list of documents that are wrong."""
    candidates: str = "candidates"
    """Column of a list of objects with text and label."""
    objective: Literal["binary", "listwise"] = "binary"
    """binary: each document is right or wrong for itself; listwise: the right ones of a row against the others (softmax), which needs rows
    of lists."""
    metric: Literal["ndcg@10", "mrr@10", "recall@1", "map"] = "map"
    """Chooses the best checkpoint: over all documents of a query."""

    @property
    def head(self) -> type[nn.Module]:
        return SequenceClassifier

    def fit(self, rows: Sequence[Row]) -> "RerankTask":
        grades = [grade for row in rows for _, grade in self.documents_of(row)]
        if not any(grade > 0 for grade in grades) or all(grade > 0 for grade in grades):
            which = "right" if not any(grade > 0 for grade in grades) else "wrong"
            raise DataError(f"{rows[0][0]} and all that follow: no document is {which}; there is nothing to tell apart")
        return self

    def configure(self, config: ModelConfig) -> ModelConfig:
        named = with_names(config, ("LABEL_0",))
        return named.with_(extra={**named.extra, "sentence_transformers": ACTIVATION})

    def encode(self, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> Encoded:
        documents = [self.documents_of(row) for row in rows]
        queries = [text_of(row, self.query) for row in rows]
        firsts = [query for query, listed in zip(queries, documents, strict=True) for _ in listed]
        token_rows, cut = encode_texts(firsts, [text for listed in documents for text, _ in listed], tokenizer, max_length)
        examples, begin = [], 0
        for number, listed in enumerate(documents):
            grades = tuple(grade for _, grade in listed)
            weight = len(listed) if self.objective == "binary" else int(any(grade > 0 for grade in grades))
            mine = tuple(token_rows[begin : begin + len(listed)])
            examples.append(Example(rows=mine, label=grades, weight=weight, row=number))
            begin += len(listed)
        return Encoded(examples=examples, cut=cut)

    def loss(self, model: nn.Module, batch: Batch, examples: Sequence[Example]) -> Tensor:
        """Sum of binary cross-entropies, or of cross-entropies over lists (Cao et al. 2007, ListNet's top one)."""
        scores_B = model(batch)[:, 0].float()
        right_B = tensor_on(scores_B.device, [float(grade > 0) for example in examples for grade in example.label])
        if self.objective == "binary":
            return F.binary_cross_entropy_with_logits(scores_B, right_B, reduction="sum")
        lengths = [len(example.rows) for example in examples]
        total = scores_B.new_zeros(())
        for scores, right in zip(scores_B.split(lengths), right_B.split(lengths), strict=True):
            total = total - (right / right.sum().clamp(min=1) * scores.log_softmax(-1)).sum()
        return total

    def answers(self, model: nn.Module, batch: Batch, examples: Sequence[Example]) -> list[np.ndarray]:
        scores_B = model(batch)[:, 0].float().cpu()
        return [scores.numpy() for scores in scores_B.split([len(example.rows) for example in examples])]

    def score(self, rows: Sequence[Row], examples: Sequence[Example], answers: Sequence[np.ndarray]) -> dict[str, float]:
        """Over queries that have right and wrong documents; rows with one query are one list."""
        lists: dict[str, tuple[list[float], list[float]]] = {}
        for example, answer in zip(examples, answers, strict=True):
            grades, scores = lists.setdefault(text_of(rows[example.row], self.query), ([], []))
            grades += example.label
            scores += answer.tolist()
        found = []
        for grades, scores in lists.values():
            if len({grade > 0 for grade in grades}) == 2:
                order = order_of(np.array(scores), [f"{place:08d}" for place in range(len(scores))])
                found.append(ranking_scores([grades[place] for place in order], grades))
        return {metric: float(np.mean([scores[metric] for scores in found])) if found else 0.0 for metric in METRICS}

    def documents_of(self, row: Row) -> list[tuple[str, float]]:
        """Texts and grades of a row's documents. Raises DataError: names row and column."""
        cells = row[1]
        if cells.get(self.candidates) is not None:
            return [self._candidate(one, row) for one in _list(row, self.candidates)]
        document = text_of(row, self.document)
        if cells.get(self.negatives) is not None:
            return [(document, 1.0), *((checked_text(text, row, self.negatives), 0.0) for text in _list(row, self.negatives))]
        return [(document, number_of(row, self.label))]

    def _candidate(self, one: Any, row: Row) -> tuple[str, float]:
        if not isinstance(one, dict) or not isinstance(one.get("text"), str) or "label" not in one:
            raise DataError(f"{row[0]}: {str(one)[:40]!r} in column {self.candidates!r}; wanted objects with text and label")
        return checked_text(one["text"], row, self.candidates), number_of((row[0], one), "label")


def _list(row: Row, column: str) -> list[Any]:
    value = row[1][column]
    if not isinstance(value, list) or not value:
        raise DataError(f"{row[0]}: {str(value)[:40]!r} in column {column!r}; wanted a list that is not empty")
    return value
