"""Loading in fp8: what becomes of the model, what its vectors keep, and what a machine without fp8 is told."""

import numpy as np
import pytest

import modernbert
from modernbert.errors import HardwareError
from modernbert.model.fp8 import Fp8NormLinear

TEXTS = ["He walked to the store, didn't he?", "def add(a, b):\n    return a + b\n", "Seven days make a week."]


def test_a_machine_without_fp8_is_told_so(tiny_folder):
    with pytest.raises(HardwareError, match=r"fp8 needs an NVIDIA GPU of capability 8\.9 or newer .* got cpu\. Leave fp8 out"):
        modernbert.load(tiny_folder, device="cpu", dtype="fp8")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_vectors_of_an_fp8_model_stay_near_those_of_bfloat16(tiny_folder, monkeypatch, device):
    """On a CPU by the definition. The tiny model's weights are 25 times as large as a trained one's, so that rounding shows: 0.95 here,
    0.9995 there."""
    if device == "cpu":
        monkeypatch.setattr("modernbert.model.fp8.fp8_runs_on", lambda device: True)
    exact = modernbert.load(tiny_folder, device=device, dtype="bfloat16").embed(TEXTS, normalize=True)
    engine = modernbert.load(tiny_folder, device=device, dtype="fp8")
    assert sum(isinstance(module, Fp8NormLinear) for module in engine.model.modules()) == 2 * 4 - 1
    cosines = np.sum(exact * engine.embed(TEXTS, normalize=True), 1)
    assert 0.9 < cosines.min() < 0.9999
