"""Rerankers: three kinds of rows, their losses and scores, and folders that CrossEncoder loads."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modernbert.engine.engine import load, tokenizer_of
from modernbert.errors import DataError
from modernbert.tasks.reranking import RerankTask
from modernbert.train.finetune import FinetuneConfig, finetune


def row(number, **cells):
    return f"train.jsonl, line {number}", cells


ROWS = [
    row(1, query="q one", document="right", label=1),
    row(2, query="q one", document="wrong", label=0),
    row(3, query="q two", document="right", negatives=["wrong", "worse"]),
    row(4, query="q three", candidates=[{"text": "bad", "label": 0}, {"text": "good", "label": 2}, {"text": "fine", "label": 1}]),
]


class Fixed(torch.nn.Module):
    """Gives a score for each row of the batch: its first token's place in a list."""

    def forward(self, batch):
        return torch.linspace(-1, 2, batch.rows)[:, None]


def encoded(tiny_folder, **settings):
    return RerankTask(**settings).encode(ROWS, tokenizer_of(tiny_folder), 64).examples


def test_the_three_kinds_of_rows_become_pairs_with_grades(tiny_folder):
    examples = encoded(tiny_folder)
    assert [(len(example.rows), example.label, example.weight) for example in examples] == [
        (1, (1.0,), 1),
        (1, (0.0,), 1),
        (3, (1.0, 0.0, 0.0), 3),
        (3, (0.0, 2.0, 1.0), 3),
    ]
    tokenizer = tokenizer_of(tiny_folder)
    assert list(examples[2].rows) == tokenizer.encode_pairs([("q two", "right"), ("q two", "wrong"), ("q two", "worse")])


def test_the_losses_are_their_formulas(tiny_folder):
    scores = torch.linspace(-1, 2, 8)
    from modernbert.eval.supervised import pack_examples

    examples = encoded(tiny_folder)
    right = torch.tensor([1.0, 0, 1, 0, 0, 0, 1, 1])
    expected = F.binary_cross_entropy_with_logits(scores, right, reduction="sum")
    torch.testing.assert_close(RerankTask().loss(Fixed(), pack_examples(examples), examples), expected)
    lists = encoded(tiny_folder, objective="listwise")
    assert [example.weight for example in lists] == [1, 0, 1, 1]
    expected = -(scores[2:5].log_softmax(0)[0] + scores[5:].log_softmax(0)[1:].mean())
    found = RerankTask(objective="listwise").loss(Fixed(), pack_examples(lists), lists)
    torch.testing.assert_close(found, expected)  # a list of one teaches nothing


def test_rows_of_one_query_are_one_list(tiny_folder):
    examples = encoded(tiny_folder)
    answers = [np.array([0.1]), np.array([0.9]), np.array([3.0, 2.0, 1.0]), np.array([0.0, 1.0, 2.0])]
    scores = RerankTask().score(ROWS, examples, answers)
    assert scores["mrr@10"] == pytest.approx((1 / 2 + 1 + 1) / 3) and scores["recall@1"] == pytest.approx((0 + 1 + 1 / 2) / 3)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"query": "q"}, "line 9: no column 'document'"),
        ({"query": "q", "document": "d"}, "line 9: no column 'label'"),
        ({"query": "q", "document": "d", "label": float("nan")}, "line 9: NaN in column 'label'"),
        ({"query": "q", "candidates": [{"text": "t"}]}, "line 9: .* wanted objects with text and label"),
        ({"query": "q", "document": "d", "negatives": []}, "line 9: .* wanted a list that is not empty"),
    ],
)
def test_what_is_wrong_with_a_row_is_said_with_its_place(bad, message):
    with pytest.raises(DataError, match=message):
        RerankTask().fit([*ROWS, row(9, **bad)])


def test_rows_without_a_wrong_document_teach_nothing():
    with pytest.raises(DataError, match="no document is wrong; there is nothing to tell apart"):
        RerankTask().fit(ROWS[:1])


def test_it_learns_and_cross_encoder_loads_what_it_learnt(tiny_folder, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    things = ["red", "blue", "green", "white"]
    rows = [
        {"query": f"what is {one}", "document": f"{one} is", "negatives": [f"{x} is" for x in things if x != one]}
        for one in things
    ]
    for name in ("train", "dev"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows * 4))
    settings = {"train": f"{tmp_path}/train.jsonl", "dev": f"{tmp_path}/dev.jsonl", "out": f"{tmp_path}/out", "device": "cpu"}
    task = RerankTask(objective="listwise")
    result = finetune(FinetuneConfig(task=task, epochs=4, batch_rows=4, learning_rates=(3e-3,), **settings), tiny_folder)
    assert result.runs[0].scores["map"] > 0.5  # by chance .52 of four; a first-place finder 1
    query, documents = "what is blue", ["red is", "blue is", "white is"]
    mine = load(result.model, device="cpu").rerank(query, documents, return_documents=False)
    theirs = sentence_transformers.CrossEncoder(str(result.model), device="cpu").rank(query, documents)
    assert [one["corpus_id"] for one in mine] == [one["corpus_id"] for one in theirs]
    np.testing.assert_allclose([one["score"] for one in mine], [one["score"] for one in theirs], atol=1e-4)
