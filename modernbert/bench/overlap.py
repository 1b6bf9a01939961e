"""Answers by overlap of words: the span around which most of the question stands, in a window that slides over the context.

In the manner of the sliding window of Richardson et al. 2013 (MCTest), which chooses among given answers; here the candidates are all
spans of the usual length.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from modernbert.tasks.spans import SpanTask
from modernbert.tasks.task import Row

REACH = 8
"""Words to each side of a candidate in which the question's words count."""

_WORD = re.compile(r"\w+(?:-\w+)*")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case.

    >>> words_of("Sci/Tech, e-mail!")
    ['sci', 'tech', 'e-mail']
    """
    return [word.lower() for word in _WORD.findall(text)]


def answer_by_overlap(task: SpanTask, train: Sequence[Row], dev: Sequence[Row]) -> dict[str, float]:
    """The task's figures for the answers of word overlap.

    The length of an answer is the median of the training rows', rare words weigh more (as in their contexts), and where unanswerable
    questions exist, the share of the question that must be found is the one that is best on the dev rows.
    """
    contexts = {row[1][task.context] for row in train}
    frequency = Counter(word for context in contexts for word in set(words_of(context)))
    weights = {word: math.log((1 + len(contexts)) / (1 + count)) for word, count in frequency.items()}
    lengths = [len(words_of(task.answers_to(row)[0][0])) for row in train if task.answers_to(row)]
    longest = max(1, int(np.median(lengths)))
    unknown = math.log(1 + len(contexts))

    found = [best_window(row[1][task.question], row[1][task.context], longest, weights, unknown) for row in dev]
    shares = [step / 20 for step in range(22)] if task.unanswerable else [0.0]  # 1.05: nothing is ever answered
    tried = [task.score_texts(dev, [text if part >= least else "" for text, part in found]) for least in shares]
    return max(tried, key=lambda scores: scores[task.metric])


def best_window(question: str, context: str, length: int, weights: dict[str, float], unknown: float) -> tuple[str, float]:
    """The span of `length` words with most of the question around it, and which share of the question's weight stands there.

    >>> best_window("Who wrote Faust?", "In Weimar Goethe wrote Faust at last.", 1, {"in": 0.1, "at": 0.1}, 1.0)
    ('Goethe', 0.6666666666666666)
    """
    places = list(_WORD.finditer(context))
    words = [place.group().lower() for place in places]
    asked = set(words_of(question))
    whole = sum(weights.get(word, unknown) for word in asked) or 1.0
    best, chosen = -1.0, ("", 0.0)
    for start in range(max(1, len(words) - length + 1)):
        inside = words[start : start + length]
        if asked.intersection(inside):
            continue
        around = {*words[max(0, start - REACH) : start], *words[start + length : start + length + REACH]} & asked
        beside = {*words[max(0, start - 1) : start], *words[start + length : start + length + 1]} & asked
        share = sum(weights.get(word, unknown) for word in around) / whole
        near = sum(weights.get(word, unknown) for word in beside) / whole
        rarity = sum(weights.get(word, unknown) for word in inside) / (unknown * length)
        if (score := share + 0.5 * near + 0.3 * rarity) >= best:  # of equals the last: answers follow more often
            text = context[places[start].start() : places[min(start + length, len(places)) - 1].end()] if places else ""
            best, chosen = score, (text, share)
    return chosen
