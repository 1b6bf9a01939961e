"""What the verbs that run a model share: texts from arguments, files and standard input, and messages that name their places."""

import importlib.util
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

import modernbert
from modernbert.checkpoint.names import DEFAULT, PACKAGED, packaged_names
from modernbert.cli.texts import read_texts
from modernbert.errors import ConfigError, DataError, TextError

F = TypeVar("F", bound=Callable[..., Any])

model = click.option("--model", metavar="NAME_OR_FOLDER", help="A packaged model, a folder, or a name on the hub.")
dtype = click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16", "int8", "fp8"]),
    help="Of the weights; int8 for speed on a CPU, fp8 on a GPU. Left out, what suits this machine.",
)
files = click.option(
    "--file", "files", metavar="FILE", multiple=True, help="Rows of .jsonl (also .gz, .zst), .csv, .tsv or .parquet."
)
truncate = click.option("--truncate", is_flag=True, help="Cut texts that are too long, and say which.")


def column(name: str, holds: str) -> Callable[[F], F]:
    """The option that names a column of the files."""
    return click.option(f"--{name}-column", default=name, show_default=True, help=f"The column that holds {holds}.")


def as_json(shape: str) -> Callable[[F], F]:
    """The option `--json`."""
    return click.option("--json", "as_json", is_flag=True, help=f"One JSON line {shape}.")


FEW_CHARACTERS = 20_000
"""Texts up to this length together are done by ONNX Runtime before torch is imported."""


def open_model(name_or_folder: str | None, dtype: str | None, texts: Sequence[str] | None = None) -> Any:
    """The engine of a model; the runtime without torch for a folder with ONNX files alone, and for a few short texts where the folder
    has a graph beside its weights (`export.beside`), as packaged ones have.

    Args:
        name_or_folder: as given by the user.
        dtype: as given by the user; with None or float32 the runtime may be taken.
        texts: all there is to read, where that is known.

    Raises:
        ConfigError: ONNX files have no such dtype.
        ModernBertError: as `modernbert.load` and `modernbert.runtime.model.load`.
    """
    folder = Path(name_or_folder or "")
    few = texts is not None and sum(map(len, texts)) <= FEW_CHARACTERS
    if few and dtype in (None, "float32") and importlib.util.find_spec("onnxruntime") and _has_graph(name_or_folder):
        from modernbert.runtime.model import load

        return load(name_or_folder)
    if name_or_folder is None or any(folder.glob("model*.safetensors")) or not (folder / "onnx").is_dir():
        return modernbert.load(name_or_folder, dtype=dtype)
    from modernbert.runtime.model import load

    files = {None: "model.onnx", "float32": "model.onnx", "float16": "model_fp16.onnx", "int8": "model_quantized.onnx"}
    if dtype not in files:
        raise ConfigError(f"ONNX files are float32, float16 or int8, not {dtype}; name one of those, or leave it out")
    return load(folder, file=files[dtype])


def _has_graph(name_or_folder: str | None) -> bool:
    """Of a packaged model or a local folder; a name on the hub is not asked for."""
    name = name_or_folder or DEFAULT
    folder = PACKAGED / name if name in packaged_names() else Path(name)
    return (folder / "graph.onnx").is_file()


def read_inputs(
    texts: Sequence[str], files: Sequence[str], columns: Sequence[str], *, words: bool = False
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Everything that a verb shall read, in memory: arguments (`-` is standard input, a text a line), then the rows of files.

    Args:
        texts: the arguments.
        files: tables.
        columns: of the files; an argument stands for the first, so it is given alone.
        words: a cell may also hold a list of words, which become a text with single spaces between them.

    Returns:
        The place of each input, for messages; and the input as a tuple, of one text or of as many as `columns`.

    Raises:
        TextError: there is nothing to read, or it is not UTF-8.
        DataError: a file cannot be read, or a row lacks a column or holds no text in it.
    """
    if not texts and not files:
        raise TextError("nothing to read: give a text, - for standard input, or --file FILE")
    places: list[str] = []
    inputs: list[tuple[str, ...]] = []
    for place, text in read_texts(texts):
        places.append(place)
        inputs.append((text,))
    for file in files:
        from modernbert.data.tables import read_table  # pyarrow: a tenth of a second that texts alone need not wait

        for place, row in read_table(file):
            places.append(place)
            inputs.append(tuple(_cell(row, column, place, words) for column in columns))
    return places, inputs


def _cell(row: dict[str, Any], column: str, place: str, words: bool) -> str:
    if column not in row:
        raise DataError(f"{place} has no column {column!r}; its columns are {', '.join(row)}; name the right one")
    cell = row[column]
    if words and isinstance(cell, list) and all(isinstance(word, str) for word in cell):
        return " ".join(cell)
    if not isinstance(cell, str):
        raise DataError(f"{place}: {column!r} holds {cell!r}; wanted a text{' or a list of words' if words else ''}")
    return cell


@contextmanager
def named(places: Sequence[str]) -> Iterator[None]:
    """Names the places of texts in what the engine says of them, and prints its warnings as lines on standard error."""

    def in_words(message: object) -> str:
        words = str(message).replace("truncate=True", "--truncate").replace("prompt=…", "--prompt")
        words = words.replace("handle_impossible_answer=True", "--impossible")
        return re.sub(r"\b(?:text|context|question) (\d+)\b", lambda found: _place(places, found), words)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            yield
        except (TextError, ConfigError) as error:
            raise type(error)(in_words(error)) from None
    for warning in said:
        click.echo(f"modernbert: {in_words(warning.message)}", err=True)


def _place(places: Sequence[str], found: re.Match[str]) -> str:
    number = int(found[1])
    return places[number] if number < len(places) else found[0]


def on_one_line(text: str, width: int | None = 80) -> str:
    """Line breaks and other control characters as Python writes them; what is longer than `width` is cut, nothing is two quotes.

    >>> on_one_line("a\\nb"), on_one_line("abcdef", width=4)
    ('a\\\\nb', 'abc…')
    """
    begin = text if width is None else text[: width + 1]
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in begin) or "''"
    return shown if width is None or len(shown) <= width else shown[: width - 1] + "…"
