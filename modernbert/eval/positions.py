"""Does a model read the far end of a long row as well as its beginning? Masked tokens by their position, and the same ones in short rows.

    whole rows of 8,192 tokens, 15 % masked ─→ right first guesses by band: 0 – 511, 512 – 1,023, …, 4,096 – 8,191
    the second half of each, cut to rows of 1,024 ─→ masks that stand at 512 – 1,023 there, beside the same masks in the long row

Bands compare different tokens of the same documents; the cut rows compare the same tokens at two positions.
"""

import dataclasses
import math
from collections.abc import Iterable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from modernbert.batch import pack
from modernbert.data.documents import read_documents
from modernbert.engine.batching import each_group
from modernbert.engine.engine import Engine
from modernbert.errors import ConfigError, DataError
from modernbert.eval.masked import MaskedRow, masked_rows

SHORT = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Band:
    """Masked tokens at some positions."""

    first: int
    last: int
    masked: int
    right: int
    bits: float

    @property
    def accuracy(self) -> float:
        return self.right / self.masked


@dataclasses.dataclass(frozen=True, kw_only=True)
class PositionResult:
    """Scores by band, and of the same tokens in long and in short rows."""

    bands: tuple[Band, ...]
    rows: int
    length: int
    rate: float
    seed: int
    paired: int
    """Masks that stand in the second half of a long row, and at 512 to 1,023 of a short one."""
    in_long: float
    """Their accuracy there."""
    in_short: float
    difference_se: float
    """Standard error of `in_long - in_short`, over rows."""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"accuracy": [band.accuracy for band in self.bands]}

    def to_markdown(self) -> str:
        lines = ["| positions | top-1 | bits per token | masked tokens |", "| --- | ---: | ---: | ---: |"]
        for band in self.bands:
            per_token = f"{band.bits / band.masked:.3f}"
            lines.append(f"| {band.first:,} – {band.last:,} | {band.accuracy:.2%} | {per_token} | {band.masked:,} |")
        difference = 100 * (self.in_long - self.in_short)
        lines.append(
            f"\nThe same {self.paired:,} tokens: {self.in_long:.2%} in the second half of a row of {self.length:,}, {self.in_short:.2%} at "
            f"512 – {SHORT - 1:,} of a row of {SHORT:,}; difference {difference:+.2f} ± {100 * self.difference_se:.2f} points."
        )
        return "\n".join(lines)


def evaluate_positions(
    engine: Engine,
    files: Iterable[str | Path],
    *,
    length: int = 8192,
    most_rows: int | None = None,
    rate: float = 0.15,
    seed: int = 0,
) -> PositionResult:
    """Masks some tokens of whole long rows and measures how well the model finds them, by position.

    Args:
        engine: from `modernbert.load`.
        files: documents, or folders of them; pieces shorter than `length` are left out.
        length: tokens of a row, at least 2,048.
        most_rows: rows that are read, at most; None is all.
        rate: share of the tokens to mask.
        seed: of the choice of tokens.

    Raises:
        ConfigError: a length that the model does not read, or too short to compare.
        DataError: a file cannot be read, or has no row of that length.
    """
    if not 2 * SHORT <= length <= engine.config.max_position_embeddings:
        raise ConfigError(
            f"length={length}: wanted {2 * SHORT:,} to {engine.config.max_position_embeddings:,} tokens, which the model reads"
        )
    made = masked_rows(read_documents(files), engine.tokenizer, length=length, rate=rate, seed=seed)
    rows = list(islice((row for row in made if len(row.ids) == length), most_rows))
    if not rows:
        raise DataError(f"no document has {length:,} tokens; give longer ones, or a smaller length")
    long = _judge(rows, engine)
    at_M = np.concatenate([row.at for row in rows])
    bits_M, right_M = (np.concatenate([one[i] for one in long]) for i in (0, 1))
    edges = [0, SHORT // 2, *(1 << k for k in range(SHORT.bit_length() - 1, length.bit_length() - 1)), length]
    bands = []
    for first, end in pairwise(edges):
        inside = (at_M >= first) & (at_M < end)
        if inside.any():
            right, bits = int(right_M[inside].sum()), float(bits_M[inside].sum())
            bands.append(Band(first=first, last=end - 1, masked=int(inside.sum()), right=right, bits=bits))
    cut, chosen = zip(
        *(piece for row in rows for piece in _pieces(row, engine.tokenizer.cls_id, engine.tokenizer.sep_id)), strict=True
    )
    short = [right[part.at >= SHORT // 2] for part, (_, right) in zip(cut, _judge(cut, engine), strict=True)]
    pieces = len(cut) // len(rows)
    long_R = [[long[i // pieces][1][chosen[i]] for i in range(r * pieces, (r + 1) * pieces)] for r in range(len(rows))]
    counts = np.array([sum(map(len, some)) for some in long_R])
    gains = np.array([sum(x.sum() for x in some) for some in long_R]) - [
        sum(x.sum() for x in short[r * pieces : (r + 1) * pieces]) for r in range(len(rows))
    ]
    total = int(counts.sum())
    residual = gains - counts * gains.sum() / total
    return PositionResult(
        bands=tuple(bands),
        rows=len(rows),
        length=length,
        rate=rate,
        seed=seed,
        paired=total,
        in_long=float(sum(x.sum() for some in long_R for x in some) / total),
        in_short=float(sum(x.sum() for x in short) / total),
        difference_se=math.sqrt(float((residual**2).sum())) / total,
    )


def _pieces(row: MaskedRow, cls_id: int, sep_id: int) -> list[tuple[MaskedRow, np.ndarray]]:
    """The second half of a row as short rows, each with the places of its compared masks among the long row's."""
    found = []
    for start in range(len(row.ids) // 2, len(row.ids) - SHORT + 1, SHORT - 2):
        inside = (row.at >= start) & (row.at < start + SHORT - 2)
        at = row.at[inside] - start + 1
        short = MaskedRow(
            source=row.source,
            ids=[cls_id, *row.ids[start : start + SHORT - 2], sep_id],
            at=at,
            labels=row.labels[inside],
            sizes=row.sizes[inside],
            tokens=SHORT - 2,
        )
        found.append((short, np.flatnonzero(inside)[at >= SHORT // 2]))
    return found


def _judge(rows: Iterable[MaskedRow], engine: Engine) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each row the bits of its masks, and whether the first guesses are right."""
    rows = list(rows)
    found: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0))] * len(rows)
    for group in each_group([len(row.ids) for row in rows], 16_384, "eval positions"):
        some = [rows[i] for i in group]
        batch = pack([row.ids for row in some])
        at_M = np.concatenate([row.at + start for row, start in zip(some, batch.cu_seqlens.tolist(), strict=False)])
        labels_M = torch.from_numpy(np.concatenate([row.labels for row in some])).to(engine.device)
        logits_MV = engine.logits(batch, torch.from_numpy(at_M))
        bits_M = F.cross_entropy(logits_MV, labels_M, reduction="none").double().numpy(force=True) / math.log(2)
        right_M = (logits_MV.argmax(-1) == labels_M).numpy(force=True)
        ends = np.cumsum([len(row.at) for row in some])[:-1]
        for i, bits, right in zip(group, np.split(bits_M, ends), np.split(right_M, ends), strict=True):
            found[i] = bits, right
    return found
