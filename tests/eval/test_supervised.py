"""Evaluation of a fine-tuned folder: as its job scored it, with the task that its config states."""

import dataclasses
import hashlib
import re
from pathlib import Path

import pytest
from train.labelled import bio, has_paris, job_of, sentences

from modernbert.checkpoint.folder import load_model, save_model
from modernbert.config import ModelConfig
from modernbert.errors import CheckpointError, ConfigError, DataError
from modernbert.eval.lookup import evaluate_lookup
from modernbert.eval.supervised import evaluate_file, task_of
from modernbert.kernels.linear_int8 import weight_levels
from modernbert.model.heads import QuestionAnswerer
from modernbert.tasks.choice import ChoiceTask
from modernbert.tasks.sequence import SequenceTask
from modernbert.tasks.spans import SpanTask
from modernbert.tasks.tagging import TaggingTask
from modernbert.text.tokenizer import Tokenizer
from modernbert.train.finetune import finetune

WORDS = sentences(24)
REGRESSION = SequenceTask(label="score", problem_type="regression", metric="spearman")
MULTI = SequenceTask(label="labels", problem_type="multi_label_classification", metric="f1_micro")


def span(words):
    context = " ".join(words)
    return {"question": "?", "context": context, "answers": [{"text": words[0], "start": 0}] if len(words) % 2 else []}


TASKS = {
    "classes": (SequenceTask(), has_paris),
    "numbers": (REGRESSION, lambda words: {"text": " ".join(words), "score": len(words)}),
    "labels": (MULTI, lambda words: {"text": " ".join(words), "labels": sorted(set(words[:2]))}),
    "tags": (TaggingTask(), bio),
    "spans": (SpanTask(), span),
    "choices": (ChoiceTask(), lambda words: {"text": words[0], "choices": ["Paris", "Rome"], "label": len(words) % 2}),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_folder_scores_as_its_job_did_by_its_config_alone(tiny_folder, tmp_path, name):
    task, make = TASKS[name]
    rows = [make(words) for words in WORDS]
    config = job_of(tmp_path, task, rows, rows)
    result = finetune(config, tiny_folder)
    stated = task_of(result.model)
    assert type(stated) is type(task) and stated.metric == task.metric
    found = evaluate_file(result.model, config.dev, max_length=config.max_length, device="cpu")
    assert found.scores == pytest.approx(result.best.scores, abs=1e-5)
    assert found.record["rows"] == 24
    assert found.record["sha256"] == hashlib.sha256(Path(config.dev).read_bytes()).hexdigest()
    assert found.to_markdown().splitlines()[2].startswith("| 24 | ") and found.to_json()["scores"] == found.scores


@pytest.mark.skipif(weight_levels() is None, reason="this build of PyTorch has no exact int8 product for this chip")
def test_int8_gives_scores_of_its_own(tiny_folder, tmp_path):
    config = job_of(tmp_path, REGRESSION, [{"text": " ".join(words), "score": len(words)} for words in WORDS])
    result = finetune(config, tiny_folder)
    found = evaluate_file(result.model, config.dev or config.train, device="cpu", int8=True)
    exact = evaluate_file(result.model, config.dev or config.train, device="cpu")
    assert found.record["int8"] and not exact.record["int8"]
    # near, as ranks of 24 texts, and not the same, as it did run in int8
    assert found.scores == pytest.approx(exact.scores, abs=0.2) and found.scores != exact.scores


def test_columns_of_other_names_are_settings_of_the_task(tiny_folder, tmp_path):
    rows = [has_paris(words) for words in WORDS]
    config = job_of(tmp_path, SequenceTask(), rows)
    result = finetune(config, tiny_folder)
    (tmp_path / "test.csv").write_text("sentence,kind\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows))
    task = dataclasses.replace(task_of(result.model), text="sentence", label="kind")
    found = evaluate_file(result.model, tmp_path / "test.csv", task, device="cpu")
    assert found.scores == pytest.approx(result.best.scores, abs=1e-5)
    (tmp_path / "test.csv").write_text("sentence,kind\nParis,maybe\n")
    with pytest.raises(DataError, match=r"test.csv, row 1: 'maybe' in column 'kind' is no class"):
        evaluate_file(result.model, tmp_path / "test.csv", task, device="cpu")
    (tmp_path / "test.csv").write_text("sentence,kind\n")
    with pytest.raises(DataError, match=r"test.csv has 0 rows; at least one is needed$"):
        evaluate_file(result.model, tmp_path / "test.csv", task, device="cpu")


def test_a_model_without_a_head_for_the_task_is_named(tiny_folder):
    with pytest.raises(CheckpointError, match=r"holds a MaskedLM; wanted a model that was fine-tuned for classes, numbers, tags"):
        task_of(tiny_folder)


@pytest.fixture
def answerer(tiny_folder, tmp_path):
    """Random weights: what it answers matters not, only that every part runs and is counted."""
    model = load_model(QuestionAnswerer, tiny_folder, fresh=("head", "classifier"))
    config: ModelConfig = model.config
    save_model(model, config.with_(max_position_embeddings=1024), tmp_path / "qa", tokenizer=Tokenizer.load(tiny_folder))
    return tmp_path / "qa"


def test_lookups_are_scored_at_each_length_and_depth(answerer, monkeypatch):
    found = evaluate_lookup(answerer, (700, 1500), rows=10, device="cpu")
    assert {tokens: len(shares) for tokens, shares in found.shares.items()} == {700: 10, 1500: 10}
    assert all(share == 0 for shares in found.shares.values() for share in shares)  # it guesses

    decode = SpanTask.decode

    def right_at_odd_depths(self, rows, examples, answers):
        wrong = decode(self, rows, examples, answers)
        return [row["answers"][0]["text"] if row["depth"] % 2 else text for (_, row), text in zip(rows, wrong, strict=True)]

    monkeypatch.setattr(SpanTask, "decode", right_at_odd_depths)
    found = evaluate_lookup(answerer, (700,), rows=20, device="cpu")
    assert found.shares[700] == [0, 1] * 5
    table = found.to_markdown().splitlines()
    assert re.match(r"\| 700 \| 0 \| 100 \| .* \| 50.0 \|$", table[2]) and table[0].startswith("| tokens | 0 % | 10 % |")


def test_what_no_lookup_can_be_made_of_is_refused(answerer, tiny_folder):
    with pytest.raises(ConfigError, match=r"^rows=15: wanted a multiple of 10, as many at each depth$"):
        evaluate_lookup(answerer, (700,), rows=15)
    with pytest.raises(ConfigError, match=r"^tokens=700,0: wanted one length or more, each of 1 token at least$"):
        evaluate_lookup(answerer, (700, 0))
    with pytest.raises(
        CheckpointError, match=r"holds a MaskedLM; wanted a model fine-tuned by `modernbert finetune question_answ"
    ):
        evaluate_lookup(tiny_folder, (700,))


@pytest.mark.parametrize("length", [0, 15, 1025])
def test_rows_that_the_model_does_not_read_are_refused(answerer, tmp_path, length):
    (tmp_path / "rows.csv").write_text("question,context,answers\n")
    with pytest.raises(ConfigError, match=rf"^max_length={length}: wanted 16 to 1,024 tokens, which the model reads$"):
        evaluate_file(answerer, tmp_path / "rows.csv", max_length=length, device="cpu")
