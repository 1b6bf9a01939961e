import json

import pytest
from click.testing import CliRunner

from modernbert.bench.shapes import (
    Machine,
    candidates,
    markdown,
    measure_machine,
    parameters_of,
    predicted_seconds,
    product_seconds,
    shapes_record,
)
from modernbert.cli import main
from modernbert.config import SIZES, preset
from modernbert.engine.hardware import choose_device
from modernbert.model.encoder import Encoder

HOPPER = Machine(processors=132, flops=742e12, bytes=3.35e12, local_attention=8.8e-10, global_attention=5.7e-10)


@pytest.mark.parametrize("name", SIZES)
def test_parameters_are_those_of_the_module(name):
    config = preset(name)
    config = config.with_(num_hidden_layers=3, vocab_size=1000)  # the formula is linear in both
    assert parameters_of(config) == sum(weight.numel() for weight in Encoder(config).parameters())


@pytest.mark.parametrize(("columns", "inner", "tflops"), [(2304, 768, 588), (768, 768, 495), (2304, 768, 591), (768, 1152, 546)])
def test_products_of_base_are_predicted_as_they_were_measured_on_an_h100(columns, inner, tflops):
    """Figures from outside for 65,536 rows in bf16, within 5 %; the speeds of a large product and a copy are that GPU's."""
    rows = 65_536
    predicted = 2 * rows * columns * inner / product_seconds(HOPPER, rows, columns, inner) / 1e12
    assert predicted == pytest.approx(tflops, rel=0.05)


def test_a_tile_begun_is_a_tile_paid():
    full, begun = (product_seconds(HOPPER, 128 * 132, columns, 768) for columns in (256, 257))
    assert begun > 1.2 * full


def test_candidates_spend_what_they_are_given_and_differ():
    for parameters in (17_000_000, 150_000_000, 395_000_000):
        shapes = candidates(parameters)
        assert len({(s.num_hidden_layers, s.hidden_size) for s in shapes}) == len(shapes) == 12
        assert all(abs(parameters_of(s) / parameters - 1) <= 0.01 for s in shapes)
    assert (22, 768, 1152) in {(s.num_hidden_layers, s.hidden_size, s.intermediate_size) for s in candidates(150_000_000)}


def test_deep_and_narrow_is_predicted_slower_than_shallow_and_wide():
    shapes = candidates(150_000_000)
    assert predicted_seconds(shapes[0], 65_536, HOPPER) > 1.5 * predicted_seconds(shapes[-1], 65_536, HOPPER)


def test_the_record_orders_shapes_by_what_was_measured():
    record = json.loads(json.dumps(shapes_record(9_000_000, count=3, tokens=128, length=64, repeats=2, device="cpu")))
    speeds = [line["tokens_per_second"]["median"] for line in record["shapes"]]
    assert speeds == sorted(speeds, reverse=True) and len(speeds) == 3
    assert -1 <= record["spearman"] <= 1
    assert markdown(record).count("\n") == 3 + 3


def test_a_machine_is_measured_in_positive_speeds():
    machine = measure_machine(choose_device("cpu"), 128, 64)
    assert min(machine.flops, machine.bytes, machine.local_attention, machine.global_attention) > 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--parameters", "many"], "150M"),
        (
            ["--parameters", "10"],
            "modernbert: no shape of 10 parameters; wanted enough for the embedding and four layers: try 17M or 150M",
        ),
        (["--tokens", "1000"], "modernbert: tokens=1000 is no multiple of length=512; try tokens=512"),
        (["--length", "0"], "0 is not in the range x>=1"),
    ],
)
def test_what_no_shape_can_be_measured_by_is_refused(wrong, said):
    answer = CliRunner().invoke(main, ["bench", "shapes", *wrong])
    assert answer.exit_code == 2 and said in answer.output
