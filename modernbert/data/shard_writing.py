"""Writes token shards (`shards` says what they are), in batches of documents, each shard whole before the manifest names it."""

import dataclasses
import hashlib
import itertools
import math
import os
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from modernbert.checkpoint.lock import alone_in
from modernbert.data.documents import Document
from modernbert.data.shards import (
    FORMAT,
    MANIFEST,
    TOKENIZER,
    Manifest,
    is_whole,
    read_manifest,
    sha256_of,
    special_ids_of,
    write_json,
)
from modernbert.errors import DataError
from modernbert.text.tokenizer import Tokenizer

TOKENS_PER_SHARD = 1 << 26
BATCH_DOCUMENTS = 4096
BATCH_CHARACTERS = 1 << 23


def write_shards(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    tokens_per_shard: int = TOKENS_PER_SHARD,
) -> Manifest:
    """Tokenizes documents into a folder of shards; goes on after the last finished shard if the folder has some.

    A finished shard of which a file is missing, or has another size, is written anew; the others stay.

    Args:
        documents: in an order that does not change from run to run: a resumed preparation reads past those it has.
        tokenizer: encodes batches of documents on all cores.
        folder: made if it does not exist.
        tokens_per_shard: a shard is closed at the first document that brings it here.

    Returns:
        The manifest of the whole folder.

    Raises:
        DataError: the folder was made with another tokenizer or from other documents, another process writes into it, or a
                document is damaged.
    """
    folder = Path(folder)
    with alone_in(folder, DataError):
        manifest = _write_all(documents, tokenizer, folder, tokens_per_shard)
        tokenizer.save(folder / TOKENIZER)
    return manifest


def write_rows_of_ids(rows: Iterable[NDArray[Any]], tokenizer: Tokenizer, folder: str | Path) -> Manifest:
    """Writes documents that are token ids already into an empty folder, as one shard: made-up text for benchmarks.

    Raises:
        DataError: the folder has shards, or another process writes into it.
    """
    folder = Path(folder)
    with alone_in(folder, DataError):
        if read_manifest(folder):
            raise DataError(f"{folder} holds token shards; choose an empty folder")
        shard = [("made up", np.asarray(row, _dtype(tokenizer))) for row in rows]
        digest = hashlib.sha256()
        for _, ids in shard:
            digest.update(ids.tobytes())
        manifest = _write_shard(folder, _empty_manifest(tokenizer), shard, digest.hexdigest())
        tokenizer.save(folder / TOKENIZER)
    return manifest


def _write_all(documents: Iterable[Document], tokenizer: Tokenizer, folder: Path, tokens_per_shard: int) -> Manifest:
    manifest = read_manifest(folder) or _empty_manifest(tokenizer)
    if manifest.tokenizer_sha256 != tokenizer.sha256:
        raise DataError(f"{folder} holds token shards of another tokenizer; choose an empty folder, or delete this one")
    digest = hashlib.sha256()
    documents = iter(documents)
    for number, stated in enumerate(manifest.shards):
        had = itertools.islice(documents, stated["documents"])
        if is_whole(folder, stated):
            for document in had:
                digest.update(_digested(document))
        else:
            _write_again(folder, number, manifest, _take(_encoded(had, tokenizer, lambda tokens: None), math.inf, digest))
    if digest.hexdigest() != manifest.documents_sha256:
        raise _others(folder)
    with tqdm(desc="tokens", unit=" tokens", unit_scale=True, initial=manifest.tokens, disable=None) as bar:
        encoded = _encoded(documents, tokenizer, bar.update)
        while shard := _take(encoded, tokens_per_shard, digest):
            manifest = _write_shard(folder, manifest, shard, digest.hexdigest())
    if not manifest.shards:
        write_json(folder / MANIFEST, dataclasses.asdict(manifest))
    return manifest


def _others(folder: Path) -> DataError:
    return DataError(f"{folder} was begun with other documents; give the same files in the same order, or an empty folder")


def _empty_manifest(tokenizer: Tokenizer) -> Manifest:
    return Manifest(
        format=FORMAT,
        tokenizer_sha256=tokenizer.sha256,
        vocab_size=tokenizer.vocab_size,
        special_ids=special_ids_of(tokenizer),
    )


def _digested(document: Document) -> bytes:
    return document.text.encode() + b"\xff"  # a byte that UTF-8 never has, so that moving a boundary is seen


