"""The comparison with transformers' Trainer: the same start, the same measure, a record that goes on."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from train.labelled import bio, has_paris, job_of, sentences, write

import modernbert.bench.trainer as module
from modernbert.bench.trainer import markdown, trainer_record
from modernbert.checkpoint.folder import save_model
from modernbert.data.labelled import Source
from modernbert.tasks.sequence import SequenceTask
from modernbert.tasks.tagging import TaggingTask
from modernbert.text.tokenizer import Tokenizer
from modernbert.train.finetune import evaluate, prepare, start_model
from modernbert.train.suite import Member


@pytest.mark.parametrize(
    ("task", "make", "auto"),
    [
        (SequenceTask(), has_paris, transformers.AutoModelForSequenceClassification),
        (TaggingTask(), bio, transformers.AutoModelForTokenClassification),
    ],
    ids=["classes", "tags"],
)
def test_one_measure_scores_both_sides(tiny_folder, tmp_path, task, make, auto):
    rows = [make(words) for words in sentences(60)]
    job = prepare(job_of(tmp_path, task, rows), tiny_folder, Tokenizer.load(tiny_folder))
    ours = start_model(job, 0)
    save_model(ours, job.model_config, tmp_path / "start")
    theirs = module._Padded(auto.from_pretrained(tmp_path / "start"))
    assert evaluate(job, theirs) == pytest.approx(evaluate(job, ours), abs=1e-6)


def test_both_learn_and_what_is_recorded_is_not_run_again(tiny_folder, tmp_path, monkeypatch):
    rows = [has_paris(words) for words in sentences(200)]
    config = job_of(tmp_path, SequenceTask(), rows, learning_rates=(5e-3,), epochs=4, seeds=(0, 1), dropout=0.0)
    member = Member(name="paris", config=config, sources=(Source(train="train.jsonl", dev="dev.jsonl"),))
    write(tmp_path / "train.jsonl", rows[:160])
    write(tmp_path / "dev.jsonl", rows[160:])
    record = trainer_record([member], tiny_folder, tmp_path, tmp_path / "record")
    assert [(run["set"], run["seed"]) for run in record["runs"]] == [("paris", 0), ("paris", 1)]
    scores = [run[side]["score"] for run in record["runs"] for side in ("ours", "theirs")]
    assert min(scores) > 0.8, scores
    monkeypatch.setattr(module, "compare", None)
    again = trainer_record([member], tiny_folder, tmp_path, tmp_path / "record")
    assert again["runs"] == json.loads((tmp_path / "record" / "trainer.json").read_text())["runs"] == record["runs"]
    line = markdown(record).splitlines()[2]
    assert line.startswith("| paris | accuracy | ") and line.count("±") == 4


@pytest.mark.parametrize(("longest", "attention"), [(1, "sdpa"), (20, "sdpa without cuDNN")])
def test_padding_beyond_the_window_keeps_cudnn_out_of_trainers_part_alone(tiny_folder, tmp_path, monkeypatch, longest, attention):
    rows = [has_paris(["Paris" if n % 2 else "Rome"] * (longest if n == 0 else 1)) for n in range(16)]
    job = prepare(job_of(tmp_path, SequenceTask(), rows), tiny_folder, Tokenizer.load(tiny_folder))
    Path(job.config.out).mkdir()
    allowed, train, before = [], transformers.Trainer.train, torch.backends.cuda.cudnn_sdp_enabled()
    monkeypatch.setattr(
        transformers.Trainer, "train", lambda self: allowed.append(torch.backends.cuda.cudnn_sdp_enabled()) or train(self)
    )
    assert module.compare(job, 0)["theirs"]["attention"] == attention
    assert allowed == [before and longest == 1] and torch.backends.cuda.cudnn_sdp_enabled() == before
