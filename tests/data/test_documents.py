import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modernbert.data.documents import CHUNK_BYTES, read_documents, read_rows
from modernbert.errors import DataError

TEXTS = ["plain", "two\nlines", "Unicode line\u2028break, ünïcode 🙂", "long " * CHUNK_BYTES, "", "last"]


def json_lines(texts):
    return "".join(json.dumps({"text": text, "source": "web"}, ensure_ascii=False) + "\n" for text in texts).encode()


def read(*paths):
    return [(document.text, document.source) for document in read_documents(paths)]


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("a.jsonl", bytes),
        ("a.jsonl.gz", gzip.compress),
        ("a.jsonl.zst", lambda data: pa.compress(data, codec="zstd", asbytes=True)),
    ],
)
def test_json_lines_give_back_every_text_whatever_the_compression(tmp_path, name, compress):
    (tmp_path / name).write_bytes(compress(json_lines(TEXTS)))
    assert read(tmp_path / name) == [(text, "web") for text in TEXTS]


@pytest.mark.parametrize(
    ("suffix", "compress"), [("gz", gzip.compress), ("zst", lambda data: pa.compress(data, codec="zstd", asbytes=True))]
)
def test_files_of_several_compressed_members_are_read_to_the_end(tmp_path, suffix, compress):
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(compress(json_lines(["one"])) + compress(json_lines(["two"])))
    assert [text for text, _ in read(path)] == ["one", "two"]


def test_a_last_line_without_newline_and_blank_lines_are_read_as_people_mean_them(tmp_path):
    (tmp_path / "books-0001.jsonl").write_text('{"text": "one"}\n\n  \n{"text": "two"}')
    assert read(tmp_path / "books-0001.jsonl") == [("one", "books"), ("two", "books")]


def test_parquet_gives_its_texts_in_order(tmp_path):
    texts = [f"text {number}" for number in range(3000)]
    pq.write_table(pa.table({"id": range(3000), "text": texts}), tmp_path / "web.parquet", row_group_size=700)
    assert read(tmp_path / "web.parquet") == [(text, "web") for text in texts]


def test_a_folder_is_read_in_sorted_order_with_one_document_a_text_file(tmp_path):
    folder = tmp_path / "notes"
    (folder / "deep").mkdir(parents=True)
    (folder / "b.md").write_text("# B\n")
    (folder / "a.txt").write_text("A\nä", encoding="utf-8")
    (folder / "deep" / "c.jsonl").write_text('{"text": "C"}\n')
    (folder / "picture.png").write_bytes(b"\x89PNG")
    assert read(folder) == [("A\nä", "notes"), ("# B\n", "notes"), ("C", "c")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "fine"}\n{"text": "torn', r"a\.jsonl, line 2: wanted a JSON object, got '\{\"text\": \"torn'"),
        (b'{"text": "fine"}\n{"txt": 1}\n', r"line 2: wanted a row with a string 'text', got \{'txt': 1\}"),
        (b'{"text": null}\n', r"line 1: wanted a row with a string 'text', got \{'text': None\}"),
        (b'{"text": 3}\n', r"line 1: wanted a row with a string 'text'"),
        (b'{"text": ["a"]}\n', r"line 1: wanted a row with a string 'text', got \{'text': \['a'\]\}"),
        (b'["text"]\n', r"line 1: wanted a row with a string 'text', got \['text'\]"),
        (b'{"text": "\xff"}\n', r"line 1: wanted UTF-8, got .*convert it to UTF-8"),
        (b'{"text": "\\ud800"}\n', r"line 1: 'text' holds half a surrogate pair"),
        (b"[" * 100_000, r"line 1: wanted a JSON object"),
    ],
)
def test_a_bad_line_is_named(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.jsonl")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_a_damaged_file_is_named(tmp_path, name):
    if name.endswith("parquet"):
        pq.write_table(pa.table({"text": TEXTS}), tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pa.compress(json_lines(TEXTS), codec="gzip" if "gz" in name else "zstd", asbytes=True))
    whole = (tmp_path / name).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"not that at all", b""):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match=rf"{name} is damaged or cannot be read \(.*restore it"):
            read(tmp_path / name)


def test_a_parquet_row_without_text_is_named(tmp_path):
    pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet, row 2: wanted a row with a string 'text'"):
        read(tmp_path / "a.parquet")
    pq.write_table(pa.table({"body": ["a"], "id": [1]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet has no column 'text'; its columns are body, id"):
        read(tmp_path / "b.parquet")


def test_another_column_can_hold_the_text(tmp_path):
    pq.write_table(pa.table({"content": ["a"], "text": [1]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"content": "b", "text": "no"}\n')
    assert [document.text for document in read_documents([tmp_path], column="content")] == ["a", "b"]
    with pytest.raises(DataError, match=r"b\.jsonl, line 1: wanted a row with a string 'body', got \{'content'"):
        list(read_documents([tmp_path / "b.jsonl"], column="body"))


def test_bytes_are_no_text(tmp_path):
    pq.write_table(pa.table({"text": [b"a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet, row 1: wanted a row with a string 'text', got \{'text': b'a'\}"):
        read(tmp_path / "a.parquet")


def test_a_parquet_text_that_is_not_utf8_is_named(tmp_path):
    wrong = pa.array([b"fine", b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": wrong}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet, rows 1 to 2: wanted UTF-8"):
        read(tmp_path / "a.parquet")


def test_a_text_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes("naïve".encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.txt: wanted UTF-8"):
        read(tmp_path / "a.txt")


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path):
    (tmp_path / "a.txt").write_text("naïve", encoding="utf-8-sig")
    (tmp_path / "b.jsonl").write_text('{"text": "naïve"}\n', encoding="utf-8-sig")
    assert [text for text, *_ in read(tmp_path)] == ["naïve", "naïve"]


def test_a_source_that_is_not_unicode_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "fine", "source": "\\ud800"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: 'source' holds half a surrogate pair"):
        read(tmp_path / "a.jsonl")


def test_paths_that_hold_no_documents_are_refused(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(DataError, match=r"no file or folder .*missing"):
        read(tmp_path / "missing")
    with pytest.raises(DataError, match=r"cannot read .*a\.pdf: wanted a file named \.jsonl"):
        read(tmp_path / "a.pdf")
    with pytest.raises(DataError, match="holds no documents"):
        read(tmp_path)


def test_rows_of_any_form_are_read_with_their_places(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"kind": "x"}\n\n[1]\n'))
    path = tmp_path / "a.jsonl.gz"
    assert list(read_rows(path)) == [(f"{path}, line 1", {"kind": "x"}), (f"{path}, line 3", [1])]
    path.write_bytes(b"not gzip")
    with pytest.raises(DataError, match=r"a\.jsonl\.gz is damaged or cannot be read"):
        list(read_rows(path))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"cannot read .*a\.txt: wanted JSON lines, a file named \.jsonl"):
        list(read_rows(tmp_path / "a.txt"))
