"""Labels for whole texts: classification, zero-shot classification through an NLI head, and reranking by a cross-encoder.

Every answer has the shape that transformers' pipelines, and CrossEncoder.rank, give it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np

from modernbert.checkpoint.modules import score_activation
from modernbert.config import ModelConfig
from modernbert.engine.rows import pair_rows
from modernbert.engine.runner import Runner, sigmoid, softmax
from modernbert.errors import ConfigError, TextError
from modernbert.model.heads import SequenceClassifier
from modernbert.text.rows import list_of, rows_of


class Label(TypedDict):
    """A class of a text, in the shape of transformers' text-classification pipeline."""

    label: str
    score: float
    """A probability; the predicted value where the model is a regression."""


class ZeroShot(TypedDict):
    """The labels of a text, likeliest first, in the shape of transformers' zero-shot-classification pipeline."""

    sequence: str
    labels: list[str]
    scores: list[float]


class Ranked(TypedDict):
    """A document in the order of relevance, in the shape of sentence-transformers' CrossEncoder.rank."""

    corpus_id: int
    """The document's place in the list that was given."""
    score: float
    text: NotRequired[str]


def classify(runner: Runner, texts: Any, top_k: int | None = 1, *, truncate: bool = False) -> Any:
    """See `Engine.classify`."""
    if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
        raise ConfigError(f"top_k={top_k!r}: wanted a number of labels from 1, or None for all of them")
    alone = isinstance(texts, str | Mapping | tuple)
    logits = runner.row_logits(_single_or_pair_rows(runner, [texts] if alone else list_of(texts), truncate, alone), "classify")
    names = label_names(runner.config)
    found = [_ranked(names, scores, top_k) for scores in probabilities(logits, runner.config)]
    if top_k == 1:
        return found[0][0] if alone and not isinstance(texts, str) else [labels[0] for labels in found]
    return found[0] if alone else found


def probabilities(logits_BC: np.ndarray, config: ModelConfig) -> np.ndarray:
    """What the logits mean: each class for itself (several labels, or one), shares of one (classes), or values (regression).

    Source: transformers' text-classification pipeline decides so, by `problem_type` and then by the number of labels.
    """
    kind = config.extra.get("problem_type")
    if kind == "regression":
        return logits_BC
    return sigmoid(logits_BC) if kind == "multi_label_classification" or config.num_labels == 1 else softmax(logits_BC)


def label_names(config: ModelConfig) -> list[str]:
    """The names of the classes: config.json's `id2label`, else LABEL_0, LABEL_1, ….

    >>> label_names(ModelConfig(num_labels=2))
    ['LABEL_0', 'LABEL_1']

    Raises:
        ConfigError: `id2label` does not number the classes from 0.
    """
    names = config.extra.get("id2label") or {str(i): f"LABEL_{i}" for i in range(config.num_labels)}
    try:
        return [str({int(number): name for number, name in names.items()}[i]) for i in range(config.num_labels)]
    except (KeyError, ValueError) as error:
        raise ConfigError(f"id2label numbers its classes {', '.join(map(str, names))}; wanted 0 to {len(names) - 1}") from error


def zero_shot(
    runner: Runner, texts: Any, labels: Sequence[str] | str, template: str, multi_label: bool, truncate: bool
) -> ZeroShot | list[ZeroShot]:
    """See `Engine.zero_shot`."""
    runner.head(SequenceClassifier, "zero_shot")
    if isinstance(labels, str):
        labels = [label.strip() for label in labels.split(",") if label.strip()]
    if not labels:
        raise ConfigError("zero_shot needs at least one label, such as ['politics', 'sports']")
    hypotheses = [_filled(template, label) for label in labels]
    entail = _entailment(runner.config)
    sequences = list_of(texts)
    pairs = [(text, hypothesis) for text in sequences for hypothesis in hypotheses]
    rows = pair_rows(runner, pairs, truncate=truncate, alone=isinstance(texts, str), per_text=len(labels))
    logits = runner.row_logits(rows, "zero_shot").reshape(len(sequences), len(labels), -1)
    if multi_label or len(labels) == 1:
        scores = softmax(logits[..., [-1 if entail == 0 else 0, entail]])[..., 1]
    else:
        scores = softmax(logits[..., entail])
    found = []
    for text, row in zip(sequences, scores.tolist(), strict=True):
        order = sorted(range(len(labels)), key=lambda i: -row[i])
        found.append(ZeroShot(sequence=text, labels=[labels[i] for i in order], scores=[row[i] for i in order]))
    return found[0] if isinstance(texts, str) else found


