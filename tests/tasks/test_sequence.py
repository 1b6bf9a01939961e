import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modernbert.errors import DataError
from modernbert.tasks.choice import ChoiceTask
from modernbert.tasks.sequence import SequenceTask, encode_texts
from modernbert.tasks.task import Example
from modernbert.text.tokenizer import Tokenizer


def rows_of(*cells):
    return [(f"t.csv, row {i}", cell) for i, cell in enumerate(cells, start=1)]


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return Tokenizer.load(tiny_folder)


def test_short_texts_and_pairs_are_what_the_tokenizer_makes_of_them(tokenizer):
    texts, pairs = ["Paris", "Rome is far"], ["café", "a store"]
    assert encode_texts(texts, None, tokenizer, 64) == (tokenizer.encode(texts), 0)
    assert encode_texts(texts, pairs, tokenizer, 64) == (tokenizer.encode_pairs(list(zip(texts, pairs, strict=True))), 0)


def test_of_a_long_pair_the_longer_text_gives_way(tokenizer):
    (row,), cut = encode_texts(["Paris " * 50], ["Rome"], tokenizer, 20)
    (short,) = tokenizer.encode(["Rome"], special=False)
    assert (len(row), cut) == (20, 1)
    assert row[-1 - len(short) :] == [*short, tokenizer.sep_id]
    assert [i for i, id in enumerate(row) if id in (tokenizer.cls_id, tokenizer.sep_id)] == [0, 18 - len(short), 19]


def test_whole_numbers_are_classes_in_their_order_even_as_floats_of_parquet():
    task = SequenceTask().fit(rows_of({"label": 10}, {"label": 9.0}, {"label": 1}))
    assert task.labels == ("1", "9", "10")


def test_spaces_around_a_class_do_not_make_another_class():
    assert SequenceTask().fit(rows_of({"label": "pos "}, {"label": "neg"}, {"label": "pos"})).labels == ("neg", "pos")


def test_labels_may_be_a_list_or_text_with_commas_and_none_at_all(tokenizer):
    task = SequenceTask(label="labels", problem_type="multi_label_classification")
    rows = rows_of({"text": "x", "labels": "b, a"}, {"text": "x", "labels": ""}, {"text": "x", "labels": ["a"]})
    fitted = task.fit(rows)
    assert fitted.labels == ("a", "b")
    assert [example.label for example in fitted.encode(rows, tokenizer, 16).examples] == [[1, 1], [0, 0], [1, 0]]


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_the_loss_over_its_terms_is_pytorch_s_mean(problem_type):
    logits_BC = torch.randn(5, 1 if problem_type == "regression" else 3)
    labels = {
        "single_label_classification": [0, 2, 1, 1, 0],
        "multi_label_classification": [[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1]],
        "regression": [0.5, 1.0, -2.0, 3.0, 0.0],
    }[problem_type]
    task = SequenceTask(problem_type=problem_type, labels=("a", "b", "c"))
    weight = 3 if problem_type == "multi_label_classification" else 1
    examples = [Example(rows=([1],), label=label, weight=weight, row=i) for i, label in enumerate(labels)]
    wanted = {
        "single_label_classification": lambda: F.cross_entropy(logits_BC, torch.tensor(labels)),
        "multi_label_classification": lambda: F.binary_cross_entropy_with_logits(logits_BC, torch.tensor(labels).float()),
        "regression": lambda: F.mse_loss(logits_BC[:, 0], torch.tensor(labels)),
    }[problem_type]()
    model = torch.nn.Module()
    model.forward = lambda batch: logits_BC
    from modernbert.eval.supervised import pack_examples

    loss = task.loss(model, pack_examples(examples), examples) / sum(example.weight for example in examples)
    torch.testing.assert_close(loss, wanted)


def test_perfect_answers_score_one():
    task = SequenceTask(labels=("a", "b"))
    examples = [Example(rows=([1],), label=label, weight=1, row=i) for i, label in enumerate((0, 1, 1))]
    scores = task.score([], examples, [np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([-5.0, -4.0])])
    assert set(scores) == {"accuracy", "f1", "f1_macro", "f1_micro", "matthews"} and set(scores.values()) == {1.0}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            {"choices": ["a"], "label": 0},
            "t.csv, row 2: 1 choices in column 'choices'; wanted a list of 2 texts, as in the first row",
        ),
        ({"choices": "ab", "label": 0}, "t.csv, row 2: 'ab' in column 'choices'; wanted a list of 2 texts"),
        ({"choices": ["a", ""], "label": 0}, "t.csv, row 2: empty text in column 'choices'"),
        ({"choices": ["a", "b"], "label": 2}, "t.csv, row 2: 2 in column 'label'; wanted a choice's number, 0 to 1"),
        ({"choices": ["a", "b"], "label": "b"}, "t.csv, row 2: 'b' in column 'label'; wanted a choice's number, 0 to 1"),
    ],
)
def test_choices_that_do_not_fit_are_named(tokenizer, cells, message):
    rows = rows_of({"text": "q", "choices": ["a", "b"], "label": "1"}, {"text": "q", **cells})
    task = ChoiceTask().fit(rows)
    assert task.encode(rows[:1], tokenizer, 16).examples[0].label == 1
    with pytest.raises(DataError, match=re.escape(message)):
        task.encode(rows, tokenizer, 16)
