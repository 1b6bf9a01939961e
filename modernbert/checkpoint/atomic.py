"""Folders that appear whole or not at all."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from modernbert.errors import naming


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yields an empty folder beside `folder`; when the block ends well, its files move into `folder`.

    A new `folder` appears in one step. In one that exists, each file is replaced in one step and the others stay. When
    the block raises, or the process dies in it, `folder` is as it was.

    Raises:
        FileExistsError: `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        with naming(folder):
            stage.mkdir()
            yield stage
        for file in stage.iterdir():
            file.chmod(stage.stat().st_mode & 0o666)  # safetensors writes for the owner alone
            _sync(file)
        _sync(stage)
        if folder.exists():
            for file in sorted(stage.iterdir()):
                os.replace(file, folder / file.name)
            _sync(folder)
        else:
            os.replace(stage, folder)
            _sync(folder.parent)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Deletes what killed processes left of their `staged` folders here; for a folder into which nobody else writes."""
    for stage in folder.glob(".*.tmp"):
        shutil.rmtree(stage)


def _sync(path: Path) -> None:
    """Has the system write a file, or a folder's list of names, to the disk itself."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder, and needs no sync of it
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
