"""The pre-training loop: what it learns, what it leaves behind, and how it goes on after a kill."""

import dataclasses
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import modernbert.train.pretrain as loop
from modernbert.batch import pack
from modernbert.checkpoint.settings import read_config
from modernbert.checkpoint.training_state import latest_state, load_state
from modernbert.config import ModelConfig, preset
from modernbert.data.documents import Document
from modernbert.data.shard_writing import write_shards
from modernbert.data.shards import TokenShards
from modernbert.engine.engine import load
from modernbert.errors import CheckpointError, ConfigError, TrainingError
from modernbert.model.heads import MaskedLM
from modernbert.model.init import init_weights
from modernbert.model.losses import MaskedLMLoss
from modernbert.text.train import train_tokenizer
from modernbert.train.optimizers import OptimizerConfig
from modernbert.train.pretrain import pretrain
from modernbert.train.report import read_log
from modernbert.train.settings import Phase, PretrainConfig

set_rope = MaskedLM.set_rope
MODEL = ModelConfig(num_hidden_layers=4, hidden_size=32, intermediate_size=32, num_attention_heads=1, attention_dropout=0.1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A language that can be learnt: every sentence names a colour, and each colour has one animal."""
    folder = tmp_path_factory.mktemp("data") / "shards"
    rng = random.Random(0)
    pairs = list(zip(["red", "blue", "green", "black"], ["fox", "whale", "frog", "crow"], strict=True))
    texts = [" ".join("the {} {} sleeps.".format(*rng.choice(pairs)) for _ in range(rng.randint(2, 30))) for _ in range(300)]
    tokenizer = train_tokenizer(texts, 384)
    write_shards((Document(text=text, source="zoo") for text in texts), tokenizer, folder)
    return folder


def config(shards, out, **changes):
    settings = {
        "model": MODEL,
        "phases": (
            Phase(tokens=6_000, length=64, warmup_tokens=1_000),
            Phase(tokens=4_000, length=128, mask_rate=0.2, decay_tokens=4_000),
        ),
        "optimizer": OptimizerConfig(lr=1e-2),
        "micro_batch_tokens": 512,
        "compute_dtype": "float32",
        "compile": False,
        "device": "cpu",
        "save_every_tokens": 2_000,
        "log_every_steps": 2,
    }
    return PretrainConfig(shards=(str(shards),), out=str(out), **(settings | changes))


def weights(folder):
    return load_file(folder / "model.safetensors")


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the loop may catch it or tidy up after it."""


def kill_after(monkeypatch, steps):
    """Ends the run in the middle of the step after `steps`, as SIGKILL would."""
    rest = iter(range(steps))

    def set_rates(*args):
        if next(rest, None) is None:
            raise Killed
        return set_learning_rates(*args)

    set_learning_rates = loop.set_learning_rates
    monkeypatch.setattr(loop, "set_learning_rates", set_rates)


def diverge_after(monkeypatch, steps):
    """Gives a learning rate that is not a number to the step after `steps`."""
    rest = iter(range(steps))
    monkeypatch.setattr(Phase, "rate", lambda self, tokens: math.nan if next(rest, None) is None else 1.0)


def test_it_learns_the_language_and_leaves_a_folder_that_loads(shards, tmp_path):
    phases = (Phase(tokens=100_000, length=64, warmup_tokens=3_000, decay_tokens=50_000),)
    model = dataclasses.replace(MODEL, attention_dropout=0.0)
    muon = OptimizerConfig(name="muon", lr=1e-2, muon_lr=0.03)
    folder = pretrain(
        config(shards, tmp_path / "run", model=model, phases=phases, optimizer=muon, save_every_tokens=10**9, seed=1)
    )
    lines, _ = read_log(tmp_path / "run")
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    best = load(folder, device="cpu").fill_mask("the green[MASK] sleeps.", top_k=4)
    assert {guess["token_str"] for guess in best} == {" fox", " whale", " frog", " crow"}  # nothing else follows a colour there


@pytest.mark.parametrize(("name", "steps"), [("stableadamw", 1), ("stableadamw", 5), ("muon", 14), ("stableadamw", 17)])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(shards, tmp_path, monkeypatch, capsys, name, steps):
    """Bit for bit: weights after a kill at any step, in either phase, equal those of the run left alone (dropout is on)."""
    optimizer = OptimizerConfig(name=name, lr=1e-2)
    whole = pretrain(config(shards, tmp_path / "whole", optimizer=optimizer))
    killed = config(shards, tmp_path / "killed", optimizer=optimizer)
    with monkeypatch.context() as patch:
        kill_after(patch, steps)
        with pytest.raises(Killed):
            pretrain(killed)
    saved = latest_state(tmp_path / "killed" / "checkpoints")
    capsys.readouterr()
    resumed = pretrain(killed)
    said = capsys.readouterr().err
    assert (f"resumed from {saved}" in said) == (saved is not None)
    wanted, got = weights(whole), weights(resumed)
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)


