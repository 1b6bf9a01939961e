"""Whether an exported file computes what the model does: the same rows through both.

T tokens in the batch · B rows · L padded length · C choices.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modernbert.batch import pack, unpack
from modernbert.checkpoint.modules import Modules
from modernbert.config import ModelConfig
from modernbert.errors import ExportError
from modernbert.export.graph import Form
from modernbert.model.encoder import Encoder
from modernbert.model.heads import Embedder, LateInteraction, MultipleChoice, QuestionAnswerer, SequenceClassifier, pool
from modernbert.runtime.padding import padded
from modernbert.runtime.session import Session

LENGTHS = (7, 130, 300)
"""Tokens of the rows that are compared: with padding, and with blocks in the local layers."""
CHOICES = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """How close one file comes to the model."""

    file: str
    megabytes: float
    difference: float
    """Largest one, in parts of the largest value where that is above 1."""
    allowed: float | None
    """More would be an error."""
    cosine: float
    """Lowest one between vectors of the last axis."""


def compare(model: nn.Module, modules: Modules, form: Form, file: Path) -> Agreement:
    """Runs both on random rows.

    Args:
        model: in float32 on the CPU, in eval mode.
        modules: what comes after an encoder.
        form: of the file, with its bound.
        file: what was written.

    Raises:
        ExportError: the file's numbers are further off than its form allows, or are not finite.
    """
    config = model.config
    assert isinstance(config, ModelConfig)
    stream = np.random.default_rng(0)
    rows = [stream.integers(config.vocab_size, size=min(n, config.max_position_embeddings)).tolist() for n in LENGTHS]
    session, wanted = Session(file), expected(model, modules, rows)
    ids_BL, mask_BL = padded(rows, config.pad_token_id)
    if isinstance(model, MultipleChoice):
        ids_BL, mask_BL = ids_BL.reshape(-1, CHOICES, ids_BL.shape[-1]), mask_BL.reshape(-1, CHOICES, ids_BL.shape[-1])
    differences, cosines = [], []
    for output, parts in wanted.items():
        found = session.run(output, ids_BL, mask_BL)
        for want, got in zip(parts, found, strict=True):
            got = got[: len(want)] if want.ndim == got.ndim else got
            differences.append(float(np.abs(want - got).max() / max(1.0, np.abs(want).max())))
            cosines.append(_lowest_cosine(want, got))
    size = sum(part.stat().st_size for part in file.parent.glob(f"{file.name}*")) / 1e6
    difference = float(np.max(differences))
    if not difference <= (np.inf if form.bound is None else form.bound):  # NaN too
        raise ExportError(
            f"{file.name} differs from the model by {difference:.2g}, and {form.bound:g} is allowed; nothing was written. "
            "Choose other forms with --form, and please report the model"
        )
    return Agreement(file=file.name, megabytes=size, difference=difference, allowed=form.bound, cosine=min(cosines))


@torch.inference_mode()
def expected(model: nn.Module, modules: Modules, rows: list[list[int]]) -> dict[str, list[np.ndarray]]:
    """By the name of each output, what the model itself gives for each row."""
    batch = pack(rows)

    def by_row(x_T: Tensor) -> list[np.ndarray]:
        return [part.float().numpy() for part in unpack(x_T, batch.cu_seqlens)]

    if isinstance(model, MultipleChoice):
        return {"logits": list(model(batch, CHOICES).numpy())}
    if isinstance(model, SequenceClassifier):
        return {"logits": list(model(batch).numpy())}
    if isinstance(model, QuestionAnswerer):
        start_T, end_T = model(batch)
        return {"start_logits": by_row(start_T), "end_logits": by_row(end_T)}
    if isinstance(model, LateInteraction):
        return {"token_embeddings": by_row(model(batch))}
    if not isinstance(model, Encoder | Embedder):
        return {"logits": by_row(model(batch))}
    encoder = model if isinstance(model, Encoder) else model.model
    x_TD = encoder(batch)
    y = x_TD if modules.pooling is None else pool(x_TD, batch, modules.pooling)
    for dense in modules.dense:
        y = dense(y)
    if modules.pooling is None:
        return {"token_embeddings": by_row(F.normalize(y, dim=-1))}
    y = F.normalize(y, dim=-1) if modules.normalize else y
    return {"last_hidden_state": by_row(x_TD), "sentence_embedding": list(y.numpy())}


def _lowest_cosine(want: np.ndarray, got: np.ndarray) -> float:
    norms = np.linalg.norm(want, axis=-1) * np.linalg.norm(got, axis=-1)
    return float(((want * got).sum(-1) / np.maximum(norms, 1e-12)).min())
