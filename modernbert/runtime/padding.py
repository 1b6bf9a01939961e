"""Rows of token ids as one rectangle, which is what exported graphs read.

B rows · L tokens of the longest.
"""

from collections.abc import Sequence

import numpy as np


def padded(rows: Sequence[Sequence[int]], pad_id: int, length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rows filled up at their end to `length`, or to the longest, and a mask that is 0 there and 1 elsewhere; both int64 [B, L].

    >>> ids_BL, mask_BL = padded([[5, 6], [7]], pad_id=0)
    >>> ids_BL.tolist(), mask_BL.tolist()
    ([[5, 6], [7, 0]], [[1, 1], [1, 0]])
    """
    ids_BL = np.full((len(rows), length or max(map(len, rows), default=0)), pad_id, dtype=np.int64)
    mask_BL = np.zeros_like(ids_BL)
    for i, row in enumerate(rows):
        ids_BL[i, : len(row)] = row
        mask_BL[i, : len(row)] = 1
    return ids_BL, mask_BL


def groups(lengths: Sequence[int], budget: int = 1024) -> list[list[int]]:
    """Cuts rows into groups of like length, longest first, each of at most `budget` tokens with its padding.

    Args:
        lengths: tokens of each row.
        budget: what stays in a core's cache; a longer row is a group of its own.

    >>> groups([3, 9, 4, 1, 2], budget=8)
    [[1], [2, 0], [4, 3]]
    """
    found: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not found or (len(found[-1]) + 1) * lengths[found[-1][0]] > budget:
            found.append([])
        found[-1].append(row)
    return found