def test_a_phase_changes_theta_and_the_batch_grows(shards, tmp_path):
    phases = (
        Phase(tokens=6_000, length=64, batch_warmup_tokens=3_000),
        Phase(tokens=2_000, length=128, global_rope_theta=160_000.0),
    )
    model = dataclasses.replace(MODEL, global_rope_theta=10_000.0)
    folder = pretrain(config(shards, tmp_path / "run", model=model, phases=phases, micro_batches=3, log_every_steps=1))
    lines, _ = read_log(tmp_path / "run")
    sizes = [round((b["tokens"] - a["tokens"]) / 500) for a, b in zip([{"tokens": 0}, *lines], lines, strict=False)]
    assert sizes[:6] == [1, 1, 2, 2, 3, 3]  # 3,000 tokens are two steps of one and two of two micro-batches of 512
    assert read_config(folder).global_rope_theta == 160_000.0
    assert read_config(folder).local_rope_theta == MODEL.local_rope_theta


def test_a_phase_turns_theta_in_steps_and_a_killed_run_finds_the_same_ones(shards, tmp_path, monkeypatch):
    extended = Phase(tokens=4_000, length=128, global_rope_theta=160_000.0, theta_tokens=2_000, theta_steps=4)
    phases = (Phase(tokens=2_000, length=64), extended)
    model = dataclasses.replace(MODEL, global_rope_theta=10_000.0)
    seen = []
    monkeypatch.setattr(MaskedLM, "set_rope", lambda self, **changes: seen.append(changes) or set_rope(self, **changes))
    whole = pretrain(config(shards, tmp_path / "whole", model=model, phases=phases))
    assert [round(changes["global_rope_theta"]) for changes in seen] == [20_000, 40_000, 80_000, 160_000]
    with monkeypatch.context() as patch:
        kill_after(patch, 7)  # between the second base and the third
        with pytest.raises(Killed):
            pretrain(config(shards, tmp_path / "killed", model=model, phases=phases))
    resumed = pretrain(config(shards, tmp_path / "killed", model=model, phases=phases))
    assert read_config(resumed).global_rope_theta == 160_000.0
    assert all(torch.equal(weights(whole)[name], tensor) for name, tensor in weights(resumed).items())


def test_a_phase_extends_the_context_by_yarn(shards, tmp_path):
    phases = (Phase(tokens=2_000, length=64), Phase(tokens=2_000, length=256, global_rope_factor=4.0))
    folder = pretrain(config(shards, tmp_path / "run", phases=phases))
    found = read_config(folder)
    assert found.rope(0) == (MODEL.global_rope_theta, 4.0, 64) and found.rope(1) == (MODEL.local_rope_theta, 1.0, 0)


