"""The mean of checkpoints, against plain arithmetic on their tensors."""

import pytest
import torch

from modernbert.checkpoint.folder import load_model
from modernbert.checkpoint.settings import read_config
from modernbert.checkpoint.training_state import load_state, save_state, state_folder
from modernbert.errors import CheckpointError
from modernbert.model.heads import MaskedLM
from modernbert.model.init import init_weights
from modernbert.train.average import average


@pytest.fixture
def run(tmp_path, tiny_folder):
    """A finished run's folder with checkpoints of steps 1 to 3."""
    (tmp_path / "model").symlink_to(tiny_folder)
    config = read_config(tiny_folder)
    for step in (1, 2, 3):
        model = MaskedLM(config)
        init_weights(model, config, torch.Generator().manual_seed(step))
        save_state(state_folder(tmp_path / "checkpoints", step), {f"model.{n}": p for n, p in model.named_parameters()}, {})
    return tmp_path


@pytest.mark.parametrize("steps", [[], [1, 3], [2]])
def test_the_mean_is_taken_over_the_checkpoints_that_are_named(run, tmp_path, steps):
    used = average(run, tmp_path / "mean", steps)
    assert [int(folder.name[-6:]) for folder in used] == (steps or [1, 2, 3])
    states = [load_state(folder)[0] for folder in used]
    for name, parameter in load_model(MaskedLM, tmp_path / "mean").named_parameters():
        wanted = torch.stack([state[f"model.{name}"] for state in states]).mean(0)
        torch.testing.assert_close(parameter.detach(), wanted, rtol=1e-6, atol=1e-6)  # float32, summed in another order


def test_a_checkpoint_that_is_not_there_is_named(run, tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoints of the steps \[7\] in .*there are \[1, 2, 3\]"):
        average(run, tmp_path / "mean", [1, 7])


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoints in .*nowhere; wanted the folder of a pre-training run"):
        average(tmp_path / "nowhere", tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_three_best_and_the_last_are_chosen_by_their_validation_loss(run, tmp_path):
    for step, loss in ((1, 2.0), (2, 5.0), (3, 4.0), (4, 3.0), (5, 9.0)):
        tensors, _ = load_state(state_folder(run / "checkpoints", min(step, 3)))
        save_state(state_folder(run / "checkpoints", step), tensors, {"validation_loss": loss})
    assert [int(folder.name[-6:]) for folder in average(run, tmp_path / "mean", best=3)] == [1, 4, 3, 5]
    with pytest.raises(
        CheckpointError, match=r"wanted 5 checkpoints beside the last with a validation_loss, found 4 in .*keep_best=6"
    ):
        average(run, tmp_path / "mean", best=5)
