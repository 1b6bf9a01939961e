"""docs/finetune.md: every command that it shows exists, with the settings that it names."""

import re
from pathlib import Path

import click
import pytest

from modernbert.cli import main
from modernbert.cli.overrides import describe
from modernbert.cli.recipe_group import RecipeCommand
from modernbert.recipes.suites import development
from modernbert.train.finetune import FinetuneConfig

PAGE = (Path(__file__).parents[2] / "docs" / "finetune.md").read_text()
LINES = re.findall(r"^    (?:torchrun .* -m )?(modernbert .*)$", PAGE, re.MULTILINE)[1:]  # the first shows the form


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_the_page_exists_with_its_settings(line):
    command: click.Command = main
    words = line.split()[1:]
    context = click.Context(main)
    while isinstance(command, click.Group):
        command = command.get_command(context, words.pop(0))
        assert command is not None, line
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options
    if isinstance(command, RecipeCommand):
        settings = {key for key, *_ in describe(command.recipe())}
    elif command.name == "task":
        settings = {"text", "label"}
    else:
        settings = set(FinetuneConfig.__dataclass_fields__)
    assert {word.partition("=")[0] for word in words if "=" in word} <= settings


def test_the_page_counts_the_sets_and_names_every_setting_that_it_explains():
    assert f"for {len(development())} sets" in PAGE
    named = {key for key in re.findall(r"`(\w+)(?:=\w+)?`", PAGE) if key in FinetuneConfig.__dataclass_fields__}
    assert named >= {"recompute", "trains", "batch_rows", "micro_batch_tokens"}
