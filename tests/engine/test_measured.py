"""What this machine gains by a dtype: measured once, kept in a file, and never trusted when damaged."""

import json

import pytest
import torch

from modernbert.engine import hardware, measured
from modernbert.engine.engine import load


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "modernbert" / "measured.json"


def test_a_figure_is_measured_once_and_kept(cache):
    assert measured.measured("speed", lambda: 2.5) == 2.5
    assert measured.measured("speed", lambda: pytest.fail("measured again")) == 2.5
    assert measured.measured("other", lambda: 3.0) == 3.0
    assert sorted(json.loads(cache.read_text()).values()) == [2.5, 3.0]
    assert [file.name for file in cache.parent.iterdir()] == [cache.name]  # no half-written file stays


def test_another_pytorch_or_machine_measures_again(cache, monkeypatch):
    measured.measured("speed", lambda: 2.5)
    monkeypatch.setattr(torch, "__version__", "9.9")
    assert measured.measured("speed", lambda: 1.0) == 1.0
    monkeypatch.setattr(measured, "_machine", lambda: "another chip")
    assert measured.measured("speed", lambda: 4.0) == 4.0


@pytest.mark.parametrize("damaged", ["", "{", "[1]", '{"speed": "fast"}', "\x00\x01"])
def test_a_damaged_file_is_measured_over(cache, damaged):
    cache.parent.mkdir()
    cache.write_text(damaged)
    assert measured.measured("speed", lambda: 2.5) == 2.5
    assert measured.measured("speed", lambda: pytest.fail("measured again")) == 2.5


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert measured.measured("speed", lambda: 2.5) == 2.5


def test_bfloat16_is_chosen_where_it_is_faster_and_a_wish_goes_first(tiny_folder, monkeypatch):
    for gain, dtype in ((0.2, torch.float32), (1.1, torch.float32), (2.0, torch.bfloat16)):
        monkeypatch.setattr(hardware, "bf16_gain", lambda gain=gain: gain)
        assert hardware.choose_inference_dtype(torch.device("cpu")) == dtype
        assert hardware.choose_dtype(torch.device("cpu")) == torch.float32  # training stays
        assert next(load(tiny_folder, device="cpu").model.parameters()).dtype == dtype
    assert next(load(tiny_folder, device="cpu", dtype=torch.float32).model.parameters()).dtype == torch.float32


def test_the_measurement_gives_a_ratio():
    assert 0 < measured._measure_bf16() < 100
