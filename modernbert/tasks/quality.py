"""How good a text is, as a number from 0 to 5: FineWeb-Edu's educational score, and others of its kind.

Source: Penedo et al. 2024 (arXiv 2406.17557) §4: regression on a teacher's scores, rounded to whole numbers, kept from 3 on.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from modernbert.errors import DataError
from modernbert.tasks import metrics
from modernbert.tasks.sequence import ProblemType, SequenceTask
from modernbert.tasks.task import Example, Row, number_of

SCORES = range(6)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QualityTask(SequenceTask):
    """A regression that is judged by the whole numbers it rounds to, and by who stays when texts below a threshold go."""

    label: str = "score"
    """Column of the score."""
    problem_type: ProblemType = "regression"
    metric: Literal["f1_macro", "f1", "accuracy", "spearman", "pearson"] = "f1"
    """Chooses the best checkpoint: f1 of staying, f1_macro and accuracy of the six whole numbers, or a correlation."""
    threshold: float = 3.0
    """The least score that stays."""

    def fit(self, rows: Sequence[Row]) -> "QualityTask":
        return self

    def label_of(self, row: Row) -> float:
        """A number from 0 to 5. Raises DataError: names row and column."""
        number = number_of(row, self.label)
        if not SCORES[0] <= number <= SCORES[-1]:
            raise DataError(
                f"{row[0]}: {number:g} in column {self.label!r}; wanted 0 to 5, or the recipe `regression` for other numbers"
            )
        return number

    def score(self, rows: Sequence[Row], examples: Sequence[Example], answers: Sequence[np.ndarray]) -> dict[str, float]:
        gold_B = np.array([example.label for example in examples], dtype=float)
        found_B = np.array([answer.item() for answer in answers], dtype=float)
        whole = [np.clip(np.round(side), SCORES[0], SCORES[-1]) for side in (gold_B, found_B)]
        ones = [side[:, None] == np.array(SCORES) for side in whole]
        used = [score for score in SCORES if (ones[0] | ones[1])[:, score].any()]
        stays = [side >= self.threshold for side in whole]
        return {
            **super().score(rows, examples, answers),
            "f1": float(metrics.f1_of_classes(*(side[:, None] for side in stays))[0]),
            "f1_macro": float(metrics.f1_of_classes(*ones)[used].mean()),
            "accuracy": metrics.accuracy(*whole),
        }
