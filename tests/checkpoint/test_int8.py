"""Folders whose weights are stored in a byte each."""

import json
import os

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from modernbert.batch import pack
from modernbert.checkpoint.folder import ARCHITECTURES, class_of, load_model, save_model
from modernbert.checkpoint.weights import read_weights, weight_names
from modernbert.config import ModelConfig
from modernbert.errors import CheckpointError
from modernbert.model.encoder import Encoder
from modernbert.model.heads import MaskedLM, SequenceClassifier
from modernbert.model.init import init_weights

CONFIG = ModelConfig(
    vocab_size=600,
    hidden_size=128,
    intermediate_size=192,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_labels=3,
    unk_token_id=0,
    cls_token_id=1,
    sep_token_id=2,
    pad_token_id=3,
    mask_token_id=4,
    initializer_range=0.1,  # about 1/√hidden_size, so that layers matter
)
FILE = "model_int8.safetensors"
ROWS = pack([[1, 17, 40, 4, 90, 2], list(range(100, 180))])


def new(cls, config=CONFIG):
    model = cls(config)
    init_weights(model, config, torch.Generator().manual_seed(0))
    return model.eval()


@pytest.fixture
def saved(tmp_path):
    """A masked-LM folder in int8."""
    save_model(new(MaskedLM), CONFIG, tmp_path / "model", dtype=torch.int8)
    return tmp_path / "model"


@pytest.mark.parametrize("cls", ARCHITECTURES)
def test_every_class_comes_back_within_half_a_step_of_each_row(cls, tmp_path):
    model = new(cls)
    save_model(model, CONFIG, tmp_path / "model", dtype=torch.int8)
    loaded = load_model(cls, tmp_path / "model").state_dict()
    assert loaded.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert loaded[name].dtype == torch.float32
        if tensor.ndim == 1 or name == "classifier.weight":
            assert torch.equal(loaded[name], tensor), name
        else:
            half_a_step_O1 = tensor.abs().amax(1, keepdim=True) / 127 / 2
            assert ((loaded[name] - tensor).abs() <= half_a_step_O1 * (1 + 1e-4)).all(), name
    assert class_of(tmp_path / "model") in (cls, Encoder)


@torch.no_grad()
def test_a_model_says_nearly_the_same_afterwards(saved):
    wanted_TV = new(MaskedLM)(ROWS)
    # rounding moves each weight by 0.7 % of what weights are on average
    assert torch.cosine_similarity(load_model(MaskedLM, saved)(ROWS), wanted_TV).min() > 0.999


