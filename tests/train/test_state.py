"""Checkpoints that a thread writes: what they hold, which stay, and how a failure comes up."""

import threading

import pytest
import torch

import modernbert.train.state as state
from modernbert.checkpoint.folder import load_model
from modernbert.checkpoint.training_state import latest_state, load_state
from modernbert.errors import CheckpointError, TrainingError
from modernbert.model.heads import MaskedLM
from modernbert.text.tokenizer import Tokenizer
from modernbert.train.claim import claim
from modernbert.train.distributed import World
from modernbert.train.log import Log
from modernbert.train.optimizers import OptimizerConfig, build_optimizers
from modernbert.train.state import Checkpoints, Progress


@pytest.fixture
def made(tiny_folder, tmp_path):
    """Checkpoints of a model that has taken a step, and the model."""
    model = load_model(MaskedLM, tiny_folder, dtype=torch.float32)
    optimizers = build_optimizers(model, OptimizerConfig())
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizers[0].step()
    world = World(device=torch.device("cpu"))
    tokenizer = Tokenizer.load(tiny_folder)
    return Checkpoints(tmp_path / "run", model, optimizers, tokenizer, world, keep=1, keep_best=2), model


def test_training_goes_on_while_a_checkpoint_of_before_is_written(made, monkeypatch):
    checkpoints, model = made
    may_write, write = threading.Event(), state.save_state
    monkeypatch.setattr(state, "save_state", lambda *args: may_write.wait(20) and write(*args))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with checkpoints:
        checkpoints.save(Progress(step=1), None)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(1)
        assert latest_state(checkpoints.folder) is None
        may_write.set()
    tensors, _ = load_state(latest_state(checkpoints.folder))
    assert all(torch.equal(tensors[f"model.{name}"], p) for name, p in before.items())
    written = dict(load_model(MaskedLM, checkpoints.run / "model").named_parameters())
    assert all(torch.equal(written[name], p) for name, p in before.items())


def test_a_full_disk_comes_up_at_the_next_step_and_the_checkpoint_before_stays(made):
    resource = pytest.importorskip("resource")
    checkpoints, _ = made
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints.save(Progress(step=1), None)
    checkpoints.writing.result()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, limit[1]))  # bytes of a file: what a full disk says, on any machine
    try:
        checkpoints.save(Progress(step=2), None)
        checkpoints.writing.exception()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    with pytest.raises(CheckpointError, match=r"cannot write state\.safetensors into .*make room"):
        checkpoints.check()
    assert latest_state(checkpoints.folder).name == "step-000001"


@pytest.mark.parametrize("write", ["log", "tokenizer", "settings"])
def test_a_full_disk_names_the_file_that_could_not_be_written(write, tiny_folder, tmp_path):
    resource = pytest.importorskip("resource")
    tokenizer, world = Tokenizer.load(tiny_folder), World(device=torch.device("cpu"))
    writes = {
        "log": lambda: Log(tmp_path / "log.jsonl", 1, Progress(), world),
        "tokenizer": lambda: tokenizer.save(tmp_path),
        "settings": lambda: claim(tmp_path, {"seed": 0}, ()),
    }
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        with pytest.raises(OSError) as error:
            writes[write]()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    named = {"log": "log.jsonl", "tokenizer": "tokenizer.json", "settings": ""}
    assert error.value.filename == str(tmp_path / named[write])
    assert not (tmp_path / "tokenizer.json").exists() and not (tmp_path / "config.json").exists()


def test_a_failure_of_the_last_checkpoint_comes_up_at_the_end(made):
    checkpoints, model = made
    with torch.no_grad():
        next(model.parameters())[0] = torch.nan
    with pytest.raises(TrainingError, match=r"tok_embeddings\.weight is not finite after step 7"), checkpoints:
        checkpoints.save(Progress(step=7), None)


def test_the_best_by_validation_and_the_newest_stay(made):
    checkpoints, _ = made
    with checkpoints:
        for step, loss in enumerate([3.0, 1.0, 2.0, 4.0, 5.0]):
            checkpoints.save(Progress(step=step), loss)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step-000001", "step-000002", "step-000004"]
