"""Folders whose matrices are stored in float8."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from modernbert.batch import pack
from modernbert.checkpoint.float8 import from_float8
from modernbert.checkpoint.folder import load_model, save_model
from modernbert.config import ModelConfig
from modernbert.model.heads import MaskedLM, SequenceClassifier
from modernbert.model.init import init_weights

CONFIG = ModelConfig(
    vocab_size=600,
    hidden_size=128,
    intermediate_size=192,
    num_hidden_layers=4,
    num_attention_heads=2,
    unk_token_id=0,
    cls_token_id=1,
    sep_token_id=2,
    pad_token_id=3,
    mask_token_id=4,
    initializer_range=0.1,  # about 1/√hidden_size, so that layers matter
)
ROWS = [[1, 17, 40, 4, 90, 2], list(range(100, 180))]


def new(cls):
    model = cls(CONFIG)
    init_weights(model, CONFIG, torch.Generator().manual_seed(0))
    return model.eval()


@pytest.fixture
def folder(tmp_path):
    save_model(new(MaskedLM), CONFIG, tmp_path, dtype=torch.float8_e4m3fn)
    return tmp_path


def test_matrices_take_a_byte_and_come_back_within_a_sixteenth(folder):
    """e4m3 keeps 3 binary digits: 2⁻⁴ of a weight, or 2⁻¹⁰ where that is more, below the smallest normal number."""
    stored, model = load_file(folder / "model.safetensors"), load_model(MaskedLM, folder)
    assert {tensor.dtype for tensor in stored.values() if tensor.ndim == 2} == {torch.float8_e4m3fn}
    for (name, wanted), (_, got) in zip(new(MaskedLM).named_parameters(), model.named_parameters(), strict=True):
        assert got.dtype == torch.float32, name
        torch.testing.assert_close(got, wanted, rtol=2**-4 if wanted.ndim == 2 else 0, atol=2**-10 if wanted.ndim == 2 else 0)


def test_each_byte_becomes_the_number_that_pytorch_makes_of_it():
    stored = torch.arange(256, dtype=torch.uint8).repeat(3).view(torch.float8_e4m3fn).view(3, 256)
    torch.testing.assert_close(from_float8({"x": stored.T})["x"], stored.float().T, rtol=0, atol=0, equal_nan=True)
    assert from_float8({"x": stored})["x"].shape == (3, 256)


def test_transformers_reads_the_same_weights(folder):
    """To the bit, in the dtype that config.json names and in one that is asked for; logits within 1e-4 as for other folders."""
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    theirs, ours = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval(), load_model(MaskedLM, folder)
    assert theirs.dtype == torch.float32
    for name, parameter in ours.named_parameters():
        assert torch.equal(theirs.get_parameter(name), parameter), name
    for row in ROWS:
        with torch.no_grad():
            wanted, got = theirs(torch.tensor([row])).logits[0], ours(pack([row]))
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)
    half = transformers.AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


def test_a_new_head_begins_in_float32(folder):
    model = load_model(SequenceClassifier, folder, fresh=("head", "classifier"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_classifier_keeps_its_digits(tmp_path):
    model = new(SequenceClassifier)
    save_model(model, CONFIG, tmp_path, dtype=torch.float8_e4m3fn)
    assert torch.equal(load_model(SequenceClassifier, tmp_path).classifier.weight, model.classifier.weight)
