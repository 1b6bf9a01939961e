"""Metrics against scikit-learn, scipy and seqeval (whose answers are stored: it has no wheel) on random cases."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk
from transformers.data.metrics import squad_metrics

from modernbert.tasks import metrics
from modernbert.tasks.sequence import SequenceTask
from modernbert.tasks.task import Example

CASES = range(20)


def draw(seed, classes):
    generator = np.random.default_rng(seed)
    rows = int(generator.integers(1, 40))
    return generator.integers(0, classes, rows), generator.integers(0, classes, rows)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("seed", CASES)
def test_class_metrics_are_those_of_scikit_learn(seed, classes):
    gold_B, found_B = draw(seed, classes)
    gold_BC, found_BC = (np.eye(classes, dtype=bool)[side_B] for side_B in (gold_B, found_B))
    wanted_C = sk.f1_score(gold_B, found_B, labels=range(classes), average=None, zero_division=0)
    np.testing.assert_allclose(metrics.f1_of_classes(gold_BC, found_BC), wanted_C, atol=1e-12)
    assert metrics.f1_micro(gold_BC, found_BC) == pytest.approx(sk.f1_score(gold_B, found_B, average="micro"))
    assert metrics.accuracy(gold_B, found_B) == pytest.approx(sk.accuracy_score(gold_B, found_B))
    if len({*gold_B, *found_B}) > 1:  # scikit-learn warns of a single class
        assert metrics.matthews(gold_B, found_B, classes) == pytest.approx(sk.matthews_corrcoef(gold_B, found_B))


@pytest.mark.parametrize("seed", CASES)
def test_multi_label_metrics_are_those_of_scikit_learn(seed):
    gold_BC, found_BC = np.random.default_rng(seed).random((2, 30, 4)) < 0.4
    assert metrics.f1_micro(gold_BC, found_BC) == pytest.approx(sk.f1_score(gold_BC, found_BC, average="micro"))
    wanted = sk.f1_score(gold_BC, found_BC, average="macro", zero_division=0)
    assert metrics.f1_of_classes(gold_BC, found_BC).mean() == pytest.approx(wanted)
    assert metrics.accuracy(gold_BC, found_BC) == pytest.approx(sk.accuracy_score(gold_BC, found_BC))


@pytest.mark.parametrize("seed", CASES)
def test_correlations_are_those_of_scipy_with_and_without_ties(seed):
    generator = np.random.default_rng(seed)
    gold_B, found_B = generator.integers(0, 6, 30) / 2, generator.normal(size=30).round(seed % 3)
    assert metrics.pearson(gold_B, found_B) == pytest.approx(stats.pearsonr(gold_B, found_B).statistic)
    assert metrics.spearman(gold_B, found_B) == pytest.approx(stats.spearmanr(gold_B, found_B).statistic)


def test_a_constant_side_correlates_with_nothing():
    assert metrics.pearson(np.ones(3), np.arange(3)) == metrics.spearman(np.arange(3), np.ones(3)) == 0
    assert metrics.matthews(np.zeros(3, int), np.array([0, 1, 0]), 2) == 0


@pytest.mark.parametrize("case", json.loads(Path(__file__).with_name("seqeval_cases.json").read_text()))
def test_entity_f1_is_that_of_seqeval(case):
    assert metrics.entity_scores(case["gold"], case["found"]) == pytest.approx(case["scores"])


def test_the_stored_cases_hold_loose_tags_and_rows_without_entities():
    cases = json.loads(Path(__file__).with_name("seqeval_cases.json").read_text())
    rows = [row for case in cases for row in case["gold"]]
    assert any(row[0].startswith("I-") for row in rows) and any(set(row) == {"O"} for row in rows)
    assert 0.0 in [case["scores"]["f1"] for case in cases]


@pytest.mark.parametrize(
    ("gold", "found", "match", "f1"),
    [
        (["the Normans"], "Normans.", 1, 1),
        (["in the 10th century", "10th"], "10th century", 0, 4 / 5),
        ([], "", 1, 1),
        ([], "Normans", 0, 0),
        (["Normans"], "", 0, 0),
        (["a b a"], "a b b", 0, 2 / 3),
        (["x y y"], "y y z", 0, 2 / 3),
        (["the"], "an", 1, 1),
    ],
)
def test_answers_are_compared_as_squad_does(gold, found, match, f1):
    assert metrics.exact_match(gold, found) == match
    assert metrics.answer_f1(gold, found) == pytest.approx(f1)


PIECES = [
    "the",
    "The ",
    "a",
    "an",
    "Normans",
    "normans.",
    "10th",
    "century",
    "—",
    "U.S.",
    "don't",
    " ",
    "\t",
    "éa",
    "theatre",
    "(an)",
    "12.5%",
]


@pytest.mark.parametrize("seed", CASES)
def test_answers_are_compared_as_transformers_copy_of_the_official_script_does(seed):
    """Random answers of words, articles, punctuation and spaces; up to four gold ones, of which the best fit counts."""
    generator = random.Random(seed)

    def text(least=0):
        return " ".join(generator.choice(PIECES) for _ in range(generator.randint(least, 5)))

    for _ in range(50):
        gold, found = [text(1) for _ in range(generator.randint(0, 4))], text()
        assert metrics.exact_match(gold, found) == max(squad_metrics.compute_exact(one, found) for one in gold or [""])
        wanted = max(squad_metrics.compute_f1(one, found) for one in gold or [""])
        assert metrics.answer_f1(gold, found) == pytest.approx(wanted, abs=1e-12)
        assert metrics.normalised_answer(found) == squad_metrics.normalize_answer(found)


@pytest.mark.parametrize("seed", CASES)
def test_the_figures_of_numbers_are_those_of_scipy_and_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    gold, found = generator.normal(size=(2, 20))
    task = SequenceTask(problem_type="regression", metric="spearman")
    examples = [Example(rows=(), label=value, weight=1, row=i) for i, value in enumerate(gold)]
    scores = task.score([], examples, list(found[:, None]))
    assert scores == pytest.approx(
        {
            "spearman": stats.spearmanr(gold, found).statistic,
            "pearson": stats.pearsonr(gold, found).statistic,
            "rmse": sk.root_mean_squared_error(gold, found),
        }
    )
