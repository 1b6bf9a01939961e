"""A process that dies at any file operation, and a disk that loses power, leave a folder whole or as it was."""

import os
import subprocess
import sys

import pytest

from modernbert.checkpoint.atomic import staged

WRITER = """
import os, sys
from pathlib import Path
from modernbert.checkpoint.atomic import staged

folder, last, left = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def dies(event, arguments):
    global left
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.copyfile", "shutil.move"):
        left -= 1
        if left < 0:
            os._exit(9)

sys.addaudithook(dies)
with staged(folder) as stage:
    for name in ("a", "b"):
        (stage / name).write_text(last * 10_000)
"""


def written(folder):
    return {path.name: path.read_text() for path in folder.iterdir()} if folder.exists() else None


@pytest.mark.parametrize("there", [False, True])
def test_a_process_that_dies_at_any_file_operation_leaves_each_file_whole(tmp_path, there):
    """Operations as Python itself reports them (audit events); the writer is killed before each in turn, until one gets through."""
    new = dict.fromkeys("ab", "new" * 10_000)
    for operation in range(100):
        folder = tmp_path / str(operation) / "folder"
        old = dict.fromkeys("abc", "old" * 10_000) if there else None
        if old:
            folder.mkdir(parents=True)
            for name, text in old.items():
                (folder / name).write_text(text)
        done = subprocess.run([sys.executable, "-c", WRITER, str(folder), "new", str(operation)], check=False)
        found = written(folder)
        if done.returncode == 0:
            break
        assert done.returncode == 9
        if old is None:
            assert found in (None, new)  # in one step
        else:
            assert found is not None and found.keys() == old.keys()
            assert all(text in (old[name], new.get(name)) for name, text in found.items())  # each file in one step
    assert operation > 5 and found == (new if old is None else old | new)


def test_a_file_where_the_folder_shall_be_is_named_and_stays(tmp_path):
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(FileExistsError) as error, staged(tmp_path / "folder"):
        pytest.fail("began")
    assert error.value.filename == str(tmp_path / "folder") and os.listdir(tmp_path) == ["folder"]


@pytest.mark.skipif(os.name == "nt", reason="Windows syncs no folders")
@pytest.mark.parametrize("there", [False, True])
def test_bytes_are_on_the_disk_before_they_have_their_name_and_the_name_before_the_end(tmp_path, monkeypatch, there):
    folder, said = tmp_path / "folder", []
    if there:
        folder.mkdir()
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (said.append(("sync", os.fstat(handle).st_ino)), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (said.append(("name", os.stat(a).st_ino)), replace(a, b)))
    with staged(folder) as stage:
        (stage / "a").write_text("a")
        (stage / "b").write_text("b")
        stage_inode = stage.stat().st_ino
    files = [(folder / name).stat().st_ino for name in "ab"]
    named = [place for place, (what, _) in enumerate(said) if what == "name"]
    assert {inode for what, inode in said if what == "name"} == (set(files) if there else {stage_inode})
    assert {("sync", inode) for inode in [*files, stage_inode]} <= set(said[: named[0]])
    assert ("sync", (folder if there else tmp_path).stat().st_ino) in said[named[-1] :]
