"""Token vectors of queries and documents, as a late-interaction folder says: prefixes, lengths, expansion by masks, skiplist.

B queries · L tokens of each · X tokens · E width of the encoder · O width of a vector.

Source: PyLate 1.6's `ColBERT.encode`, whose scores these are (tests/interop/test_pylate.py).
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from modernbert.batch import Batch
from modernbert.checkpoint.modules import Modules
from modernbert.engine.runner import Runner
from modernbert.errors import TokenizerError
from modernbert.model.expansion import encode_half_seen
from modernbert.text.rows import rows_of
from modernbert.vectors import LateSettings


def token_vectors(
    runner: Runner, modules: Modules, late: LateSettings, texts: Any, *, query: bool, truncate: bool, batch_tokens: int | None
) -> list[np.ndarray]:
    """Unit vectors, float32 [tokens, O] for each text; a document's lack those of the skiplist.

    Raises:
        TextError: a text is longer than the folder's `query_length` or `document_length`, and `truncate` is false.
        TokenizerError: the vocabulary lacks the prefix that the folder names.
    """
    prefix, length = (late.query_prefix, late.query_length) if query else (late.document_prefix, late.document_length)
    added = _id_of(runner, prefix)
    rows = rows_of(runner.tokenizer, texts, limit=min(length, runner.limit) - len(added), truncate=truncate)
    rows = [[row[0], *added, *row[1:]] for row in rows]

    def compute(batch: Batch) -> Tensor:
        return _project(modules, runner.encoder(batch))

    if not query:
        skipped = {runner.tokenizer.id(word) for word in late.skiplist_words}
        found = runner.per_token(rows, compute, "embed_tokens", batch_tokens=batch_tokens)
        return [vectors[[token not in skipped for token in row]] for row, vectors in zip(rows, found, strict=True)]
    if not late.query_expansion:
        return runner.per_token(rows, compute, "embed_tokens", batch_tokens=batch_tokens)
    full = [row + [runner.tokenizer.mask_id] * (length - len(row)) for row in rows]
    if late.attend_to_expansion_tokens:
        return runner.per_token(full, compute, "embed_tokens", batch_tokens=batch_tokens)
    several = max(1, runner.budget(batch_tokens) // length)
    found = []
    for first in range(0, len(rows), several):
        ids_BL = torch.tensor(full[first : first + several], device=runner.device)
        lengths_B = torch.tensor([len(row) for row in rows[first : first + several]], device=runner.device)
        seen_BL = torch.arange(length, device=runner.device) < lengths_B[:, None]
        with torch.inference_mode():
            x_BLE = encode_half_seen(runner.encoder, ids_BL, seen_BL)
            found += [_project(modules, x_LE).cpu().numpy() for x_LE in x_BLE]
    return found


def _id_of(runner: Runner, prefix: str) -> list[int]:
    if not prefix:
        return []
    id = runner.tokenizer.id(prefix)
    if id is None:
        raise TokenizerError(
            f"the folder's prefix {prefix!r} is no token of its vocabulary; name one that is in config_sentence_transformers.json, or ''"
        )
    return [id]


def _project(modules: Modules, x_XE: Float[Tensor, "X E"]) -> Float[Tensor, "X O"]:
    """Projection and length 1, in float32: bf16 loses about 1 % of MaxSim (facts for serving, §2.2)."""
    x_XO = x_XE.float()
    for dense in modules.dense:
        x_XO = dense(x_XO)
    return F.normalize(x_XO, dim=-1)
