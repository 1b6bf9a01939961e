"""Sets for measuring search: documents, queries, and which document is right for which query.

Six forms are read, told apart by what is there:

- a folder in BEIR's layout: `corpus`, `queries` and `qrels/SPLIT.tsv` (also `corpus.SPLIT`, `queries.SPLIT`), as JSON lines or parquet,
  compressed or not; CoIR's and mteb's folders of parquet files are of this kind;
- a folder in MLDR's layout: `SPLIT.jsonl` with `positive_passages` and `negative_passages`, and `corpus.jsonl` with `docid`;
- a file of pairs: a column with the query, one with its document. Every distinct document of the file is the corpus, and all documents
  of one query are right for it. A row with an empty query adds its document only, one with an empty document nothing;
- a file of questions with `context_id` and `answers`, and beside it `contexts` with their texts: these are the corpus, and a question that
  has an answer finds its own; SQuAD and its kind;
- a file of lookups: a `key`, and `ordered_kv_records` with all keys and values of its context; find the context that holds the key;
- a file of lists: a query with its `candidates`, each with `text` and `label`. Only these compete, and queries without a right one among
  them, or without a wrong one, are left out.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modernbert.checkpoint.names import resolve_data
from modernbert.data.documents import JSON_LINES, PARQUET
from modernbert.data.tables import contexts_beside, read_table
from modernbert.errors import DataError

_ENDINGS = (*JSON_LINES, *PARQUET)

_SPLITS = ("train", "dev", "validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalSource:
    """Where a set lies and how to read it."""

    path: str
    """A folder or a file of the forms above, or `org/name` of such a folder on the hub."""
    name: str = ""
    """What tables call it; empty is the last part of the path, or the folder of a file that is called by a split, such as dev.jsonl."""
    split: str = "dev"
    """Of a folder: whose judgements count."""
    query: str = "query"
    """Of a file: the column of the query."""
    document: str = "document"
    """Of a file of pairs: the column of the document."""
    same: str | None = None
    """Of a file of pairs: a column; rows that agree in it are one question, and all their documents are right."""
    only: str | None = None
    """Which queries count, as column=value, such as kind=specific; the documents all stay."""
    metric: str = "ndcg@10"
    """The figure that stands for the set."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalSet:
    """Documents and queries with the grades that judges gave; places stand for documents, ids for what files call them."""

    name: str
    metric: str
    documents: list[str]
    """Texts; a title, if there is one, stands before the text with a space between, as in BEIR."""
    document_ids: list[str]
    queries: list[str]
    query_ids: list[str]
    grades: list[dict[int, int]]
    """For each query the grade of each judged document, by its place; 0 is judged and not relevant."""
    missing: list[list[int]]
    """For each query the grades of judged documents that the corpus lacks: nobody finds them, yet they count, as in trec_eval."""
    candidates: list[list[int]] | None = None
    """For each query the documents that compete; None lets all compete, but the one that bears the query's own id (as in BEIR)."""
    digest: str = ""
    """SHA-256 of the files."""


def read_retrieval(source: RetrievalSource) -> RetrievalSet:
    """Reads a set.

    Raises:
        DataError: a file is missing or damaged, a column is not there, or no query has a judgement; names file, row and column.
        CheckpointError: the path is a name on the hub, and cannot be fetched.
    """
    path = resolve_data(source.path)
    stem = path.name.split(".")[0]
    name = source.name or (path.absolute().parent.name if stem in _SPLITS else stem)
    if path.is_dir():
        found = _mldr(path, source) if (path / "corpus.jsonl").exists() and _find(path, source.split) else _beir(path, source)
    elif path.exists():
        found = _file(path, source)
    else:
        raise DataError(f"no file or folder {path}; check the path")
    if not found.queries:
        raise DataError(
            f"{path}: no query of split {source.split!r} has a right document{_filter_said(source)}; check split and only"
        )
    return dataclasses.replace(found, name=name, metric=source.metric)


