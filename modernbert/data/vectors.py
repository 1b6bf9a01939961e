"""Vectors to files: NumPy's, parquet, or JSON lines."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from modernbert.errors import DataError

WRITABLE = (".npy", ".parquet", ".jsonl")


def check_vectors_path(path: str | Path) -> None:
    """Says before the work whether `write_vectors` can write there.

    Raises:
        DataError: the name ends in another way, or there is no such folder.
    """
    if not str(path).endswith(WRITABLE):
        raise DataError(f"cannot write {path}: wanted a name that ends in {', '.join(WRITABLE)}")
    if not Path(path).absolute().parent.is_dir():
        raise DataError(f"cannot write {path}: there is no folder {Path(path).absolute().parent}; make it first")


def write_vectors(path: str | Path, vectors: np.ndarray, texts: Sequence[str]) -> None:
    """Writes one vector for each text; the file appears whole or not at all.

    Args:
        path: `.npy` keeps the array alone; `.parquet` and `.jsonl` keep rows of `text` and `embedding`.
        vectors: [texts, width], of any type of number.
        texts: in the order of the vectors.

    Raises:
        DataError: the name ends in another way, or there is no such folder.
    """
    check_vectors_path(path)
    path = Path(path)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        if path.suffix == ".npy":
            np.save(part, vectors)
        elif path.suffix == ".parquet":
            embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
            pq.write_table(pa.table({"text": pa.array(texts, pa.string()), "embedding": embedding}), part)
        else:
            with part.open("w", encoding="utf-8") as file:
                for text, vector in zip(texts, vectors.tolist(), strict=True):
                    file.write(json.dumps({"text": text, "embedding": vector}, ensure_ascii=False) + "\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_vectors(path: str | Path, texts: Sequence[str]) -> np.ndarray:
    """One vector for each text, from what `write_vectors` wrote.

    Args:
        path: `.npy`, a row for each of the texts in their order, which stays on the disk; or `.parquet` with rows of `text` and
            `embedding`, in any order and perhaps of other texts too.
        texts: distinct.

    Returns:
        [texts, width], of the file's type of number.

    Raises:
        DataError: the file is missing or damaged, has another number of rows, or lacks a text.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no file {path}; make it with `modernbert prepare teacher`")
    try:
        if path.suffix == ".npy":
            vectors = np.load(path, mmap_mode="r", allow_pickle=False)
            if vectors.ndim != 2 or len(vectors) != len(texts):
                raise DataError(
                    f"{path} has the shape {vectors.shape}, and there are {len(texts):,} distinct texts; "
                    "make it again from the same files in the same order"
                )
            return vectors
        table = pq.read_table(path, columns=["text", "embedding"])
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path} is damaged or no .npy or .parquet with text and embedding ({error}); make it again") from error
    place_of = {text: place for place, text in enumerate(table["text"].to_pylist())}
    missing = next((text for text in texts if text not in place_of), None)
    if missing is not None:
        raise DataError(f"{path} has no vector of the text {missing[:60]!r}; make it again from these files")
    column = table["embedding"].combine_chunks()
    vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return vectors[[place_of[text] for text in texts]]
