"""Token shards: documents as token ids on disk, without special tokens, read back through memory maps (`shard_writing` writes them).

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
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from modernbert.errors import DataError
from modernbert.text.tokenizer import Tokenizer

FORMAT = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer"
VERIFIED = "verified.json"
KINDS = ("tokens", "offsets", "sources")


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
        if (tokenizer.vocab_size, special_ids_of(tokenizer)) != (self.manifest.vocab_size, self.manifest.special_ids):
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


def is_whole(folder: Path, shard: dict[str, Any]) -> bool:
    """Whether every file of a shard is there, by its size."""
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
        for name, digest in zip(wanted, pool.map(sha256_of, [folder / name for name in wanted]), strict=True):
            if digest != stated[name]:
                pool.shutdown(cancel_futures=True)
                raise _damaged(folder / name, f"wanted sha256 {stated[name]}, got {digest}")
            bar.update(now[name][0])
    with contextlib.suppress(OSError):  # a folder that cannot be written is compared each time
        write_json(path, now)
    return len(wanted)


def _damaged(path: Path, what: str) -> DataError:
    return DataError(
        f"token shard {path} is damaged: {what}; delete this file and prepare the folder again: it alone is written anew"
    )


def special_ids_of(tokenizer: Tokenizer) -> dict[str, int]:
    """The special ids of a tokenizer by their roles, as a manifest states them."""
    ids = {role: getattr(tokenizer, f"{role}_id") for role in ("cls", "sep", "pad", "mask", "unk")}
    return {role: id for role, id in ids.items() if id is not None}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Puts a file in its place once it is whole and on the disk."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def sha256_of(path: Path) -> str:
    """The checksum of a file, as a manifest states it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
