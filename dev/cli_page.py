"""Prints docs/cli.md, made from the command line's own help.

    python dev/cli_page.py > docs/cli.md

A test checks that the page is current.
"""

from collections.abc import Iterator

import click

from modernbert.cli import main

HEAD = """# The command line

Made by `python dev/cli_page.py` from `--help`; change the help in `modernbert/cli/`, not this page.

Every verb prints a table for people, and JSON for programs where it has `--json`. Bad input gets one line on standard error and
exit code 2.
"""

RECIPES = {
    "pretrain": ["first_result"],
    "from-text": [],  # the settings are those of pretrain
    "finetune": ["classification", "dense", "multiple_choice", "question_answering", "reranking", "tagging"],
}


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *sections(main, None)])


def sections(command: click.Command, parent: click.Context | None) -> Iterator[str]:
    """A heading and the help of a command, then those of its own commands; of recipes with the same settings, one stands for all."""
    ctx = click.Context(
        command,
        parent,
        info_name=command.name if parent else "modernbert",
        terminal_width=100,
        help_option_names=["-h", "--help"],
    )
    yield f"## `{ctx.command_path}`\n\n```text\n{command.get_help(ctx)}\n```\n"
    if isinstance(command, click.Group):
        for name in RECIPES.get(command.name or "", command.list_commands(ctx)):
            child = command.get_command(ctx, name)
            assert child is not None
            yield from sections(child, ctx)


if __name__ == "__main__":
    print(page(), end="")
