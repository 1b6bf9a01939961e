from pathlib import Path

import pytest
from click.testing import CliRunner

import modernbert.train.pretrain
from modernbert.cli import main
from modernbert.cli.overrides import describe, with_settings, write_value
from modernbert.cli.recipe_group import recipes_of
from modernbert.train.settings import check

RECIPES = recipes_of("modernbert.recipes.pretrain")
SIZES = ("17m", "32m", "68m", "150m", "400m", "1b")


def run(*arguments):
    return CliRunner().invoke(main, ["pretrain", *arguments])


def test_a_recipe_runs_with_its_settings_and_says_where_the_model_is(monkeypatch):
    runs = []
    monkeypatch.setattr(modernbert.train.pretrain, "pretrain", lambda config: runs.append(config) or Path("here/model"))
    done = run("first_result", "phases.0.tokens=2e3", "out=here", "model.hidden_size=64")
    assert done.stdout == f"{Path('here/model')}\n"
    recipe = RECIPES["first_result"]()
    assert (recipe.phases[0].tokens, recipe.out, recipe.model.hidden_size) != (2000, "here", 64)
    assert (runs[0].phases[0].tokens, runs[0].out, runs[0].model.hidden_size) == (2000, "here", 64)


def test_help_lists_the_recipes_and_each_recipe_its_settings():
    listed = run("--help").stdout
    assert all(name in listed for name in RECIPES)
    shown = " ".join(run("first_result", "--help").stdout.split())
    assert "micro_batch_tokens=1_024 int. Tokens that go through the model at once" in shown


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_of_every_recipe_can_be_written_as_its_help_shows_it(name):
    config = RECIPES[name]()
    assert with_settings(config, [f"{key}={write_value(value)}" for key, _, value, _ in describe(config)]) == config


def test_an_unknown_recipe_names_the_nearest():
    done = run("fist_result")
    assert done.exit_code == 2
    assert done.stderr.startswith("modernbert: no recipe named 'fist_result'; did you mean 'first_result'? There are ")


def test_an_unknown_setting_names_the_nearest():
    done = run("first_result", "model.globl_attn_every_n_layers=2")
    wanted = "no setting named 'model.globl_attn_every_n_layers'; did you mean 'model.global_attn_every_n_layers'?"
    assert (done.exit_code, done.stderr) == (2, f"modernbert: {wanted}\n")


@pytest.mark.parametrize(
    ("name", "gpus", "rows"), [("base", 8, 4608), ("large", 8, 4928), *((f"ettin_{size}", 4, 4608) for size in SIZES)]
)
def test_a_published_recipe_has_the_published_step_and_two_trillion_tokens(name, gpus, rows):
    config = RECIPES[name]()
    assert config.micro_batch_tokens * config.micro_batches * gpus == rows * 1024
    check(config)
    trained = {"ettin_1b": 1.7e12 + 100e9}.get(name, 2e12)
    assert sum(phase.tokens for phase in config.phases) == pytest.approx(trained, rel=0.01)
    assert config.phases[-1].length == 8192 and config.phases[-1].rate(config.phases[-1].tokens) < 0.05
    assert [config.phases[i].global_rope_theta for i in (0, -1)] == [None, 160_000.0]
