"""The fine-tuning loop: equal to transformers on padded batches, able to learn, careful with files, plain in its errors."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import torch
from train.labelled import WORDS, bio, has_paris, job_of, losses, sentences
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    get_linear_schedule_with_warmup,
)

from modernbert.checkpoint.folder import load_model, save_model
from modernbert.checkpoint.settings import read_config
from modernbert.data.tables import read_table
from modernbert.errors import CheckpointError, ConfigError, DataError
from modernbert.eval.supervised import answers_of, evaluate_supervised
from modernbert.model.encoder import Encoder
from modernbert.model.heads import SequenceClassifier
from modernbert.tasks.choice import ChoiceTask
from modernbert.tasks.sequence import SequenceTask
from modernbert.tasks.spans import SpanTask
from modernbert.tasks.tagging import TaggingTask
from modernbert.text.tokenizer import Tokenizer
from modernbert.text.train import train_tokenizer
from modernbert.train.finetune import finetune, prepare, start_model


@pytest.mark.parametrize(
    ("task", "make", "auto"),
    [
        (SequenceTask(), has_paris, AutoModelForSequenceClassification),
        (TaggingTask(), bio, AutoModelForTokenClassification),
    ],
    ids=["sequence", "tokens"],
)
def test_packed_training_equals_padded_training(tiny_folder, tmp_path, task, make, auto):
    """50 steps in float32 against transformers: two ways through float32 sums; 1e-4 is what docs/finetune.md promises."""
    rows = [make(words) for words in sentences(200)]
    config = job_of(tmp_path, task, rows, rows[:8], epochs=2, optimizer="adamw", weight_decay=0.01, log_every_steps=1, seeds=(3,))
    config = dataclasses.replace(config, micro_batch_tokens=100)  # several micro-batches a step
    finetune(config, tiny_folder)

    job = prepare(config, tiny_folder, Tokenizer.load(tiny_folder))
    save_model(start_model(job, 3), job.model_config, tmp_path / "start")
    model = auto.from_pretrained(tmp_path / "start").train()
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimizer, 3, 50)
    order, wanted = torch.Generator().manual_seed(3), []
    for _ in range(2):
        shuffled = torch.randperm(200, generator=order).tolist()
        for start in range(0, 200, 8):
            examples = [job.train[i] for i in shuffled[start : start + 8]]
            longest = max(example.tokens for example in examples)
            ids = [example.rows[0] + [model.config.pad_token_id] * (longest - example.tokens) for example in examples]
            mask = [[1] * example.tokens + [0] * (longest - example.tokens) for example in examples]
            labels = [
                example.label + [-100] * (longest - example.tokens) if isinstance(example.label, list) else example.label
                for example in examples
            ]
            found = model(torch.tensor(ids), attention_mask=torch.tensor(mask), labels=torch.tensor(labels))
            found.loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            wanted.append(found.loss.item())
    assert len(wanted) == 50 and wanted[0] != pytest.approx(wanted[-1], abs=0.1)
    np.testing.assert_allclose(losses(config), wanted, atol=1e-4)


def number(words):
    return {"text": " ".join(words), "score": words.count("Paris") - words.count("Rome")}


def labels(words):
    return {"text": " ".join(words), "labels": [word for word in ("Paris", "Rome", "café") if word in words]}


def question(words):
    place = next((word for word in words if word in ("Paris", "Rome")), None)
    context = " ".join(words)
    answers = [{"text": place, "start": context.index(place)}] if place else []
    return {"question": "capital?", "context": context, "answers": answers}


def choice(words):
    right = len(words) % 3
    return {"text": "capital", "choices": ["Paris" if i == right else words[0] + " seven" for i in range(3)], "label": right}


TASKS = {  # with a score far above guessing, which is 0.6 for classes, 0.3 for choices and spans, and 0 for the others
    "classes": (SequenceTask(), has_paris, 0.85),
    "pairs": (SequenceTask(text_pair="text"), has_paris, 0.85),
    "labels": (SequenceTask(label="labels", problem_type="multi_label_classification", metric="f1_micro"), labels, 0.7),
    "numbers": (SequenceTask(label="score", problem_type="regression", metric="spearman"), number, 0.6),
    "tags": (TaggingTask(), bio, 0.9),
    "spans": (SpanTask(), question, 0.7),
    "choices": (ChoiceTask(), choice, 0.9),
}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_learns_what_can_be_learned_and_its_folder_answers_as_the_job_said(tiny_folder, tmp_path, name):
    task, make, least = TASKS[name]
    rows = [make(words) for words in sentences(240)]
    config = job_of(tmp_path, task, rows[:200], rows[200:], epochs=4, learning_rates=(5e-3,))
    result = finetune(config, tiny_folder)
    assert result.best.scores[task.metric] > least

    fitted = task.fit(list(read_table(config.train)))
    saved = load_model(fitted.head, result.model)
    dev = list(read_table(config.dev))
    examples = fitted.encode(dev, Tokenizer.load(result.model), config.max_length).examples
    # the answers do not depend on the batch; float32 sums may differ in the last digits, which no metric here sees
    assert evaluate_supervised(saved, fitted, dev, examples, batch_tokens=50) == pytest.approx(result.best.scores, abs=1e-5)
    if hasattr(fitted, "labels") and fitted.labels:
        assert list(read_config(result.model).extra["id2label"].values()) == list(fitted.labels)


def test_a_job_tries_every_rate_with_every_seed_and_keeps_the_best(tiny_folder, tmp_path):
    rows = [has_paris(words) for words in sentences(30)]
    config = job_of(tmp_path, SequenceTask(), rows, epochs=2, learning_rates=(1e-3, 1e-5), seeds=(0, 1, 2))
    result = finetune(config, tiny_folder)
    assert [(run.learning_rate, run.seed) for run in result.runs] == [(rate, seed) for rate in (1e-3, 1e-5) for seed in (0, 1, 2)]
    table = result.to_markdown().splitlines()
    assert table[0] == "| lr | seeds | epoch | accuracy | f1_macro | f1_micro | matthews | f1 | seconds |"
    assert len(table) == 4 and table[2].startswith("| 0.001 | 3 | ") and table[3].count("±") == 7
    written = json.loads((tmp_path / "out" / "result.json").read_text())
    assert written["best"]["scores"] == max((run["scores"] for run in written["runs"]), key=lambda scores: scores["accuracy"])
    assert written["data"]["train"]["examples"] == 30 and len(written["data"]["dev"]["sha256"]) == 64
    assert written["settings"]["task"]["labels"] == ["no", "yes"]
    written_at = (tmp_path / "out" / "model" / "model.safetensors").stat().st_mtime_ns
    assert finetune(config, tiny_folder) == result  # a finished job's result comes back, and nothing is trained
    assert (tmp_path / "out" / "model" / "model.safetensors").stat().st_mtime_ns == written_at


def test_a_run_may_end_after_some_steps(tiny_folder, tmp_path):
    rows = [has_paris(words) for words in sentences(40)]
    config = job_of(tmp_path, SequenceTask(), rows, epochs=3, max_steps=7, log_every_steps=1)
    assert finetune(config, tiny_folder).best.epoch in (1.0, 1.4)  # 5 steps an epoch
    rates = [json.loads(line).get("rate") for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert len(losses(config)) == 7 and min(rate for rate in rates if rate is not None) < 0.2  # it falls over the 7


def test_the_same_seed_gives_the_same_run_and_another_one_another(tiny_folder, tmp_path):
    rows = [has_paris(words) for words in sentences(40)]
    runs = []
    for number, seed in enumerate((0, 0, 1)):
        config = job_of(tmp_path, SequenceTask(), rows, seeds=(seed,), log_every_steps=1, dropout=0.1)
        config = dataclasses.replace(config, out=str(tmp_path / str(number)))
        finetune(config, tiny_folder)
        runs.append(losses(config))
    assert runs[0] == runs[1] != runs[2]


def test_a_run_without_progress_ends_early_and_the_best_weights_are_the_kept_ones(tiny_folder, tmp_path):
    rows = [has_paris(words) for words in sentences(40)]
    config = job_of(tmp_path, SequenceTask(), rows, epochs=20, evaluations=2, patience=2, learning_rates=(1e-9,))
    result = finetune(config, tiny_folder)
    evaluations = [line for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines() if '"dev"' in line]
    assert len(evaluations) == 4  # the first, and 3 that are not better: patience allows two
    assert result.best.epoch == 0.4  # 5 steps an epoch: evaluations after 2 (0.4) and 5


def test_fine_tuning_goes_on_from_another_task_and_from_a_bare_encoder(tiny_folder, tmp_path):
    rows = [{**has_paris(words), "kind": str(len(words) % 3)} for words in sentences(40)]
    first = finetune(job_of(tmp_path, SequenceTask(label="kind"), rows), tiny_folder)
    second = finetune(dataclasses.replace(job_of(tmp_path, SequenceTask(), rows), out=str(tmp_path / "second")), first.model)
    assert read_config(second.model).num_labels == 2
    head = dataclasses.replace(job_of(tmp_path, SequenceTask(), rows), out="unused")
    job = prepare(head, first.model, Tokenizer.load(first.model))
    trained = load_model(SequenceClassifier, first.model)
    assert torch.equal(start_model(job, 0).head.dense.weight, trained.head.dense.weight)  # the hand-over keeps the head

    bare = tmp_path / "bare"
    save_model(load_model(Encoder, tiny_folder), read_config(tiny_folder), bare, tokenizer=Tokenizer.load(tiny_folder))
    third = finetune(dataclasses.replace(job_of(tmp_path, SequenceTask(), rows), out=str(tmp_path / "third")), bare)
    assert (third.model / "model.safetensors").exists()


def test_the_saved_config_keeps_the_model_s_own_dropout(tiny_folder, tmp_path):
    result = finetune(job_of(tmp_path, SequenceTask(), [has_paris(words) for words in sentences(20)], dropout=0.3), tiny_folder)
    assert (read_config(result.model).attention_dropout, read_config(result.model).classifier_dropout) == (0.0, 0.0)


def test_a_text_of_a_megabyte_is_cut_and_reported(tiny_folder, tmp_path, capsys):
    rows = [has_paris(words) for words in sentences(20)] + [{"text": "Paris " * 170_000, "label": "yes"}]
    dev = [{"text": "Rome", "label": "no"}]
    job = prepare(job_of(tmp_path, SequenceTask(), rows, dev), tiny_folder, Tokenizer.load(tiny_folder))
    assert max(example.tokens for example in job.train) == 64
    assert capsys.readouterr().err == "train: 1 of 21 rows were cut to 64 tokens\n"


def test_dev_rows_that_are_training_rows_too_are_counted(tiny_folder, tmp_path, capsys):
    rows = [{"text": text, "label": label} for text, label in (("Paris", "yes"), ("Rome", "no"), ("Bern", "no"))]
    dev = [{"text": "Rome", "label": "no"}, {"text": "Oslo", "label": "no"}]
    prepare(job_of(tmp_path, SequenceTask(), rows, dev), tiny_folder, Tokenizer.load(tiny_folder))
    assert capsys.readouterr().err == "dev: 1 of 2 examples are in train as well: the scores flatter\n"


def test_answers_keep_the_order_of_the_examples(tiny_folder, tmp_path):
    job = prepare(
        job_of(tmp_path, SequenceTask(), [has_paris(words) for words in sentences(30)]), tiny_folder, Tokenizer.load(tiny_folder)
    )
    model = start_model(job, 0)
    alone = [answers_of(model, job.task, [example])[0] for example in job.train]
    np.testing.assert_allclose(answers_of(model, job.task, job.train, batch_tokens=64), alone, atol=1e-5)  # float32 rounding


GOOD = [{"text": "Paris", "label": "a"}, {"text": "Rome", "label": "b"}]


@pytest.mark.parametrize(
    ("rows", "dev", "message"),
    [
        ([], GOOD, "train.jsonl has 0 rows; train= needs at least one"),
        (GOOD, [], "dev.jsonl has 0 rows; dev= needs at least one"),
        ([*GOOD, {"text": "x"}], GOOD, "train.jsonl, line 3: no column 'label'; there are text"),
        ([*GOOD, {"text": "x", "label": None}], GOOD, "train.jsonl, line 3: nothing in column 'label'; fill it in or remove the row"),
        (GOOD, [{"text": "x", "lable": "a"}], "dev.jsonl, line 1: no column 'label'; did you mean 'lable'? There are text, lable"),
        ([*GOOD, {"text": "", "label": "a"}], GOOD, "train.jsonl, line 3: empty text in column 'text'; fill it in or remove the row"),
        (GOOD, [{"text": " \n", "label": "a"}], "dev.jsonl, line 1: empty text in column 'text'"),
        ([*GOOD, {"text": 5, "label": "a"}], GOOD, "train.jsonl, line 3: 5 in column 'text'; wanted text"),
        ([*GOOD, {"text": "\udcff", "label": "a"}], GOOD, "train.jsonl, line 3: half a surrogate pair in column 'text'"),
        (GOOD, [{"text": "x", "label": "aa"}], "dev.jsonl, line 1: 'aa' in column 'label' is no class of the training rows; did you mean"),
        ([*GOOD, {"text": "x", "label": 1.5}], GOOD, "train.jsonl, line 3: 1.5 in column 'label'; wanted a class, as text or"),
        ([*GOOD, {"text": "x", "label": float("nan")}], GOOD, "train.jsonl, line 3: NaN in column 'label'; fill it in or remove the row"),
        (GOOD[:1], GOOD, "train.jsonl, line 1 and all that follow: only 'a' in column 'label'; there is nothing to tell apart"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used_are_named(tiny_folder, tmp_path, rows, dev, message):
    with pytest.raises(DataError, match=re.escape(message)):
        finetune(job_of(tmp_path, SequenceTask(), rows, dev), tiny_folder)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "many", None])
def test_a_score_that_is_no_number_is_named(tiny_folder, tmp_path, value):
    task = SequenceTask(label="score", problem_type="regression", metric="spearman")
    rows = [{"text": "x", "score": 1}, {"text": "x", "score": value}]
    advice = "(wanted a finite number|fill it in or remove the row)"
    with pytest.raises(DataError, match=rf"train.jsonl, line 2: .* in column 'score'; {advice}$"):
        finetune(job_of(tmp_path, task, rows), tiny_folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": 0}, "max_steps=0: at least 1 is needed, or None"),
        ({"max_length": 8}, "max_length=8: at least 16 is needed"),
        ({"max_length": 9000}, "max_length=9000: the model reads at most 8192 tokens"),
        ({"seeds": ()}, "seeds is empty: at least one is needed"),
        ({"warmup": 1.0}, "warmup=1.0, dropout=0.0: wanted shares from 0 to below 1"),
        ({"task": SequenceTask(metric="spearman")}, "metric=spearman does not measure single_label_classification; there are accuracy, f1"),
        ({"task": SequenceTask(labels=("a", "b", "c"), metric="f1")}, "metric=f1 does not measure 3 classes of single_label"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_named(tiny_folder, tmp_path, settings, message):
    config = dataclasses.replace(job_of(tmp_path, SequenceTask(), GOOD), **settings)
    with pytest.raises(ConfigError, match=re.escape(message)):
        finetune(config, tiny_folder)


def test_a_tokenizer_of_another_model_is_named(tiny_folder, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(tiny_folder, folder)
    train_tokenizer(WORDS, 576).save(folder)
    with pytest.raises(CheckpointError, match=r"the tokenizer has 576 tokens, the model embeds 512; they are not from the same"):
        finetune(job_of(tmp_path, SequenceTask(), GOOD), folder)
