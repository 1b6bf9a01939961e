"""What a teacher says of pairs, written down once: vectors of their texts, or scores of their documents."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modernbert.data.vectors import check_vectors_path, write_vectors
from modernbert.errors import ConfigError
from modernbert.eval.named import systems_named
from modernbert.eval.systems import Reranker, Vectors
from modernbert.tasks.pairs import PairColumns, read_pairs
from modernbert.tasks.task import text_of
from modernbert.train.batches import pair_rows


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
    system = systems_named(model, device)[0]
    if not isinstance(system, Vectors):
        raise ConfigError(f"{model} gives no vector for a text; name a model that does, or write scores to a .jsonl file")
    texts = read_pairs(pair_rows(files), PairColumns(), lambda some, is_query: ([[0]] * len(some), 0)).texts
    vectors = np.asarray(system.embed(texts, False), dtype=np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    write_vectors(out, vectors.astype(np.float16), texts)
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
                one_D, some_BD = (
                    np.asarray(system.embed(texts, is_query)) for texts, is_query in (([query], True), (documents, False))
                )
                scores = (some_BD @ one_D[0]) / np.maximum(np.linalg.norm(some_BD, axis=1) * np.linalg.norm(one_D[0]), 1e-12)
            file.write(json.dumps({**row[1], columns.scores: [float(score) for score in scores]}, ensure_ascii=False) + "\n")
            count += 1
    os.replace(part, out)
    return count
