"""Answers as spans of a context: the shape of the question-answering pipeline that transformers had until version 4.

A context longer than the model reads goes through it in windows that overlap; spans of all windows compete by one measure.

L tokens of the context that a window shows, after the `[CLS]` that stands for "no answer" · W tokens of an answer.
"""

import heapq
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np

from modernbert.engine.rows import Template
from modernbert.engine.runner import Runner
from modernbert.engine.windows import windows
from modernbert.errors import ConfigError, TextError
from modernbert.model.heads import QuestionAnswerer
from modernbert.text.rows import list_of


class Answer(TypedDict):
    """A span of the context; an empty one says that the context holds no answer."""

    score: float
    """Its probability among the spans of all windows."""
    start: int
    """Where it begins in the context, in characters."""
    end: int
    answer: str


class Seen(NamedTuple):
    """What the model makes of one window: logits of `[CLS]` and then of each token of the context."""

    start_L: np.ndarray
    end_L: np.ndarray
    first: int
    """Number in the context of the first token."""


def answer(
    runner: Runner,
    question: Any,
    context: Any,
    top_k: int,
    max_answer_len: int,
    handle_impossible_answer: bool,
    max_length: int | None,
    overlap: int,
) -> Any:
    """See `Engine.answer`."""
    for setting, value in (("top_k", top_k), ("max_answer_len", max_answer_len)):
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{setting}={value!r}: wanted a number from 1")
    runner.head(QuestionAnswerer, "answer")
    questions, contexts, alone = _aligned(question, context)
    head = len(Template.of(runner.tokenizer).head)
    read = runner.tokenizer.encode_with_spans(contexts)
    places = [row.spans[head:-1] for row in read]
    seen = _seen(runner, questions, [row.ids[head:-1] for row in read], max_length, overlap, alone)
    found = []
    for number, text in enumerate(contexts):
        answers = _answers(text, places[number], seen[number], top_k, max_answer_len)
        if handle_impossible_answer:
            answers.append(Answer(score=null_score(seen[number]), start=0, end=0, answer=""))
        if not answers:
            where = "the context" if alone else f"context {number}"
            raise TextError(f"{where} holds no word to answer with; handle_impossible_answer=True accepts that")
        answers.sort(key=lambda one: -one["score"])
        found.append(answers[0] if top_k == 1 else answers[:top_k])
    return found[0] if alone else found


def best_spans(seen: Sequence[Seen], max_answer_len: int) -> Iterator[tuple[float, int, int]]:
    """Yields spans of a context, likeliest first: probability, first and last token.

    A span's probability is exp(start + end), over the sum of that for every start with every end of a window, `[CLS]`
    included, over all windows. For one window it is the product of two softmaxes, which is the pipeline's score; where there
    are several it lets them compare, which a softmax for each does not. A span that several windows show comes several times.

    >>> seen = Seen(np.log([1.0, 3.0, 1.0]), np.log([1.0, 1.0, 3.0]), first=7)
    >>> [(round(p, 2), first, last) for p, first, last in best_spans([seen], max_answer_len=2)]
    [(0.36, 7, 8), (0.12, 7, 7), (0.12, 8, 8)]
    """
    total = _log_total(seen)
    for score, first, last in heapq.merge(*(_ranked(window, max_answer_len) for window in seen), key=lambda span: -span[0]):
        yield float(np.exp(score - total)), first, last


def null_score(seen: Sequence[Seen]) -> float:
    """Probability that the context holds no answer: as sure as the window that is least sure of it.

    Source: Devlin et al. 2019 (arXiv 1810.04805) §4.3 compare the best span with `[CLS]`; of several windows the least counts, as
    an answer in one is an answer.
    """
    return float(np.exp(min(window.start_L[0] + window.end_L[0] for window in seen) - _log_total(seen)))


def _log_total(seen: Sequence[Seen]) -> float:
    sums = [np.logaddexp.reduce(window.start_L) + np.logaddexp.reduce(window.end_L) for window in seen]
    return float(np.logaddexp.reduce(sums))


def _ranked(window: Seen, max_answer_len: int) -> Iterator[tuple[float, int, int]]:
    """Spans of one window by start + end, best first. A band of `max_answer_len` ends for each start, as L × L is too much."""
    start_L, end_L = window.start_L[1:].astype(np.float64), window.end_L[1:].astype(np.float64)
    length, width = len(start_L), min(max_answer_len, len(start_L))
    scores_LW = np.full((length, width), -np.inf)
    for more in range(width):
        scores_LW[: length - more, more] = start_L[: length - more] + end_L[more:]
    scores = scores_LW.ravel()
    for at in np.argsort(-scores, kind="stable"):
        if scores[at] == -np.inf:
            return
        first = window.first + int(at) // width
        yield float(scores[at]), first, first + int(at) % width


def _answers(text: str, places: Sequence[tuple[int, int]], seen: Sequence[Seen], top_k: int, max_answer_len: int) -> list[Answer]:
    """The best spans as text, each once, without spaces at their ends: byte-level tokens begin with the space before a word."""
    found: dict[tuple[int, int], Answer] = {}
    for score, first, last in best_spans(seen, max_answer_len):
        words = text[places[first][0] : places[last][1]]
        start = places[first][0] + len(words) - len(words.lstrip())
        words = words.strip()
        if words:
            found.setdefault((start, start + len(words)), Answer(score=score, start=start, end=start + len(words), answer=words))
        if len(found) == top_k:
            break
    return list(found.values())


def _seen(
    runner: Runner,
    questions: Sequence[str],
    contexts: Sequence[list[int]],
    max_length: int | None,
    overlap: int,
    alone: bool,
) -> list[list[Seen]]:
    """Runs each question with its context, in windows where both together are longer than `max_length`."""
    width = runner.limit if max_length is None else max_length
    if not 1 <= width <= runner.limit:
        raise ConfigError(f"max_length={width} tokens: wanted 1 to {runner.limit:,}, which the model reads")
    template = Template.of(runner.tokenizer)
    rows, cuts, begins = [], [], []
    for number, (asked, tokens) in enumerate(zip(runner.tokenizer.encode(questions, special=False), contexts, strict=True)):
        room = width - template.pair_cost - len(asked)
        if room < 1:
            where = "the question" if alone else f"question {number}"
            raise TextError(f"{where} has {len(asked):,} tokens, which leaves no room for the context in {width:,}; shorten it")
        cuts.append(windows(len(tokens), room, min(overlap, room - 1)))
        begins.append(len(template.head) + len(asked) + len(template.middle))
        rows += [template.pair(asked, tokens[start:end]) for start, end in cuts[-1]]
    logits = iter(runner.token_logits(rows, QuestionAnswerer, "answer"))
    return [
        [_of_context(next(logits), begin, start, end) for start, end in spans] for spans, begin in zip(cuts, begins, strict=True)
    ]


def _of_context(logits_L2: np.ndarray, begin: int, start: int, end: int) -> Seen:
    kept = np.concatenate([logits_L2[:1], logits_L2[begin : begin + end - start]])
    return Seen(kept[:, 0], kept[:, 1], first=start)


def _aligned(question: Any, context: Any) -> tuple[list[str], list[str], bool]:
    """One question for each context; a single one of either goes with all of the other."""
    questions, contexts = list_of(question), list_of(context)
    if isinstance(question, str):
        questions *= len(contexts)
    elif isinstance(context, str):
        contexts *= len(questions)
    if len(questions) != len(contexts):
        raise TextError(f"{len(questions)} questions and {len(contexts)} contexts; wanted one context for each question")
    return questions, contexts, isinstance(question, str) and isinstance(context, str)