def _encoded(
    documents: Iterable[Document], tokenizer: Tokenizer, progress: Callable[[int], Any]
) -> Iterator[tuple[Document, NDArray[Any]]]:
    """Documents with their ids; the next batch is being encoded while the last one is used."""
    dtype = _dtype(tokenizer)

    def encode(batch: list[Document]) -> tuple[list[Document], list[list[int]]]:
        return batch, tokenizer.encode([document.text for document in batch], special=False)

    with ThreadPoolExecutor(1) as ahead:
        encoding = deque[Future[tuple[list[Document], list[list[int]]]]]()
        for batch in itertools.chain(_batches(documents), [None]):
            if batch:
                encoding.append(ahead.submit(encode, batch))
            while len(encoding) > bool(batch):
                done, rows = encoding.popleft().result()
                progress(sum(map(len, rows)))
                for document, row in zip(done, rows, strict=True):
                    yield document, np.array(row, dtype)


def _dtype(tokenizer: Tokenizer) -> type[np.unsignedinteger]:
    return np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _take(encoded: Iterator[tuple[Document, NDArray[Any]]], tokens: float, digest: Any) -> list[tuple[str, NDArray[Any]]]:
    """Source and ids of the next documents, up to the one that completes `tokens`; their texts go into the digest."""
    shard = []
    for document, ids in encoded:
        digest.update(_digested(document))
        shard.append((document.source, ids))
        tokens -= len(ids)
        if tokens <= 0:
            break
    return shard


def _write_shard(folder: Path, manifest: Manifest, shard: list[tuple[str, NDArray[Any]]], documents_sha256: str) -> Manifest:
    numbers = _numbers(manifest, shard)
    documents_of: Counter[str] = Counter()
    tokens_of: Counter[str] = Counter()
    for source, ids in shard:
        documents_of[source] += 1
        tokens_of[source] += len(ids)
    files = _write_files(folder, len(manifest.shards), shard, numbers)
    before = {source["name"]: source for source in manifest.sources}
    sources = [
        {
            "name": name,
            "documents": before.get(name, {}).get("documents", 0) + documents_of[name],
            "tokens": before.get(name, {}).get("tokens", 0) + tokens_of[name],
        }
        for name in numbers
    ]
    tokens = tokens_of.total()
    grown = dataclasses.replace(
        manifest,
        documents=manifest.documents + len(shard),
        tokens=manifest.tokens + tokens,
        documents_sha256=documents_sha256,
        sources=sources,
        shards=[*manifest.shards, {"documents": len(shard), "tokens": tokens, "files": files}],
    )
    write_json(folder / MANIFEST, dataclasses.asdict(grown))
    return grown


def _write_again(folder: Path, number: int, manifest: Manifest, shard: list[tuple[str, NDArray[Any]]]) -> None:
    """Puts the files of a finished shard back, if they come out as they were; else what is left of it stays."""
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        made = _write_files(Path(beside), number, shard, _numbers(manifest, shard)) if shard else {}
        if made != manifest.shards[number]["files"]:
            raise _others(folder)
        for file in made.values():
            os.replace(Path(beside) / file["name"], folder / file["name"])


def _numbers(manifest: Manifest, shard: list[tuple[str, NDArray[Any]]]) -> dict[str, int]:
    """The number of each source: as the manifest has them, and then as they come in a shard."""
    numbers = {source["name"]: number for number, source in enumerate(manifest.sources)}
    for source, _ in shard:
        numbers.setdefault(source, len(numbers))
    if len(numbers) > 1 << 16:
        raise DataError(f"more than {1 << 16} sources; write fewer different values into the field 'source'")
    return numbers


def _write_files(
    folder: Path, number: int, shard: list[tuple[str, NDArray[Any]]], numbers: dict[str, int]
) -> dict[str, dict[str, Any]]:
    """Writes the arrays of one shard; what the manifest states of each file."""
    arrays = {
        "tokens": np.concatenate([ids for _, ids in shard]),
        "offsets": np.cumsum([0] + [len(ids) for _, ids in shard], dtype=np.int64),
        "sources": np.array([numbers[source] for source, _ in shard], np.uint16),
    }
    return {kind: _write_array(folder / f"{kind}-{number:05d}.npy", array) for kind, array in arrays.items()}


def _write_array(path: Path, array: NDArray[Any]) -> dict[str, Any]:
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:  # numpy's says neither the name nor that the disk is full
        raise DataError(f"cannot write {path} ({error.strerror or error}); make room, and give the same command again") from error
    os.replace(part, path)
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
