import gzip
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modernbert.data.tables import read_table
from modernbert.errors import DataError

ROWS = [{"text": "one, two", "label": "a"}, {"text": "a line\nand another", "label": "é"}]


def write(path, content=None):
    if content is not None:
        path.write_text(content, encoding="utf-8")
    elif path.name.endswith(".gz"):
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        cut = "," if path.suffix == ".csv" else "\t"
        path.write_text(
            cut.join(ROWS[0]) + "\n" + "".join(f'"{r["text"]}"{cut}{r["label"]}\n' for r in ROWS), encoding="utf-8-sig"
        )
    return path


@pytest.mark.parametrize("name", ["t.jsonl.gz", "t.parquet", "t.csv", "t.tsv"])
def test_every_kind_of_file_gives_the_same_rows_with_their_places(tmp_path, name):
    path = write(tmp_path / name)
    word = "line" if "jsonl" in name else "row"
    assert list(read_table(path)) == [(f"{path}, {word} {i}", row) for i, row in enumerate(ROWS, start=1)]


def test_a_cell_may_hold_a_megabyte(tmp_path):
    (row,) = read_table(write(tmp_path / "t.csv", "text,label\n" + "x" * 1_000_000 + ",a\n"))
    assert len(row[1]["text"]) == 1_000_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "text,label\nfine,a\none, two,b\n", "t.csv, row 2 has 3 cells and the header 2; put quotes around text"),
        ("t.csv", "text,label\nfine\n", "t.csv, row 1 has 1 cells and the header 2"),
        ("t.csv", 'text,label\n"open,a\n', "t.csv is not CSV in UTF-8 (unexpected end of data); convert or mend it"),
        ("t.jsonl", "[1]\n", "t.jsonl, line 1: wanted a JSON object with a key for each column, got list"),
        ("t.parquet", "no", "t.parquet is damaged or cannot be read"),
        ("t.xlsx", "no", "wanted a file named .jsonl, .jsonl.gz, .jsonl.zst, .parquet, .csv, .tsv; rename or convert it"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    with pytest.raises(DataError, match=re.escape(message)):
        list(read_table(write(tmp_path / name, content)))


def test_a_missing_file_and_one_of_another_encoding_are_named(tmp_path):
    with pytest.raises(DataError, match=r"^no file .*t.csv; check the path$"):
        list(read_table(tmp_path / "t.csv"))
    (tmp_path / "t.csv").write_bytes("text,label\nné,a\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"t.csv is not CSV in UTF-8 \('utf-8' codec"):
        list(read_table(tmp_path / "t.csv"))


def test_rows_get_the_contexts_that_they_name_from_the_file_beside(tmp_path):
    rows = [{"context_id": "a", "n": 1}, {"context_id": "a", "context": "its own"}, {"n": 3}]
    path = write(tmp_path / "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert [row.get("context") for _, row in read_table(path)] == [None, "its own", None]
    write(tmp_path / "contexts.jsonl", '{"context_id": "a", "context": "beside"}\n')
    assert [row.get("context") for _, row in read_table(path)] == ["beside", "its own", None]
    write(tmp_path / "contexts.jsonl", '{"context_id": "b", "context": "beside"}\n')
    with pytest.raises(DataError, match=r"t.jsonl, line 1: context_id 'a' is not in .*contexts.jsonl$"):
        list(read_table(path))
