"""A graph that reads a folder's own weights, and what runs from it without torch."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from modernbert.checkpoint.folder import load_model, read_config
from modernbert.checkpoint.modules import Dense, Modules, save_sentence_transformer
from modernbert.engine.engine import load as load_engine
from modernbert.errors import ExportError
from modernbert.export.beside import write_beside
from modernbert.model.heads import Embedder
from modernbert.runtime.model import load
from modernbert.text.tokenizer import Tokenizer

TEXTS = ["Seven days make a week.", "", "He walked to the store, didn't he? " * 20]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn]


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


def stored_as(folder, dtype):
    tensors = load_file(folder / "model.safetensors")
    stored = {name: tensor.to(dtype if tensor.ndim == 2 else torch.float32) for name, tensor in tensors.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return stored


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_words_and_vectors_are_those_of_the_stored_weights(folder, tmp_path, dtype):
    stored = stored_as(folder, dtype)
    head, vectors = write_beside(folder)
    assert head.difference < 1e-4 and vectors.difference < 1e-4
    assert (folder / "graph.onnx").stat().st_size < 60_000
    wide = shutil.copytree(folder, tmp_path / "wide")
    save_file({name: tensor.float() for name, tensor in stored.items()}, wide / "model.safetensors", metadata={"format": "pt"})
    engine, model = load_engine(wide, device="cpu", dtype="float32"), load(folder, threads=1)
    np.testing.assert_allclose(model.embed(TEXTS), engine.embed(TEXTS), atol=1e-4)
    text = "The capital of France is [MASK]."
    assert [word["token"] for word in model.fill_mask(text)] == [word["token"] for word in engine.fill_mask(text)]


def test_a_folder_with_modules_gives_its_vectors(tiny_folder, tmp_path):
    dense = Dense(weight_OE=torch.randn(16, 32), activation="tanh")
    modules = Modules(pooling="mean", dense=(dense,), normalize=True, prompts={"query": "The capital: "}, include_prompt=False)
    model = load_model(Embedder, tiny_folder)
    save_sentence_transformer(model, read_config(tiny_folder), tmp_path, modules, tokenizer=Tokenizer.load(tiny_folder))
    (found,) = write_beside(tmp_path)
    assert found.difference < 1e-4
    engine, ours = load_engine(tmp_path, device="cpu", dtype="float32"), load(tmp_path, threads=1)
    wanted = engine.embed(TEXTS, prompt_name="query")
    np.testing.assert_allclose(ours.embed(TEXTS, prompt_name="query"), wanted, atol=1e-4)


@pytest.mark.parametrize("verb", [["embed", "--json", "a text"], ["fill-mask", "--json", "a [MASK] text"]])
def test_short_calls_on_the_command_line_do_not_import_torch(folder, verb):
    write_beside(folder)
    code = "import sys; sys.modules['torch'] = None; from modernbert.cli import main; main(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", code, *verb, "--model", str(folder)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert len(found) == (32 if verb[0] == "embed" else 5)


def test_a_type_that_onnx_has_not_is_named(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["head.norm.weight"] = tensors["head.norm.weight"].double()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ExportError, match=r"head.norm.weight is F64; wanted one of F32, F16, BF16, F8_E4M3"):
        write_beside(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ExportError, match=r"no .*model.safetensors; a graph beside the weights needs them in that one file"):
        write_beside(folder)
    assert not (folder / "graph.onnx").exists()