def rerank(
    runner: Runner, query: str, documents: Iterable[str], top_k: int | None, return_documents: bool, truncate: bool
) -> list[Ranked]:
    """See `Engine.rerank`."""
    runner.head(SequenceClassifier, "rerank")
    if runner.config.num_labels != 1:
        raise ConfigError(
            f"this model has {runner.config.num_labels} labels; rerank needs one that gives one score, "
            "and `classify` takes pairs for all others"
        )
    documents = list_of(documents)
    rows = pair_rows(runner, [(query, document) for document in documents], truncate=truncate)
    logits = runner.row_logits(rows, "rerank")[:, 0] if rows else np.empty(0, dtype=np.float32)
    scores = _scores(logits, runner.config).tolist()
    order = sorted(range(len(documents)), key=lambda i: -scores[i])[:top_k]
    found = [Ranked(corpus_id=i, score=scores[i]) for i in order]
    if return_documents:
        for ranked in found:
            ranked["text"] = documents[ranked["corpus_id"]]
    return found


def _scores(logits_B: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Through the activation that the folder states for a cross-encoder, else the sigmoid."""
    stated = score_activation(config)
    if stated == "identity":
        return logits_B
    if stated == "sigmoid":
        return sigmoid(logits_B)
    raise ConfigError(f"config.json asks for the activation {stated!r} of scores; rerank knows sigmoid and identity")


def _single_or_pair_rows(runner: Runner, items: list[Any], truncate: bool, alone: bool) -> list[list[int]]:
    """Rows of texts, or of pairs: tuples, or the pipeline's {"text": …, "text_pair": …}; all of one kind."""
    pairs = [_pair(item) for item in items]
    if not any(pairs):
        return rows_of(runner.tokenizer, items[0] if alone else items, limit=runner.limit, truncate=truncate)
    single = next((number for number, pair in enumerate(pairs) if pair is None), None)
    if single is not None:
        raise TextError(f"text {single} is a single text among pairs; give pairs (text, text_pair) only, or texts only")
    return pair_rows(runner, [pair for pair in pairs if pair is not None], truncate=truncate, alone=alone)


def _pair(item: Any) -> tuple[str, str] | None:
    if isinstance(item, Mapping):
        item = (item.get("text"), item.get("text_pair"))
    if not isinstance(item, tuple):
        return None
    if len(item) != 2 or not all(isinstance(part, str) for part in item):
        raise TextError(f'{item!r} is no pair of texts; wanted (text, text_pair) or {{"text": …, "text_pair": …}}')
    return item


def _ranked(names: Sequence[str], scores: np.ndarray, top_k: int | None) -> list[Label]:
    order = sorted(range(len(names)), key=lambda i: -scores[i])[:top_k]
    return [Label(label=names[i], score=float(scores[i])) for i in order]


def _filled(template: str, label: str) -> str:
    try:
        filled = template.format(label)
    except (IndexError, KeyError, ValueError) as error:
        raise ConfigError(
            f"hypothesis_template={template!r} cannot be filled ({error}); wanted one {{}} for the label"
        ) from error
    if filled == template:
        raise ConfigError(f"hypothesis_template={template!r} has no place for the label; wanted {{}} in it")
    return filled


def _entailment(config: ModelConfig) -> int:
    names = label_names(config)
    found = [i for i, name in enumerate(names) if name.lower().startswith("entail")]
    if not found:
        raise ConfigError(
            f"this model's classes are {', '.join(names[:5])}; zero_shot needs one that was trained on natural language "
            "inference, with a class whose name begins with 'entail'"
        )
    return found[0]
