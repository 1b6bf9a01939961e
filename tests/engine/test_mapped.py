"""Pages of mapped weights go back to the system, and their numbers stay."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import safe_open, save_file

from modernbert.engine.mapped import page_out


def in_memory_from_files() -> int:
    """Bytes of this process that lie in files, too."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssFile"].split()[0]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_a_mapped_tensor_leaves_memory_and_is_read_again(tmp_path):
    save_file({"x": torch.arange(8_000_000)}, tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        x = file.get_tensor("x")
    total, before = x.sum(), in_memory_from_files()
    page_out(x)
    if in_memory_from_files() == before:
        pytest.skip("this system keeps the pages: no file behind them, or they are another process's, too")
    assert before - in_memory_from_files() > 0.9 * x.nbytes
    assert x.sum() == total


def test_memory_of_our_own_keeps_its_numbers():
    x = torch.arange(1_000_000)
    page_out(x)
    page_out(x[:3])
    assert x.sum() == 499_999_500_000
