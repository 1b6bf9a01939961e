"""Sets for search, in every layout that is read."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modernbert.data.retrieval import RetrievalSource, read_retrieval
from modernbert.errors import DataError

CORPUS = [
    {"_id": "a", "title": "Ants", "text": "dig"},
    {"_id": "b", "title": "", "text": "bees fly"},
    {"_id": "c", "text": "cats sleep"},
]
QUERIES = [{"_id": "q1", "text": "who digs"}, {"_id": "q2", "text": "who flies"}, {"_id": "c", "text": "who sleeps"}]
QRELS = [("q1", "a", 2), ("q1", "b", 0), ("q2", "b", 1), ("q2", "gone", 1), ("c", "b", 1)]


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_qrels(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{d}\t{g}\n" for q, d, g in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def beir_plain(folder):
    write_lines(folder / "corpus.jsonl", CORPUS)
    write_lines(folder / "queries.jsonl", QUERIES)
    write_qrels(folder / "qrels" / "dev.tsv", QRELS)


def beir_by_split_and_compressed(folder):
    write_lines(folder / "corpus.dev.jsonl.gz", CORPUS)
    write_lines(folder / "corpus.train.jsonl.gz", CORPUS[:1])
    write_lines(folder / "queries.dev.jsonl.gz", QUERIES)
    write_qrels(folder / "qrels" / "dev.tsv.gz", QRELS)


def parquet_as_mteb_keeps_it(folder):
    for kind, rows in (("corpus", CORPUS), ("queries", QUERIES)):
        (folder / kind).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / kind / f"{kind}-00000-of-00001.parquet")
    (folder / "qrels").mkdir()
    rows = [{"query-id": q, "corpus-id": d, "score": g} for q, d, g in QRELS]
    pq.write_table(pa.Table.from_pylist(rows), folder / "qrels" / "dev-00000-of-00001.parquet")


@pytest.mark.parametrize("write", [beir_plain, beir_by_split_and_compressed, parquet_as_mteb_keeps_it])
def test_a_folder_in_beirs_layout_gives_titled_documents_and_grades_by_place(tmp_path, write):
    write(tmp_path / "set")
    data = read_retrieval(RetrievalSource(path=str(tmp_path / "set")))
    assert data.documents == ["Ants dig", "bees fly", "cats sleep"] and data.document_ids == ["a", "b", "c"]
    assert data.queries == ["who digs", "who flies", "who sleeps"]
    assert data.grades == [{0: 2, 1: 0}, {1: 1}, {1: 1}]
    assert data.missing == [[], [1], []]  # the corpus lacks a document that counts all the same
    assert (data.name, data.candidates, len(data.digest)) == ("set", None, 64)


def test_a_folder_in_mldrs_layout_is_read(tmp_path):
    write_lines(tmp_path / "corpus.jsonl", [{"docid": "d1", "text": "long one"}, {"docid": "d2", "text": "long two"}])
    row = {
        "query_id": "q",
        "query": "which?",
        "positive_passages": [{"docid": "d2", "text": "long two"}],
        "negative_passages": [],
    }
    write_lines(tmp_path / "dev.jsonl", [row])
    data = read_retrieval(RetrievalSource(path=str(tmp_path)))
    assert (data.documents, data.queries, data.grades) == (["long one", "long two"], ["which?"], [{1: 1}])


def test_a_file_of_pairs_makes_its_distinct_documents_the_corpus(tmp_path):
    rows = [
        {"question": "add", "code": "a + b", "id": 1},
        {"question": "sum", "code": "sum(x)", "id": 1},
        {"question": "add", "code": "a.__add__(b)", "id": 2},
        {"question": "", "code": "pass", "id": 3},
        {"question": "nothing", "code": "", "id": 4},
    ]
    write_lines(tmp_path / "pairs.jsonl", rows)
    source = RetrievalSource(path=str(tmp_path / "pairs.jsonl"), query="question", document="code")
    data = read_retrieval(source)
    assert data.documents == ["a + b", "sum(x)", "a.__add__(b)", "pass"]
    assert dict(zip(data.queries, data.grades, strict=True)) == {"add": {0: 1, 2: 1}, "sum": {1: 1}}
    grouped = read_retrieval(RetrievalSource(**{**vars(source), "same": "id"}))
    assert dict(zip(grouped.queries, grouped.grades, strict=True)) == {"add": {0: 1, 1: 1, 2: 1}, "sum": {0: 1, 1: 1}}


def test_a_file_of_candidates_leaves_out_queries_without_choice(tmp_path):
    def row(query, *labels):
        return {"query": query, "candidates": [{"text": f"{query} {i}", "label": label} for i, label in enumerate(labels)]}

    write_lines(tmp_path / "lists.jsonl", [row("x", 0, 1, 0), row("all right", 1, 1), row("none right", 0)])
    data = read_retrieval(RetrievalSource(path=str(tmp_path / "lists.jsonl")))
    assert (data.queries, data.candidates) == (["x"], [[0, 1, 2]])
    assert data.grades == [{0: 0, 1: 1, 2: 0}]


def test_only_some_queries_count_and_all_documents_stay(tmp_path):
    beir_plain(tmp_path)
    write_lines(tmp_path / "queries.jsonl", [{**query, "kind": "good" if query["_id"] == "q2" else "bad"} for query in QUERIES])
    data = read_retrieval(RetrievalSource(path=str(tmp_path), only="kind=good"))
    assert (data.queries, len(data.documents)) == (["who flies"], 3)
    with pytest.raises(DataError, match="no query of split 'dev' has a right document where kind=none; check split and only"):
        read_retrieval(RetrievalSource(path=str(tmp_path), only="kind=none"))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "corpus.jsonl").unlink(), "lacks corpus.jsonl"),
        (lambda f: (f / "qrels" / "dev.tsv").unlink(), "lacks qrels/dev.tsv"),
        (lambda f: write_qrels(f / "qrels" / "dev.tsv", [("q9", "a", 1)]), "name query 'q9', which the queries lack"),
        (lambda f: write_qrels(f / "qrels" / "dev.tsv", [("q1", "a", "much")]), "dev.tsv, row 1: .* score, a whole number"),
        (lambda f: (f / "qrels" / "dev.tsv").write_text("q\td\n1\t2\n"), "wanted columns query-id, corpus-id and score"),
        (lambda f: write_lines(f / "corpus.jsonl", [{"text": "no id"}]), "line 1: no _id"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, harm, message):
    beir_plain(tmp_path)
    harm(tmp_path)
    with pytest.raises(DataError, match=message):
        read_retrieval(RetrievalSource(path=str(tmp_path)))


def test_an_unknown_column_is_named(tmp_path):
    write_lines(tmp_path / "pairs.jsonl", [{"question": "a", "code": "b"}])
    message = r"line 1: no text in column 'query'; there are question, code; name the right one as query or document$"
    with pytest.raises(DataError, match=message):
        read_retrieval(RetrievalSource(path=str(tmp_path / "pairs.jsonl")))


def test_questions_with_contexts_beside_them_find_what_answers_them(tmp_path):
    write_lines(tmp_path / "contexts.jsonl.gz", [{"context_id": name, "title": "T", "context": f"text {name}"} for name in "ab"])
    answer = [{"text": "text", "start": 0}]
    rows = [("a", "who?", answer), ("b", "when?", []), ("a", "where?", answer)]
    write_lines(tmp_path / "train.jsonl", [{"context_id": c, "question": q, "answers": a} for c, q, a in rows])
    found = read_retrieval(RetrievalSource(path=str(tmp_path / "train.jsonl")))
    assert (found.documents, found.queries, found.grades) == (["text a", "text b"], ["who?", "where?"], [{0: 1}, {0: 1}])
    (tmp_path / "contexts.jsonl.gz").unlink()
    with pytest.raises(DataError, match=r"train\.jsonl names contexts, and beside it is no file contexts\.jsonl"):
        read_retrieval(RetrievalSource(path=str(tmp_path / "train.jsonl")))


@pytest.mark.parametrize(("file", "name"), [("dev.jsonl", "bees"), ("test.jsonl.gz", "bees"), ("ants.dev.jsonl", "ants")])
def test_a_file_that_is_called_by_its_split_bears_the_name_of_its_folder(tmp_path, file, name):
    (tmp_path / "bees").mkdir()
    write_lines(tmp_path / "bees" / file, [{"query": "q", "document": "d"}])
    assert read_retrieval(RetrievalSource(path=str(tmp_path / "bees" / file))).name == name
