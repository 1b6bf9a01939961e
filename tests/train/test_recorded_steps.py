"""Pre-training steps of a small model as CUDA graphs: where they are used, and that they learn the same."""

import dataclasses
import subprocess
import sys

import pytest
import torch

import modernbert.train.pretrain as loop
from modernbert.config import ModelConfig
from modernbert.data.documents import Document
from modernbert.data.shard_writing import write_shards
from modernbert.model.heads import MaskedLM
from modernbert.text.train import train_tokenizer
from modernbert.train.distributed import World
from modernbert.train.report import read_log
from modernbert.train.settings import Phase, PretrainConfig

MODEL = ModelConfig(num_hidden_layers=4, hidden_size=32, intermediate_size=32, num_attention_heads=1)


def test_steps_are_recorded_only_where_one_process_has_a_small_model_on_a_gpu_and_one_micro_batch(monkeypatch):
    gpu, small, one = (
        World(device=torch.device("cuda")),
        MaskedLM(MODEL),
        PretrainConfig(model=MODEL, shards=("text",), out="run", phases=(Phase(tokens=6_000),)),
    )
    assert loop.replays_steps(small, one, gpu)
    assert not loop.replays_steps(small, one, World(device=torch.device("cpu")))
    assert not loop.replays_steps(small, one, World(device=gpu.device, size=2))
    assert not loop.replays_steps(small, dataclasses.replace(one, micro_batches=2), gpu)
    slowed = Phase(tokens=6_000, length=64, global_rope_factor=2.0)
    assert not loop.replays_steps(small, dataclasses.replace(one, phases=(slowed,)), gpu)
    monkeypatch.setattr("modernbert.train.replay.MOST_PARAMETERS", 1000)
    assert not loop.replays_steps(small, one, gpu)


RECORDED = """
import json, sys
import torch
from torch._dynamo.utils import counters
import modernbert.train.pretrain as loop
from modernbert.config import ModelConfig
from modernbert.train.settings import Phase, PretrainConfig

shards, out, recorded = sys.argv[1], sys.argv[2], sys.argv[3] == "recorded"
if not recorded:
    loop.replays_steps = lambda *_: False
model = ModelConfig(num_hidden_layers=4, hidden_size=64, intermediate_size=64, num_attention_heads=1)
phases = (Phase(tokens=10_000, length=64, warmup_tokens=1_000),)
loop.pretrain(PretrainConfig(model=model, shards=(shards,), out=out, phases=phases, micro_batch_tokens=512, log_every_steps=2))
assert not recorded or counters["inductor"]["cudagraph_skips"] == 0, dict(counters["inductor"])
"""


@pytest.mark.gpu
def test_recorded_steps_learn_what_started_ones_do(tmp_path):
    """The same kernels in the same order; 2 % are for sums whose order the GPU chooses, over 20 steps. In processes of their own, as the
    compiler does not read functions whose types are checked."""
    texts = [" ".join(f"{i} and {j} make {i + j}." for j in range(i % 9 + 1)) for i in range(300)]
    write_shards((Document(text=text, source="sums") for text in texts), train_tokenizer(texts, 384), tmp_path / "shards")
    losses = []
    for kind in ("recorded", "started"):
        subprocess.run([sys.executable, "-c", RECORDED, str(tmp_path / "shards"), str(tmp_path / kind), kind], check=True)
        losses.append([line["loss"] for line in read_log(tmp_path / kind)[0]])
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and len(losses[0]) >= 8
