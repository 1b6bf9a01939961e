"""How well a model for question answering finds one value among many, by the length of the context and the depth of the answer."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modernbert.checkpoint.folder import class_of, load_model
from modernbert.checkpoint.names import resolve
from modernbert.checkpoint.settings import read_config
from modernbert.data.lookups import DEPTHS, lookups, pairs_of
from modernbert.engine.engine import tokenizer_of
from modernbert.engine.hardware import choose_device, choose_dtype, commit, environment
from modernbert.errors import CheckpointError, ConfigError
from modernbert.eval.supervised import answers_of
from modernbert.model.heads import QuestionAnswerer
from modernbert.tasks.metrics import exact_match
from modernbert.tasks.spans import SpanTask

LONGEST_VALUE = 64
"""Tokens of a UUID, at most: small vocabularies cut one into 20 to 36."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LookupResult:
    """The share of right answers, at each length and depth."""

    shares: dict[int, list[float]]
    """By tokens of the context: one share for each tenth of the depth."""
    record: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"shares": self.shares, **self.record}

    def to_markdown(self) -> str:
        """A line for each length; columns are depths."""
        lines = [["tokens", *(f"{10 * depth} %" for depth in range(DEPTHS)), "all"], ["---"] * (DEPTHS + 2)]
        for tokens, shares in self.shares.items():
            lines.append([f"{tokens:,}", *(f"{100 * share:.0f}" for share in shares), f"{100 * np.mean(shares):.1f}"])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def evaluate_lookup(
    model: str | Path | None, lengths: Sequence[int], *, rows: int = 100, seed: int = 1, device: str | None = None
) -> LookupResult:
    """Asks for one value of a long object of random keys and values, at ten depths.

    Args:
        model: for question answering: a folder, a packaged model's name or one on the hub.
        lengths: tokens of the contexts, about; those beyond the model's own length are read through windows.
        rows: for each length, as many at each depth.
        seed: of the rows; training takes 0.
        device: None takes the best one here.

    Raises:
        CheckpointError, TokenizerError: the model is missing, foreign or damaged, or answers no questions.
        ConfigError: rows is no multiple of ten, or a length is below 1.
        HardwareError: the device is not there.
    """
    if rows < DEPTHS or rows % DEPTHS:
        raise ConfigError(f"rows={rows}: wanted a multiple of {DEPTHS}, as many at each depth")
    if not lengths or min(lengths) < 1:
        raise ConfigError(f"tokens={','.join(map(str, lengths))}: wanted one length or more, each of 1 token at least")
    folder, where = resolve(model), choose_device(device)
    if not issubclass(cls := class_of(folder), QuestionAnswerer):
        raise CheckpointError(
            f"{folder} holds a {cls.__name__}; wanted a model fine-tuned by `modernbert finetune question_answering`"
        )
    tokenizer = tokenizer_of(folder)
    trained = load_model(QuestionAnswerer, folder, dtype=torch.float32, device=where)
    trained.model.compute_dtype = choose_dtype(where)
    shares = {}
    for tokens in lengths:
        made = lookups(rows, pairs=pairs_of(tokens, tokenizer), seed=seed)
        asked = [(f"lookup {number}", row) for number, row in enumerate(made)]
        task = SpanTask(longest_answer=LONGEST_VALUE)
        examples = task.encode(asked, tokenizer, read_config(folder).max_position_embeddings).examples
        found = task.decode(asked, examples, answers_of(trained, task, examples))
        right = [exact_match([row["answers"][0]["text"]], text) for (_, row), text in zip(asked, found, strict=True)]
        shares[tokens] = [float(np.mean(right[depth::DEPTHS])) for depth in range(DEPTHS)]
    settings = {"model": str(folder), "rows": rows, "seed": seed}
    return LookupResult(shares=shares, record={**settings, "environment": {**environment(where), "commit": commit()}})
