"""What every task says of itself, and how cells of labelled rows are read: with file, row and column in each message.

rows ─ fit ─→ task with its labels ─ encode ─→ examples ─ loss ─→ training
                                                   └─ answers ─ score ─→ metrics
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from modernbert.batch import Batch
from modernbert.config import ModelConfig
from modernbert.errors import DataError
from modernbert.text.tokenizer import Tokenizer

Row = tuple[str, dict[str, Any]]
"""Where a row stands, such as "train.csv, row 3", and its cells by column."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """What goes through the model as one: a text, a pair, a window of a document, or a question's choices."""

    rows: tuple[list[int], ...]
    """Token rows; several for choices."""
    label: Any
    """What the loss compares with; each task says."""
    weight: int
    """How many terms it adds to the loss: a step's loss is the mean over all terms of the step."""
    row: int
    """Number of the row of data that it comes from."""
    places: Any = None
    """Where its tokens stand in that row; each task says."""

    @property
    def tokens(self) -> int:
        return sum(map(len, self.rows))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoded:
    """The examples of some rows."""

    examples: list[Example]
    cut: int
    """Rows that lost their end, because they are longer than the model may read."""


@runtime_checkable
class Task(Protocol):
    """What fine-tuning and evaluation ask of a task; frozen dataclasses beside this file answer."""

    @property
    def head(self) -> type[nn.Module]:
        """The model class."""

    @property
    def metric(self) -> str:
        """Which of `score`'s figures chooses the best checkpoint; more is better."""

    def fit(self, rows: Sequence[Row]) -> "Task":
        """The task with the labels that the training rows have. Raises DataError and ConfigError: names file, row and column."""

    def configure(self, config: ModelConfig) -> ModelConfig:
        """A model's config for this task: its classes and their names."""

    def encode(self, rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> Encoded:
        """Examples of at most `max_length` tokens a token row. Raises DataError: names file, row and column."""

    def loss(self, model: nn.Module, batch: Batch, examples: Sequence[Example]) -> Tensor:
        """The sum of the loss's terms, float32."""

    def answers(self, model: nn.Module, batch: Batch, examples: Sequence[Example]) -> list[np.ndarray]:
        """What the model says of each example, on the host; `score` reads it."""

    def score(self, rows: Sequence[Row], examples: Sequence[Example], answers: Sequence[np.ndarray]) -> dict[str, float]:
        """How good the answers are, by metric."""


def tensor_on(device: torch.device, values: Sequence[Any]) -> Tensor:
    """Labels as a tensor on a device; a GPU's work goes on meanwhile, where `torch.tensor(…, device=…)` waits for it to end."""
    return torch.tensor(values).to(device, non_blocking=True)


def with_names(config: ModelConfig, labels: Sequence[str], problem_type: str | None = None) -> ModelConfig:
    """A config whose classes are `labels`, under the keys that transformers reads.

    >>> with_names(ModelConfig(), ["ham", "spam"]).extra["id2label"]
    {'0': 'ham', '1': 'spam'}
    """
    extra = {key: value for key, value in config.extra.items() if key not in ("id2label", "label2id", "problem_type")}
    extra["id2label"] = {str(i): name for i, name in enumerate(labels)}
    extra["label2id"] = {name: i for i, name in enumerate(labels)}
    if problem_type is not None:
        extra["problem_type"] = problem_type
    return config.with_(num_labels=len(labels), extra=extra)


def cell(row: Row, column: str) -> Any:
    """The value of a column.

    Raises:
        DataError: the row has no such column (names the nearest), or nothing in it.
    """
    place, cells = row
    if column not in cells:
        near = difflib.get_close_matches(column, cells, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}? There are" if near else "there are"
        raise DataError(f"{place}: no column {column!r}; {hint} {', '.join(cells) or 'none'}")
    value = cells[column]
    if value is None or (isinstance(value, float) and math.isnan(value)) or value == "":
        shown = {None: "nothing", "": "empty text"}.get(value, "NaN")
        raise DataError(f"{place}: {shown} in column {column!r}; fill it in or remove the row")
    return value


def text_of(row: Row, column: str) -> str:
    """A text that is not empty. Raises DataError: names row and column."""
    value = cell(row, column)
    if not isinstance(value, str):
        raise DataError(f"{row[0]}: {_shown(value)} in column {column!r}; wanted text")
    return checked_text(value, row, column)


def checked_text(value: str, row: Row, column: str) -> str:
    """The text, if it says something and is valid Unicode. Raises DataError: names row and column."""
    if not value.strip():
        raise DataError(f"{row[0]}: empty text in column {column!r}; fill it in or remove the row")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{row[0]}: half a surrogate pair in column {column!r} ({error}); mend or remove it") from error
    return value


def name_of(row: Row, column: str, value: Any = None) -> str:
    """A class's name, from text (without spaces around it) or a whole number. Raises DataError: names row and column."""
    value = cell(row, column) if value is None else value
    if isinstance(value, float) and value.is_integer():  # parquet turns whole numbers beside gaps into these
        value = int(value)
    name = str(value).strip()
    if not isinstance(value, str | int) or not name:
        raise DataError(f"{row[0]}: {_shown(value)} in column {column!r}; wanted a class, as text or a whole number")
    return name


def number_of(row: Row, column: str) -> float:
    """A finite number. Raises DataError: names row and column."""
    value = cell(row, column)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{row[0]}: {_shown(value)} in column {column!r}; wanted a finite number")
    return number


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once: by number where all are whole numbers, else by letter.

    >>> ordered(["10", "9", "9"]), ordered(["spam", "ham"])
    (('9', '10'), ('ham', 'spam'))
    """
    found = set(names)
    numbers = all(name.isdecimal() for name in found)
    return tuple(sorted(found, key=(lambda name: (int(name), name)) if numbers else None))


def number_in(labels: Sequence[str], name: str, row: Row, column: str) -> int:
    """The class number of a name. Raises DataError: no training row has it; names the nearest."""
    if name in labels:
        return labels.index(name)
    near = difflib.get_close_matches(name, labels, n=1, cutoff=0.0)
    raise DataError(f"{row[0]}: {name!r} in column {column!r} is no class of the training rows; did you mean {near[0]!r}?")


def _shown(value: Any, limit: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"
