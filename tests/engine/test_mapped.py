"""Pages of mapped weights go back to the system, and their numbers stay."""

import mmap
import sys
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import safe_open, save_file

from modernbert.engine.mapped import page_out


def in_memory_from_files() -> int:
    """Bytes of this process that lie in files, too."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssFile"].split()[0]) * 1024


def given_back(path: Path) -> int:
    """Bytes of a file, read whole, that leave memory when Python's own `mmap` asks for it: none where the system keeps them, as a file
    system in memory does, or with another process that reads them, too."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        zlib.crc32(mapped)
        before = in_memory_from_files()
        mapped.madvise(21)  # MADV_PAGEOUT
        return before - in_memory_from_files()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_a_mapped_tensor_leaves_memory_and_is_read_again(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"x": torch.arange(8_000_000)}, path)
    if given_back(path) < 0.9 * path.stat().st_size:
        pytest.skip("this system keeps the pages of files here")
    with safe_open(path, framework="pt") as file:
        x = file.get_tensor("x")
    total, before = x.sum(), in_memory_from_files()
    page_out(x)
    assert before - in_memory_from_files() > 0.9 * x.nbytes
    assert x.sum() == total


def test_memory_of_our_own_keeps_its_numbers():
    x = torch.arange(1_000_000)
    page_out(x)
    page_out(x[:3])
    assert x.sum() == 499_999_500_000
