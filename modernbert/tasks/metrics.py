"""How good answers are: small functions of gold and found, checked against scikit-learn, scipy and seqeval.

A share without a denominator is 0, as scikit-learn's `zero_division=0`. B rows · C classes.
"""

import re
import statistics
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation (of a sample); the value alone where there is one, a dash where there is none.

    >>> spread([0.5], 2), spread([0.4, 0.6], 2), spread([], 2)
    ('0.50', '0.50 ± 0.14', '–')
    """
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def accuracy(gold_B: np.ndarray, found_B: np.ndarray) -> float:
    """The share of rows that are right; of rows of labels, those that are right in every label."""
    same = np.asarray(gold_B) == np.asarray(found_B)
    return float(same.reshape(len(same), -1).all(-1).mean())


def f1_of_classes(gold_BC: np.ndarray, found_BC: np.ndarray) -> np.ndarray:
    """F1 of each class, from 0/1 for each row and class.

    >>> f1_of_classes(np.array([[1, 0], [0, 1]]), np.array([[1, 0], [1, 0]])).round(2).tolist()
    [0.67, 0.0]
    """
    gold_BC, found_BC = np.asarray(gold_BC, bool), np.asarray(found_BC, bool)
    return _share(2 * (gold_BC & found_BC).sum(0), gold_BC.sum(0) + found_BC.sum(0))


def f1_micro(gold_BC: np.ndarray, found_BC: np.ndarray) -> float:
    """F1 over all classes together."""
    gold_BC, found_BC = np.asarray(gold_BC, bool), np.asarray(found_BC, bool)
    return float(_share(2 * (gold_BC & found_BC).sum(), gold_BC.sum() + found_BC.sum()))


def matthews(gold_B: np.ndarray, found_B: np.ndarray, classes: int) -> float:
    """Matthews' correlation of class numbers, for any number of classes; 0 where one side has a single class.

    Source: Gorodkin 2004, as scikit-learn's `matthews_corrcoef`.
    """
    counts_CC = np.zeros((classes, classes))
    np.add.at(counts_CC, (gold_B, found_B), 1)
    gold_C, found_C, rows = counts_CC.sum(1), counts_CC.sum(0), counts_CC.sum()
    covariance = counts_CC.trace() * rows - gold_C @ found_C
    return float(_share(covariance, np.sqrt((rows**2 - gold_C @ gold_C) * (rows**2 - found_C @ found_C))))


def pearson(gold_B: np.ndarray, found_B: np.ndarray) -> float:
    """Linear correlation; 0 where one side is constant."""
    gold_B, found_B = (np.asarray(side, float) - np.mean(side, dtype=float) for side in (gold_B, found_B))
    return float(_share(gold_B @ found_B, np.sqrt((gold_B @ gold_B) * (found_B @ found_B))))


def spearman(gold_B: np.ndarray, found_B: np.ndarray) -> float:
    """Correlation of ranks; equal values share the mean of their ranks.

    >>> round(spearman(np.array([1, 2, 3]), np.array([10, 100, 1000])), 6)
    1.0
    """
    return pearson(_ranks(gold_B), _ranks(found_B))


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """The entities of BIO tags: kind, first word, last word.

    As seqeval's default (and conlleval): an I- that continues nothing begins an entity, and a change of kind ends one.

    >>> sorted(entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]))
    [('LOC', 3, 3), ('LOC', 4, 4), ('PER', 0, 1)]
    """
    found = set()
    open_kind, start = None, 0
    for i, tag in enumerate([*tags, "O"]):
        kind = tag[2:] if tag[:2] in ("B-", "I-") else None
        if open_kind is not None and (kind != open_kind or tag[0] == "B"):
            found.add((open_kind, start, i - 1))
            open_kind = None
        if kind is not None and open_kind is None:
            open_kind, start = kind, i
    return found


def entity_scores(gold: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> dict[str, float]:
    """Precision, recall and F1 of whole entities, over all rows of BIO tags together: seqeval's micro average."""
    pairs = [(entities(one), entities(other)) for one, other in zip(gold, found, strict=True)]
    right = sum(len(one & other) for one, other in pairs)
    gold_total, found_total = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
    return {
        "f1": float(_share(2 * right, gold_total + found_total)),
        "precision": float(_share(right, found_total)),
        "recall": float(_share(right, gold_total)),
    }


def normalised_answer(text: str) -> str:
    """An answer as SQuAD compares it: lower case, no punctuation, no articles, single spaces (Rajpurkar et al. 2016).

    >>> normalised_answer("The  Normans, of a kind!")
    'normans of kind'
    """
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(gold: Sequence[str], found: str) -> float:
    """1 where the answer is one of the gold ones; no gold answer means: unanswerable, and the right answer is ""."""
    return float(any(normalised_answer(one) == normalised_answer(found) for one in gold or [""]))


def answer_f1(gold: Sequence[str], found: str) -> float:
    """F1 of the words shared with the gold answer that fits best; an empty answer is right or wrong as a whole.

    >>> round(answer_f1(["October 1973", "1973"], "in October 1973"), 2)
    0.8
    """
    return max(_overlap(normalised_answer(one).split(), normalised_answer(found).split()) for one in gold or [""])


def _overlap(gold: list[str], found: list[str]) -> float:
    if not gold or not found:
        return float(gold == found)
    return 2 * (Counter(gold) & Counter(found)).total() / (len(gold) + len(found))


def _share(part: np.ndarray | np.generic | float, whole: np.ndarray | np.generic | float) -> np.ndarray:
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)


def _ranks(values_B: np.ndarray) -> np.ndarray:
    _, group_B, sizes = np.unique(values_B, return_inverse=True, return_counts=True)
    last = sizes.cumsum()
    return (last - (sizes - 1) / 2)[group_B.reshape(-1)]
