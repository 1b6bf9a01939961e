"""The engine against transformers' pipeline and hidden states on the same folder, and what it says of bad input."""

import inspect
import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, pipeline

from modernbert.checkpoint.folder import save_model
from modernbert.checkpoint.modules import Modules
from modernbert.engine import fill_mask, runner
from modernbert.engine.batching import GPU_TOKENS
from modernbert.engine.engine import Engine, load
from modernbert.errors import CheckpointError, ConfigError, HardwareError, TextError
from modernbert.model.heads import MaskedLM
from modernbert.text.tokenizer import Tokenizer
from modernbert.text.train import train_tokenizer

TEXTS = [
    "The capital of France is [MASK].",
    "[MASK] walked to the café",
    "def add(a, b):\n    [MASK] a + b  \n",
    "Seven [MASK] make a [MASK]; , ! [PAD] e\u0301",
    "[MASK]",
    "[MASK][MASK] [MASK]",
    "long " * 300 + "[MASK]",
]


@pytest.fixture(scope="module")
def engine(tiny_folder):
    return load(tiny_folder, device="cpu")


@pytest.fixture(scope="module")
def fill_mask_pipeline(tiny_folder):
    return pipeline("fill-mask", model=str(tiny_folder), device="cpu")


def assert_same_words(found, wanted):
    """The same in every word and string; scores within 1e-4, as two ways through float32 layers may differ."""
    if isinstance(wanted, list):
        assert isinstance(found, list) and len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same_words(one, other)
    else:
        assert found.keys() == wanted.keys()
        assert found.pop("score") == pytest.approx(wanted.pop("score"), abs=1e-4)
        assert found == wanted


@pytest.mark.parametrize("top_k", [1, 5])
@pytest.mark.parametrize("text", [*TEXTS, TEXTS, TEXTS[:1], TEXTS[3:4]], ids=lambda text: repr(text)[:20])
def test_fill_mask_returns_what_the_pipeline_returns(engine, fill_mask_pipeline, text, top_k):
    assert_same_words(engine.fill_mask(text, top_k=top_k), fill_mask_pipeline(text, top_k=top_k))


def test_fill_mask_can_name_the_whole_vocabulary_special_tokens_included(engine, fill_mask_pipeline):
    text = "The [MASK] of [PAD] France is [MASK]."
    assert_same_words(engine.fill_mask(text, top_k=512), fill_mask_pipeline(text, top_k=512))


def test_weights_of_16_bits_score_some_words_after_others_as_all_at_once(tiny_folder, monkeypatch):
    """Sums of the same float32 products, perhaps in another order: 1e-5 is some twenty roundings at the scores' size."""
    model = load(tiny_folder, device="cpu", dtype="bfloat16")._runner.head(MaskedLM, "fill_mask")
    x_XD = torch.randn(3, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(fill_mask, "WORDS", 100)
    with torch.inference_mode():
        found, decoder = fill_mask._scores(model, x_XD), model.decoder
        wanted = torch.nn.functional.linear(model.head(x_XD).float(), decoder.weight.float(), decoder.bias.float())
    assert decoder.weight.dtype == torch.bfloat16 and found.dtype == torch.float32
    assert torch.allclose(found, wanted, atol=1e-5, rtol=1e-5)


def test_fill_mask_scores_no_more_masks_at_a_time_than_fit_whatever_a_batch_holds(tiny_folder, monkeypatch):
    """A number for each word and mask: 65,536 tokens of short texts with one mask each would hold gigabytes of them."""
    engine, scored, count = load(tiny_folder, device="cpu"), [], 2 * fill_mask.MASKS + 3
    engine._runner._tokens = GPU_TOKENS
    monkeypatch.setattr(runner, "CPU_TOKENS", GPU_TOKENS)
    engine.model.decoder.register_forward_hook(lambda _, given, __: scored.append(len(given[0])))
    texts = ["a [MASK]", "[MASK] b c"] * (count // 2) + ["[MASK]"]
    found = engine.fill_mask(texts, top_k=1)
    assert scored == [fill_mask.MASKS, fill_mask.MASKS, 3] and len(found) == count
    assert_same_words(found[-3:], [engine.fill_mask(text, top_k=1) for text in texts[-3:]])


def test_a_mask_gets_the_same_bits_in_any_batch_where_that_is_asked_for(tiny_folder):
    """Scores are compared as they are; words are those of the engine without the option."""
    engine, texts = load(tiny_folder, device="cpu", batch_invariant=True), [text for text in TEXTS if text.count("[MASK]") == 1]
    together = engine.fill_mask(texts)
    assert [engine.fill_mask(text) for text in texts] == together
    assert engine.fill_mask(texts[::-1])[::-1] == together
    assert_same_words(together, load(tiny_folder, device="cpu").fill_mask(texts))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_embed_pools_the_hidden_states_of_transformers(tiny_folder, tmp_path, pooling):
    folder = copy_of(tiny_folder, tmp_path, config={"classifier_pooling": pooling})
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    found = load(folder, device="cpu").embed(TEXTS)
    assert found.shape == (len(TEXTS), 32) and found.dtype == np.float32
    for vector, text in zip(found, TEXTS, strict=True):
        with torch.inference_mode():
            hidden_LD = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        wanted = hidden_LD[0] if pooling == "cls" else hidden_LD.mean(0)
        np.testing.assert_allclose(vector, wanted, atol=1e-5)  # float32 on both sides


@pytest.mark.parametrize(
    ("stated", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "mean"}, "mean"),
    ],
)
def test_a_sentence_transformers_folder_pools_as_it_says(engine, tiny_folder, tmp_path, stated, pooling):
    other = "mean" if pooling == "cls" else "cls"
    folder = copy_of(tiny_folder, tmp_path, config={"classifier_pooling": other})
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(stated))
    wanted = Engine(engine._runner.model, engine.tokenizer, modules=Modules(pooling=pooling)).embed(TEXTS)
    np.testing.assert_array_equal(load(folder, device="cpu").embed(TEXTS), wanted)


