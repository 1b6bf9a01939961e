"""Kills a small run with SIGKILL at 20 random steps, one after the other, and compares what it ends with to the run left alone.

    python dev/kill_twenty.py > record.json
    python dev/kill_twenty.py --device cuda --compile --kills 5 > record.json      # with deterministic=True, in bf16
    python dev/kill_twenty.py --device cuda --loose > record.json                  # without

Bit for bit: every tensor that a resumed run begins with, and of the last checkpoint (weights and optimizer), the loader's place, every
batch (data and masks), and the log's losses. Without determinism a GPU's two runs differ in the end, and all else must be equal.
Some two minutes on one core; the tests run it with `--tokens 30000`, in fifteen seconds. Each start is a fork of one process that has
everything imported; the signal comes from within, in the middle of a step, with a checkpoint perhaps half written by its thread.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import random
import signal
import tempfile
from pathlib import Path

import torch
import torch._dynamo  # which the first optimizer imports: here once, in place of in every fork

import modernbert.train.pretrain as loop
from modernbert.bench.record import environment
from modernbert.checkpoint.training_state import latest_state, load_state
from modernbert.config import ModelConfig
from modernbert.data.documents import Document
from modernbert.data.shard_writing import write_shards
from modernbert.engine.hardware import environment as environment_of
from modernbert.text.train import train_tokenizer
from modernbert.train.optimizers import OptimizerConfig
from modernbert.train.report import read_log
from modernbert.train.settings import Phase, PretrainConfig
from modernbert.train.state import _state

MODEL = ModelConfig(num_hidden_layers=4, hidden_size=64, intermediate_size=96, num_attention_heads=1, attention_dropout=0.1)


def config(shards: Path, out: Path, tokens: int, device: str, compile: bool, deterministic: bool) -> PretrainConfig:
    """Two phases with dropout and 1,024 tokens a step, a checkpoint every 6 or so."""
    settings = PretrainConfig(
        model=MODEL,
        shards=(str(shards),),
        out=str(out),
        phases=(
            Phase(tokens=tokens // 2, length=128, warmup_tokens=min(10_000, tokens // 2)),
            Phase(tokens=tokens // 2, length=256, mask_rate=0.2, decay_tokens=tokens // 2, global_rope_theta=160_000.0),
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
        changes = {"deterministic": deterministic, "compile": compile, "compute_dtype": "bfloat16"}
        settings = dataclasses.replace(settings, device=device, **changes)
    return settings


def run_until(settings: PretrainConfig, step: int | None) -> bool:
    """Runs in a child, which kills itself in the middle of a step; whether it came to its end. What it read goes to `batches.jsonl`, and
    whether it began with the tensors of the checkpoint to `resumed.jsonl`."""
    child = os.fork()
    if not child:
        out, done = Path(settings.out), {"steps": 0}
        set_rates, resume, count = loop.set_learning_rates, loop.resume, loop.Log.count

        def resumed(checkpoints, model, optimizers):
            found = resume(checkpoints, model, optimizers)
            if found:
                done["steps"] = found[0].step
                written, held = load_state(found[1])[0], _state(model, optimizers)[0]
                same = written.keys() == held.keys() and all(torch.equal(x, held[name].cpu()) for name, x in written.items())
                _append(out / "resumed.jsonl", [found[0].step, same])
            return found

        def rates(*args):
            if step is not None and done["steps"] >= step:
                os.kill(os.getpid(), signal.SIGKILL)
            set_rates(*args)

        def counted(log, batches, labels):
            count(log, batches, labels)
            done["steps"] += 1
            seen = hashlib.sha256()
            for batch in batches:
                for x in (batch.batch.ids_T, batch.batch.cu_seqlens, batch.masked_M, batch.labels_M):
                    seen.update(x.numpy().tobytes())
            _append(out / "batches.jsonl", [done["steps"], seen.hexdigest()])

        loop.resume, loop.set_learning_rates, loop.Log.count = resumed, rates, counted
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        loop.pretrain(settings)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return status == 0


def _append(path: Path, line: list) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _lines(path: Path) -> list:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--tokens", type=int, default=300_000, help="of the run; a step has some 1,000")
    options.add_argument("--device", default="cpu")
    options.add_argument("--compile", action="store_true")
    options.add_argument("--loose", action="store_true", help="without deterministic=True")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(chosen.seed)
    work = tempfile.TemporaryDirectory()
    folder = Path(work.name)
    texts = [" ".join(f"{k * n} is {k} times {n}." for k in range(1 + n % 60)) for n in range(600)]
    write_shards((Document(text=text, source="sums") for text in texts), train_tokenizer(texts, 512), folder / "shards")
    alone, killed = (
        config(folder / "shards", folder / name, chosen.tokens, chosen.device, chosen.compile, not chosen.loose)
        for name in ("alone", "killed")
    )
    assert run_until(alone, None)
    steps = read_log(Path(alone.out))[0][-1]["step"]
    at = sorted(rng.sample(range(1, steps), chosen.kills))
    kills = [step for step in at if not run_until(killed, step)]
    assert run_until(killed, None)
    (one, values), (other, others) = (load_state(latest_state(Path(c.out) / "checkpoints")) for c in (alone, killed))
    batches = [_lines(Path(c.out) / "batches.jsonl") for c in (alone, killed)]
    begun = _lines(Path(killed.out) / "resumed.jsonl")
    losses = [[(line["step"], line["tokens"], line["loss"]) for line in read_log(Path(c.out))[0]] for c in (alone, killed)]
    record = {
        "subject": "resume after SIGKILL",
        "environment": environment("torch"),
        "device": environment_of(torch.device(chosen.device))["device"],
        "compiled": chosen.compile,
        "deterministic": not chosen.loose,
        "steps": steps,
        "killed_in_steps": kills,
        "resumed_with_the_tensors_of_the_checkpoint": [step for step, same in begun if same],
        "resumed_with_others": [step for step, same in begun if not same],
        "batches_and_masks_equal": all(batch in batches[0] for batch in batches[1]) and batches[0][-1] == batches[1][-1],
        "tensors": len(one),
        "tensors_equal_bit_for_bit": sum(torch.equal(one[name], other[name]) for name in one),
        "progress_and_optimizer_settings_equal": values == others,
        "losses_of_all_steps_equal": losses[0] == losses[1],
    }
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
