"""Token shards: documents as token ids on disk, without special tokens, read back through memory maps.

A folder holds, for each shard, `tokens-00000.npy` (uint16 if the vocabulary fits, else uint32), `offsets-00000.npy`
(int64, where each document begins and the last one ends) and `sources-00000.npy` (uint16, the number of each document's
source), and one `manifest.json` that names, counts and sums them up. The manifest is replaced after each finished shard,
so a folder is at every moment whole up to there, and a killed preparation goes on from there. The tokenizer is written
last, into `tokenizer/`: a folder without it is not finished. `verified.json` remembers which files were compared with their
checksums, so that a run which is started again does not read terabytes for it.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
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
from modernbert.errors import DataError
from modernbert.text.tokenizer import Tokenizer

FORMAT = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer"
VERIFIED = "verified.json"
KINDS = ("tokens", "offsets", "sources")
TOKENS_PER_SHARD = 1 << 26
BATCH_DOCUMENTS = 4096
BATCH_CHARACTERS = 1 << 23


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a folder of token shards holds; the content of its manifest.json."""

    format: int
    tokenizer_sha256: str
    vocab_size: int
    special_ids: dict[str, int]
    """`cls`, `sep`, `pad`, `mask` and, if there is one, `unk`."""
    documents: int = 0
    tokens: int = 0
    documents_sha256: str = hashlib.sha256().hexdigest()
    """Of all texts so far, in order: a resumed preparation must be given the same ones."""
    sources: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """Name, documents and tokens of each source; the place in the list is its number."""
    shards: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """Documents and tokens of each shard, and its files: name, bytes and sha256."""


class TokenShards:
    """A folder of token shards, opened for reading; the tokens stay on disk until they are used."""

    def __init__(self, folder: Path, manifest: Manifest, shards: list[dict[str, NDArray[Any]]]) -> None:
        """Joins opened shards; callers want `TokenShards.open`."""
        self.folder = folder
        self.manifest = manifest
        self.tokens = [shard["tokens"] for shard in shards]
        """Token ids of each shard, one document after the other."""
        self.starts = np.concatenate([shard["offsets"][:-1] for shard in shards])
        """Where each document begins in the tokens of its shard."""
        self.lengths = np.concatenate([np.diff(shard["offsets"]) for shard in shards])
        """Tokens of each document."""
        self.shard_of = np.repeat(np.arange(len(shards)), [len(shard["offsets"]) - 1 for shard in shards])
        """The shard of each document."""
        self.source_of = np.concatenate([shard["sources"] for shard in shards])
        """The number of each document's source."""

    def __len__(self) -> int:
        return len(self.lengths)

    def document(self, index: int) -> NDArray[Any]:
        """The token ids of one document (a view of the file)."""
        start = self.starts[index]
        return self.tokens[self.shard_of[index]][start : start + self.lengths[index]]

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the tokens.

        Raises:
            DataError: it is not there, because the preparation was stopped, or it is another one.
        """
        folder = self.folder / TOKENIZER
        if not folder.exists():
            raise DataError(f"{self.folder} is not finished: its tokenizer is missing; give the same `prepare tokens` again")
        tokenizer = Tokenizer.load(folder)
        if (tokenizer.vocab_size, _special_ids(tokenizer)) != (self.manifest.vocab_size, self.manifest.special_ids):
            raise DataError(
                f"{folder} is not the tokenizer of the shards beside it; delete it, and give the same `prepare tokens` again"
            )
        return tokenizer

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = False) -> "TokenShards":
        """Opens the shards that `write_shards` wrote.

        Args:
            folder: where manifest.json is.
            verify: whether to compare the checksums of files that were not compared since they last changed; sizes are always
                compared.

        Raises:
            DataError: no manifest, one of another format, no documents, or a shard that is missing or damaged.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        if manifest is None:
            raise DataError(f"no {MANIFEST} in {folder}; write token shards there with `modernbert prepare tokens`")
        if not manifest.tokens:
            raise DataError(f"{folder} holds no tokens; prepare it again from documents with text")
        shards = [_open_shard(folder, shard) for shard in manifest.shards]
        if verify:
            compare_sums(folder, manifest)
        return cls(folder, manifest, shards)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, or None if it has none.

    Raises:
        DataError: the manifest is damaged or of another format.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_bytes())
        if stored["format"] == FORMAT:
            return Manifest(**stored)
        problem = f"wanted format {FORMAT}, got {stored['format']!r}"
    except (ValueError, TypeError, KeyError) as error:
        problem = f"it is damaged ({error!r})"
    raise DataError(f"cannot read {path}: {problem}; delete the folder and prepare the token shards again")


