"""`modernbert embed`: vectors of texts."""

import json
from typing import Any

import click

from modernbert.checkpoint.names import EMBEDDER
from modernbert.cli import inputs


@click.command()
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@inputs.model
@inputs.dtype
@inputs.files
@inputs.column("text", "the text")
@click.option("-o", "--out", metavar="FILE", help="Where the vectors go: .npy, .parquet or .jsonl; left out, they are printed.")
@click.option("--prompt", metavar="TEXT", help="Put before each text.")
@click.option("--prompt-name", metavar="NAME", help='A prompt of the model\'s folder, such as "query".')
@click.option("--normalize", is_flag=True, help="Scale the vectors to length 1.")
@click.option("--truncate-dim", type=click.IntRange(min=1), help="Keep only so many dimensions.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "int8", "uint8", "binary", "ubinary"]),
    default="float32",
    show_default=True,
    help="Smaller vectors, as sentence-transformers makes them.",
)
@inputs.truncate
@inputs.as_json("a text: its vector")
def embed(
    texts: tuple[str, ...],
    model: str | None,
    dtype: str | None,
    files: tuple[str, ...],
    text_column: str,
    out: str | None,
    prompt: str | None,
    prompt_name: str | None,
    normalize: bool,
    truncate_dim: int | None,
    precision: Any,
    truncate: bool,
    as_json: bool,
) -> None:
    """Vectors of texts, one each.

    `-` reads texts from standard input, one a line. A folder of ONNX files runs without torch.

    \b
    modernbert embed "a text" "another"
    modernbert embed --file documents.parquet -o vectors.npy
    """
    if out is not None:
        from modernbert.data.vectors import check_vectors_path, write_vectors

        check_vectors_path(out)
    places, read = inputs.read_inputs(texts, files, (text_column,))
    given = [text for (text,) in read]
    engine = inputs.open_model(model or EMBEDDER, dtype, given)
    with inputs.named(places):
        vectors = engine.embed(
            given,
            prompt=prompt,
            prompt_name=prompt_name,
            normalize=normalize,
            truncate_dim=truncate_dim,
            precision=precision,
            truncate=truncate,
        )
    if out is not None:
        write_vectors(out, vectors, given)
        click.echo(f"{out}: {len(vectors):,} × {vectors.shape[1]:,} {vectors.dtype}", err=True)
        return
    for text, vector in zip(given, vectors.tolist(), strict=True):
        if as_json:
            click.echo(json.dumps(vector))
        else:
            shown = " ".join(f"{number:.3f}" if isinstance(number, float) else str(number) for number in vector[:4])
            click.echo(f"{shown} … {len(vector):,} numbers  {inputs.on_one_line(text)}")
