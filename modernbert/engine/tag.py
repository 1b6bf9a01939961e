"""Labels for tokens, and the entities that they make: the shapes of transformers' token-classification pipeline.

A text longer than the model reads goes through it in windows that overlap. Scores are joined token by token before
entities are made, so that a border cuts no entity in two and doubles none.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np

from modernbert.engine.classify import label_names
from modernbert.engine.rows import Template
from modernbert.engine.runner import Runner, softmax
from modernbert.engine.windows import stitch, windows
from modernbert.errors import ConfigError, TextError
from modernbert.model.heads import TokenClassifier
from modernbert.text.rows import list_of
from modernbert.text.tokenizer import Tokenizer

Aggregation = Literal["simple", "first", "average", "max"]


class Entity(TypedDict):
    """Neighbouring tokens or words of one class."""

    entity_group: str
    """The class without its B- or I-."""
    score: float
    """Mean probability of the tokens, or of the words."""
    word: str
    start: int
    """Where it begins in the text, in characters; as the pipeline's, it counts the space that the first token begins with."""
    end: int


class Token(TypedDict):
    """One token and its class."""

    entity: str
    score: float
    index: int
    """Number of the token in its row, special tokens included."""
    word: str
    """The token as the vocabulary spells it."""
    start: int
    end: int


class _Piece(NamedTuple):
    """One or several tokens with one label: what entities are made of."""

    label: str
    score: float
    tokens: range


def tag(
    runner: Runner,
    texts: Any,
    aggregation: Aggregation | None,
    ignore_labels: Sequence[str],
    is_split_into_words: bool,
    max_length: int | None,
    overlap: int,
) -> Any:
    """See `Engine.tag`."""
    if aggregation not in ("simple", "first", "average", "max", None):
        raise ConfigError(f"aggregation={aggregation!r}: wanted 'simple', 'first', 'average', 'max' or None")
    alone = isinstance(texts, str)
    items = list_of(texts)
    if is_split_into_words:
        alone = bool(items) and all(isinstance(item, str) for item in items)
        items = [_joined(words, number) for number, words in enumerate([items] if alone else items)]
    encoded = runner.tokenizer.encode_with_spans(items)
    probabilities = [softmax(logits) for logits in _logits(runner, [row.ids for row in encoded], max_length, overlap)]
    names = label_names(runner.config)
    head = len(Template.of(runner.tokenizer).head)
    found: list[Any] = []
    for text, row, scores_LC in zip(items, encoded, probabilities, strict=True):
        document = _Document(text, row.ids[head:-1], row.spans[head:-1], scores_LC[head:-1], names, runner.tokenizer)
        if aggregation is None:
            found.append([token for token in document.tokens(first=head) if token["entity"] not in ignore_labels])
        else:
            entities = document.entities(aggregation)
            found.append([entity for entity in entities if entity["entity_group"] not in ignore_labels])
    return found[0] if alone else found


def _logits(runner: Runner, rows: Sequence[list[int]], max_length: int | None, overlap: int) -> list[np.ndarray]:
    """Scores of each row's tokens; a row longer than `max_length` in windows, each with the row's special tokens around it."""
    runner.head(TokenClassifier, "tag")
    width = runner.limit if max_length is None else max_length
    if not 3 <= width <= runner.limit:
        raise ConfigError(f"max_length={width} tokens: wanted 3 to {runner.limit:,}, which the model reads")
    head = len(Template.of(runner.tokenizer).head)
    inner = width - head - 1
    cuts = [windows(len(row) - head - 1, inner, min(overlap, inner - 1)) for row in rows]
    parts = [
        row[:head] + row[head + start : head + end] + row[-1:]
        for row, spans in zip(rows, cuts, strict=True)
        for start, end in spans
    ]
    scores = iter(runner.token_logits(parts, TokenClassifier, "tag"))
    return [_whole([next(scores) for _ in spans], spans, head) for spans in cuts]


