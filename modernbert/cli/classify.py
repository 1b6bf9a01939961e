"""`modernbert classify`: the classes of texts."""

import json

import click

import modernbert
from modernbert.cli import inputs


@click.command()
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@inputs.model
@inputs.dtype
@inputs.files
@inputs.column("text", "the text")
@click.option("--pair-column", metavar="NAME", help="The column that holds the second text of a pair, where there are pairs.")
@click.option("--top-k", type=click.IntRange(min=1), default=1, show_default=True, help="How many classes for each text.")
@click.option("--labels", metavar="A,B,…", help="Classes that the model was not trained on: zero-shot, by an NLI model.")
@inputs.truncate
@inputs.as_json("a text, as transformers' pipelines return it")
def classify(
    texts: tuple[str, ...],
    model: str | None,
    dtype: str | None,
    files: tuple[str, ...],
    text_column: str,
    pair_column: str | None,
    top_k: int,
    labels: str | None,
    truncate: bool,
    as_json: bool,
) -> None:
    """The classes of texts.

    `-` reads texts from standard input, one a line. The model needs a sequence-classification head.

    \b
    modernbert classify --model FOLDER "a fine film"
    modernbert classify --model FOLDER --file reviews.csv --text-column review --json
    modernbert classify --model NLI_FOLDER --labels politics,sports - < headlines.txt
    """
    if pair_column and (texts or labels):
        raise click.UsageError("--pair-column goes with --file alone, and not with --labels")
    columns = (text_column, pair_column) if pair_column else (text_column,)
    places, read = inputs.read_inputs(texts, files, columns)
    engine = modernbert.load(model, dtype=dtype)
    singles = [one[0] for one in read]
    with inputs.named(places):
        if labels is None:
            found = engine.classify(read if pair_column else singles, top_k, truncate=truncate)
        else:
            found = engine.zero_shot(singles, labels, truncate=truncate)
    for one, answer in zip(read, found, strict=True):
        if as_json:
            click.echo(json.dumps(answer))
            continue
        if labels is None:
            best = [answer] if top_k == 1 else answer
        else:
            pairs = zip(answer["labels"][:top_k], answer["scores"], strict=False)
            best = [{"label": label, "score": score} for label, score in pairs]
        shown = ", ".join(f"{inputs.on_one_line(label['label'])} {label['score']:.3f}" for label in best)
        click.echo(f"{shown}  {' | '.join(inputs.on_one_line(part) for part in one)}")
