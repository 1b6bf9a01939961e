"""The attention benchmark, dry: on the CPU, through Triton's interpreter, with few tokens and few tiles."""

import pytest
import torch

from modernbert.bench import attention as bench
from modernbert.kernels.attention_window import TILES, Tiles


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton compiles here, which the tests of the kernels show")
def test_every_figure_of_the_record_is_there_and_the_tables_show_them(monkeypatch):
    monkeypatch.setattr(bench, "HEADS", 1)
    monkeypatch.setattr(bench, "CANDIDATES", [Tiles(own=64, step=64, warps=4, stages=stages) for stages in (1, 2)])
    kept = dict(TILES)
    record = bench.attention_record(tokens=64, device="cpu")
    assert kept == TILES
    (column,) = record["rows"].values()  # no row of 512 fits
    assert column["window"]["forward_ms"]["median"] > column["forward_bound_ms"]["bytes"] > 0
    assert [len(record["tiles"][name]) for name in TILES] == [2, 2, 2]
    table = bench.markdown(record)
    assert "| short texts | window |" in table
    assert "| backward_keys | 64 | 64 | 4 |" in table