def _whole(parts: Sequence[np.ndarray], spans: Sequence[tuple[int, int]], head: int) -> np.ndarray:
    """The scores of a row from those of its windows; special tokens keep those of the first and the last window."""
    if len(parts) == 1:
        return parts[0]
    inner = stitch([part[head:-1] for part in parts], spans)
    return np.concatenate([parts[0][:head], inner, parts[-1][-1:]])


class _Document(NamedTuple):
    """A text with its tokens, without special ones, and the probabilities of their classes."""

    text: str
    ids: list[int]
    spans: list[tuple[int, int]]
    scores_LC: np.ndarray
    names: list[str]
    tokenizer: Tokenizer

    def tokens(self, first: int) -> Iterator[Token]:
        for i, piece in enumerate(self._each_token()):
            start, end = self.spans[i]
            word = self.text[start:end] if self._unknown(i) else self.tokenizer.token(self.ids[i])
            yield Token(entity=piece.label, score=piece.score, index=first + i, word=word, start=start, end=end)

    def entities(self, aggregation: Aggregation) -> list[Entity]:
        pieces = self._each_token() if aggregation == "simple" else self._each_word(aggregation)
        return [self._entity(group) for group in _groups(pieces)]

    def _each_token(self) -> Iterator[_Piece]:
        for i, scores_C in enumerate(self.scores_LC):
            yield self._piece(scores_C, range(i, i + 1))

    def _each_word(self, aggregation: Aggregation) -> Iterator[_Piece]:
        """The tokens of a word agree on one label: that of the first, of the surest, or of the mean of their probabilities."""
        starts = [i for i in range(len(self.ids)) if i == 0 or not self._continues(i)]
        for start, end in pairwise([*starts, len(self.ids)]):
            scores_WC = self.scores_LC[start:end]
            if aggregation == "average":
                scores_C = scores_WC.mean(0)
            else:
                scores_C = scores_WC[0 if aggregation == "first" else scores_WC.max(1).argmax()]
            yield self._piece(scores_C, range(start, end))

    def _piece(self, scores_C: np.ndarray, tokens: range) -> _Piece:
        best = int(scores_C.argmax())
        return _Piece(self.names[best], float(scores_C[best]), tokens)

    def _continues(self, i: int) -> bool:
        """Whether a token belongs to the word of the one before: no space between them, as the pipeline judges byte-level BPE."""
        start = self.spans[i][0]
        return start > 0 and not self._unknown(i) and " " not in self.text[start - 1 : start + 1]

    def _unknown(self, i: int) -> bool:
        return self.ids[i] == self.tokenizer.unk_id

    def _entity(self, group: Sequence[_Piece]) -> Entity:
        first, last = group[0].tokens[0], group[-1].tokens[-1]
        start, end = self.spans[first][0], self.spans[last][1]
        known = not any(self._unknown(i) for i in range(first, last + 1))
        return Entity(
            entity_group=group[0].label.split("-", 1)[-1],
            score=float(np.mean([piece.score for piece in group])),
            word=self.tokenizer.decode(self.ids[first : last + 1], special=True) if known else self.text[start:end],
            start=start,
            end=end,
        )


def _groups(pieces: Iterable[_Piece]) -> list[list[_Piece]]:
    """Neighbours of one class; a B- begins a new entity, and a class without B- or I- counts as I-."""
    groups: list[list[_Piece]] = []
    for piece in pieces:
        begins = piece.label.startswith("B-")
        if groups and not begins and _class(piece.label) == _class(groups[-1][-1].label):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups


def _class(label: str) -> str:
    return label[2:] if label.startswith(("B-", "I-")) else label


def _joined(words: Any, number: int) -> str:
    """The words with single spaces between them, as the tokenizer must see them (facts §2.9): NER loses points without."""
    if isinstance(words, str) or not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise TextError(f"text {number} is no list of words, which is_split_into_words=True wants")
    return " ".join(words)
