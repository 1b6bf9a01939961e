"""Vectors: one a text, or one a token for late interaction; prompts, width and precision as sentence-transformers defines them.

T tokens in the batch · B texts · D width of a vector.
"""

from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from modernbert.batch import Batch
from modernbert.checkpoint.modules import Modules
from modernbert.config import Pooling
from modernbert.engine import late
from modernbert.engine.runner import Runner
from modernbert.errors import CheckpointError
from modernbert.model.heads import LateInteraction
from modernbert.text.rows import CHUNK, list_of, prompted, report, rows_ahead, rows_of
from modernbert.vectors import Precision, check_wishes, finished


def embed(
    runner: Runner,
    modules: Modules,
    texts: Any,
    *,
    prompt: str | None,
    prompt_name: str | None,
    normalize: bool,
    truncate_dim: int | None,
    precision: Precision,
    truncate: bool,
    batch_tokens: int | None,
) -> np.ndarray:
    """See `Engine.embed`."""
    if modules.pooling is None or isinstance(runner.model, LateInteraction):
        raise CheckpointError("this model gives a vector for each token, none for a text; call embed_tokens")
    width = vector_width(runner, modules)
    items = texts if isinstance(texts, str) else list_of(texts)
    check_wishes(precision, truncate_dim, width, len(list_of(items)))
    given, skip = prompted(runner.tokenizer, modules, items, prompt, prompt_name)
    limit = min(modules.max_seq_length or runner.limit, runner.limit)
    pooling: Pooling = modules.pooling

    def compute(batch: Batch) -> Tensor:
        x_BD = _pooled(runner, runner.encoder(batch).float(), batch, pooling, skip)
        for dense in modules.dense:
            x_BD = runner.each_alike(dense, x_BD)
        return F.normalize(x_BD, dim=-1) if modules.normalize else x_BD

    key = f"embed {pooling} {skip}"
    if isinstance(given, str) or len(given) <= CHUNK:
        rows = rows_of(runner.tokenizer, given, limit=limit, truncate=truncate)
        vectors = runner.vectors(rows, compute, "embed", batch_tokens, key).reshape(len(rows), width)
    else:
        too_long: dict[int, int] = {}
        chunks = rows_ahead(runner.tokenizer, given, limit=limit, truncate=truncate, too_long=too_long)
        vectors = runner.vectors_of_chunks(chunks, len(given), compute, "embed", batch_tokens, key)
        if too_long:
            _report_cut(too_long, limit)
    vectors = finished(vectors, normalize, truncate_dim, precision)
    return vectors[0] if isinstance(texts, str) else vectors


def embed_tokens(runner: Runner, modules: Modules, texts: Any, *, query: bool, truncate: bool, batch_tokens: int | None) -> Any:
    """See `Engine.embed_tokens`."""
    if modules.late is not None:
        found = late.token_vectors(
            runner, modules, modules.late, texts, query=query, truncate=truncate, batch_tokens=batch_tokens
        )
        return found[0] if isinstance(texts, str) else found
    model = runner.head(LateInteraction, "embed_tokens")
    rows = rows_of(runner.tokenizer, texts, limit=runner.limit, truncate=truncate)
    found = runner.per_token(
        rows,
        lambda batch: F.normalize(model.linear(runner.encoder(batch).float()), dim=-1),
        "embed_tokens",
        batch_tokens=batch_tokens,
    )
    return found[0] if isinstance(texts, str) else found


def vector_width(runner: Runner, modules: Modules) -> int:
    """Dimensions of a text's vector."""
    return len(modules.dense[-1].weight_OE) if modules.dense else runner.config.hidden_size


def _report_cut(too_long: dict[int, int], limit: int) -> None:
    report(too_long, limit, True, alone=False)


def _pooled(runner: Runner, x_TD: Tensor, batch: Batch, pooling: Pooling, skip: int) -> Tensor:
    """One vector a row, from all its tokens but the first `skip`; what a stream fills up with may have fewer."""
    if not skip:
        return runner.pool(x_TD, batch, pooling)
    if pooling == "cls":
        return x_TD[(batch.cu_seqlens[:-1] + skip).clamp(max=len(x_TD) - 1)]
    mean_BD = runner.pool(x_TD * (batch.pos_T >= skip)[:, None], batch, pooling)
    lengths_B1 = batch.cu_seqlens.diff()[:, None]
    return mean_BD * (lengths_B1 / (lengths_B1 - skip).clamp(min=1))
