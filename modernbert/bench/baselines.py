"""Plain methods beside which a fine-tuned model must show itself: word counts with a linear model, a CRF, overlap of words.

Their one setting (the strength of regularisation) is chosen by the dev rows, as epoch and learning rate are for our models.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from modernbert.bench.crf import tag_by_crf
from modernbert.bench.overlap import answer_by_overlap, words_of
from modernbert.errors import MissingExtraError
from modernbert.eval.lexical import Lexical
from modernbert.tasks.choice import ChoiceTask
from modernbert.tasks.reranking import RerankTask
from modernbert.tasks.sequence import SequenceTask
from modernbert.tasks.spans import SpanTask
from modernbert.tasks.tagging import TaggingTask
from modernbert.tasks.task import Example, Row, Task
from modernbert.train.suite import Member

try:
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier
except ImportError as error:
    raise MissingExtraError("plain baselines need scikit-learn: pip install 'modernbert[bench]'") from error

STRENGTHS = (1.0, 10.0, 100.0)


def plain_baseline(member: Member, task: Task, train: Sequence[Row], dev: Sequence[Row]) -> tuple[str, dict[str, float]]:
    """The plain method for a task: its name, and its scores on the dev rows by the task's own figures.

    Args:
        member: of a suite.
        task: fitted to the training rows.
        train, dev: labelled rows.

    Raises:
        DataError: a row cannot be used; names file, row and column.
    """
    if member.zero_shot:
        assert isinstance(task, SequenceTask)
        return "name of the class in the text", named_in_text(task, member.zero_shot, dev)
    if isinstance(task, SequenceTask):
        kind = "ridge" if task.problem_type == "regression" else "logistic"
        return f"TF-IDF + {kind}", linear(task, train, dev)
    if isinstance(task, TaggingTask):
        return "CRF", tag_by_crf(task, train, dev)
    if isinstance(task, SpanTask):
        return "word overlap", answer_by_overlap(task, train, dev)
    if isinstance(task, RerankTask):
        return "BM25", by_bm25(task, dev)
    assert isinstance(task, ChoiceTask)
    return "TF-IDF overlap", nearest_choice(task, train, dev)


def linear(task: SequenceTask, train: Sequence[Row], dev: Sequence[Row]) -> dict[str, float]:
    """TF-IDF of words and pairs of words, then logistic or ridge regression; of pairs of texts also difference and product."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]", min_df=2)
    vectorizer.fit([text for row in train for text in _texts(task, row)])
    features = [_features(vectorizer, [_texts(task, row) for row in rows]) for rows in (train, dev)]
    gold = np.array([task.label_of(row) for row in train])
    examples = [Example(rows=(), label=task.label_of(row), weight=1, row=i) for i, row in enumerate(dev)]
    found = [task.score(dev, examples, list(scores)) for scores in _each_strength(task, features[0], gold, features[1])]
    return max(found, key=lambda scores: scores[task.metric])


def _each_strength(task: SequenceTask, train: Any, gold: np.ndarray, dev: Any) -> Iterator[np.ndarray]:
    """Scores [rows, classes] of the dev rows for each strength, as a model's head gives them."""
    for strength in STRENGTHS:
        if task.problem_type == "regression":
            yield Ridge(alpha=10 / strength).fit(train, gold).predict(dev)[:, None]
            continue
        model = LogisticRegression(C=strength, max_iter=1000)
        if task.problem_type == "multi_label_classification":
            yield OneVsRestClassifier(model).fit(train, gold).decision_function(dev).reshape(dev.shape[0], -1)
            continue
        scores_BC = model.fit(train, gold).decision_function(dev)
        yield np.stack([-scores_BC, scores_BC], axis=1) if scores_BC.ndim == 1 else scores_BC


def _texts(task: SequenceTask, row: Row) -> list[str]:
    return [row[1][column] for column in (task.text, task.text_pair) if column]


def _features(vectorizer: TfidfVectorizer, texts: Sequence[Sequence[str]]) -> Any:
    first = vectorizer.transform([parts[0] for parts in texts])
    if len(texts[0]) == 1:
        return first
    second = vectorizer.transform([parts[1] for parts in texts])
    product = first.multiply(second).tocsr()
    return hstack([first, second, abs(first - second), product, csr_matrix(product.sum(1))]).tocsr()


def nearest_choice(task: ChoiceTask, train: Sequence[Row], dev: Sequence[Row]) -> dict[str, float]:
    """The choice whose TF-IDF is nearest to the question's."""
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+")
    vectorizer.fit([text for row in train for text in (row[1][task.text], *task.choices_of(row))])
    examples = [Example(rows=(), label=task.label_of(row), weight=1, row=i) for i, row in enumerate(dev)]
    answers = [
        (vectorizer.transform(task.choices_of(row)) @ vectorizer.transform([row[1][task.text]]).T).toarray()[:, 0] for row in dev
    ]
    return task.score(dev, examples, answers)


def by_bm25(task: RerankTask, dev: Sequence[Row]) -> dict[str, float]:
    """Each query's documents in the order of BM25, over all documents of the rows. Raises MissingExtraError: bm25s is not installed."""
    listed = [task.documents_of(row) for row in dev]
    index = Lexical([text for documents in listed for text, _ in documents])
    examples, answers, begin = [], [], 0
    for number, (row, documents) in enumerate(zip(dev, listed, strict=True)):
        answers.append(index.scores(row[1][task.query])[begin : begin + len(documents)])
        examples.append(Example(rows=(), label=tuple(grade for _, grade in documents), weight=1, row=number))
        begin += len(documents)
    return task.score(dev, examples, answers)


def named_in_text(task: SequenceTask, classes: Sequence[str], dev: Sequence[Row]) -> dict[str, float]:
    """The class of whose name most words stand in the text, the first of equals: no training rows, as zero-shot."""
    names = [set(words_of(name)) for name in classes]
    right = 0
    for _, row in dev:
        words = set(words_of(row[task.text]))
        right += classes[int(np.argmax([len(name & words) for name in names]))] == row[task.label]
    return {"accuracy": right / len(dev)}
