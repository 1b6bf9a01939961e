"""Kills a small run with SIGKILL at 20 random steps, one after the other, and compares what it ends with to the run left alone.

    python dev/kill_twenty.py > record.json
    python dev/kill_twenty.py --device cuda --compile --kills 5 > record.json      # with deterministic=True, in bf16

Bit for bit: every tensor of the last checkpoint (weights and optimizer), the loader's place, and the log's losses (data and masks).
Some three minutes on one core. Each start is a fork of one process that has everything imported; the signal comes from within, in
the middle of a step, with a checkpoint perhaps half written by its thread.
"""

import argparse
import dataclasses
import json
import os
import random
import signal
import tempfile
from pathlib import Path

import torch

import modernbert.train.pretrain as loop
from modernbert.bench.record import environment
from modernbert.checkpoint.training_state import latest_state, load_state
from modernbert.config import ModelConfig
from modernbert.data.documents import Document
from modernbert.data.shards import write_shards
from modernbert.engine.hardware import environment as environment_of
from modernbert.text.train import train_tokenizer
from modernbert.train.optimizers import OptimizerConfig
from modernbert.train.report import read_log
from modernbert.train.settings import Phase, PretrainConfig

MODEL = ModelConfig(num_hidden_layers=4, hidden_size=64, intermediate_size=96, num_attention_heads=1, attention_dropout=0.1)


def config(shards: Path, out: Path, device: str, compile: bool) -> PretrainConfig:
    """300 steps in two phases with dropout, a checkpoint every 6 or so."""
    settings = PretrainConfig(
        model=MODEL,
        shards=(str(shards),),
        out=str(out),
        phases=(
            Phase(tokens=150_000, length=128, warmup_tokens=10_000),
            Phase(tokens=150_000, length=256, mask_rate=0.2, decay_tokens=150_000, global_rope_theta=160_000.0),
        ),
        optimizer=OptimizerConfig(lr=3e-3),
        micro_batch_tokens=512,
        micro_batches=2,
        compute_dtype="float32",
        compile=False,
        device="cpu",
        save_every_tokens=6_000,
        log_every_steps=1,
    )
    if device != "cpu":
        settings = dataclasses.replace(settings, device=device, compute_dtype="bfloat16", deterministic=True, compile=compile)
    return settings


def run_until(settings: PretrainConfig, step: int | None) -> bool:
    """Runs in a child, which kills itself in the middle of a step; whether it came to its end."""
    child = os.fork()
    if not child:
        passed = iter(range(10**9))
        begins = {"at": 0}
        set_rates, resume = loop.set_learning_rates, loop.resume

        def resumed(*args):
            found = resume(*args)
            begins["at"] = found[0].step if found else 0
            return found

        def rates(*args):
            if step is not None and begins["at"] + next(passed) >= step:
                os.kill(os.getpid(), signal.SIGKILL)
            set_rates(*args)

        loop.resume, loop.set_learning_rates = resumed, rates
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        loop.pretrain(settings)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return status == 0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--device", default="cpu")
    options.add_argument("--compile", action="store_true")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(chosen.seed)
    folder = Path(tempfile.mkdtemp())
    texts = [" ".join(f"{k * n} is {k} times {n}." for k in range(1 + n % 60)) for n in range(600)]
    write_shards((Document(text=text, source="sums") for text in texts), train_tokenizer(texts, 512), folder / "shards")
    alone, killed = (config(folder / "shards", folder / name, chosen.device, chosen.compile) for name in ("alone", "killed"))
    assert run_until(alone, None)
    steps = read_log(Path(alone.out))[0][-1]["step"]
    at = sorted(rng.sample(range(1, steps), chosen.kills))
    kills = [step for step in at if not run_until(killed, step)]
    assert run_until(killed, None)
    (one, values), (other, others) = (load_state(latest_state(Path(c.out) / "checkpoints")) for c in (alone, killed))
    losses = [[(line["step"], line["tokens"], line["loss"]) for line in read_log(Path(c.out))[0]] for c in (alone, killed)]
    record = {
        "subject": "resume after SIGKILL",
        "environment": environment("torch"),
        "device": environment_of(torch.device(chosen.device))["device"],
        "compiled": chosen.compile,
        "steps": steps,
        "killed_in_steps": kills,
        "tensors": len(one),
        "tensors_equal_bit_for_bit": sum(torch.equal(one[name], other[name]) for name in one),
        "progress_and_optimizer_settings_equal": values == others,
        "losses_of_all_steps_equal": losses[0] == losses[1],
    }
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
