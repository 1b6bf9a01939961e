"""The likeliest words at each mask, in the shape of transformers' fill-mask pipeline.

T tokens in the batch · M masked positions · K words for each mask · V vocabulary.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, TypedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modernbert.batch import Batch, pack
from modernbert.engine.batching import BATCH_TOKENS, each_group
from modernbert.engine.runner import Runner
from modernbert.errors import ConfigError, TextError
from modernbert.model.heads import MaskedLM
from modernbert.text.rows import name, rows_of
from modernbert.text.tokenizer import Tokenizer


class Word(TypedDict):
    """A word for a mask."""

    score: float
    """Probability."""
    token: int
    token_str: str
    """The token as text, with the space that it begins with in running text."""
    sequence: str
    """The whole text with the word in place."""


def fill_mask(runner: Runner, text: Any, top_k: int) -> list[Any]:
    """See `Engine.fill_mask`."""
    if not isinstance(top_k, int) or not 1 <= top_k <= runner.config.vocab_size:
        raise ConfigError(f"top_k={top_k!r}: wanted a number of words from 1 to {runner.config.vocab_size:,}, the vocabulary")
    runner.head(MaskedLM, "fill_mask")
    mask_id = runner.tokenizer.mask_id
    rows = rows_of(runner.tokenizer, text, limit=runner.limit)
    for number, row in enumerate(rows):
        if mask_id not in row:
            mask = runner.tokenizer.token(mask_id)
            where = name(number, alone=isinstance(text, str))
            raise TextError(f"{where} has no {mask}; write {mask} in place of the word to be found")
    answers: list[Any] = [None] * len(rows)
    for group in each_group([len(row) for row in rows], BATCH_TOKENS, "fill_mask"):
        batch = pack([rows[i] for i in group])
        probabilities_MV = logits(runner, batch, (batch.ids_T == mask_id).nonzero().squeeze(-1)).softmax(-1)
        scores_MK, tokens_MK = probabilities_MV.topk(top_k)
        found = zip(scores_MK.tolist(), tokens_MK.tolist(), strict=True)
        for i in group:
            answers[i] = _answer(runner.tokenizer, rows[i], found)
    return answers[0] if len(answers) == 1 else answers


@torch.inference_mode()
def logits(runner: Runner, batch: Batch, at_M: Int[Tensor, "M"]) -> Float[Tensor, "M V"]:
    """See `Engine.logits`."""
    model = runner.head(MaskedLM, "fill_mask")
    x_MD = model.model(batch.to(runner.device))[at_M.to(runner.device)]
    return model.decoder(model.head(x_MD).float())  # bf16 logits have steps of 1/16: scores would tie


def _answer(
    tokenizer: Tokenizer, row: list[int], found: Iterator[tuple[list[float], list[int]]]
) -> list[Word] | list[list[Word]]:
    """Takes the words for each mask of a row; `sequence` keeps special tokens only to show the other masks."""
    masks = [i for i, token in enumerate(row) if token == tokenizer.mask_id]
    lists = []
    for mask, (scores, tokens) in zip(masks, islice(found, len(masks)), strict=True):
        words: list[Word] = []
        for score, token in zip(scores, tokens, strict=True):
            filled = [id for id in (*row[:mask], token, *row[mask + 1 :]) if id != tokenizer.pad_id]
            word = tokenizer.decode([token], special=True)
            sequence = tokenizer.decode(filled, special=len(masks) > 1)
            words.append(Word(score=score, token=token, token_str=word, sequence=sequence))
        lists.append(words)
    return lists[0] if len(lists) == 1 else lists