def _open_shard(folder: Path, shard: dict[str, Any]) -> dict[str, NDArray[Any]]:
    arrays = {}
    for kind in KINDS:
        stated = shard["files"][kind]
        path = folder / stated["name"]
        size = _size(path)
        if size != stated["bytes"]:
            got = "no such file" if size is None else f"{size} bytes"
            raise _damaged(path, f"wanted {stated['bytes']} bytes, got {got}")
        try:
            arrays[kind] = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)  # memmap slices are slow
        except (ValueError, EOFError) as error:
            raise _damaged(path, str(error)) from error
    return arrays


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None


def _is_whole(folder: Path, shard: dict[str, Any]) -> bool:
    return all(_size(folder / file["name"]) == file["bytes"] for file in shard["files"].values())


def compare_sums(folder: Path, manifest: Manifest, *, again: bool = False) -> int:
    """Reads files on all cores and compares their checksums with the manifest's; returns how many files it read.

    Args:
        folder: of the shards.
        manifest: its content.
        again: whether to read also those that were compared before and have not changed since, by size and time of change
            (the inode's, which a copy does not keep).

    Raises:
        DataError: a file is damaged; names it.
    """
    stated = {file["name"]: file["sha256"] for shard in manifest.shards for file in shard["files"].values()}
    now = {name: [(found := (folder / name).stat()).st_size, found.st_ctime_ns] for name in stated}
    path = folder / VERIFIED
    before: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        before = json.loads(path.read_bytes())
    wanted = [name for name in stated if again or before.get(name) != now[name]]
    if not wanted:
        return 0
    size = sum(now[name][0] for name in wanted)
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(desc="checksums", total=size, unit="B", unit_scale=True, delay=2, disable=None) as bar,
    ):
        for name, digest in zip(wanted, pool.map(_sha256, [folder / name for name in wanted]), strict=True):
            if digest != stated[name]:
                pool.shutdown(cancel_futures=True)
                raise _damaged(folder / name, f"wanted sha256 {stated[name]}, got {digest}")
            bar.update(now[name][0])
    with contextlib.suppress(OSError):  # a folder that cannot be written is compared each time
        _write_json(path, now)
    return len(wanted)


def _damaged(path: Path, what: str) -> DataError:
    return DataError(
        f"token shard {path} is damaged: {what}; delete this file and prepare the folder again: it alone is written anew"
    )


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
        if _is_whole(folder, stated):
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
        _write_json(folder / MANIFEST, dataclasses.asdict(manifest))
    return manifest


def _others(folder: Path) -> DataError:
    return DataError(f"{folder} was begun with other documents; give the same files in the same order, or an empty folder")


def _empty_manifest(tokenizer: Tokenizer) -> Manifest:
    return Manifest(
        format=FORMAT,
        tokenizer_sha256=tokenizer.sha256,
        vocab_size=tokenizer.vocab_size,
        special_ids=_special_ids(tokenizer),
    )


def _special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    ids = {role: getattr(tokenizer, f"{role}_id") for role in ("cls", "sep", "pad", "mask", "unk")}
    return {role: id for role, id in ids.items() if id is not None}


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
    _write_json(folder / MANIFEST, dataclasses.asdict(grown))
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
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path)}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
