"""What a teacher says of pairs, written down once: vectors of their texts, scores of their documents, the passage that answers."""

import json
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from modernbert.data.vectors import check_vectors_path, write_vectors
from modernbert.errors import ConfigError, DataError
from modernbert.eval.named import systems_named
from modernbert.eval.systems import Reranker, Vectors
from modernbert.tasks.pairs import PairColumns, read_pairs
from modernbert.tasks.task import text_of
from modernbert.text.passages import PASSAGE, passages_of
from modernbert.train.batches import pair_rows
from modernbert.vectors import unit


def write_teacher(files: Sequence[str], model: str, out: Path, device: str | None = None) -> int:
    """Writes a teacher's unit vectors, float16, of every distinct text of some pairs; returns how many.

    Args:
        files: of pairs, in the order that training will name them.
        model: what `systems_named` knows; one that gives a vector a text. Texts are given to it as documents, without prompts of ours.
        out: `.npy` or `.parquet`.
        device: None takes the best one here.

    Raises:
        ConfigError: the model gives no vector a text.
        DataError: a file cannot be read, or `out` not be written.
    """
    check_vectors_path(out)
    system = _vectors(model, device)
    texts = read_pairs(pair_rows(files), PairColumns(), lambda some, is_query: ([[0]] * len(some), 0)).texts
    write_vectors(out, unit(system.embed(texts, False)).astype(np.float16), texts)
    return len(texts)


def write_scores(files: Sequence[str], model: str, out: Path, device: str | None = None) -> int:
    """Writes pairs again, each with a teacher's scores of its document and negatives; returns how many.

    Args:
        model: a cross-encoder, or a model that gives a vector a text and scores by cosine.

    Raises:
        ConfigError: the model gives neither.
        DataError: a file or a row of it cannot be read.
    """
    system = systems_named(model, device)[0]
    if not isinstance(system, Reranker | Vectors):
        raise ConfigError(f"{model} gives neither scores nor vectors for texts; name a cross-encoder or an embedder")
    columns, count, part = PairColumns(), 0, out.with_name(f".{out.name}.part")
    with part.open("w", encoding="utf-8") as file:
        for _, row in pair_rows(files):
            query = text_of(row, columns.query)
            documents = [text_of(row, columns.document), *(row[1].get(columns.negatives) or [])]
            if isinstance(system, Reranker):
                scores = system.score(query, documents)
            else:
                scores = unit(system.embed(documents, False)) @ unit(system.embed([query], True))[0]
            file.write(json.dumps({**row[1], columns.scores: [float(score) for score in scores]}, ensure_ascii=False) + "\n")
            count += 1
    os.replace(part, out)
    return count


def write_passages(files: Sequence[str], model: str, out: Path, device: str | None = None) -> int:
    """Writes pairs of each query of a long document with the passage that a teacher finds best for it; returns how many.

    A short document, of one passage, makes none. The pairs of a document have its name as their group.

    Args:
        model: one that gives a vector a text.
        out: `.jsonl`.

    Raises:
        ConfigError: the model does not.
        DataError: a file or a row of it cannot be read.
    """
    system, columns, part = _vectors(model, device), PairColumns(), out.with_name(f".{out.name}.part")
    queries: dict[str, list[str]] = {}
    for _, row in pair_rows(files):
        document = text_of(row, columns.document)
        if len(passages_of(document)) > 1:
            queries.setdefault(document, []).append(text_of(row, columns.query))
    parts = [passages_of(document) for document in queries]
    if not parts:
        raise DataError(f"no document in {', '.join(files)} has more than {PASSAGE} words; there is no passage to choose")
    passage_XD, query_XD = (
        unit(system.embed(list(chain.from_iterable(some)), is_query))
        for some, is_query in ((parts, False), (queries.values(), True))
    )
    ends, count = np.cumsum([len(some) for some in parts]), 0
    with part.open("w", encoding="utf-8") as file:
        for number, (some, asked, end) in enumerate(zip(parts, queries.values(), ends, strict=True)):
            for query in asked:
                best = int((passage_XD[end - len(some) : end] @ query_XD[count]).argmax())
                pair = {"query": query, "document": some[best], "source": "passages", "group": f"document {number}"}
                file.write(json.dumps(pair, ensure_ascii=False) + "\n")
                count += 1
    os.replace(part, out)
    return count


def _vectors(model: str, device: str | None) -> Vectors:
    system = systems_named(model, device)[0]
    if not isinstance(system, Vectors):
        raise ConfigError(f"{model} gives no vector for a text; name a model that does, or write scores to a .jsonl file")
    return system
