"""Documents from files (JSON lines, plain, gzip or zstd; parquet; plain text) and from data sets on the Hugging Face hub.

Everything is read as a stream: memory holds one line, or one batch of parquet rows, at a time.
"""

import codecs
import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modernbert.data.hub import HUB, hub_rows
from modernbert.errors import DataError

JSON_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
PARQUET = (".parquet",)
PLAIN_TEXT = (".txt", ".md")
READABLE = JSON_LINES + PARQUET + PLAIN_TEXT

CHUNK_BYTES = 1 << 20
PARQUET_ROWS = 1024


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One text, and where it comes from."""

    text: str
    source: str
    """The row's own `source`; else the file's name without number and suffix (plain text: its folder's name)."""


def read_documents(paths: Iterable[str | Path], *, column: str = "text") -> Iterator[Document]:
    """Reads every document of the files, in the order given; a folder stands for its readable files, sorted.

    Args:
        paths: files named `.jsonl`, `.jsonl.gz`, `.jsonl.zst`, `.parquet` (rows with a text and perhaps a `source`), `.txt` or
            `.md` (one document a file), folders of such files, and data sets `hf:NAME`, `hf:NAME:CONFIG` or `hf:NAME:CONFIG:SPLIT`.
        column: of the rows, which holds the text.

    Raises:
        DataError: a file is missing, damaged, not UTF-8 or of another kind, or a row has no text; names file and row.
        MissingExtraError: a data set of the hub is named, and the package that reads it is not installed.
    """
    names = list(map(str, paths))
    files = {name: document_files([name]) for name in names if not name.startswith(HUB)}  # all names first: reading takes hours
    for name in names:
        if name.startswith(HUB):
            source = name.removeprefix(HUB).split(":")[0].rpartition("/")[2]
            yield from (_document(row, source, place, column) for place, row in hub_rows(name))
        for path in files.get(name, ()):
            yield from _read_file(path, column)


def document_files(paths: Iterable[str | Path]) -> list[Path]:
    """The files that `read_documents` reads, in its order.

    Raises:
        DataError: a path does not exist, is of a kind that cannot be read, or is a folder without readable files.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.name.endswith(READABLE) and file.is_file())
            if not inside:
                raise DataError(f"{path} holds no documents: wanted files named {', '.join(READABLE)}")
            files += inside
        elif not path.exists():
            raise DataError(f"no file or folder {path}; check the path")
        elif not path.name.endswith(READABLE):
            raise DataError(f"cannot read {path}: wanted a file named {', '.join(READABLE)}; rename or convert it")
        else:
            files.append(path)
    return files


def read_rows(path: str | Path) -> Iterator[tuple[str, Any]]:
    """Reads each line of a `.jsonl`, `.jsonl.gz` or `.jsonl.zst` file as JSON, with its place for messages.

    Raises:
        DataError: the file is missing, damaged, not UTF-8 or of another kind, or a line is not JSON; names file and line.
    """
    (path,) = document_files([path])
    if not path.name.endswith(JSON_LINES):
        raise DataError(f"cannot read {path}: wanted JSON lines, a file named {', '.join(JSON_LINES)}")
    try:
        yield from _json_rows(path)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _read_file(path: Path, column: str) -> Iterator[Document]:
    try:
        if path.name.endswith(PLAIN_TEXT):
            yield Document(text=_decoded(path.read_bytes(), str(path)), source=path.absolute().parent.name)
            return
        rows = _json_rows(path) if path.name.endswith(JSON_LINES) else _parquet_rows(path, column)
        name = source_of(path)
        for place, row in rows:
            yield _document(row, name, place, column)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is damaged or cannot be read ({error}); restore it from its origin")


def source_of(path: Path) -> str:
    """The source that a file's name states: no suffix, no shard number.

    >>> source_of(Path("corpus/wikipedia-core-0003.jsonl.zst"))
    'wikipedia-core'
    """
    stem = path.name.split(".")[0]
    return re.sub(r"[-_]\d+(-of-\d+)?$", "", stem) or stem


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        text = _decoded(line, place)
        try:
            row = json.loads(text)
        except ValueError as error:  # also numbers with too many digits
            raise DataError(f"{place}: wanted a JSON object, got {_shown(text)} ({error}); mend or remove it") from error
        except RecursionError as error:
            raise DataError(f"{place}: wanted a JSON object, got one nested too deep; mend or remove it") from error
        yield place, row


def _lines(path: Path) -> Iterator[bytes]:
    r"""Lines as bytes, cut at \n only: texts hold other Unicode line breaks."""
    if path.suffix != ".jsonl" and not path.stat().st_size:
        raise OSError("no bytes, not even a header")
    with pa.input_stream(str(path)) as stream:  # the suffix says how it is compressed
        rest: list[bytes] = []
        while chunk := stream.read(CHUNK_BYTES):
            first, *lines = chunk.split(b"\n")
            rest.append(first)
            if lines:
                yield b"".join(rest)
                yield from lines[:-1]
                rest = [lines[-1]]
        yield b"".join(rest)


def _parquet_rows(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    with pq.ParquetFile(path) as file:
        columns = [name for name in (column, "source") if name in file.schema_arrow.names]
        if column not in columns:
            raise DataError(
                f"{path} has no column {column!r}; its columns are {', '.join(file.schema_arrow.names)}: name the one with the text"
            )
        number = 0
        for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=columns):
            try:
                rows = batch.to_pylist()
            except UnicodeDecodeError as error:
                place = f"{path}, rows {number + 1} to {number + len(batch)}"
                raise DataError(f"{place}: wanted UTF-8, got {error}; write the file again") from error
            for row in rows:
                number += 1
                yield f"{path}, row {number}", row


def _document(row: Any, source: str, place: str, column: str) -> Document:
    if not isinstance(row, dict) or not isinstance(row.get(column), str):
        raise DataError(f"{place}: wanted a row with a string {column!r}, got {_shown(row)}; mend or remove it")
    own = row.get("source")
    document = Document(text=row[column], source=own if isinstance(own, str) else source)
    for name, value in ((column, document.text), ("source", document.source)):
        if value.isascii():
            continue
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{place}: {name!r} holds half a surrogate pair ({error}); mend or remove it") from error
    return document


def _decoded(data: bytes, place: str) -> str:
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: wanted UTF-8, got {error}; convert it to UTF-8 or remove it") from error


def _shown(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"
