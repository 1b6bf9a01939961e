"""Which way of beginning a deeper model from a smaller one starts lower: layers of the same kind, or the reference's crossing map.

    python dev/tiling_start.py SHARDS TOKENS_OF_THE_BASE TOKENS_AFTER RUNS > record.json

Trains a toy base (10 layers, every third global), tiles it to 13 layers and a greater width in both ways, and gives the training loss
of each over its first steps, on the same rows and masks, with two seeds. A random start stands beside them.
"""

import dataclasses
import json
import sys
from pathlib import Path

import torch

from modernbert.bench.record import environment
from modernbert.config import ModelConfig
from modernbert.train.optimizers import OptimizerConfig
from modernbert.train.pretrain import pretrain
from modernbert.train.report import read_log
from modernbert.train.settings import Phase, PretrainConfig

SMALL = ModelConfig(
    num_hidden_layers=10,
    hidden_size=128,
    intermediate_size=192,
    num_attention_heads=2,
    initializer_range=0.08,
    local_attention=32,
)
LARGE = SMALL.with_(num_hidden_layers=13, hidden_size=192, num_attention_heads=3, intermediate_size=288)


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[4])
    tokens, more = int(float(sys.argv[2])), int(float(sys.argv[3]))

    def run(name: str, **changes: object) -> list[float]:
        config = PretrainConfig(
            model=SMALL,
            shards=(sys.argv[1],),
            out=str(folder / name),
            phases=(Phase(tokens=tokens, length=256, mask_rate=0.2, warmup_tokens=20_000),),
            optimizer=OptimizerConfig(lr=3e-3),
            micro_batch_tokens=1024,
            compute_dtype="float32",
            compile=False,
            device="cpu",
            save_every_tokens=10**9,
            log_every_steps=2,
        )
        pretrain(dataclasses.replace(config, **changes))
        return [line["loss"] for line in read_log(folder / name)[0]]

    base = run("base")
    record = {"subject": "tiling", "environment": environment("torch"), "base_tokens": tokens, "base_last_loss": base[-1]}
    short = (Phase(tokens=more, length=256, mask_rate=0.2, warmup_tokens=more // 2),)
    for seed in (1, 2):
        for name, changes in {
            "same_kind": {"begin_from": str(folder / "base" / "model"), "keep_type": True},
            "crossing": {"begin_from": str(folder / "base" / "model"), "keep_type": False},
            "random": {},
        }.items():
            if name == "random" and seed > 1:
                continue
            losses = run(f"{name}-{seed}", model=LARGE, phases=short, seed=seed, **changes)
            record[f"{name}, seed {seed}, mean loss of each 2 steps"] = losses
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
