"""Which way of beginning a deeper model from a trained one starts lower: layers of the same kind, or the reference's crossing map.

    modernbert prepare tokens TEXTS --tokenizer tiny -o shards
    python dev/tiling_start.py shards runs > record.json

A trained model (the packaged `tiny`) is tiled to the depth and width that ModernBERT-large has beside base, 28 layers for 22 and 1,024 for
768, in both ways, and its training loss is taken step by step on the same rows and masks, with several seeds. A random start stands beside.
"""

import argparse
import dataclasses
import json
import statistics
from pathlib import Path

from modernbert.bench.record import environment
from modernbert.checkpoint.names import resolve
from modernbert.checkpoint.settings import read_config
from modernbert.config import ModelConfig
from modernbert.engine.hardware import choose_device
from modernbert.model.tiling import layer_map
from modernbert.train.optimizers import OptimizerConfig
from modernbert.train.pretrain import pretrain
from modernbert.train.report import read_log
from modernbert.train.settings import Phase, PretrainConfig

STARTS = {"same kind": True, "crossing": False, "random": None}
ENDS = (1, 2, 5, 10, 20, 50, 100)


def larger(small: ModelConfig) -> ModelConfig:
    """What large is to base, in whole heads."""
    heads = round(small.num_attention_heads * 4 / 3)
    return small.with_(
        num_hidden_layers=round(small.num_hidden_layers * 28 / 22),
        hidden_size=heads * small.head_dim,
        num_attention_heads=heads,
        intermediate_size=small.intermediate_size * 4 // 3,
        layer_types=(),
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("shards")
    options.add_argument("runs", type=Path)
    options.add_argument("--model", default="tiny")
    options.add_argument("--steps", type=int, default=100)
    options.add_argument("--step-tokens", type=int, default=65_536)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--device", default="auto")
    chosen = options.parse_args()
    small = read_config(resolve(chosen.model))
    large = larger(small)
    on_cpu = choose_device(None if chosen.device == "auto" else chosen.device).type == "cpu"

    def losses(start: str, seed: int) -> list[float]:
        tokens = chosen.steps * chosen.step_tokens
        phase = Phase(tokens=tokens, mask_rate=0.2, mask_share=1.0, random_share=0.0, warmup_tokens=tokens // 10)
        config = PretrainConfig(
            model=large,
            shards=(chosen.shards,),
            out=str(chosen.runs / f"{start.replace(' ', '-')}-{seed}"),
            phases=(phase,),
            optimizer=OptimizerConfig(lr=1e-3),
            micro_batch_tokens=chosen.step_tokens,
            compute_dtype="float32" if on_cpu else "bfloat16",
            compile=False,
            device=chosen.device,
            seed=seed,
            save_every_tokens=10**15,
            log_every_steps=1,
        )
        if STARTS[start] is not None:
            config = dataclasses.replace(config, begin_from=chosen.model, keep_type=STARTS[start])
        run = pretrain(config).parent
        return [line["loss"] for line in read_log(run)[0]]

    crossed = [large.layer_types[i] != small.layer_types[j] for i, j in enumerate(layer_map(large, small, keep_type=False))]
    print(
        json.dumps(
            {
                "subject": "tiling",
                "environment": environment("torch"),
                "from": f"{chosen.model}: {small.num_hidden_layers} layers of {small.hidden_size}",
                "to": f"{large.num_hidden_layers} layers of {large.hidden_size}, {sum(crossed)} of them crossing",
                "step_tokens": chosen.step_tokens,
                "losses": {
                    f"{start}, seed {seed}": means(losses(start, seed)) for start in STARTS for seed in range(chosen.seeds)
                },
            },
            indent=1,
        )
    )


def means(losses: list[float]) -> dict[str, float]:
    """Mean losses of the steps up to each of ENDS, from the one before.

    >>> means([4.0, 3.0, 2.0, 1.0, 0.0])
    {'1': 4.0, '2': 3.0, '3–5': 1.0}
    """
    found, begin = {}, 0
    for end in ENDS:
        if end <= len(losses):
            name = str(end) if end == begin + 1 else f"{begin + 1}–{end}"
            found[name], begin = round(statistics.mean(losses[begin:end]), 4), end
    return found


if __name__ == "__main__":
    main()
