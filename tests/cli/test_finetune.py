import dataclasses
import json

import pytest
from click.testing import CliRunner

from modernbert.cli import main
from modernbert.cli.overrides import describe, with_settings, write_value
from modernbert.cli.recipe_group import recipes_of

RECIPES = recipes_of("modernbert.recipes.finetune", "modernbert.recipes.retrieval")


def run(*arguments):
    return CliRunner().invoke(main, ["finetune", *map(str, arguments)])


def test_a_csv_file_becomes_a_model_and_a_table(tiny_folder, tmp_path):
    for name, word in (("train", "is"), ("dev", "was")):
        (tmp_path / f"{name}.csv").write_text(f"sentence,kind\nParis {word} fine,good\nRome {word} far,bad\n")
    settings = [f"train={tmp_path}/train.csv", f"dev={tmp_path}/dev.csv", "task.text=sentence", "task.label=kind", "epochs=1"]
    done = run("classification", tiny_folder, *settings, f"out={tmp_path}/out", "seeds=0,1", "device=cpu")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("| lr | seeds | epoch | accuracy |") and lines[2].startswith("| 0.00032 | 2 |")
    assert lines[-1] == f"{tmp_path}/out/model"
    assert json.loads((tmp_path / "out" / "model" / "config.json").read_text())["id2label"] == {"0": "bad", "1": "good"}

    done = run("classification", tiny_folder, *settings, f"out={tmp_path}/json", "device=cpu", "--json")
    assert json.loads(done.stdout)["best"]["scores"].keys() >= {"accuracy", "f1"}


@pytest.mark.parametrize(
    ("recipe", "width", "rates", "epochs"),
    [
        ("classification", 384, (3.2e-4,), 9),
        ("question_answering", 512, (1.125e-4,), 4),
        ("sst2", 768, (8e-5,), 2),
        ("rte", 1024, (5e-5,), 3),
    ],
)
def test_narrow_models_get_greater_rates_and_more_epochs_than_base_and_wide_ones_the_same(recipe, width, rates, epochs):
    config = RECIPES[recipe]().for_width(width)
    assert config.learning_rates == pytest.approx(rates, rel=1e-2) and config.epochs == epochs
    assert dataclasses.replace(config, learning_rates=(1.0,), epochs=1) == dataclasses.replace(
        RECIPES[recipe](), learning_rates=(1.0,), epochs=1
    )


def test_settings_that_are_given_are_taken_as_they_are_for_a_narrow_model_and_retrievers_as_their_recipe_says(monkeypatch):
    asked = []
    monkeypatch.setattr("modernbert.train.finetune.finetune", lambda config, model: asked.append(config) or 1 / 0)
    run("classification", "tiny", "learning_rates=5e-5")
    assert (asked[0].learning_rates, asked[0].epochs) == ((5e-5,), 9)
    monkeypatch.setattr("modernbert.train.contrastive.train_retriever", lambda config, model: asked.append(config) or 1 / 0)
    run("dense", "tiny")
    assert asked[1] == RECIPES["dense"]()


def test_a_missing_file_and_an_unknown_recipe_are_one_line(tiny_folder, tmp_path):
    done = run("classification", tiny_folder, f"train={tmp_path}/no.csv")
    assert (done.exit_code, done.stderr) == (2, f"modernbert: no file {tmp_path}/no.csv; check the path\n")
    done = run("clasification", tiny_folder)
    assert done.exit_code == 2
    assert done.stderr.startswith("modernbert: no recipe named 'clasification'; did you mean 'classification'? There are ")
    done = run("tagging", tiny_folder, "task.wrods=tokens")
    assert done.stderr == "modernbert: no setting named 'task.wrods'; did you mean 'task.words'?\n"


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_of_every_recipe_can_be_written_as_its_help_shows_it(name):
    config = RECIPES[name]()
    assert with_settings(config, [f"{key}={write_value(value)}" for key, _, value, _ in describe(config)]) == config


def test_help_lists_the_recipes_and_each_recipe_its_settings():
    listed = run("--help").stdout
    assert all(name in listed for name in RECIPES)
    shown = " ".join(run("rte", "--help").stdout.split())
    assert "MODEL is the folder that `mnli` made" in shown and "task.text_pair=sentence2 str or None." in shown


def test_the_glue_recipes_are_the_published_settings():
    """Warner et al. 2024, app. E.1 (facts §3.1): learning rate, weight decay, epochs of the base model."""
    published = {
        "cola": (8e-5, 1e-6, 5),
        "sst2": (8e-5, 1e-5, 2),
        "mrpc": (5e-5, 5e-6, 10),
        "stsb": (8e-5, 5e-6, 10),
        "qqp": (5e-5, 5e-6, 10),
        "mnli": (5e-5, 5e-6, 1),
        "qnli": (8e-5, 5e-6, 2),
        "rte": (5e-5, 1e-5, 3),
    }
    for name, (rate, decay, epochs) in published.items():
        config = RECIPES[name]()
        assert (config.learning_rates, config.weight_decay, config.epochs) == ((rate,), decay, epochs)
