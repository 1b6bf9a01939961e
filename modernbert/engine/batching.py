"""Rows of any lengths, in groups of about equal work: a budget of tokens instead of a number of rows, and no padding."""

from collections.abc import Iterable, Iterator, Sequence

from tqdm import tqdm

BATCH_TOKENS = 8192
"""Tokens that go through the model together, where nothing else is said."""

GPU_TOKENS = 65_536
"""The same on a GPU with kernels of our own: so many take it much longer (37 ms, base on an H200) than the host needs to start them
(13 ms, and more where others use its cores)."""

CPU_TOKENS = 1024
"""The most that a CPU takes together, whatever is said: layers hand their rows on in the cache, and memory stays small. On one AMD EPYC
core 512 and 1,024 are even, and 2,048 took a tenth longer in one run of two (dev/LOG.md)."""


def group_by_tokens(lengths: Sequence[int], budget: int, apart: int = 0) -> list[list[int]]:
    """Cuts rows into groups of at most `budget` tokens; a longer row is a group of its own.

    Longest first: what does not fit into memory fails at once, and rows of one length share a group.

    Args:
        lengths: tokens of each row.
        budget: tokens of a group.
        apart: rows of at most so many tokens do not share a group with longer ones.

    Returns:
        Numbers of the rows, each of them in exactly one group.

    >>> group_by_tokens([3, 9, 4, 1, 2], budget=6)
    [[1], [2], [0, 4, 3]]
    >>> group_by_tokens([3, 9, 4, 1, 2], budget=20, apart=3)
    [[1, 2], [0, 4, 3]]
    """
    groups: list[list[int]] = []
    room = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not groups or lengths[row] > room or lengths[row] <= apart < lengths[groups[-1][0]]:
            groups.append([])
            room = budget
        groups[-1].append(row)
        room -= lengths[row]
    return groups


def each_group(lengths: Sequence[int], budget: int, doing: str, apart: int = 0) -> Iterator[list[int]]:
    """Yields the groups of `group_by_tokens`, behind a progress bar once a second has passed; quiet off a terminal."""
    bar = tqdm(total=sum(lengths), desc=doing, unit=" tokens", unit_scale=True, delay=1, leave=False, disable=None)
    with bar:
        for group in group_by_tokens(lengths, budget, apart):
            yield group
            bar.update(sum(lengths[row] for row in group))


def grouped_as_they_come(
    chunks: Iterable[Sequence[Sequence[int]]], total: int, budget: int, doing: str, apart: int = 0
) -> Iterator[tuple[list[int], list[Sequence[int]]]]:
    """Yields groups of rows that come in chunks, behind a progress bar. What does not fill a group waits for the next chunk, unless
    there was none before: a device that has nothing to do waits for no more.

    Args:
        chunks: rows, in their order.
        total: rows in all chunks.
        budget: tokens of a group.
        doing: name of the progress bar.
        apart: as in `group_by_tokens`.

    Returns:
        Numbers of the rows, counted over all chunks, and the rows.

    >>> list(grouped_as_they_come([[[1]], [[2, 2], [3]], [[4]]], 4, 2, "count"))
    [([0], [[1]]), ([1], [[2, 2]]), ([2, 3], [[3], [4]])]
    """
    waiting: list[tuple[int, Sequence[int]]] = []
    seen = 0
    with tqdm(total=total, desc=doing, unit=" rows", unit_scale=True, delay=1, leave=False, disable=None) as bar:
        for rows in chunks:
            waiting += enumerate(rows, seen)
            seen += len(rows)
            groups = group_by_tokens([len(row) for _, row in waiting], budget, apart)
            last = {len(waiting[group[0]][1]) <= apart: group for group in groups}  # of each kind, perhaps not full
            nothing_yet = seen == len(rows) and len(groups) == len(last)
            kept = [] if seen == total or nothing_yet else list(last.values())
            for group in groups:
                if group not in kept:
                    yield [waiting[i][0] for i in group], [waiting[i][1] for i in group]
                    bar.update(len(group))
            waiting = [waiting[i] for group in kept for i in group]
