"""`modernbert export`: a model as ONNX files."""

import click


@click.command()
@click.argument("model", metavar="MODEL")
@click.argument("out", metavar="OUT")
@click.option("--embedding", is_flag=True, help="Write the encoder with its pooling, whatever head the model has.")
@click.option(
    "--page", is_flag=True, help="Write a page that runs the model in a browser, with int8 and float32 weights by default."
)
@click.option("--vectors", metavar="MODEL", help="Of the page: the model that searches, where another one fills masks.")
@click.option(
    "--form",
    "forms",
    multiple=True,
    type=click.Choice(["fp32", "fp16", "int8", "q4", "q4f16"]),
    help="Which files to write; repeat it for several, leave it out for all.",
)
def export(model: str, out: str, embedding: bool, page: bool, vectors: str | None, forms: tuple[str, ...]) -> None:
    """Write a model as ONNX files, for runtimes that know no PyTorch.

    OUT gets config, tokenizer and `onnx/`, as transformers.js, TEI and sentence-transformers read them. Every file is compared with
    the model before it appears: the table shows the largest difference, in parts of the largest value, and the lowest cosine.

    \b
    modernbert export MODEL OUT
    modernbert export MODEL OUT --form fp32 --form int8 --embedding
    modernbert export tiny OUT --page --vectors tiny-embed && npm install --prefix OUT && python -m http.server --directory OUT
    """
    from modernbert.export.browser import export_page
    from modernbert.export.folder import export as write
    from modernbert.export.graph import FORMS

    if page:
        if embedding:
            raise click.UsageError("--page writes the model's head and its embedding: leave --embedding out")
        found = export_page(model, out, vectors=vectors, forms=forms or ("int8", "fp32"))
    elif vectors is not None:
        raise click.UsageError("--vectors is of the page: add --page")
    else:
        found = write(model, out, embedding=embedding, forms=forms or tuple(FORMS))
    width = max(len(one.file) for one in found)
    click.echo(f"{'':<{width}}  {'MB':>8}  {'difference':>10}  {'allowed':>8}  {'cosine':>8}")
    for one in found:
        allowed = "–" if one.allowed is None else f"{one.allowed:.0e}"
        click.echo(f"{one.file:<{width}}  {one.megabytes:8.1f}  {one.difference:10.1e}  {allowed:>8}  {one.cosine:8.5f}")
    if page and {one.file.split("/")[0] for one in found} == {"vectors"}:
        click.echo("The page only searches with this model: masks and classes are what it knows of heads.")
