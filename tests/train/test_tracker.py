"""TensorBoard's files, read back by TensorBoard itself."""

import sys

import pytest
import torch

from modernbert.errors import MissingExtraError
from modernbert.train.distributed import World
from modernbert.train.log import Log
from modernbert.train.state import Progress
from modernbert.train.tracker import Tracker


def scalars(folder):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reading.EventAccumulator(str(folder)).Reload()
    return {name: [(event.step, round(event.value, 4)) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_a_resumed_run_shows_each_step_once(tmp_path):
    pytest.importorskip("tensorboard")
    killed = Tracker(tmp_path, 0)
    for step in (1, 2, 3):
        killed.add({"step": step, "loss": 1.0 * step, "epochs": [0.5, 0.25], "phase": "words are no numbers"})
    killed.close()
    resumed = Tracker(tmp_path, 2)  # the last checkpoint was of step 2
    resumed.add({"step": 3, "loss": 9.0, "epochs": [0.6, 0.3]})
    resumed.close()
    assert scalars(tmp_path) == {
        "loss": [(1, 1.0), (2, 2.0), (3, 9.0)],
        "epochs/0": [(1, 0.5), (2, 0.5), (3, 0.6)],
        "epochs/1": [(1, 0.25), (2, 0.25), (3, 0.3)],
    }


def test_the_log_writes_it_only_when_asked(tmp_path):
    pytest.importorskip("tensorboard")
    world = World(device=torch.device("cpu"))
    for name, wanted in (("with", True), ("without", False)):
        (tmp_path / name).mkdir()
        log = Log(tmp_path / name / "log.jsonl", 100, Progress(), world, tensorboard=wanted)
        log.validated(Progress(step=7, tokens=70), 2.5, 0.5)
        log.close()
        assert (tmp_path / name / "tensorboard").exists() == wanted
    assert scalars(tmp_path / "with" / "tensorboard")["validation_loss"] == [(7, 2.5)]


def test_without_the_package_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"tensorboard=True needs a package: pip install 'modernbert\[tensorboard\]'"):
        Tracker(tmp_path, 0)
