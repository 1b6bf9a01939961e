"""Late interaction as PyLate has it: its scores, written down by dev/pylate_golden.py, and sentence-transformers' on the same folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from interop.late_folder import DOCUMENTS, QUERIES, write
from sentence_transformers import MultiVectorEncoder

from modernbert.checkpoint.modules import Modules, load_late_interaction, read_modules, save_sentence_transformer
from modernbert.checkpoint.settings import read_config, read_json
from modernbert.engine.engine import load
from modernbert.errors import CheckpointError, TextError, TokenizerError
from modernbert.model.heads import Embedder
from modernbert.vectors import LateSettings

GOLDEN = json.loads((Path(__file__).parent / "pylate_golden.json").read_text())["cases"]
CASES = {
    "masks that nobody attends to": {},
    "masks as other tokens": {"attend_to_expansion_tokens": True},
    "no masks": {"query_expansion": False},
}
CLOSE = 1e-4  # of a sum over up to 32 vectors; found here: 2e-6


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("late")
    write(folder, **CASES[request.param])
    return request.param, folder


def our_vectors(folder):
    engine = load(folder, device="cpu")
    return engine.embed_tokens(QUERIES, query=True), engine.embed_tokens(DOCUMENTS, truncate=True)


@pytest.mark.filterwarnings("ignore:cut to")  # the third document is long on purpose
def test_scores_are_those_of_pylate(case):
    name, folder = case
    queries, documents = our_vectors(folder)
    assert [len(q) for q in queries] == GOLDEN[name]["query_vectors"]
    assert [len(d) for d in documents] == GOLDEN[name]["document_vectors"]
    found = [[(q @ d.T).max(1).sum() for d in documents] for q in queries]
    np.testing.assert_allclose(found, GOLDEN[name]["scores"], atol=CLOSE, rtol=0)


@pytest.mark.filterwarnings("ignore:cut to", "ignore::DeprecationWarning")
def test_vectors_are_those_of_sentence_transformers(case):
    _, folder = case
    theirs = MultiVectorEncoder(str(folder), device="cpu")
    wanted = (theirs.encode_query(QUERIES), theirs.encode_document(DOCUMENTS))
    for found, want in zip(our_vectors(folder), wanted, strict=True):
        for one, other in zip(found, want, strict=True):
            np.testing.assert_allclose(one, np.asarray(other), atol=CLOSE)


def test_the_settings_come_back_and_so_does_the_model(case):
    name, folder = case
    model, settings = load_late_interaction(folder)
    assert settings == LateSettings(document_length=100, **CASES[name])
    assert torch.equal(model.linear.weight, read_modules(folder).dense[0].weight_OE)
    assert read_modules(folder).pooling is None and read_modules(folder).similarity == "MaxSim"


def test_pylate_s_own_keys_are_written(tmp_path):
    write(tmp_path)
    kinds = [(entry["path"], entry["type"]) for entry in json.loads((tmp_path / "modules.json").read_text())]
    assert kinds == [("", "sentence_transformers.models.Transformer"), ("1_Dense", "pylate.models.Dense.Dense")]
    assert read_json(tmp_path / "1_Dense" / "config.json") == {
        "in_features": 32,
        "out_features": 128,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
        "use_residual": False,
    }
    said = read_json(tmp_path / "config_sentence_transformers.json")
    assert {key: said[key] for key in ("query_prefix", "document_prefix", "query_length", "document_length")} == {
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": 32,
        "document_length": 100,
    }
    assert (said["do_query_expansion"], said["attend_to_expansion_tokens"]) == (True, False)
    assert said["model_type"] == "ColBERT" and said["skiplist_words"][:3] == ["!", '"', "#"]


def test_a_prefix_that_is_no_token_and_a_long_document_are_refused(tmp_path):
    write(tmp_path, query_prefix="[X]")
    engine = load(tmp_path, device="cpu")
    with pytest.raises(TokenizerError, match=r"prefix '\[X\]' is no token of its vocabulary"):
        engine.embed_tokens("paris", query=True)
    with pytest.raises(TextError, match="has 122 tokens and the model reads at most 99"):
        engine.embed_tokens(DOCUMENTS[2])


def test_a_folder_that_pools_is_no_late_interaction(tmp_path):
    write(tmp_path / "late")
    model = Embedder(read_config(tmp_path / "late"))
    save_sentence_transformer(model, model.config, tmp_path / "pooled", Modules())
    with pytest.raises(CheckpointError, match="has no late-interaction modules; wanted a folder as PyLate saves it"):
        load_late_interaction(tmp_path / "pooled")
    with pytest.raises(CheckpointError, match="a sentence-transformers folder pools, cls or mean"):
        save_sentence_transformer(model, model.config, tmp_path / "none", Modules(pooling=None))
