"""Two gloo processes on the CPU against one: the curve, the weights, one step's gradient, and checkpoints that change hands.

One start of torchrun makes all that is compared, because starting takes longer than training.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modernbert.checkpoint.training_state import latest_state, load_state
from modernbert.config import ModelConfig
from modernbert.data.documents import Document
from modernbert.data.loader import Loader
from modernbert.data.shard_writing import write_shards
from modernbert.data.shards import TokenShards
from modernbert.model.heads import MaskedLM
from modernbert.model.init import init_weights
from modernbert.model.losses import IGNORE, MaskedLMLoss
from modernbert.text.train import train_tokenizer
from modernbert.train.distributed import World
from modernbert.train.optimizers import OptimizerConfig
from modernbert.train.pretrain import pretrain
from modernbert.train.report import read_log
from modernbert.train.settings import Phase, PretrainConfig

# dropout's draws depend on which rows share a process
MODEL = ModelConfig(num_hidden_layers=4, hidden_size=32, intermediate_size=32, num_attention_heads=1)
RATE = 1e-2

TWO = """
import sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
import torch
import torch.distributed as dist
from test_distributed import config, gradient
from modernbert.train.distributed import World, join
from modernbert.train.pretrain import pretrain

torch.set_num_threads(1)
leave, World.leave = World.leave, lambda world: None  # one connection for all of the runs
data, runs = sys.argv[3], Path(sys.argv[4])
for name, changes in {"ddp": {}, "fsdp": {"shard_weights": True}, "taken_over": {"shard_weights": True}}.items():
    pretrain(config(data, runs / name, micro_batches=2, **changes))
world = join("cpu")
sent = {name: gradient(data, world, shard) for name, shard in (("ddp", False), ("fsdp", True))}
if world.leads:
    torch.save(sent, runs / "gradients.pt")
leave(world)
"""


def config(shards, out, **changes):
    phases = (Phase(tokens=3_000, length=64, warmup_tokens=1_000), Phase(tokens=3_000, length=128, decay_tokens=3_000))
    settings = {"micro_batch_tokens": 256, "micro_batches": 4, "log_every_steps": 1, "save_every_tokens": 1_500}
    return PretrainConfig(
        model=MODEL,
        shards=(str(shards),),
        out=str(out),
        phases=phases,
        optimizer=OptimizerConfig(lr=RATE),
        compute_dtype="float32",
        compile=False,
        device="cpu",
        keep_checkpoints=9,
        **(settings | changes),
    )


def gradient(folder, world, shard):
    """Of one step over 1,024 tokens in all, in two micro-batches on each process."""
    shards = TokenShards.open(folder)
    model = MaskedLM(MODEL.with_(vocab_size=shards.manifest.vocab_size))
    init_weights(model, model.config, torch.Generator().manual_seed(0))
    loss_of = MaskedLMLoss(model)
    loss_of = world.shard(loss_of, model.model.layers) if shard else world.parallel(loss_of)
    rows = 1024 // 64 // 2 // world.size
    batches = iter(Loader(shards, length=64, rows_per_batch=rows, mask_rate=0.3, seed=0, rank=world.rank, world=world.size))
    two = [next(batches)[0] for _ in range(2)]
    labels = world.sum(sum((batch.labels_M != IGNORE).sum() for batch in two))
    with world.without_sync(loss_of):
        (loss_of(two[0].batch, two[0].masked_M, two[0].labels_M)[0] * world.size / labels).backward()
    (loss_of(two[1].batch, two[1].masked_M, two[1].labels_M)[0] * world.size / labels).backward()
    grads = [p.grad.full_tensor() if shard and world.size > 1 else p.grad for p in model.parameters()]
    return torch.cat([grad.flatten() for grad in grads])


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shards"
    texts = [" ".join(f"{n} and {n + k} make {2 * n + k}." for k in range(2 + n % 9)) for n in range(300)]
    write_shards((Document(text=text, source="sums") for text in texts), train_tokenizer(texts, 384), folder)
    return folder


@pytest.fixture(scope="module")
def runs(shards, tmp_path_factory):
    """The folders of one run by one process, and of the same run by two: with whole weights, with parts of them, and gone on with."""
    folder = tmp_path_factory.mktemp("runs")
    pretrain(config(shards, folder / "one"))
    begin_anew_from_the_first_checkpoint(folder / "one", folder / "taken_over")
    script = folder / "two.py"
    script.write_text(TWO)
    here = Path(__file__).parent
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, str(script), str(here), str(here.parents[1]), str(shards), str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder


def begin_anew_from_the_first_checkpoint(run, copy):
    shutil.copytree(run, copy)
    (copy / "config.json").unlink()  # another out, and as many micro-batches on each of other processes
    for state in sorted((copy / "checkpoints").iterdir())[1:]:
        shutil.rmtree(state)


def assert_the_same(run, other):
    """float32 sums are taken in another order: losses agree to 1e-4, weights to a few hundredths of an update a step."""
    curves = [read_log(folder)[0] for folder in (run, other)]
    assert [(line["step"], line["tokens"]) for line in curves[0]] == [(line["step"], line["tokens"]) for line in curves[1]]
    for one, two in zip(*curves, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-4)
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in (run, other))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=0.02 * RATE * len(curves[0]))


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_processes_give_the_curve_and_the_weights_of_one(runs, name):
    assert_the_same(runs / "one", runs / name)


def test_processes_that_hold_parts_take_over_the_run_of_one_that_held_all(runs):
    assert_the_same(runs / "one", runs / "taken_over")


def test_one_process_takes_over_the_run_of_two_that_held_parts(runs, shards, tmp_path):
    begin_anew_from_the_first_checkpoint(runs / "fsdp", tmp_path / "back")
    pretrain(config(shards, tmp_path / "back"))
    assert_the_same(runs / "one", tmp_path / "back")


def test_checkpoints_of_parts_hold_whole_tensors(runs):
    one, parts = (load_state(latest_state(runs / name / "checkpoints"))[0] for name in ("one", "fsdp"))
    assert {name: tensor.shape for name, tensor in one.items()} == {name: tensor.shape for name, tensor in parts.items()}


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_the_gradient_does_not_depend_on_how_many_processes_share_the_rows(runs, shards, name):
    """Relative norm of the difference within 1e-6, float32."""
    alone = gradient(shards, World(device=torch.device("cpu")), False)
    shared = torch.load(runs / "gradients.pt")[name]
    assert ((alone - shared).norm() / alone.norm()).item() < 1e-6
