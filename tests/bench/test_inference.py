import json

import pytest
import torch
from click.testing import CliRunner

from modernbert.bench import inference
from modernbert.bench.contestants import ARCHITECTURES, IMPLEMENTATIONS, ours
from modernbert.bench.measures import random_rows
from modernbert.cli import main
from modernbert.config import SIZES
from modernbert.errors import ConfigError


@pytest.fixture
def in_this_process(monkeypatch):
    """A process costs seconds: here each measurement runs in this one, at a size of its own, and a failure still says why."""

    def alone(measure, *arguments):
        try:
            return measure(*arguments)
        except ImportError as error:  # FlashAttention
            return {"failed": str(error)}

    monkeypatch.setattr(inference, "_in_a_process", alone)
    monkeypatch.setitem(SIZES, "toy", (2, 64, 96, 1))


def test_variable_rows_are_half_as_long_on_average_and_never_too_long():
    lengths = [len(row) for row in random_rows(512 * 512, 512, True, seed=0)]
    assert len(lengths) == 512 and max(lengths) <= 512 and min(lengths) >= 16
    assert sum(lengths) / 512 == pytest.approx(256, rel=0.05)


def test_every_part_gives_its_table_at_toy_size(tmp_path, monkeypatch, in_this_process):
    few = {"modernbert": ours(), "float32": ours(float32=True)}
    monkeypatch.setitem(inference.TABLES, "implementations", few)
    monkeypatch.setitem(inference.TABLES, "architectures", few)
    record = inference.inference_record(
        parts=("encoder", "latency", "accuracy", "peers", "largest"), sizes=("toy",), batch_tokens=512, repeats=2, device="cpu"
    )
    inference.write(record, tmp_path)
    assert json.loads((tmp_path / "inference.json").read_text())["encoder"].keys() == {"toy"}
    assert (tmp_path / "inference.png").read_bytes()[:4] == b"\x89PNG"
    table = (tmp_path / "inference.md").read_text()
    assert table.count("| modernbert |") == 3 and "512 variable" in table and "8,192" not in table
    accuracy = record["accuracy"]["toy"]
    assert max(accuracy.values()) < 1e-5  # on a CPU both are float32, and differ by the order of sums


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # transformers' DeBERTa uses it
@pytest.mark.parametrize("name", ["transformers, sdpa", "BERT", "RoBERTa", "DeBERTa-v3", "NomicBERT", "EuroBERT", "Jina v3"])
def test_a_peer_gives_a_vector_for_each_position_of_its_padded_rows(name, in_this_process):
    model = (IMPLEMENTATIONS | ARCHITECTURES)[name]("toy", torch.device("cpu"))
    with torch.inference_mode():
        assert model([[5, 6, 7], [8] * 70])().shape == (2, 70, 64)


def test_what_has_been_measured_is_not_measured_again(tmp_path, in_this_process):
    assert inference._alone(tmp_path, "sum", divmod, 7, 2) == (3, 1)
    assert inference._alone(tmp_path, "sum", divmod, 1, 0) == [3, 1]  # as JSON has it


def test_a_contestant_that_nobody_knows_is_named_before_anything_runs():
    with pytest.raises(ConfigError, match=r"no contestant named 'modernbert, fp9'; there are .*'modernbert, fp8'"):
        inference.inference_record(parts=["encoder"], only=["modernbert", "modernbert, fp9"])


def test_a_size_that_nobody_knows_is_named_before_anything_runs(tmp_path):
    done = CliRunner().invoke(main, ["bench", "inference", "--out", str(tmp_path), "--size", "bas"])
    assert done.exit_code == 2 and "no size named 'bas'; did you mean 'base'?" in done.stderr


def test_a_contestant_that_fails_says_why_in_its_place():
    assert "ZeroDivisionError" in inference._in_a_process(divmod, 1, 0)["failed"]


def test_embed_runs_from_strings_to_vectors(in_this_process, tiny_folder):
    record = inference.inference_record(
        parts=("embed",), sizes=("toy",), repeats=1, device="cpu", texts=["a text", "another"], tokenizer=tiny_folder
    )
    runs = record["embed"]["runs"]
    ours = [name for name in runs if name.startswith("modernbert")]
    assert ours == ["modernbert", "modernbert, again", "modernbert, batch-invariant"] and record["embed"]["tokens"] > 4
    assert min(runs[name]["tokens_per_second"]["min"] for name in ours) > 0
    assert record["embed"]["batch_invariance"]["on"]["vectors_with_another_bit"] == 0
    assert record["embed"]["batch_invariance"]["off"]["greatest_relative_difference"] < 1e-5
    first = record["embed"]["first_vector"]
    assert len(first) == inference.FIRST_VECTORS and min(one["vector_s"] for one in first) > 0
    assert all(0 < one["torch_s"] < one["imports_s"] for one in first)
    assert "first vector" in inference.markdown(record)
