"""Rows of any lengths, in groups of about equal work: a budget of tokens instead of a number of rows, and no padding."""

from collections.abc import Iterator, Sequence

from tqdm import tqdm

BATCH_TOKENS = 8192
"""Tokens that go through the model together, where nothing else is said."""

CPU_TOKENS = 1024
"""The most that a CPU takes together, whatever is said: layers hand their rows on in the cache, and memory stays small. On one AMD EPYC
core 512 and 1,024 are even, and 2,048 took a tenth longer in one run of two (dev/LOG.md)."""


def group_by_tokens(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cuts rows into groups of at most `budget` tokens; a longer row is a group of its own.

    Longest first: what does not fit into memory fails at once, and rows of one length share a group.

    Args:
        lengths: tokens of each row.
        budget: tokens of a group.

    Returns:
        Numbers of the rows, each of them in exactly one group.

    >>> group_by_tokens([3, 9, 4, 1, 2], budget=6)
    [[1], [2], [0, 4, 3]]
    """
    groups: list[list[int]] = []
    room = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not groups or lengths[row] > room:
            groups.append([])
            room = budget
        groups[-1].append(row)
        room -= lengths[row]
    return groups


def each_group(lengths: Sequence[int], budget: int, doing: str) -> Iterator[list[int]]:
    """Yields the groups of `group_by_tokens`, behind a progress bar once a second has passed; quiet off a terminal."""
    bar = tqdm(total=sum(lengths), desc=doing, unit=" tokens", unit_scale=True, delay=1, leave=False, disable=None)
    with bar:
        for group in group_by_tokens(lengths, budget):
            yield group
            bar.update(sum(lengths[row] for row in group))
