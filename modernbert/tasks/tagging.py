"""A tag for each word: named entities in BIO, parts of speech. Words come split, and the first token of each speaks for it.

T tokens in the batch · C classes.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from modernbert.batch import Batch
from modernbert.config import ModelConfig
from modernbert.errors import ConfigError, DataError
from modernbert.model.heads import TokenClassifier
from modernbert.model.losses import IGNORE
from modernbert.tasks import metrics
from modernbert.tasks.task import Encoded, Example, Row, cell, checked_text, name_of, number_in, tensor_on, with_names
from modernbert.text.tokenizer import EncodedWords, Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaggingTask:
    """A tag for each word."""

    words: str = "tokens"
    """Column of the words: a list, or text with spaces between them."""
    tags: str = "tags"
    """Column of their tags, such as B-PER I-PER O: a list, or text with spaces between them."""
    labels: tuple[str, ...] = ()
    """All tags in the order of their numbers; empty means: those of the training rows, with B- and I- of each kind."""
    metric: Literal["f1", "precision", "recall", "accuracy"] = "f1"
    """Chooses the best checkpoint: of whole entities, or accuracy, of words; that is the one for tags that are not BIO."""

    @property
    def head(self) -> type[nn.Module]:
        return TokenClassifier

    def fit(self, rows: Sequence[Row]) -> "TaggingTask":
        labels = self.labels or _labels({tag for row in rows for tag in self.tags_of(row)})
        if self.metric != "accuracy" and not any(label.startswith("B-") for label in labels):
            raise ConfigError(
                f"metric={self.metric} is of entities, and column {self.tags!r} has no tag B-… (it has "
                f"{', '.join(labels[:5])}); take metric=accuracy for tags that are not BIO"
            )
        return dataclasses.replace(self, labels=labels)

    def configure(self, config: ModelConfig) -> ModelConfig:
        return with_names(config, self.labels)

    def encode(self, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> Encoded:
        """A row longer than `max_length` becomes several examples, cut between words, so that nothing is lost."""
        examples = []
        tags = [self.tags_of(row) for row in rows]
        for i, encoded in enumerate(tokenizer.encode_words([self.words_of(row) for row in rows])):
            numbers = [number_in(self.labels, tag, rows[i], self.tags) for tag in tags[i]]
            for ids, words in _windows(encoded, tokenizer, max_length):
                label = [IGNORE if word < 0 else numbers[word] for word in words]
                places = [word for word in words if word >= 0]
                examples.append(Example(rows=(ids,), label=label, weight=len(places), row=i, places=places))
        return Encoded(examples=examples, cut=0)

    def loss(self, model: nn.Module, batch: Batch, examples: Sequence[Example]) -> Tensor:
        """Cross-entropy at the first token of each word."""
        logits_TC = model(batch).float()
        labels_T = tensor_on(logits_TC.device, [label for example in examples for label in example.label])
        return F.cross_entropy(logits_TC, labels_T, ignore_index=IGNORE, reduction="sum")

    def answers(self, model: nn.Module, batch: Batch, examples: Sequence[Example]) -> list[np.ndarray]:
        """The likeliest tag's number for each word of the example."""
        best_T = model(batch).argmax(-1).numpy(force=True)
        rows = np.split(best_T, batch.cu_seqlens[1:-1].tolist())
        return [best[np.array(example.label) != IGNORE] for best, example in zip(rows, examples, strict=True)]

    def score(self, rows: Sequence[Row], examples: Sequence[Example], answers: Sequence[np.ndarray]) -> dict[str, float]:
        gold = [self.tags_of(row) for row in rows]
        # a word without a token (a lone control character, for one) gets the tag that says nothing
        found = [[self.labels[0]] * len(tags) for tags in gold]
        for example, answer in zip(examples, answers, strict=True):
            for word, tag in zip(example.places, answer, strict=True):
                found[example.row][word] = self.labels[tag]
        words = metrics.accuracy(np.array([t for tags in gold for t in tags]), np.array([t for tags in found for t in tags]))
        return {**metrics.entity_scores(gold, found), "accuracy": words}

    def words_of(self, row: Row) -> list[str]:
        """The words, at least one. Raises DataError: names row and column."""
        words = cell(row, self.words)
        words = words.split() if isinstance(words, str) else words
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            raise DataError(f"{row[0]}: {str(words)[:40]!r} in column {self.words!r}; wanted a list of words, at least one")
        checked_text(" ".join(words), row, self.words)
        return words

    def tags_of(self, row: Row) -> list[str]:
        """A tag for each word. Raises DataError: names row and column."""
        tags, words = cell(row, self.tags), self.words_of(row)
        tags = tags.split() if isinstance(tags, str) else tags
        if not isinstance(tags, list) or len(tags) != len(words):
            count = len(tags) if isinstance(tags, list) else "no list of"
            raise DataError(f"{row[0]}: {len(words)} words in column {self.words!r} and {count} tags in {self.tags!r}; one each")
        return [_tag(row, self.tags, tag, i) for i, tag in enumerate(tags)]


def _tag(row: Row, column: str, tag: object, word: int) -> str:
    if tag is None or tag == "":
        raise DataError(f"{row[0]}: no tag for word {word} in column {column!r}; fill it in or remove the row")
    return name_of(row, column, tag)


def _labels(tags: set[str]) -> tuple[str, ...]:
    """O first, then the others; of each entity's kind both tags, since other rows may hold the one that is missing here."""
    kinds = {tag[2:] for tag in tags if tag[:2] in ("B-", "I-")}
    both = {f"{side}-{kind}" for kind in kinds for side in "BI"}
    rest = sorted((tags | both) - {"O"}, key=lambda tag: (tag[2:], tag) if tag in both else (tag, ""))
    return ("O", *rest) if kinds or "O" in tags else tuple(rest)


def _windows(encoded: EncodedWords, tokenizer: Tokenizer, max_length: int) -> list[tuple[list[int], list[int]]]:
    """Token rows, and for each token its word if it is the first of it, else −1."""
    inner = [(id, word) for id, word in zip(encoded.ids, encoded.words, strict=True) if word >= 0]
    words = [word for _, word in inner]
    first = [word if i == 0 or words[i - 1] != word else -1 for i, word in enumerate(words)]
    found, start = [], 0
    while start < len(inner):
        end = min(start + max_length - 2, len(inner))
        between = next((i for i in range(end, start, -1) if i == len(inner) or first[i] >= 0), end)  # a word may fill it all
        ids = [tokenizer.cls_id, *(id for id, _ in inner[start:between]), tokenizer.sep_id]
        found.append((ids, [-1, *first[start:between], -1]))
        start = between
    return found