def test_the_file_is_a_quarter_of_float32_and_half_of_bfloat16(tmp_path):
    config = CONFIG.with_(hidden_size=256, intermediate_size=384, num_attention_heads=4)
    sizes = []
    for dtype in (torch.float32, torch.bfloat16, torch.int8):
        save_model(new(MaskedLM, config), config, tmp_path / "model", dtype=dtype)
        sizes.append(sum(file.stat().st_size for file in (tmp_path / "model").glob("*.safetensors")))
    # a float32 scale for each row of 256 or more is 1.6 % at most; names and norms are the rest
    assert sizes[2] < 0.265 * sizes[0] and sizes[2] < 0.53 * sizes[1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_it_loads_into_any_dtype_and_converts_back(saved, dtype):
    model = load_model(MaskedLM, saved, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    save_model(model, model.config, saved)
    assert sorted(os.listdir(saved)) == ["config.json", "model.safetensors"]  # the int8 file would be stale
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(saved)
    assert theirs.dtype == dtype
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_storing_what_was_stored_loses_nothing_more(saved, tmp_path):
    once = read_weights(saved)
    save_model(load_model(MaskedLM, saved), CONFIG, tmp_path / "again", dtype=torch.int8)
    first, again = load_file(saved / FILE), load_file(tmp_path / "again" / FILE)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items() if tensor.dtype == torch.int8)
    for name, tensor in read_weights(tmp_path / "again").items():
        torch.testing.assert_close(tensor, once[name], rtol=1e-6, atol=0)  # the scale's last bit


@pytest.mark.parametrize("load", ["AutoModel", "AutoModelForMaskedLM"])
def test_transformers_refuses_it_instead_of_taking_numbers_for_floats(saved, load):
    with pytest.raises(OSError, match=r"no file named model.safetensors"):
        getattr(transformers, load).from_pretrained(saved)


def test_names_are_known_without_reading_and_floats_are_read_first(saved):
    assert sorted(weight_names(saved)) == sorted(read_weights(saved))
    save_file(load_file(saved / FILE), saved / "kept")
    save_model(new(MaskedLM), CONFIG, saved)
    (saved / "kept").rename(saved / FILE)
    assert torch.equal(read_weights(saved)["head.dense.weight"], new(MaskedLM).head.dense.weight)


def test_saving_int8_over_floats_leaves_no_floats(saved):
    save_model(new(MaskedLM), CONFIG, saved, max_shard_bytes=100_000)
    save_model(new(MaskedLM), CONFIG, saved, dtype=torch.int8)
    assert sorted(os.listdir(saved)) == ["config.json", FILE]
    assert json.loads((saved / "config.json").read_text())["dtype"] == "int8"


def test_a_bare_encoder_finds_its_weights(tmp_path):
    save_model(new(Encoder), CONFIG, tmp_path, dtype=torch.int8)
    assert "layers.0.attn.Wqkv.weight" in load_file(tmp_path / FILE)
    assert load_model(Encoder, tmp_path).layers[0].attn.Wqkv.weight.shape == (384, 128)
    assert load_model(SequenceClassifier, tmp_path, fresh=("head", "classifier")).classifier.weight.shape == (3, 128)


DENSE = "head.dense.weight"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda w: w.pop(DENSE + "_scale"), rf"{FILE} holds {DENSE} without {DENSE}_scale; fetch or write it again$"),
        (lambda w: w.pop(DENSE), rf"{FILE} holds {DENSE}_scale without {DENSE} in int8; fetch or write it again$"),
        (lambda w: w.update({DENSE: w[DENSE].float()}), rf"{FILE} holds {DENSE}_scale without {DENSE} in int8"),
        (
            lambda w: w.update({DENSE + "_scale": torch.ones(127)}),
            rf"{FILE}: {DENSE} \(128, 128\) has scales \(127,\) in float32; wanted a matrix, and a float32 for each of its rows: fetch",
        ),
        (lambda w: w.update({DENSE + "_scale": torch.ones(128, 1)}), r"has scales \(128, 1\) in float32"),
        (lambda w: w.update({DENSE + "_scale": torch.ones(128).half()}), r"has scales \(128,\) in float16"),
        (lambda w: w.update({DENSE: w[DENSE].flatten()}), r"head.dense.weight \(16384,\) has scales"),
    ],
    ids=[
        "no scale",
        "no matrix",
        "matrix of floats",
        "too few scales",
        "scales as a matrix",
        "scales in float16",
        "no matrix shape",
    ],
)
def test_scales_that_are_missing_or_do_not_fit_are_named(saved, damage, said):
    weights = load_file(saved / FILE)
    damage(weights)
    save_file(weights, saved / FILE)
    with pytest.raises(CheckpointError, match=said):
        load_model(MaskedLM, saved)


def test_a_matrix_of_another_shape_and_a_cut_off_file_are_named(saved):
    weights = load_file(saved / FILE)
    weights |= {DENSE: weights[DENSE][:100].contiguous(), DENSE + "_scale": weights[DENSE + "_scale"][:100].contiguous()}
    save_file(weights, saved / FILE)
    with pytest.raises(CheckpointError, match=rf"misshapen {DENSE}: wanted \(128, 128\), found \(100, 128\)"):
        load_model(MaskedLM, saved)
    (saved / FILE).write_bytes((saved / FILE).read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=rf"{FILE} is damaged or cut short"):
        load_model(MaskedLM, saved)
