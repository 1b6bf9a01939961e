"""How good a ranking is: nDCG, reciprocal rank, recall and average precision of one query, as trec_eval defines them.

Each function takes the grades of the ranked documents, best first (0 for those that are not judged), and perhaps the grades of all
judged documents. Checked against trec_eval itself (tests/tasks/test_ranking.py).
"""

from collections.abc import Sequence

import numpy as np

METRICS = ("ndcg@10", "mrr@10", "recall@1", "recall@10", "recall@100", "map")


def order_of(scores: np.ndarray, ids: Sequence[str]) -> np.ndarray:
    """The places of documents, best first; equal scores stand in falling order of their ids, as trec_eval has it.

    >>> order_of(np.array([0.5, 0.9, 0.5]), ["a", "b", "c"]).tolist()
    [1, 2, 0]
    """
    by_id = np.array(sorted(range(len(ids)), key=lambda i: ids[i], reverse=True), dtype=np.int64)
    return by_id[np.argsort(-np.asarray(scores)[by_id], kind="stable")]


def ndcg(ranked: Sequence[float], judged: Sequence[float], k: int) -> float:
    """Discounted gain of the first `k` as a share of the best possible: Σ grade ÷ log₂(rank + 1).

    Source: Järvelin and Kekäläinen 2002, with linear gains as trec_eval's `ndcg_cut`.

    >>> round(ndcg([0, 1], [1], k=10), 4)
    0.6309
    """
    best = _discounted(sorted(judged, reverse=True)[:k])
    return _discounted(ranked[:k]) / best if best else 0.0


def reciprocal_rank(ranked: Sequence[float], k: int) -> float:
    """1 ÷ the rank of the first relevant document among the first `k`; 0 without one.

    >>> reciprocal_rank([0, 0, 1, 1], k=10), reciprocal_rank([0, 0, 1], k=2)
    (0.3333333333333333, 0.0)
    """
    return next((1 / rank for rank, grade in enumerate(ranked[:k], start=1) if grade > 0), 0.0)


def recall(ranked: Sequence[float], judged: Sequence[float], k: int) -> float:
    """The share of all relevant documents that stand among the first `k`.

    >>> recall([0, 1, 0], [1, 1, 0], k=2)
    0.5
    """
    relevant = sum(grade > 0 for grade in judged)
    return sum(grade > 0 for grade in ranked[:k]) / relevant if relevant else 0.0


def average_precision(ranked: Sequence[float], judged: Sequence[float]) -> float:
    """The mean, over all relevant documents, of the precision at their ranks.

    >>> average_precision([1, 0, 1], [1, 1])
    0.8333333333333333
    """
    relevant = sum(grade > 0 for grade in judged)
    found, total = 0, 0.0
    for rank, grade in enumerate(ranked, start=1):
        if grade > 0:
            found += 1
            total += found / rank
    return total / relevant if relevant else 0.0


def ranking_scores(ranked: Sequence[float], judged: Sequence[float]) -> dict[str, float]:
    """All of `METRICS` for one query.

    >>> ranking_scores([1], [1])["ndcg@10"]
    1.0
    """
    return {
        "ndcg@10": ndcg(ranked, judged, 10),
        "mrr@10": reciprocal_rank(ranked, 10),
        "recall@1": recall(ranked, judged, 1),
        "recall@10": recall(ranked, judged, 10),
        "recall@100": recall(ranked, judged, 100),
        "map": average_precision(ranked, judged),
    }


def _discounted(grades: Sequence[float]) -> float:
    return sum(max(grade, 0) / float(np.log2(rank + 1)) for rank, grade in enumerate(grades, start=1))