def test_a_mixture_of_folders_resumes_bit_for_bit_and_its_log_counts_epochs_and_fill(shards, tmp_path, monkeypatch):
    words = "owl cat pig hen"
    texts = [f"a {words} " * (1 + n % 40) for n in range(30)]
    write_shards((Document(text=text, source="farm") for text in texts), TokenShards.open(shards).tokenizer(), tmp_path / "farm")
    phases = (
        Phase(tokens=4_000, length=64, weights=(1.0, 3.0), long_from=(50,), long_times=(2.5,)),
        Phase(tokens=2_000, length=128),
    )

    def run(name):
        both = (str(shards), str(tmp_path / "farm"))
        return pretrain(dataclasses.replace(config(shards, tmp_path / name, phases=phases, log_every_steps=1), shards=both))

    whole = run("whole")
    with monkeypatch.context() as patch:
        kill_after(patch, 9)
        with pytest.raises(Killed):
            run("killed")
    resumed = run("killed")
    assert all(torch.equal(weights(whole)[name], tensor) for name, tensor in weights(resumed).items())
    lines, other = (read_log(tmp_path / run)[0] for run in ("whole", "killed"))
    assert [(line["step"], line["epochs"], line["fill"]) for line in lines] == [
        (line["step"], line["epochs"], line["fill"]) for line in other
    ]
    zoo, farm = lines[7]["epochs"]  # the last line of the first phase
    assert farm > 3 * zoo > 0
    assert all(0.5 < line["fill"] <= 1 for line in lines)


def test_a_run_begins_from_the_weights_it_is_given(shards, tmp_path):
    first = pretrain(config(shards, tmp_path / "first"))
    still = OptimizerConfig(lr=0.0, weight_decay=0.0)
    second = pretrain(config(shards, tmp_path / "second", begin_from=str(first), optimizer=still))
    assert all(torch.equal(weights(first)[name], tensor) for name, tensor in weights(second).items())


def test_a_run_takes_the_shape_of_what_it_begins_from(shards, tmp_path):
    """Whatever shape the recipe has, `domain`'s for one; only its dropout counts."""
    odd = MODEL.with_(layer_types=("sliding_attention",) * 3 + ("full_attention",), global_rope_theta=5e4, local_attention=32)
    first = pretrain(config(shards, tmp_path / "first", model=odd))
    still = OptimizerConfig(lr=0.0, weight_decay=0.0)
    other = preset("ettin_17m").with_(attention_dropout=0.25)
    begun = config(shards, tmp_path / "second", begin_from=str(first), keep_shape=True, model=other, optimizer=still)
    second = pretrain(begun)
    assert all(torch.equal(weights(first)[name], tensor) for name, tensor in weights(second).items())
    assert read_config(second) == dataclasses.replace(read_config(first), attention_dropout=0.25)


