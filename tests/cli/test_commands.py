"""Every command that the pages, the cards and the scripts show exists, with the options and settings that it names; none is run."""

import re
import shlex
from pathlib import Path

import click
import pytest

from modernbert.checkpoint.names import PACKAGED
from modernbert.cli import main
from modernbert.cli.overrides import describe
from modernbert.cli.recipe_group import RecipeCommand
from modernbert.train.finetune import FinetuneConfig

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "cli.md"),  # that one is generated
    *sorted(PACKAGED.glob("*/README.md")),
    *sorted((ROOT / "examples").glob("*.sh")),
    ROOT / "dev" / "first_slice.sh",
]
BLOCK = re.compile(r"```\w*\n(.*?)```|^ {4}(.*?)$", re.DOTALL | re.MULTILINE)
AFTER = re.compile(r"`| +(?:#|\||&&|2?>|<)|;| {6,}|\)$")
"""What follows a command on its line."""


def shown(page):
    """The words of each command that a page shows; what the shell would put in is left as a word."""
    text = page.read_text().replace("\\\n", " ")
    if page.suffix == ".md":  # blocks, and what stands between ticks
        inline = (" ".join(code.split()) for code in re.findall(r"`(modernbert [^`]+)`", text))
        text = "\n".join([*map("".join, BLOCK.findall(text)), *inline])
    for command in re.findall(
        r"(?<!install )\bmodernbert ([a-z-]+ .*)", re.sub(r"\$\([^()]*(?:\([^()]*\)[^()]*)*\)", "some", text)
    ):
        if "…" not in command:
            yield shlex.split(AFTER.split(command)[0])


COMMANDS = [(page.relative_to(ROOT), words) for page in PAGES for words in shown(page)]


def test_the_pages_show_commands():
    assert len(COMMANDS) > 60 and {page.parts[0] for page, _ in COMMANDS} == {
        "README.md",
        "docs",
        "modernbert",
        "examples",
        "dev",
    }


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=lambda part: " ".join(part) if isinstance(part, list) else str(part))
def test_a_command_that_is_shown_exists_with_its_options_and_settings(page, words):
    command, context, words = main, click.Context(main), list(words)
    while isinstance(command, click.Group) and words and words[0].islower():
        command = command.get_command(context, words.pop(0))
        assert command is not None
    options = {option for parameter in command.params for option in parameter.opts} | {"--help", "--version"}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options
    named = {word.partition("=")[0] for word in words if re.match(r"[a-z][\w.]*=", word)}
    if isinstance(command, RecipeCommand):
        assert named <= {key for key, *_ in describe(command.recipe())}
    elif command.name == "task":
        assert named <= {"text", "text_pair", "label"}
    else:
        assert named <= set(FinetuneConfig.__dataclass_fields__)
