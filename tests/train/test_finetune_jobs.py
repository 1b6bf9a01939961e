"""Jobs of several runs: killed and resumed, with runs that fail, over several processes, with parts of the weights at rest."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from train.labelled import bio, has_paris, job_of, losses, sentences

import modernbert.train.finetune as module
from modernbert.checkpoint.folder import load_model
from modernbert.errors import MissingExtraError, TrainingError
from modernbert.model.encoder import Encoder
from modernbert.tasks.sequence import SequenceTask
from modernbert.tasks.tagging import TaggingTask
from modernbert.text.tokenizer import Tokenizer
from modernbert.train.adapters import add_adapters, merge_adapters
from modernbert.train.finetune import finetune, prepare, start_model


class Killed(Exception):
    pass


ROWS = [has_paris(words) for words in sentences(40)]


def table_of(result):
    """Everything but the seconds."""
    return [dataclasses.replace(run, seconds=0) for run in result.runs]


def weights(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("runs_before", [0, 1, 2])
def test_a_killed_job_goes_on_with_the_runs_that_are_missing(tiny_folder, tmp_path, monkeypatch, runs_before):
    config = job_of(tmp_path, SequenceTask(), ROWS, seeds=(0, 1), learning_rates=(5e-3, 1e-3), log_every_steps=1, dropout=0.1)
    whole = finetune(config, tiny_folder)
    killed = dataclasses.replace(config, out=str(tmp_path / "killed"))
    each, begun = module.each_step, []

    def die_in_the_middle(job, seed):
        begun.append(seed)
        for number, examples in enumerate(each(job, seed)):
            if len(begun) == runs_before + 1 and number == 3:
                raise Killed
            yield examples

    with monkeypatch.context() as patch:
        patch.setattr(module, "each_step", die_in_the_middle)
        with pytest.raises(Killed):
            finetune(killed, tiny_folder)
    begun.clear()
    with monkeypatch.context() as patch:
        patch.setattr(module, "each_step", lambda job, seed: begun.append(seed) or each(job, seed))
        resumed = finetune(dataclasses.replace(killed, micro_batch_tokens=4096), tiny_folder)  # may change
    assert len(begun) == 4 - runs_before
    assert table_of(resumed) == table_of(whole) and losses(killed) == losses(config)
    ours, theirs = weights(resumed.model), weights(whole.model)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_folder_of_another_job_is_refused_by_what_differs(tiny_folder, tmp_path):
    config = job_of(tmp_path, SequenceTask(), ROWS)
    finetune(config, tiny_folder)
    (tmp_path / "out" / "result.json").unlink()
    with pytest.raises(TrainingError, match=r"holds a fine-tuning with other settings \(epochs differ\); give out= another"):
        finetune(dataclasses.replace(config, epochs=2), tiny_folder)
    other_rows = job_of(tmp_path, SequenceTask(), ROWS[:-1])
    with pytest.raises(TrainingError, match=r"other settings \(digests differ\)"):
        finetune(other_rows, tiny_folder)
    (tmp_path / "out" / "config.json").write_text("{")
    with pytest.raises(TrainingError, match=r"config.json is damaged"):
        finetune(config, tiny_folder)


def test_a_line_of_runs_that_was_cut_short_is_run_again(tiny_folder, tmp_path):
    config = job_of(tmp_path, SequenceTask(), ROWS, seeds=(0, 1))
    whole = finetune(config, tiny_folder)
    (tmp_path / "out" / "result.json").unlink()
    runs = tmp_path / "out" / "runs.jsonl"
    runs.write_text(runs.read_text()[:-30])
    assert table_of(finetune(config, tiny_folder)) == table_of(whole)


def test_a_run_that_fails_does_not_lose_the_others(tiny_folder, tmp_path):
    config = job_of(tmp_path, SequenceTask(), ROWS, epochs=2, learning_rates=(1e30, 1e-3), seeds=(0, 1))
    result = finetune(config, tiny_folder)
    assert [bool(run.failed) for run in result.runs] == [True, True, False, False]
    assert result.best.learning_rate == 1e-3 and (result.model / "model.safetensors").exists()
    assert result.runs[0].failed.startswith("the loss is nan at step ") and result.runs[0].scores == {}
    assert result.to_markdown().splitlines()[2].startswith("| 1e+30 | 2 (2 failed) | – | – |")
    assert json.loads((tmp_path / "out" / "result.json").read_text())["runs"][0]["failed"] == result.runs[0].failed


def test_a_job_whose_runs_all_fail_says_so(tiny_folder, tmp_path):
    config = job_of(tmp_path, SequenceTask(), ROWS, learning_rates=(1e30,), epochs=2)
    with pytest.raises(
        TrainingError,
        match=r"^every run failed: the loss is (nan|inf) at step \d+ with learning rate 1e\+30 and seed 0; take lower",
    ):
        finetune(config, tiny_folder)


def test_two_processes_give_the_curve_and_the_scores_of_one(tiny_folder, tmp_path):
    """gloo on the CPU; steps of 3 examples, 40 rows: micro-batches differ in number, and a last step has one example for two.

    Sums of float32 are taken in another order: losses agree to 1e-4, as between packed and padded training.
    """
    config = job_of(
        tmp_path, TaggingTask(), [bio(words) for words in sentences(40)], epochs=1, batch_rows=3, log_every_steps=1, evaluations=2
    )
    config = dataclasses.replace(config, micro_batch_tokens=24)
    alone = finetune(config, tiny_folder)
    script = tmp_path / "two.py"
    script.write_text(
        "import os, sys\nsys.path[:0] = sys.argv[1:3]\nimport dataclasses, torch\ntorch.set_num_threads(1)\n"
        "from train.labelled import bio, job_of, sentences\nfrom pathlib import Path\n"
        "from modernbert.tasks.tagging import TaggingTask\nfrom modernbert.train.finetune import finetune, FinetuneConfig\n"
        "settings = dict(epochs=1, batch_rows=3, log_every_steps=1, evaluations=2, micro_batch_tokens=24)\n"
        "config = FinetuneConfig(task=TaggingTask(), train=sys.argv[4] + '/train.jsonl', dev=sys.argv[4] + '/dev.jsonl',\n"
        "    out=sys.argv[4] + '/two', learning_rates=(1e-3,), device='cpu', dropout=0.0, max_length=64, **settings)\n"
        "result = finetune(config, sys.argv[3])\nPath(sys.argv[4], 'of-' + os.environ['RANK']).write_text(str(result.best.scores))\n"
    )
    tests = Path(__file__).parents[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [*torchrun, str(tests), str(tests.parent), str(tiny_folder), str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    two = dataclasses.replace(config, out=str(tmp_path / "two"))
    assert losses(two) == pytest.approx(losses(config), abs=1e-4)
    assert len(losses(two)) == 14 and losses(two)[0] > losses(two)[-1] + 0.1
    written = json.loads((tmp_path / "two" / "result.json").read_text())
    assert written["best"]["scores"] == pytest.approx(alone.best.scores, abs=1e-3)
    assert {(tmp_path / f"of-{rank}").read_text() for rank in range(2)} == {str(written["best"]["scores"])}  # both processes know


def test_only_the_classifier_moves_on_a_frozen_encoder(tiny_folder, tmp_path):
    result = finetune(job_of(tmp_path, SequenceTask(), ROWS, trains="classifier", learning_rates=(1e-2,), epochs=4), tiny_folder)
    before, after = weights(tiny_folder), weights(result.model)
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("model."))
    assert not torch.equal(after["head.dense.weight"], before["head.dense.weight"])


def test_adapters_learn_and_are_merged_into_the_saved_matrices(tiny_folder, tmp_path):
    rows = [bio(words) for words in sentences(160)]
    config = job_of(
        tmp_path, TaggingTask(), rows[:120], rows[120:], trains="adapters", adapter_rank=4, epochs=4, learning_rates=(1e-2,)
    )
    result = finetune(config, tiny_folder)
    assert result.best.scores["f1"] > 0.9
    before, after = weights(tiny_folder), weights(result.model)
    assert {name for name in after if name.startswith("model.")} == {name for name in before if name.startswith("model.")}
    moved = {
        name for name in after if name in before and name.startswith("model.") and not torch.equal(after[name], before[name])
    }
    assert {name.split(".", 3)[-1] for name in moved} == {"attn.Wqkv.weight", "attn.Wo.weight", "mlp.Wi.weight", "mlp.Wo.weight"}
    change = after["model.layers.0.mlp.Wi.weight"] - before["model.layers.0.mlp.Wi.weight"]
    assert torch.linalg.matrix_rank(change, rtol=1e-4) == 4
    job = prepare(config, tiny_folder, Tokenizer.load(tiny_folder))
    saved = load_model(TaggingTask().head, result.model)
    assert module.evaluate(job, saved) == pytest.approx(result.best.scores, abs=1e-5)  # what was scored is what was saved


def test_a_merged_encoder_says_what_the_encoder_with_its_adapters_said(tiny_folder, tmp_path):
    job = prepare(job_of(tmp_path, SequenceTask(), ROWS, trains="adapters"), tiny_folder, Tokenizer.load(tiny_folder))
    model = start_model(job, 0).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
        batch = module.pack_examples(job.dev[:4])
        with_adapters = model(batch)
        plain = load_model(Encoder, tiny_folder)(batch)
        merge_adapters(model)
        torch.testing.assert_close(model(batch), with_adapters, atol=1e-4, rtol=1e-4)  # float32 products in another order
        assert not torch.allclose(model.model(batch), plain, atol=1e-2)
    assert not any("lora" in name for name in model.state_dict())


def test_missing_peft_is_named_with_its_cure(monkeypatch, tiny_folder):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"trains=adapters needs peft: pip install 'modernbert\[adapters\]'$"):
        add_adapters(load_model(Encoder, tiny_folder), 4)


def test_recomputing_activations_changes_nothing_but_the_memory(tiny_folder, tmp_path):
    config = job_of(tmp_path, SequenceTask(), ROWS, log_every_steps=1)
    plain = finetune(config, tiny_folder)
    again = finetune(dataclasses.replace(config, recompute=True, out=str(tmp_path / "recompute")), tiny_folder)
    ours, theirs = weights(again.model), weights(plain.model)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
