"""Quality scores, against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from modernbert.errors import DataError
from modernbert.recipes.finetune import quality
from modernbert.tasks.quality import QualityTask
from modernbert.tasks.task import Example


def test_scores_round_to_whole_numbers_and_are_measured_as_scikit_learn_does():
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 6, 200).astype(float)
    found = gold + rng.normal(size=200) * 1.5
    examples = [Example(rows=(), label=label, weight=1, row=i) for i, label in enumerate(gold)]
    scores = QualityTask().score([], examples, [np.array([value]) for value in found])
    whole = np.clip(np.round(found), 0, 5)
    assert scores["f1"] == pytest.approx(f1_score(gold >= 3, whole >= 3))
    assert scores["f1_macro"] == pytest.approx(f1_score(gold, whole, average="macro"))
    assert scores["accuracy"] == pytest.approx(accuracy_score(gold, whole))
    assert {"spearman", "pearson", "rmse"} <= scores.keys()


def test_the_recipe_leaves_the_encoder_as_it_is():
    config = quality()
    assert config.trains == "classifier" and config.task.fit([]) is config.task


@pytest.mark.parametrize(
    ("score", "message"), [(7, "line 3: 7 in column .score.; wanted 0 to 5"), (-0.5, "-0.5 in"), ("nan", "finite number")]
)
def test_a_score_that_is_none_of_the_scale_is_named(score, message):
    with pytest.raises(DataError, match=message):
        QualityTask().label_of(("scored.jsonl, line 3", {"score": score}))
    assert QualityTask().label_of(("scored.jsonl, line 3", {"score": "4.5"})) == 4.5
