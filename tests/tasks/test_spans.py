import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modernbert.batch import pack
from modernbert.errors import DataError
from modernbert.tasks.spans import SpanTask, best_span, choice_loss
from modernbert.text.tokenizer import Tokenizer

CONTEXT = "The capital of France is Paris, and the capital of Italy is Rome; he walked to the café. " * 4


def row(answers, context=CONTEXT, number=1):
    return f"t.jsonl, line {number}", {"question": "What is the capital?", "context": context, "answers": answers}


def answer(text, context=CONTEXT):
    return {"text": text, "start": context.rindex(text)}


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return Tokenizer.load(tiny_folder)


def perfect(example):
    """Scores that point at the label and nowhere else."""
    scores = np.zeros((2, example.tokens))
    scores[0, example.label[0]] = scores[1, example.label[1]] = 9
    return scores


@pytest.mark.parametrize("max_length", [40, 64, 512])
@pytest.mark.parametrize("text", ["Paris", "capital of Italy is Rome", "café", CONTEXT[:3]])
def test_labels_decode_to_the_answer_through_any_windows(tokenizer, max_length, text):
    rows = [row([answer(text)]), row([], number=2)]
    task = SpanTask(overlap=16).fit(rows)
    examples = task.encode(rows, tokenizer, max_length).examples
    assert (len(examples) > 2) == (max_length < 512)
    assert all(example.tokens <= max_length for example in examples)
    answers = [perfect(example) for example in examples]
    assert task.decode(rows, examples, answers) == [text, ""]
    assert set(task.score(rows, examples, answers).values()) == {1.0}


def test_windows_cover_every_token_and_share_the_overlap(tokenizer):
    task = SpanTask(overlap=8)
    examples = task.encode([row([])], tokenizer, 40).examples
    spans = [list(map(tuple, example.places[1].tolist())) for example in examples]
    assert all(before[-8:] == after[:8] for before, after in itertools.pairwise(spans))
    (whole,) = tokenizer.encode_with_spans([CONTEXT])
    assert sorted({span for some in spans for span in some}) == sorted(set(whole.spans[1:-1]))
    assert all(example.label == (0, 0) for example in examples)


def test_only_a_task_with_unanswerable_questions_may_answer_with_nothing(tokenizer):
    rows = [row([answer("Paris")])]
    task = SpanTask().fit(rows)
    examples = task.encode(rows, tokenizer, 512).examples
    scores = np.zeros((2, examples[0].tokens))
    scores[:, 0] = 9  # nowhere
    assert task.decode(rows, examples, [scores]) != [""]
    assert SpanTask(unanswerable=True).decode(rows, examples, [scores]) == [""]


@pytest.mark.parametrize("lengths", [[1], [5, 1, 130], [64] * 3])
def test_the_loss_of_packed_rows_is_the_cross_entropy_of_each_row(lengths):
    """Value and gradient against PyTorch's, row by row; float32 sums of at most 195 terms."""
    generator = torch.Generator().manual_seed(0)
    x_T = (30 * torch.randn(sum(lengths), generator=generator)).requires_grad_()  # far apart: exp alone would overflow
    at_B = torch.tensor([length // 2 for length in lengths])
    batch = pack([[1] * length for length in lengths])
    wanted = sum(F.cross_entropy(row[None], at[None]) for row, at in zip(x_T.split(lengths), at_B, strict=True))
    found = choice_loss(x_T, batch, at_B)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found, x_T), torch.autograd.grad(wanted, x_T))


@pytest.mark.parametrize("seed", range(5))
def test_the_best_span_is_the_best_of_all_spans(seed):
    start_L, end_L = np.random.default_rng(seed).normal(size=(2, 12))
    every = [(start_L[i] + end_L[j], i, j) for i in range(12) for j in range(i, min(12, i + 4))]
    assert best_span(start_L, end_L, 4) == pytest.approx(max(every))


def test_squad_s_own_form_of_answers_is_read(tokenizer):
    ours, squad = row([answer("Rome")]), row({"text": ["Rome"], "answer_start": [CONTEXT.rindex("Rome")]})
    (one,), (other,) = (SpanTask().encode([row], tokenizer, 512).examples for row in (ours, squad))
    assert (one.rows, one.label) == (other.rows, other.label)
    assert SpanTask().fit([row({"text": [], "answer_start": []})]).unanswerable


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            [{"text": "Paris", "start": 3}],
            r"^t.jsonl, line 1: the answer 'Paris' in column 'answers' does not stand at character 3 of",
        ),
        ([{"text": "Paris", "start": -1}], r"does not stand at character -1 of 'context'; there is 'The c'$"),
        ([{"text": "Paris"}], r"in column 'answers'; wanted a list of {\"text\": …, \"start\": …}$"),
        ("Paris", r"^t.jsonl, line 1: \"?'Paris'\"? in column 'answers'; wanted a list"),
        (None, r"^t.jsonl, line 1: nothing in column 'answers'"),
    ],
)
def test_answers_that_do_not_fit_are_named(answers, message):
    with pytest.raises(DataError, match=message):
        SpanTask().fit([row(answers)])


def test_a_question_of_more_than_half_the_row_is_cut_and_counted(tokenizer):
    place, cells = row([answer("Paris")])
    encoded = SpanTask().encode([(place, {**cells, "question": "why " * 100})], tokenizer, 64)
    assert encoded.cut == 1 and max(example.tokens for example in encoded.examples) == 64


def test_rows_encoded_in_several_parts_are_those_encoded_at_once(tokenizer, monkeypatch):
    rows = [row([answer("Paris")], number=number) for number in range(1, 6)]
    whole = SpanTask(overlap=8).encode(rows, tokenizer, 40).examples
    monkeypatch.setattr("modernbert.tasks.spans.CHUNK", 2)
    parts = SpanTask(overlap=8).encode(rows, tokenizer, 40).examples
    assert [(e.rows, e.label, e.row) for e in parts] == [(e.rows, e.label, e.row) for e in whole] and len(parts) > 5
    assert all(np.array_equal(one.places[1], other.places[1]) for one, other in zip(parts, whole, strict=True))


def test_the_answer_at_the_end_of_a_megabyte_is_found(tokenizer):
    context = "walked " * 150_000 + "Paris"
    rows = [("t.jsonl, line 1", {"question": "?", "context": context, "answers": [{"text": "Paris", "start": len(context) - 5}]})]
    examples = SpanTask().encode(rows, tokenizer, 512).examples
    found = SpanTask().decode(rows, examples, [perfect(example) for example in examples])
    assert found == ["Paris"] and len(examples) > 300
