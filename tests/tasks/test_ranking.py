"""Ranking metrics against trec_eval itself, through pytrec_eval."""

import numpy as np
import pytest

from modernbert.tasks.ranking import METRICS, order_of, ranking_scores

pytrec_eval = pytest.importorskip("pytrec_eval")

THEIR_NAMES = {
    "ndcg@10": "ndcg_cut_10",
    "mrr@10": "recip_rank",
    "recall@1": "recall_1",
    "recall@10": "recall_10",
    "recall@100": "recall_100",
    "map": "map",
}


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_every_metric_is_trec_evals_on_random_rankings_with_ties(levels):
    """Scores take `levels` values, so many tie; some judged documents are not in the ranking, some grades are 0. Exact to 1e-9."""
    rng = np.random.default_rng(levels)
    documents = [f"d{i}" for i in rng.permutation(400)]
    qrels, run, mine = {}, {}, {}
    for q in range(60):
        judged = rng.choice(documents, rng.integers(1, 30), replace=False)
        qrels[f"q{q}"] = {str(d): int(grade) for d, grade in zip(judged, rng.integers(0, 4, len(judged)), strict=True)}
        found = [str(d) for d in rng.choice(documents, rng.integers(1, 250), replace=False)]
        scores = rng.integers(0, levels, len(found)) / levels
        run[f"q{q}"] = dict(zip(found, scores.tolist(), strict=True))
        ranked = [found[place] for place in order_of(scores, found)]
        mine[f"q{q}"] = ranking_scores([qrels[f"q{q}"].get(d, 0) for d in ranked], list(qrels[f"q{q}"].values()))
    theirs = pytrec_eval.RelevanceEvaluator(qrels, set(THEIR_NAMES.values()) - {"recip_rank"}).evaluate(run)
    # trec_eval has no cut-off for the reciprocal rank: it gets the first ten documents
    first_ten = {
        q: {d: scores[d] for d in sorted(scores, key=lambda d: (scores[d], d), reverse=True)[:10]} for q, scores in run.items()
    }
    reciprocal = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(first_ten)
    for q in qrels:
        for metric in METRICS:
            expected = (reciprocal if metric == "mrr@10" else theirs)[q][THEIR_NAMES[metric]]
            assert mine[q][metric] == pytest.approx(expected, abs=1e-9), (q, metric)


def test_a_query_without_relevant_documents_scores_zero():
    assert set(ranking_scores([0, 0], [0]).values()) == {0.0}
