"""Rows of pieces to a packed, masked batch of constant shape.

T tokens in the batch, M masked positions, B attention rows.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from modernbert.batch import Batch
from modernbert.data.masking import mask_tokens
from modernbert.data.mixture import Documents
from modernbert.data.packing import SPECIALS, Ints, Rows
from modernbert.errors import DataError
from modernbert.model.losses import IGNORE


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingBatch:
    """Packed rows with some tokens masked; every batch of a loader has the same T, B and M."""

    batch: Batch
    masked_M: Int64[Tensor, "M"]
    """Where the chosen tokens are among the T; 0 at the padding."""
    labels_M: Int64[Tensor, "M"]
    """The tokens that stood there; −100 at the padding."""
    tokens: int
    """Tokens that are not padding, those of the other ranks' batches included: what schedules count."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "TrainingBatch":
        """The same batch on another device."""
        return dataclasses.replace(
            self,
            batch=self.batch.to(device, non_blocking=non_blocking),
            masked_M=self.masked_M.to(device, non_blocking=non_blocking),
            labels_M=self.labels_M.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "TrainingBatch":
        """The same batch in page-locked memory, from which copies to a GPU overlap with its work."""
        batch = {name: getattr(self.batch, name).pin_memory() for name in ("ids_T", "pos_T", "cu_seqlens")}
        return dataclasses.replace(
            self,
            batch=dataclasses.replace(self.batch, **batch),
            masked_M=self.masked_M.pin_memory(),
            labels_M=self.labels_M.pin_memory(),
        )


def masked_bound(tokens: int, rate: float) -> int:
    """M: room for the masked positions of a batch, 6 σ above their mean, a multiple of 128.

    >>> masked_bound(65536, 0.3)
    20480
    """
    return 128 * math.ceil((rate * tokens + 6 * math.sqrt(tokens * rate * (1 - rate))) / 128)


def attention_rows_bound(blocks: Sequence[tuple[Rows, float]], rows_per_batch: int, unseen: float = 1e-12) -> int:
    """B: room for the attention rows of a batch, judged by planned blocks and their shares, a multiple of 64.

    A row has one attention row a piece, and one for its padding. The sum over `rows_per_batch` random rows exceeds the
    bound with a probability of at most `unseen` (Chernoff's inequality on the blocks' own distribution). The bound is
    this tight because attention kernels start blocks of threads for empty rows, too.
    """
    counts = [np.bincount(np.bincount(rows.row, minlength=len(rows)) + 1) for rows, _ in blocks]
    most = max(map(len, counts)) - 1
    share = sum(
        np.pad(count, (0, most + 1 - len(count))) * (part / count.sum()) for count, (_, part) in zip(counts, blocks, strict=True)
    )
    sizes = np.flatnonzero(share)
    t = np.geomspace(1e-4, 10, 100)
    log_mean = np.log(np.exp(t[:, None] * (sizes - most)) @ share[sizes]) + t * most
    bound = np.min((rows_per_batch * log_mean - math.log(unseen)) / t)
    return 64 * math.ceil(min(bound, rows_per_batch * most) / 64)


def assemble(
    rows: Rows,
    documents: Documents,
    uniform_2T: NDArray[np.float64],
    *,
    length: int,
    mask_rate: float,
    shares: tuple[float, float],
    attention_rows: int,
    masked: int,
    tokens: int,
) -> TrainingBatch:
    """Builds a batch from planned rows.

    Args:
        rows: what stands in each row.
        documents: their tokens.
        uniform_2T: random numbers in [0, 1) for the masks.
        length: tokens of a row.
        mask_rate: probability that a token is chosen.
        shares: of the chosen, how many become [MASK] and how many a random token.
        attention_rows: B; if the rows need more, the next multiple.
        masked: M; the few positions beyond are not predicted.
        tokens: of the rows of all ranks together, without padding.

    Raises:
        DataError: a shard holds ids that the vocabulary has not.
    """
    ids_T, starts_P = _tokens(rows, documents, length)
    edges = _edges(rows, starts_P, length)
    size = attention_rows * -(-(len(edges) - 1) // attention_rows)
    cu_seqlens = np.full(size + 1, len(ids_T), np.int32)
    cu_seqlens[: len(edges)] = edges
    pos_T = np.arange(len(ids_T), dtype=np.int32) - np.repeat(cu_seqlens[:-1], np.diff(cu_seqlens))

    manifest = documents.manifest
    hidden = mask_tokens(
        ids_T,
        *uniform_2T,
        rate=mask_rate,
        special_ids=manifest.special_ids.values(),
        mask_id=manifest.special_ids["mask"],
        vocab_size=manifest.vocab_size,
        mask_share=shares[0],
        random_share=shares[1],
    )
    masked_M = np.zeros(masked, np.int64)
    labels_M = np.full(masked, IGNORE, np.int64)
    masked_M[: len(hidden.chosen_M)] = hidden.chosen_M[:masked]
    labels_M[: len(hidden.labels_M)] = hidden.labels_M[:masked]
    return TrainingBatch(
        batch=Batch(
            ids_T=torch.from_numpy(hidden.ids_T),
            pos_T=torch.from_numpy(pos_T),
            cu_seqlens=torch.from_numpy(cu_seqlens),
            max_seqlen=length,
        ),
        masked_M=torch.from_numpy(masked_M),
        labels_M=torch.from_numpy(labels_M),
        tokens=tokens,
    )


def _tokens(rows: Rows, documents: Documents, length: int) -> tuple[np.ndarray, Ints]:
    """The tokens of all rows, padded, and where among them each piece's [CLS] stands."""
    special, pieces = documents.manifest.special_ids, rows.pieces
    sizes_P = pieces.length + SPECIALS
    ends_P = np.cumsum(sizes_P)
    before_P = ends_P - sizes_P
    starts_P = rows.row * length + before_P - before_P[np.searchsorted(rows.row, rows.row)]
    ids_T = np.full(len(rows) * length, special["pad"], np.int32)
    ids_T[starts_P] = special["cls"]
    ids_T[starts_P + sizes_P - 1] = special["sep"]
    shard_P = documents.shard_of[pieces.document]
    from_P = documents.starts[pieces.document] + pieces.start
    # one slice a piece: 1 µs each; a gather over all tokens would have to build their T indices first
    for shard, begin, to, size in zip(
        shard_P.tolist(), from_P.tolist(), (starts_P + 1).tolist(), pieces.length.tolist(), strict=True
    ):
        ids_T[to : to + size] = documents.tokens[shard][begin : begin + size]
    unsigned_T = ids_T.view(np.uint32)
    if unsigned_T.max() >= documents.manifest.vocab_size:  # sums are compared before a run; this is for what breaks during it
        place = int(np.searchsorted(starts_P, unsigned_T.argmax(), side="right")) - 1
        raise DataError(
            f"token shard {documents.shard_path(int(shard_P[place]))} is damaged: it holds id {unsigned_T.max()}, and the vocabulary "
            f"ends at {documents.manifest.vocab_size - 1}; delete its folder and prepare it again, then give the same command"
        )
    return ids_T, starts_P


def _edges(rows: Rows, starts_P: Ints, length: int) -> Ints:
    """Where each attention row begins: at each piece, and at the padding of each row; then T."""
    used_R = np.bincount(rows.row, rows.pieces.length + SPECIALS, len(rows)).astype(np.int64)
    row_starts_R = np.arange(len(rows)) * length
    padding = (row_starts_R + used_R)[used_R < length]
    return np.concatenate([np.sort(np.concatenate([starts_P, padding])), [len(rows) * length]])
