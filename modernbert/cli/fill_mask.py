"""`modernbert fill-mask`: the likeliest words at each [MASK]."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import click

from modernbert.cli import inputs
from modernbert.cli.inputs import on_one_line
from modernbert.cli.texts import read_texts
from modernbert.errors import TextError


@click.command("fill-mask")
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
@click.option("--model", metavar="NAME_OR_FOLDER", help="A packaged model, a folder, or a name on the hub; left out, our own.")
@inputs.dtype
@click.option("--top-k", type=click.IntRange(min=1), default=5, show_default=True, help="How many words for each mask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line a text, as transformers' fill-mask pipeline returns it.")
def fill_mask(texts: tuple[str, ...], model: str | None, dtype: str | None, top_k: int, as_json: bool) -> None:
    """The likeliest words at each [MASK].

    Each TEXT holds one [MASK] or more; `-` reads texts from standard input, one a line. A folder of ONNX files runs without torch.

    \b
    modernbert fill-mask "The capital of France is [MASK]."
    modernbert fill-mask --json --top-k 1 - < sentences.txt
    """
    engine = inputs.open_model(model, dtype, None if "-" in texts else texts)
    for place, text in read_texts(texts):
        try:
            found = engine.fill_mask(text, top_k=top_k)
        except TextError as error:
            raise TextError(f"{place}: {error}") from None
        click.echo(json.dumps(found) if as_json else "\n".join(_table(text, found)) + "\n")


def _table(text: str, found: Sequence[Any]) -> Iterator[str]:
    """One block of lines for each mask: probability, word, and the sentence with the word in place."""
    masks = [found] if isinstance(found[0], dict) else found
    yield on_one_line(text, width=None)
    for number, words in enumerate(masks, start=1):
        if len(masks) > 1:
            yield f"mask {number} of {len(masks)}"
        shown = [on_one_line(word["token_str"].strip(" "), width=None) for word in words]
        width = max(map(len, shown))
        for word, name in zip(words, shown, strict=True):
            yield f"  {word['score']:6.1%}  {name:<{width}}  {on_one_line(word['sequence'], width=None)}"
