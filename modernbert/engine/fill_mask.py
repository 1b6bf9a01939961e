"""The likeliest words at each mask, in the shape of transformers' fill-mask pipeline.

T tokens in the batch · M masked positions · K words for each mask · V vocabulary.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modernbert.batch import Batch, pack
from modernbert.engine.batching import BATCH_TOKENS
from modernbert.engine.runner import Runner
from modernbert.model.heads import MaskedLM
from modernbert.text.masks import check_masks, check_top_k, words_of
from modernbert.text.rows import rows_of


def fill_mask(runner: Runner, text: Any, top_k: int) -> list[Any]:
    """See `Engine.fill_mask`."""
    check_top_k(top_k, runner.config.vocab_size)
    runner.head(MaskedLM, "fill_mask")
    mask_id = runner.tokenizer.mask_id
    rows = rows_of(runner.tokenizer, text, limit=runner.limit, truncate=None)
    check_masks(runner.tokenizer, rows, alone=isinstance(text, str))
    answers: list[Any] = [None] * len(rows)
    # each mask takes a float for every word, several times: in a GPU's larger batches of short texts that is gigabytes
    for group in runner.groups(rows, "fill_mask", BATCH_TOKENS):
        batch = pack([rows[i] for i in group])
        probabilities_MV = logits(runner, batch, (batch.ids_T == mask_id).nonzero().squeeze(-1)).softmax(-1)
        scores_MK, tokens_MK = probabilities_MV.topk(top_k)
        found = zip(scores_MK.tolist(), tokens_MK.tolist(), strict=True)
        for i in group:
            answers[i] = words_of(runner.tokenizer, rows[i], found)
    return answers[0] if len(answers) == 1 else answers


@torch.inference_mode()
def logits(runner: Runner, batch: Batch, at_M: Int[Tensor, "M"]) -> Float[Tensor, "M V"]:
    """See `Engine.logits`."""
    model = runner.head(MaskedLM, "fill_mask")
    x_MD = model.model(batch.to(runner.device))[at_M.to(runner.device)]
    return model.decoder(model.head(x_MD).float())  # bf16 logits have steps of 1/16: scores would tie
