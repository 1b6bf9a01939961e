"""`modernbert tag`: the entities in texts."""

import json
from typing import Any

import click

import modernbert
from modernbert.cli import inputs


@click.command()
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@inputs.model
@inputs.dtype
@inputs.files
@inputs.column("text", "the text, or the list of its words")
@click.option(
    "--aggregation",
    type=click.Choice(["simple", "first", "average", "max"]),
    default="simple",
    show_default=True,
    help="How tokens become entities.",
)
@inputs.as_json("a text, as transformers' token-classification pipeline returns it")
def tag(
    texts: tuple[str, ...],
    model: str | None,
    dtype: str | None,
    files: tuple[str, ...],
    text_column: str,
    aggregation: Any,
    as_json: bool,
) -> None:
    """The entities in texts.

    `-` reads texts from standard input, one a line; they may be longer than the model reads. A list of words is read, and counted in,
    as joined by single spaces. The model needs a token-classification head.

    \b
    modernbert tag --model FOLDER "Ada Lovelace lived in London."
    modernbert tag --model FOLDER --file dev.jsonl --text-column tokens
    """
    places, read = inputs.read_inputs(texts, files, (text_column,), words=True)
    engine = modernbert.load(model, dtype=dtype)
    given = [text for (text,) in read]
    with inputs.named(places):
        found = engine.tag(given, aggregation)
    for text, entities in zip(given, found, strict=True):
        if as_json:
            click.echo(json.dumps(entities))
            continue
        click.echo(inputs.on_one_line(text))
        width = max((len(entity["entity_group"]) for entity in entities), default=0)
        for entity in entities:
            place = f"{entity['start']}–{entity['end']}"
            word = inputs.on_one_line(entity["word"].strip())
            click.echo(f"  {entity['entity_group']:<{width}}  {entity['score']:.3f}  {place:>11}  {word}")
        click.echo()
