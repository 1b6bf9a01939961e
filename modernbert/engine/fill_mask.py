"""The likeliest words at each mask, in the shape of transformers' fill-mask pipeline.

M masked positions · X some of them · D hidden · K words for each mask · W some of its words · V vocabulary.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from modernbert.batch import Batch
from modernbert.engine.runner import Runner
from modernbert.model.heads import MaskedLM
from modernbert.text.masks import check_masks, check_top_k, words_of
from modernbert.text.rows import rows_of

MASKS = 1024
"""Masks whose scores are made together: each takes a float for every word, several times."""

WORDS = 1024
"""Words whose weights become float32 together on a CPU, so that they stay in its cache: one mask takes 2.4 ms for `tiny`'s 24,576 words and
6 for base's, where all at once took 19 and 81, most of it for new memory."""


def fill_mask(runner: Runner, text: Any, top_k: int) -> list[Any]:
    """See `Engine.fill_mask`."""
    check_top_k(top_k, runner.config.vocab_size)
    runner.head(MaskedLM, "fill_mask")
    rows = rows_of(runner.tokenizer, text, limit=runner.limit, truncate=None)
    check_masks(runner.tokenizer, rows, alone=isinstance(text, str))
    answers: list[Any] = [None] * len(rows)
    for group in runner.groups(rows, "fill_mask"):
        found = _likeliest(runner, [rows[i] for i in group], top_k)
        for i in group:
            answers[i] = words_of(runner.tokenizer, rows[i], found)
    return answers[0] if len(answers) == 1 else answers


@torch.inference_mode()
def _likeliest(runner: Runner, rows: Sequence[Sequence[int]], top_k: int) -> Iterator[tuple[list[float], list[int]]]:
    """Yields for each mask of the rows the probabilities of its likeliest words, and the words' ids."""
    model, mask_id = runner.head(MaskedLM, "fill_mask"), runner.tokenizer.mask_id
    at_M = torch.tensor([at for at, token in enumerate(chain.from_iterable(rows)) if token == mask_id])
    x_MD = model.model(runner.packed(rows))[at_M.to(runner.device)]
    for some_XD in x_MD.split(MASKS):
        probabilities_XV = runner.each_alike(lambda x_XD: _scores(model, x_XD).softmax(-1), some_XD)
        scores_XK, tokens_XK = probabilities_XV.topk(top_k)
        yield from zip(scores_XK.tolist(), tokens_XK.tolist(), strict=True)


@torch.inference_mode()
def logits(runner: Runner, batch: Batch, at_M: Int[Tensor, "M"]) -> Float[Tensor, "M V"]:
    """See `Engine.logits`."""
    model = runner.head(MaskedLM, "fill_mask")
    return _scores(model, model.model(batch.to(runner.device))[at_M.to(runner.device)])


def _scores(model: MaskedLM, x_XD: Float[Tensor, "X D"]) -> Float[Tensor, "X V"]:
    """In float32: bf16 logits have steps of 1/16, and scores would tie."""
    x_XD, decoder = model.head(x_XD).float(), model.decoder
    if x_XD.device.type != "cpu" or not isinstance(decoder, nn.Linear) or decoder.weight.dtype == torch.float32:
        return decoder(x_XD)
    parts = zip(decoder.weight.split(WORDS), decoder.bias.split(WORDS), strict=True)
    return torch.cat([F.linear(x_XD, weight_WD.float(), bias_W.float()) for weight_WD, bias_W in parts], dim=-1)
