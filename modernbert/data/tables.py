"""Labelled rows from files: JSON lines, CSV, TSV and parquet, each row with its place for messages."""

import csv
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modernbert.data.documents import JSON_LINES, PARQUET, PARQUET_ROWS, read_rows
from modernbert.errors import DataError

SEPARATED = {".csv": ",", ".tsv": "\t"}
"""Files with a header line and one row a record, by what separates the columns; `.gz` may follow."""

LONGEST_CELL = 1 << 27
"""Characters of a CSV cell; Python's own limit is 131,072."""


def read_table(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads every row of a file: its place, such as "train.csv, row 3", and its columns.

    A row that has a `context_id` and no `context` gets the one of that id in the file `contexts` beside its own, where there is one: so
    many questions about a text are published.

    Args:
        path: `.jsonl` (also `.gz`, `.zst`), `.parquet`, or `.csv` and `.tsv` (also `.gz`) in UTF-8 with a header; their cells are text.

    Raises:
        DataError: the file is missing, damaged, of another kind, or a row is not what it should be; names file and row.
    """
    path, contexts = Path(path), None
    for place, row in _rows(path):
        if "context_id" in row and "context" not in row and (beside := contexts_beside(path)):
            if contexts is None:
                contexts = {one.get("context_id"): one.get("context") for _, one in _rows(beside)}
            if row["context_id"] not in contexts:
                raise DataError(f"{place}: context_id {row['context_id']!r} is not in {beside}")
            row["context"] = contexts[row["context_id"]]
        yield place, row


def contexts_beside(path: Path) -> Path | None:
    """The file `contexts` in a file's folder, of any kind that is read here."""
    found = (path.parent / f"contexts{ending}" for ending in (*JSON_LINES, *PARQUET, *SEPARATED))
    return next((file for file in found if file.is_file()), None)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.exists():
        raise DataError(f"no file {path}; check the path")
    if path.name.endswith(JSON_LINES):
        yield from _objects(path)
    elif path.name.endswith(PARQUET):
        yield from _parquet(path)
    elif _kind(path) in SEPARATED:
        yield from _separated(path)
    else:
        readable = (*JSON_LINES, *PARQUET, *SEPARATED)
        raise DataError(f"cannot read {path}: wanted a file named {', '.join(readable)}; rename or convert it")


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for place, row in read_rows(path):
        if not isinstance(row, dict):
            raise DataError(f"{place}: wanted a JSON object with a key for each column, got {type(row).__name__}")
        yield place, row


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise DataError(f"{path} is damaged or cannot be read ({error}); restore it from its origin") from error


def _kind(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix


def _separated(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(LONGEST_CELL)
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:  # sig: Excel writes a mark at the beginning
            for number, row in enumerate(csv.DictReader(file, delimiter=SEPARATED[_kind(path)], strict=True), start=1):
                place = f"{path}, row {number}"
                if None in row or None in row.values():
                    cells = sum(value is not None for name, value in row.items() if name is not None) + len(row.get(None) or [])
                    wanted = len(row) - (None in row)
                    raise DataError(f"{place} has {cells} cells and the header {wanted}; put quotes around text with separators")
                yield place, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not {_kind(path)[1:].upper()} in UTF-8 ({error}); convert or mend it") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); restore it from its origin") from error
