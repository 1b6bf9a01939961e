"""`modernbert from-text RECIPE TEXT out=FOLDER key=value …`: every step from a folder of text to a model with its card."""

import shlex
import sys
from typing import Any

import click

from modernbert.cli.recipe_group import recipe_group

_HELP = """Make a model of a folder of text.

TEXT is a folder or file of documents. A tokenizer of model.vocab_size tokens, token shards, every phase of the recipe, the average of
checkpoints, an evaluation on documents held out and a card: each is a folder in OUT, the model is OUT/model. What was stopped goes on
where it was when the same command is given again.

\b
modernbert from-text three_phases texts out=mine --licence "all texts: CC BY 4.0"
"""


def _run(config: Any, text: str, licence: tuple[str, ...]) -> None:
    from modernbert.train.from_text import from_text

    click.echo(from_text(config, text, licence=licence, command=shlex.join(["modernbert", *sys.argv[1:]])))


from_text = recipe_group(
    "from-text",
    module="modernbert.recipes.pretrain",
    run=_run,
    help=_HELP,
    params=(
        click.Argument(["text"], metavar="TEXT"),
        click.Option(
            ["--licence"], metavar="LINE", multiple=True, help="What the card says of the text's licence; give several lines."
        ),
    ),
    metavar="TEXT ",
)