def test_vectors_keep_the_order_of_the_texts_and_do_not_depend_on_the_batch(engine):
    texts = [f"{'word ' * (n * 7 % 90)}{n}" for n in range(30)]
    alone = np.stack([engine.embed(text) for text in texts])
    for batch_tokens in (1, 64, 100_000):
        np.testing.assert_allclose(engine.embed(texts, batch_tokens=batch_tokens), alone, atol=1e-5)  # float32 rounding


def test_one_text_gives_one_vector_and_no_text_none(engine):
    assert engine.embed("a").shape == (32,)
    assert engine.embed(["a"]).shape == (1, 32)
    assert engine.embed([]).shape == (0, 32)
    assert engine.embed(text for text in ("a", "b")).shape == (2, 32)
    assert engine.fill_mask([]) == []


def test_an_empty_text_is_embedded_as_its_special_tokens(engine):
    assert engine.tokenizer.encode([""]) == [[engine.tokenizer.cls_id, engine.tokenizer.sep_id]]
    assert np.isfinite(engine.embed("")).all() and engine.embed("").any()


def test_a_text_of_exactly_8192_tokens_is_read_and_one_more_is_refused(engine):
    assert len(engine.tokenizer.encode([" a" * 8190])[0]) == 8192
    assert engine.embed(" a" * 8190).shape == (32,)
    with pytest.raises(
        TextError, match=r"^text 1 has 8,193 tokens and the model reads at most 8,192; cut or split it, or pass truncate=True$"
    ):
        engine.embed(["fine", " a" * 8191])
    with pytest.raises(TextError, match=r"^the text has 8,193 tokens .*; cut or split it$"):
        engine.fill_mask("[MASK]" + " a" * 8190)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no mask", r"^the text has no \[MASK\]; write \[MASK\] in place of the word to be found$"),
        ("", r"^the text has no \[MASK\]"),
        (["a [MASK]", ""], r"^text 1 has no \[MASK\]"),
        (["a [MASK]", "b [MASK]", "[mask]"], r"^text 2 has no \[MASK\]"),
        (["a [MASK]", "\udcff [MASK]"], r"^text 1 is not valid Unicode: a lone surrogate '\\udcff' at character 0"),
        (5, r"^wanted a text or a list of texts, got int$"),
        (b"a [MASK]", r"^wanted a text or a list of texts, got bytes$"),
        ({"text": "a [MASK]"}, r"^wanted a text or a list of texts, got dict$"),
    ],
)
def test_a_text_that_cannot_be_filled_is_named(engine, text, message):
    with pytest.raises(TextError, match=message):
        untyped(Engine.fill_mask)(engine, text)


def test_what_is_no_string_is_named(engine, monkeypatch):
    for name in ("encode", "_encode"):
        monkeypatch.setattr(Tokenizer, name, untyped(getattr(Tokenizer, name)))
    with pytest.raises(TextError, match=r"^text 1 is of type NoneType; wanted a string$"):
        untyped(Engine.embed)(engine, ["fine", None])


@pytest.mark.parametrize("top_k", [0, -1, 513, 2.0, None])
def test_top_k_stays_within_the_vocabulary(engine, monkeypatch, top_k):
    monkeypatch.setattr(fill_mask, "fill_mask", untyped(fill_mask.fill_mask))
    with pytest.raises(ConfigError, match=rf"^top_k={top_k}: wanted a number of words from 1 to 512, the vocabulary$"):
        untyped(Engine.fill_mask)(engine, "a [MASK]", top_k)


def test_a_bare_encoder_embeds_and_says_that_it_fills_no_masks(engine, tmp_path):
    save_model(engine._runner.encoder, engine.config, tmp_path, tokenizer=engine.tokenizer)
    bare = load(tmp_path, device="cpu")
    np.testing.assert_array_equal(bare.embed(TEXTS), engine.embed(TEXTS))
    with pytest.raises(
        CheckpointError, match=r"^this model is a ModernBertModel and has no masked-language-model head, which fill_mask"
    ):
        bare.fill_mask("a [MASK]")


def test_weights_stored_in_bfloat16_run_in_float32_on_the_cpu(engine, tmp_path):
    save_model(engine._runner.model, engine.config, tmp_path, tokenizer=engine.tokenizer, dtype=torch.bfloat16)
    loaded = load(tmp_path, device="cpu")
    assert {parameter.dtype for parameter in loaded._runner.encoder.parameters()} == {torch.float32}
    assert load(tmp_path, device="cpu", dtype=torch.bfloat16).embed("a").dtype == np.float32


def test_a_tokenizer_of_another_model_is_refused(tiny_folder, tmp_path):
    folder = copy_of(tiny_folder, tmp_path)
    train_tokenizer(["to be"], 576).save(folder)
    with pytest.raises(CheckpointError, match=r"the tokenizer has 576 tokens, the model embeds 512; .* fetch both again"):
        load(folder, device="cpu")


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_named(tiny_folder, device):
    with pytest.raises(HardwareError, match=rf"^cannot run on device '{device}' \(.*\); leave the device out"):
        load(tiny_folder, device=device)


def copy_of(folder, tmp_path, config=None):
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)
    stated = json.loads((copied / "config.json").read_text()) | (config or {})
    (copied / "config.json").write_text(json.dumps(stated))
    return copied


def untyped(function):
    """Without the test run's check of types, as a user calls it."""
    return inspect.unwrap(function)