def _beir(path: Path, source: RetrievalSource) -> RetrievalSet:
    files = {kind: _needed(path, kind, source.split) for kind in ("corpus", "queries")}
    files["qrels"] = _needed(path / "qrels" if (path / "qrels").is_dir() else path, "qrels", source.split, qrels=True)
    documents = {_id(row, place): _titled(row) for place, row in _rows(files["corpus"])}
    queries = {_id(row, place): row for place, row in _rows(files["queries"])}
    judged: dict[str, dict[str, int]] = {}
    for place, row in _rows(files["qrels"]):
        try:
            query, document, grade = (row[key] for key in ("query-id", "corpus-id", "score"))
            judged.setdefault(str(query), {})[str(document)] = int(float(grade))
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{place}: {row}; wanted columns query-id, corpus-id and score, a whole number") from None
    unknown = [query for query in judged if query not in queries]
    if unknown:
        raise DataError(f"{path}: the judgements name query {unknown[0]!r}, which the queries lack; the files are not of one set")
    kept = [query for query in judged if _counts(queries[query], source)]
    return _assembled(documents, {query: _text(queries[query]) for query in kept}, judged, list(files.values()))


def _mldr(path: Path, source: RetrievalSource) -> RetrievalSet:
    corpus, asked = path / "corpus.jsonl", _needed(path, source.split, source.split)
    documents = {str(row["docid"]): str(row["text"]) for _, row in _rows(corpus)}
    queries, judged = {}, {}
    for place, row in _rows(asked):
        try:
            query = str(row["query_id"])
            queries[query] = str(row["query"])
            judged[query] = {str(passage["docid"]): 1 for passage in row["positive_passages"]}
        except (KeyError, TypeError):
            raise DataError(f"{place}: wanted query_id, query and positive_passages, each with docid") from None
    return _assembled(documents, queries, judged, [corpus, asked])


def _file(path: Path, source: RetrievalSource) -> RetrievalSet:
    rows = list(_rows(path))
    if rows and "candidates" in rows[0][1]:
        return _lists(path, rows, source)
    if rows and "context_id" in rows[0][1]:
        return _questions(path, rows)
    if rows and "ordered_kv_records" in rows[0][1]:
        contexts = {str(i): json.dumps(dict(row["ordered_kv_records"]), indent=1) for i, (_, row) in enumerate(rows)}
        keys = {f"key {i}": str(row["key"]) for i, (_, row) in enumerate(rows)}
        return _assembled(contexts, keys, {f"key {i}": {str(i): 1} for i in range(len(rows))}, [path])
    documents: dict[str, int] = {}
    queries: dict[str, str] = {}
    judged: dict[str, dict[str, int]] = {}
    answers: dict[Any, set[str]] = {}
    asked: dict[str, set[Any]] = {}
    for place, row in rows:
        query, document = (_cell(row, column, place) for column in (source.query, source.document))
        if not document:
            continue
        id = str(documents.setdefault(document, len(documents)))
        if not query or not _counts(row, source):
            continue
        question = row.get(source.same) if source.same else query
        answers.setdefault(question, set()).add(id)
        asked.setdefault(query, set()).add(question)
        queries.setdefault(query, query)
    for query, questions in asked.items():
        judged[query] = {id: 1 for question in questions for id in answers[question]}
    numbered = {str(number): text for text, number in documents.items()}
    return _assembled(numbered, queries, judged, [path])


def _questions(path: Path, rows: list[tuple[str, dict[str, Any]]]) -> RetrievalSet:
    contexts = contexts_beside(path)
    if contexts is None:
        raise DataError(f"{path} names contexts, and beside it is no file contexts.jsonl (.gz, .zst, .parquet) with their texts")
    documents = {str(row.get("context_id")): _cell(row, "context", place) for place, row in _rows(contexts)}
    answered = {str(number): (place, row) for number, (place, row) in enumerate(rows) if row.get("answers")}
    queries = {id: _cell(row, "question", place) for id, (place, row) in answered.items()}
    return _assembled(
        documents, queries, {id: {str(row["context_id"]): 1} for id, (_, row) in answered.items()}, [path, contexts]
    )


