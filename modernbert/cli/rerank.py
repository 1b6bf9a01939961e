"""`modernbert rerank`: documents in the order of their relevance to a query."""

import json

import click

import modernbert
from modernbert.cli import inputs


@click.command()
@click.argument("query")
@click.argument("documents", metavar="[DOCUMENT]...", nargs=-1)
@inputs.model
@inputs.dtype
@inputs.files
@inputs.column("text", "the document")
@click.option("--top-k", type=click.IntRange(min=1), help="How many to print; left out, all.")
@inputs.truncate
@inputs.as_json("a document, as CrossEncoder.rank returns it")
def rerank(
    query: str,
    documents: tuple[str, ...],
    model: str | None,
    dtype: str | None,
    files: tuple[str, ...],
    text_column: str,
    top_k: int | None,
    truncate: bool,
    as_json: bool,
) -> None:
    """Documents in the order of their relevance to a query, best first.

    `-` reads documents from standard input, one a line. The model needs a sequence-classification head with one label.

    \b
    modernbert rerank --model FOLDER "how tall is it" "It is 300 m high." "It is old."
    modernbert rerank --model FOLDER "how tall is it" --file documents.jsonl --top-k 10
    """
    places, read = inputs.read_inputs(documents, files, (text_column,))
    engine = modernbert.load(model, dtype=dtype)
    with inputs.named(places):
        found = engine.rerank(query, [text for (text,) in read], top_k, truncate=truncate)
    for one in found:
        if as_json:
            click.echo(json.dumps(one))
        else:
            click.echo(f"{one['score']:8.4f}  {places[one['corpus_id']]}  {inputs.on_one_line(one['text'])}")
