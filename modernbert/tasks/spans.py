"""Extractive question answering: where in a context the answer stands, or that it stands nowhere.

A context longer than the model may read is seen through windows that overlap. T tokens in the batch · B rows.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modernbert.batch import Batch
from modernbert.config import ModelConfig
from modernbert.errors import DataError
from modernbert.model.heads import QuestionAnswerer
from modernbert.tasks import metrics
from modernbert.tasks.task import Encoded, Example, Row, cell, tensor_on, text_of
from modernbert.text.tokenizer import EncodedText, Tokenizer

CHUNK = 256
"""Rows that are encoded together: as lists, the places of every token of a large set would fill the memory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanTask:
    """The place of an answer in a context."""

    question: str = "question"
    """Column of the question."""
    context: str = "context"
    """Column of the text that holds the answer."""
    answer: str = "answers"
    """Column of the answers: a list of {"text", "start"}, or SQuAD's {"text": […], "answer_start": […]}; empty: unanswerable."""
    overlap: int = 128
    """Tokens that two windows of a long context share (SQuAD's usual document stride)."""
    longest_answer: int = 30
    """Tokens of an answer (SQuAD's usual bound)."""
    unanswerable: bool = False
    """Whether the model may answer with nothing; true where a training row has no answer."""
    metric: Literal["f1", "exact_match"] = "f1"
    """Chooses the best checkpoint: shared words, or whole answers."""

    @property
    def head(self) -> type[nn.Module]:
        return QuestionAnswerer

    def fit(self, rows: Sequence[Row]) -> "SpanTask":
        nowhere = any(not self.answers_to(row) for row in rows)
        return dataclasses.replace(self, unanswerable=self.unanswerable or nowhere)

    def configure(self, config: ModelConfig) -> ModelConfig:
        names = {key: value for key, value in config.extra.items() if key not in ("id2label", "label2id", "problem_type")}
        return config.with_(num_labels=2, extra=names)

    def encode(self, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> Encoded:
        """Rows `[CLS] question [SEP] window [SEP]`; the label is the first answer's first and last token, or 0 and 0.

        A question that takes more than half of the row loses its end.
        """
        examples: list[Example] = []
        cut, half = 0, max_length // 2
        for chunk in range(0, len(rows), CHUNK):
            some = rows[chunk : chunk + CHUNK]
            questions = tokenizer.encode([text_of(row, self.question) for row in some], special=False)
            contexts = tokenizer.encode_with_spans([text_of(row, self.context) for row in some])
            for i, row in enumerate(some):
                answers = self.answers_to(row)
                span = (answers[0][1], answers[0][1] + len(answers[0][0])) if answers else None
                before = [tokenizer.cls_id, *questions[i][:half], tokenizer.sep_id]
                for ids, spans in _windows(contexts[i], max_length - len(before) - 1, self.overlap):
                    label = _tokens_of(span, spans, len(before)) if span else (0, 0)
                    places = (len(before), np.array(spans, dtype=np.int32).reshape(-1, 2))
                    token_row = [*before, *ids, tokenizer.sep_id]
                    examples.append(Example(rows=(token_row,), label=label, weight=2, row=chunk + i, places=places))
            cut += sum(len(question) > half for question in questions)
        return Encoded(examples=examples, cut=cut)

    def loss(self, model: nn.Module, batch: Batch, examples: Sequence[Example]) -> Tensor:
        """Cross-entropy of the first and of the last token, over the tokens of the row; `[CLS]` stands for nowhere."""
        labels_2B = tensor_on(batch.device, [example.label for example in examples]).T
        return torch.stack([choice_loss(x_T, batch, at_B) for x_T, at_B in zip(model(batch), labels_2B, strict=True)]).sum()

    def answers(self, model: nn.Module, batch: Batch, examples: Sequence[Example]) -> list[np.ndarray]:
        """Scores of each token as the first and as the last one, [2, tokens]."""
        scores_2T = torch.stack(model(batch)).float().numpy(force=True)
        return np.split(scores_2T, batch.cu_seqlens[1:-1].tolist(), axis=1)

    def score(self, rows: Sequence[Row], examples: Sequence[Example], answers: Sequence[np.ndarray]) -> dict[str, float]:
        return self.score_texts(rows, self.decode(rows, examples, answers))

    def score_texts(self, rows: Sequence[Row], found: Sequence[str]) -> dict[str, float]:
        """Shared words and whole answers, of an answer to each row."""
        gold = [[text for text, _ in self.answers_to(row)] for row in rows]
        pairs = list(zip(gold, found, strict=True))
        return {
            "f1": float(np.mean([metrics.answer_f1(one, other) for one, other in pairs])),
            "exact_match": float(np.mean([metrics.exact_match(one, other) for one, other in pairs])),
        }

    def decode(self, rows: Sequence[Row], examples: Sequence[Example], answers: Sequence[np.ndarray]) -> list[str]:
        """The answer to each row; "" where nowhere scores higher in the window that is least sure of it.

        Source: the decoding of SQuAD 2.0's baselines: the best span over all windows against the lowest `[CLS]` score.
        """
        best, texts, nowhere = [-np.inf] * len(rows), [""] * len(rows), [np.inf] * len(rows)
        for example, (start_L, end_L) in zip(examples, answers, strict=True):
            offset, spans = example.places
            i = example.row
            inside = slice(offset, offset + len(spans))
            score, first, last = best_span(start_L[inside], end_L[inside], self.longest_answer)
            nowhere[i] = min(nowhere[i], start_L[0] + end_L[0])
            if score > best[i]:
                best[i] = score
                texts[i] = rows[i][1][self.context][spans[first][0] : spans[last][1]].strip()
        return ["" if self.unanswerable and nowhere[i] > best[i] else text for i, text in enumerate(texts)]

    def answers_to(self, row: Row) -> list[tuple[str, int]]:
        """Texts and first characters of the right answers. Raises DataError: names row and column."""
        found, context = cell(row, self.answer), text_of(row, self.context)
        try:
            answers = list(_pairs(found))
        except (KeyError, TypeError, ValueError):
            wanted = 'wanted a list of {"text": …, "start": …}'
            raise DataError(f"{row[0]}: {repr(found)[:40]} in column {self.answer!r}; {wanted}") from None
        for text, start in answers:
            if start < 0 or not text or context[start : start + len(text)] != text:
                raise DataError(
                    f"{row[0]}: the answer {text[:40]!r} in column {self.answer!r} does not stand at character {start} "
                    f"of {self.context!r}; there is {context[max(0, start) : max(0, start) + max(1, len(text))][:40]!r}"
                )
        return answers


def choice_loss(x_T: Float[Tensor, "T"], batch: Batch, at_B: Int[Tensor, "B"]) -> Float[Tensor, ""]:
    """The sum over rows of the cross-entropy of choosing one token of the row, in float32 and without a loop over rows.

    Args:
        x_T: scores of the tokens.
        batch: whose rows compete within themselves.
        at_B: the right token of each row, counted in the row.
    """
    x_T, lengths_B = x_T.float(), batch.cu_seqlens.diff()
    row_T = torch.arange(batch.rows, device=x_T.device).repeat_interleave(lengths_B, output_size=len(x_T))
    highest_B = x_T.detach().new_full((batch.rows,), -torch.inf).scatter_reduce(0, row_T, x_T.detach(), "amax")
    sums_B = torch.zeros_like(highest_B).index_add(0, row_T, (x_T - highest_B[row_T]).exp())
    return (sums_B.log() + highest_B - x_T[batch.cu_seqlens[:-1] + at_B]).sum()


def best_span(start_L: np.ndarray, end_L: np.ndarray, longest: int) -> tuple[float, int, int]:
    """The span with the highest sum of scores, not longer than `longest` tokens: its score, first and last token.

    >>> best_span(np.array([0.0, 5.0, 1.0]), np.array([9.0, 0.0, 2.0]), 30)
    (9.0, 0, 0)
    """
    best = (-np.inf, 0, 0)
    for reach in range(min(longest, len(start_L))):
        sums = start_L[: len(start_L) - reach] + end_L[reach:]
        first = int(sums.argmax())
        if sums[first] > best[0]:
            best = (float(sums[first]), first, first + reach)
    return best


def _pairs(found: Any) -> Iterator[tuple[str, int]]:
    if isinstance(found, dict):
        found = [{"text": t, "start": s} for t, s in zip(found["text"], found["answer_start"], strict=True)]
    for answer in found:
        text, start = answer["text"], answer["start"] if "start" in answer else answer["answer_start"]
        if not isinstance(text, str) or not isinstance(start, int):
            raise TypeError
        yield text, start


def _windows(context: EncodedText, room: int, overlap: int) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
    ids, spans = context.ids[1:-1], context.spans[1:-1]
    step = room - min(overlap, room // 2)
    for start in range(0, max(1, len(ids) - room + step), step):
        yield ids[start : start + room], spans[start : start + room]


def _tokens_of(answer: tuple[int, int], spans: Sequence[tuple[int, int]], offset: int) -> tuple[int, int]:
    """First and last token of the characters of the answer, counted in the row; 0 and 0 where the window lacks a part of it."""
    start, end = answer
    if not spans or start < spans[0][0] or end > spans[-1][1]:
        return 0, 0
    first = next((i for i, span in enumerate(spans) if span[1] > start), None)
    last = next((i for i in range(len(spans) - 1, -1, -1) if spans[i][0] < end), None)
    return (0, 0) if first is None or last is None or last < first else (offset + first, offset + last)