def test_a_process_killed_with_sigkill_resumes_from_its_last_checkpoint_and_says_so(shards, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "modernbert", "pretrain", "first_result", f"shards={shards}", f"out={run}"]
    command += ["phases.0.tokens=12_000", "phases.0.warmup_tokens=0", "phases.0.decay_tokens=0"]
    command += ["save_every_tokens=2_000", "model.num_hidden_layers=1", "log_every_steps=1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and latest_state(run / "checkpoints") is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
    saved = latest_state(run / "checkpoints")
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert f"resumed from {saved}" in again.stderr
    assert (run / "model" / "model.safetensors").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each start is a fork")
def test_a_run_killed_with_sigkill_in_twenty_random_steps_ends_bit_for_bit_as_if_left_alone():
    script = Path(__file__).parents[2] / "dev" / "kill_twenty.py"
    done = subprocess.run([sys.executable, script, "--tokens", "30000"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert len(record["killed_in_steps"]) == 20 and not record["resumed_with_others"]
    assert record["tensors_equal_bit_for_bit"] == record["tensors"] > 80
    assert record["batches_and_masks_equal"] and record["losses_of_all_steps_equal"]
    assert record["progress_and_optimizer_settings_equal"]


def test_a_step_without_a_label_leaves_the_weights_finite(shards, tmp_path):
    """A token in a thousand, in steps of 64: most have none, and nothing may be divided by their number."""
    phases = (Phase(tokens=1_000, length=64, mask_rate=0.001),)
    folder = pretrain(config(shards, tmp_path, phases=phases, micro_batch_tokens=64, log_every_steps=1))
    assert 0.0 in [line["loss"] for line in read_log(tmp_path)[0]]
    assert all(tensor.isfinite().all() for tensor in weights(folder).values())


def test_a_finished_run_started_again_only_says_so(shards, tmp_path, capsys):
    finished = pretrain(config(shards, tmp_path / "run"))
    before = weights(finished)
    assert pretrain(config(shards, tmp_path / "run")) == finished
    assert "resumed from" in capsys.readouterr().err
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(finished).items())


def test_a_folder_with_another_run_is_not_overwritten(shards, tmp_path):
    pretrain(config(shards, tmp_path / "run"))
    with pytest.raises(TrainingError, match="other settings \\(seed differ\\); give out= another folder"):
        pretrain(config(shards, tmp_path / "run", seed=1))


def test_a_run_that_cannot_begin_leaves_its_folder_free(shards, tmp_path):
    with pytest.raises(CheckpointError, match="no model named 'nowhere'"):
        pretrain(config(shards, tmp_path / "run", begin_from="nowhere"))
    assert pretrain(config(shards, tmp_path / "run", phases=(Phase(tokens=100, length=64),))).is_dir()


def test_a_folder_whose_settings_are_damaged_is_not_overwritten(shards, tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(TrainingError, match=r"config\.json is damaged .*; give out= another folder, or delete the file to go on"):
        pretrain(config(shards, tmp_path))
    assert (tmp_path / "config.json").read_text() == "{"


def test_what_a_killed_process_left_half_written_is_cleared_away(shards, tmp_path):
    half = [tmp_path / ".model-0123abcd.tmp", tmp_path / "checkpoints" / ".step-000002-0123abcd.tmp"]
    for folder in half:
        folder.mkdir(parents=True)
        (folder / "state.safetensors").write_bytes(b"half")
    pretrain(config(shards, tmp_path, phases=(Phase(tokens=100, length=64),)))
    assert not any(folder.exists() for folder in half)


@pytest.mark.parametrize(
    ("log_every_steps", "save_every_tokens", "message"),
    [(1, 3_000, "the loss is nan at step 9"), (100, 2_000, "is not finite after step 8")],
)
def test_a_run_that_diverges_stops_and_keeps_the_checkpoint_before(
    shards, tmp_path, monkeypatch, log_every_steps, save_every_tokens, message
):
    diverge_after(monkeypatch, 7)
    with pytest.raises(TrainingError, match=message):
        pretrain(config(shards, tmp_path / "run", log_every_steps=log_every_steps, save_every_tokens=save_every_tokens))
    tensors, _ = load_state(latest_state(tmp_path / "run" / "checkpoints"))
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"micro_batch_tokens": 500}, "micro_batch_tokens=500 is no multiple of phases.0.length=64; try 448"),
        ({"phases": ()}, "phases is empty"),
        ({"phases": (Phase(tokens=1, length=64, weights=(1, 2)),)}, "phases.0.weights=1,2 do not fit shards="),
        (
            {"phases": (Phase(tokens=100, length=64, warmup_tokens=20, decay_tokens=90),)},
            "phases.0: warmup_tokens=20 and decay_tok",
        ),
        ({"phases": (Phase(tokens=1, length=16_384),), "micro_batch_tokens": 16_384}, "longer than max_position_embeddings=8192"),
    ],
)
def test_settings_that_do_not_fit_are_named(shards, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        pretrain(config(shards, tmp_path / "run", **changes))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("Phase(tokens=0)", "tokens=0: at least 1 is needed"),
        ("Phase(tokens=1, long_from=(9, 9), long_times=(2, 3))", "wanted ascending lengths and a number for each"),
        ("Phase(tokens=1, long_from=(9,))", "wanted ascending lengths and a number for each"),
        ("Phase(tokens=1, weights=(1.0, -1.0))", "none below 0 is possible"),
        ("Phase(tokens=1, mask_rate=2.0)", "mask_rate=2.0: at most 1 is possible"),
        ("Phase(tokens=1, mask_rate=math.nan)", "mask_rate=nan: a finite number is needed"),
        ("OptimizerConfig(lr=math.inf)", "lr=inf: a finite number is needed"),
        ("Phase(tokens=1, mask_share=0.9, random_share=0.2)", "mask_share=0.9 and random_share=0.2: together at most 1"),
        ("Phase(tokens=1, global_rope_theta=-5.0)", "global_rope_theta=-5.0: at least 1 is needed"),
        ("Phase(tokens=1, global_rope_factor=0.5)", "global_rope_factor=0.5: at least 1 is needed"),
        ("OptimizerConfig(betas=(0.9, 1.0))", "betas=(0.9, 1.0): at most 0.999999 is possible"),
        ("OptimizerConfig(lr=-1.0)", "lr=-1.0: at least 0 is needed"),
        ("config('shards', 'out', keep_checkpoints=0)", "keep_checkpoints=0: at least 1 is needed"),
        ("config('shards', 'out', save_every_tokens=0)", "save_every_tokens=0: at least 1 is needed"),
        ("config('shards', 'out', seed=-1)", "seed=-1: at least 0 is needed"),
        ("dataclasses.replace(MODEL, attention_dropout=2.0)", "attention_dropout=2.0: at most 1 is possible"),
        ("dataclasses.replace(MODEL, initializer_range=0.0)", "initializer_range=0.0: at least 1e-09 is needed"),
    ],
)
def test_a_setting_outside_its_limits_is_refused_before_anything_is_written(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        eval(settings)


@pytest.mark.parametrize("micro_batches", [2, 8])
def test_a_run_does_not_depend_on_how_its_steps_are_cut(shards, tmp_path, micro_batches):
    """A step's loss is over all of its labels. The mean of its micro-batches' means is off by 2.6e-3 within eight steps; float32 sums in
    another order by less than 1e-4."""
    model = dataclasses.replace(MODEL, attention_dropout=0.0)
    phases = (Phase(tokens=4_000, length=64, mask_rate=0.15),)
    curves = []
    for count in (1, micro_batches):
        cut = {"micro_batch_tokens": 512 // count, "micro_batches": count, "log_every_steps": 1}
        pretrain(config(shards, tmp_path / str(count), model=model, phases=phases, save_every_tokens=10**9, **cut))
        curves.append(read_log(tmp_path / str(count))[0])
    assert [line["tokens"] for line in curves[0]] == [line["tokens"] for line in curves[1]]
    assert [line["loss"] for line in curves[1]] == pytest.approx([line["loss"] for line in curves[0]], abs=1e-4)


def test_the_gradient_does_not_depend_on_how_the_batch_is_cut():
    """Summed losses over one count of labels: micro-batches add up to the whole batch, within float32 rounding (1e-6 relative)."""
    config = dataclasses.replace(MODEL, attention_dropout=0.0, vocab_size=64, layer_types=())
    model = MaskedLM(config).double()
    init_weights(model, config, torch.Generator().manual_seed(0))
    rows = [torch.randint(0, 64, (n,)).tolist() for n in (5, 90, 1, 40)]

    def gradient(parts):
        model.zero_grad()
        for part in parts:
            batch = pack(part)
            every_second = torch.arange(0, len(batch.ids_T), 2)
            labels_M = torch.where(batch.ids_T[every_second] % 3 == 0, -100, batch.ids_T[every_second].long())
            loss, _ = MaskedLMLoss(model)(batch, every_second, labels_M)
            (loss / 100).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    # rows begin at even places in both cuts, so the same tokens are predicted
    rows[0] += [1]
    rows[2] += [1]
    whole, cut = gradient([rows]), gradient([rows[:1], rows[1:3], rows[3:]])
    assert ((whole - cut).norm() / whole.norm()).item() < 1e-6