def _lists(path: Path, rows: list[tuple[str, dict[str, Any]]], source: RetrievalSource) -> RetrievalSet:
    documents: dict[str, int] = {}
    queries: dict[str, str] = {}
    judged: dict[str, dict[str, int]] = {}
    for number, (place, row) in enumerate(rows):
        try:
            grades = [(str(candidate["text"]), int(candidate["label"])) for candidate in row["candidates"]]
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{place}: wanted candidates, a list of texts, each with its label") from None
        if not _counts(row, source) or len({grade > 0 for _, grade in grades}) < 2:
            continue
        queries[str(number)] = _cell(row, source.query, place)
        mine = judged.setdefault(str(number), {})
        for text, grade in grades:
            id = str(documents.setdefault(text, len(documents)))
            mine[id] = max(grade, mine.get(id, 0))
    numbered = {str(number): text for text, number in documents.items()}
    found = _assembled(numbered, queries, judged, [path])
    return dataclasses.replace(found, candidates=[list(grades) for grades in found.grades])


def _assembled(
    documents: Mapping[str, str], queries: Mapping[str, str], judged: Mapping[str, Mapping[str, int]], files: list[Path]
) -> RetrievalSet:
    """Ids to places; queries without a relevant document say nothing and are left out."""
    place_of = {id: place for place, id in enumerate(documents)}
    kept = [id for id in queries if any(grade > 0 for grade in judged.get(id, {}).values())]
    digest = hashlib.sha256()
    for file in files:
        for part in sorted(file.glob("*")) if file.is_dir() else [file]:
            digest.update(part.read_bytes())
    return RetrievalSet(
        name="",
        metric="",
        documents=list(documents.values()),
        document_ids=list(documents),
        queries=[queries[id] for id in kept],
        query_ids=kept,
        grades=[{place_of[document]: grade for document, grade in judged[id].items() if document in place_of} for id in kept],
        missing=[[grade for document, grade in judged[id].items() if document not in place_of] for id in kept],
        digest=digest.hexdigest(),
    )


def _find(folder: Path, kind: str, split: str = "") -> Path | None:
    """A file, or a folder of parquet files, by its beginning; one that names the split comes first."""
    for stem in (f"{kind}.{split}", kind):
        for ending in (*_ENDINGS, ".tsv", ".tsv.gz"):
            if (folder / f"{stem}{ending}").is_file():
                return folder / f"{stem}{ending}"
    return folder / kind if (folder / kind).is_dir() else None


def _needed(folder: Path, kind: str, split: str, qrels: bool = False) -> Path:
    found = (_find(folder, split) if qrels else None) or _find(folder, kind, split)
    if qrels and (found is None or found.is_dir()):  # mteb and CoIR keep shards such as qrels/test-00000-of-00001.parquet
        shards = sorted(part for sub in ("qrels", "data", ".") for part in (folder / sub).glob(f"{split}-*.parquet"))
        found = shards[0] if shards else found
    if found is None or (qrels and found.is_dir()):
        wanted = f"qrels/{split}.tsv" if qrels else f"{kind}.jsonl or {kind}.{split}.jsonl (.gz, .zst, .parquet)"
        raise DataError(f"{folder} lacks {wanted}; wanted BEIR's layout: corpus, queries, qrels/{split}.tsv")
    return found


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in sorted(path.glob("*.parquet")) if path.is_dir() else [path]:
        yield from read_table(part)


def _id(row: Mapping[str, Any], place: str) -> str:
    found = row.get("_id", row.get("id"))
    if found is None:
        raise DataError(f"{place}: no _id; wanted rows with _id and text")
    return str(found)


def _titled(row: Mapping[str, Any]) -> str:
    return f"{row.get('title') or ''} {_text(row)}".strip()


def _text(row: Mapping[str, Any]) -> str:
    return str(row.get("text") or "")


def _cell(row: Mapping[str, Any], column: str, place: str) -> str:
    """A text, stripped if nothing is in it."""
    value = row.get(column)
    if column not in row or not isinstance(value, str | None):
        raise DataError(
            f"{place}: no text in column {column!r}; there are {', '.join(row)}; name the right one as query or document"
        )
    return value if value and value.strip() else ""


def _counts(row: Mapping[str, Any], source: RetrievalSource) -> bool:
    if source.only is None:
        return True
    column, _, value = source.only.partition("=")
    return str(row.get(column)) == value


def _filter_said(source: RetrievalSource) -> str:
    return f" where {source.only}" if source.only else ""
