"""Near duplicates: texts that share a good part of their runs of words with one of some others."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

RUN = 8
"""Words that follow each other."""

SHARE = 0.4
"""Of the runs of the shorter of two texts, in both: more is a near duplicate."""

_WORD = re.compile(r"[^\W\d_]+|\d+")


class NearDuplicates:
    """Some texts, to ask whether another is nearly one of them.

    >>> known = NearDuplicates(["to be or not to be that is the question"])
    >>> known.has("He said: to be, or NOT to be, that is the QUESTION!"), known.has("to be is to do")
    (True, False)

    Source: containment of shingles, Broder 1997 ("On the resemblance and containment of documents").
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """Takes the texts; empty ones are nearly nothing."""
        self._sizes: list[int] = []
        self._owners: defaultdict[int, list[int]] = defaultdict(list)
        for number, text in enumerate(texts):
            runs = _runs(text)
            self._sizes.append(len(runs))
            for run in runs:
                self._owners[run].append(number)

    def has(self, text: str) -> bool:
        """Whether the text is nearly one of them."""
        runs = _runs(text)
        shared = Counter(owner for run in runs for owner in self._owners.get(run, ()))
        return any(count >= SHARE * min(len(runs), self._sizes[owner]) for owner, count in shared.items())


def _runs(text: str) -> set[int]:
    """Hashes of the runs; a text of fewer words is one run."""
    words = [word.lower() for word in _WORD.findall(text)]
    return {hash(tuple(words[begin : begin + RUN])) for begin in range(max(1, len(words) - RUN + 1))} if words else set()
