"""The benchmark of fused steps, dry: few tokens, nothing compiled."""

import pytest
import torch

from modernbert.bench.steps import markdown, steps_record


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton compiles here, which the tests of the kernels show")
def test_every_step_is_measured_both_ways_and_the_table_shows_its_gain():
    record = steps_record(size="ettin_17m", tokens=64, device="cpu", compile=False)
    assert len(record["steps"]) == 8
    for name, step in record["steps"].items():
        assert step["gain"] == step["plain_ms"]["median"] / step["fast_ms"]["median"] > 0
        assert f"| {name} | {step['fast_ms']['median']:.3f} (" in markdown(record)
