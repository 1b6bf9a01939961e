"""Vectors, against sentence-transformers and transformers' feature-extraction pipeline on the same folders."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import pipeline

from modernbert.batch import pack
from modernbert.checkpoint.folder import load_model
from modernbert.checkpoint.modules import Dense, Modules, save_sentence_transformer
from modernbert.engine.engine import load
from modernbert.errors import CheckpointError, ConfigError, TextError
from modernbert.model.heads import Embedder, LateInteraction
from modernbert.text.rows import TruncationWarning
from modernbert.text.tokenizer import Tokenizer
from modernbert.vectors import quantize

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*word_embedding_dimension.*"),  # 6.x reads the older key, and says that it is old
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
CLOSE = 1e-4  # the project's promise for float32 vectors; 1e-6 is found
TEXTS = ["The capital of France is Paris.", "def add(a, b):\n    return a + b", "He walked to the café.", "x", ""]

DENSE = Dense(weight_OE=torch.linspace(-1, 1, 24 * 32).reshape(24, 32), bias_O=torch.linspace(-1, 1, 24), activation="tanh")
FOLDERS = {
    "mean": Modules(pooling="mean"),
    "unit vectors behind a dense layer": Modules(pooling="cls", dense=(DENSE,), normalize=True),
    "prompts": Modules(prompts={"query": "search: ", "document": "is: "}, default_prompt="query"),
    "prompts that are not pooled": Modules(prompts={"query": "search: "}, include_prompt=False),
    "cls after the prompt": Modules(pooling="cls", prompts={"query": "search: "}, include_prompt=False),
}


@pytest.fixture(scope="module")
def both(tiny_folder, tmp_path_factory):
    """Our engine and SentenceTransformer on one folder."""
    made = {}

    def pair(case):
        if case not in made:
            folder, model = tmp_path_factory.mktemp("st"), load_model(Embedder, tiny_folder)
            save_sentence_transformer(model, model.config, folder, FOLDERS[case], tokenizer=Tokenizer.load(tiny_folder))
            made[case] = load(folder, device="cpu"), SentenceTransformer(str(folder), device="cpu")
        return made[case]

    return pair


@pytest.mark.parametrize("case", FOLDERS)
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("truncate_dim", [None, 10])
def test_vectors_are_those_of_sentence_transformers(both, case, normalize, truncate_dim):
    ours, theirs = both(case)
    given = [{}, {"prompt": "what is "}, *({"prompt_name": name} for name in FOLDERS[case].prompts)]
    for how in given:
        found = ours.embed(TEXTS, normalize=normalize, truncate_dim=truncate_dim, **how)
        wanted = theirs.encode(TEXTS, normalize_embeddings=normalize, truncate_dim=truncate_dim, **how)
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, atol=CLOSE)
        alone = ours.embed(TEXTS[0], normalize=normalize, truncate_dim=truncate_dim, **how)
        np.testing.assert_allclose(alone, wanted[0], atol=CLOSE)


@pytest.mark.parametrize("precision", ["float32", "int8", "uint8", "binary", "ubinary"])
def test_smaller_vectors_are_those_of_sentence_transformers(both, precision):
    ours, theirs = both("mean")
    found, wanted = ours.embed(TEXTS, precision=precision), theirs.encode(TEXTS, precision=precision)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    if precision == "float32":
        np.testing.assert_allclose(found, wanted, atol=CLOSE)
    else:  # a value on the edge of two steps may fall to either side
        assert (np.abs(found.astype(int) - wanted.astype(int)) <= (1 if "int8" in precision else 0)).all()


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
@pytest.mark.parametrize("given", [True, False], ids=["ranges of a collection", "own ranges"])
def test_quantize_equals_sentence_transformers_on_the_same_numbers(precision, given):
    from sentence_transformers.util.quantization import quantize_embeddings

    vectors = np.random.default_rng(0).normal(size=(200, 37)).astype(np.float32)
    vectors[:, 5] = 0.25  # a dimension without any range
    ranges = np.stack([np.full(37, -1.0), np.full(37, 1.5)]).astype(np.float32) if given else None
    np.testing.assert_array_equal(
        quantize(vectors, precision, ranges), quantize_embeddings(vectors, precision=precision, ranges=ranges)
    )


def test_the_default_prompt_can_be_left_out(both):
    ours, theirs = both("prompts")
    np.testing.assert_allclose(ours.embed(TEXTS, prompt=""), theirs.encode(TEXTS, prompt=""), atol=CLOSE)


def test_a_plain_folder_s_vectors_are_means_of_the_feature_extraction_pipeline(tiny_folder):
    states = pipeline("feature-extraction", model=str(tiny_folder), device="cpu")
    for text, vector in zip(TEXTS, load(tiny_folder, device="cpu").embed(TEXTS), strict=True):
        np.testing.assert_allclose(vector, np.mean(states(text)[0], axis=0), atol=CLOSE)


def test_a_folder_s_own_limit_counts_and_a_cut_is_that_of_sentence_transformers(tiny_folder, tmp_path):
    model = load_model(Embedder, tiny_folder)
    save_sentence_transformer(model, model.config, tmp_path, Modules(max_seq_length=12), tokenizer=Tokenizer.load(tiny_folder))
    ours, theirs = load(tmp_path, device="cpu"), SentenceTransformer(str(tmp_path), device="cpu")
    with pytest.raises(TextError, match=r"^text 1 has 22 tokens and the model reads at most 12; cut or split it, or pass"):
        ours.embed(["x", " a" * 20])
    with pytest.warns(TruncationWarning, match=r"^cut to 12 tokens: text 1 lost 10$"):
        found = ours.embed(["x", " a" * 20], truncate=True)
    np.testing.assert_allclose(found, theirs.encode(["x", " a" * 20]), atol=CLOSE)


def test_late_interaction_gives_a_unit_vector_for_each_token(head_folder):
    folder = head_folder(LateInteraction)
    engine, model = load(folder, device="cpu"), load_model(LateInteraction, folder)
    for text, found_LE in zip(TEXTS, engine.embed_tokens(TEXTS), strict=True):
        (ids,) = engine.tokenizer.encode([text])
        assert found_LE.shape == (len(ids), 128) and found_LE.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found_LE, axis=-1), 1, atol=1e-6)
        hidden_LD = model.model(pack([ids]))
        wanted_LE = (hidden_LD @ model.linear.weight.T).detach().numpy()
        wanted_LE /= np.linalg.norm(wanted_LE, axis=-1, keepdims=True)
        np.testing.assert_allclose(found_LE, wanted_LE, atol=CLOSE)
    assert engine.embed_tokens(TEXTS[0]).shape == engine.embed_tokens(TEXTS[:1])[0].shape
    with pytest.raises(CheckpointError, match=r"^this model gives a vector for each token, none for a text; call embed_tokens$"):
        engine.embed("a")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"prompt_name": "passage"}, r"^no prompt named 'passage'; this model's folder has 'query', 'document'; give the text"),
        ({"prompt_name": "query", "prompt": "a"}, r"^prompt and prompt_name are both given; give one of them$"),
        ({"truncate_dim": 33}, r"^truncate_dim=33: wanted 1 to 32, the width of the model's vectors$"),
        ({"truncate_dim": 0}, r"^truncate_dim=0: wanted 1 to 32"),
        ({"batch_tokens": 0}, r"^batch_tokens=0: wanted 1 or more, or None for what this device is fast with$"),
        ({"precision": "int8"}, r"^precision='int8' measures each dimension's range over the texts, and there is one; embed"),
    ],
)
def test_what_cannot_be_done_is_said(both, how, message):
    with pytest.raises(ConfigError, match=message):
        both("prompts")[0].embed("a", **how)


def test_a_folder_without_the_head_is_named(tiny_folder):
    with pytest.raises(CheckpointError, match=r"^this model is a ModernBertForMaskedLM and has no late-interaction head"):
        load(tiny_folder, device="cpu").embed_tokens("a")
