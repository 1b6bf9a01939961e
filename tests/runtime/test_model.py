import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from modernbert.checkpoint.folder import load_model, read_config, save_model
from modernbert.checkpoint.modules import Dense, Modules, save_sentence_transformer
from modernbert.cli import main
from modernbert.engine.engine import load as load_engine
from modernbert.errors import CheckpointError, ConfigError, TextError
from modernbert.export.folder import export
from modernbert.model.heads import Embedder, SequenceClassifier
from modernbert.runtime.model import load
from modernbert.text.rows import TruncationWarning
from modernbert.text.tokenizer import Tokenizer

TEXTS = ["Seven days make a week.", "", "He walked to the store, didn't he? " * 40, "She walked to the café."]


@pytest.fixture(scope="module")
def masked_lm(tiny_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("masked_lm")
    export(tiny_folder, out, forms=["fp32"])
    return out


@pytest.fixture(scope="module", params=["mean", "cls"])
def embedders(request, tiny_folder, tmp_path_factory):
    """A folder with all that a folder can ask for, as the engine and as the runtime read it."""
    folder, out = tmp_path_factory.mktemp("embedder"), tmp_path_factory.mktemp("exported")
    weight_OE = np.random.default_rng(0).normal(size=(16, 32)).astype(np.float32)
    import torch

    modules = Modules(
        pooling=request.param,
        dense=(Dense(weight_OE=torch.from_numpy(weight_OE), activation="tanh"),),
        normalize=True,
        prompts={"query": "The capital: "},
        include_prompt=False,
    )
    config, tokenizer = read_config(tiny_folder), Tokenizer.load(tiny_folder)
    save_sentence_transformer(load_model(Embedder, tiny_folder), config, folder, modules, tokenizer=tokenizer)
    export(folder, out, forms=["fp32"])
    return load_engine(folder, device="cpu", dtype="float32"), load(out, threads=1)


def test_masks_are_filled_as_the_engine_fills_them(tiny_folder, masked_lm):
    engine, model = load_engine(tiny_folder, device="cpu", dtype="float32"), load(masked_lm, threads=1)
    texts = ["The capital of France is [MASK].", "[MASK] days [MASK] a week; " * 3]
    for ours, theirs in ((model.fill_mask(t, top_k=3), engine.fill_mask(t, top_k=3)) for t in (texts, texts[0], texts[:1])):
        assert _without_scores(ours) == _without_scores(theirs)
        np.testing.assert_allclose(_scores(ours), _scores(theirs), rtol=1e-3)  # softmax of float32 logits 1e-5 apart


def _scores(found):
    return [found["score"]] if isinstance(found, dict) else [score for part in found for score in _scores(part)]


def _without_scores(found):
    return {**found, "score": 0} if isinstance(found, dict) else [_without_scores(part) for part in found]


@pytest.mark.parametrize(
    "wish", [{}, {"prompt_name": "query"}, {"prompt": "x "}, {"truncate_dim": 5, "normalize": True}, {"precision": "ubinary"}]
)
def test_vectors_are_the_engine_s(embedders, wish):
    engine, model = embedders
    want, got = engine.embed(TEXTS, **wish), model.embed(TEXTS, **wish)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert np.abs(got.astype(float) - want).max() < (1e-5 if got.dtype == np.float32 else 0.5)
    assert model.embed(TEXTS[0], **wish).shape == want.shape[1:]


def test_no_text_gives_no_vector(embedders):
    engine, model = embedders
    assert model.embed([]).shape == engine.embed([]).shape == (0, 16)


def test_bad_input_gets_the_engine_s_words(embedders, masked_lm):
    _, model = embedders
    with pytest.raises(ConfigError, match="no prompt named 'qeury'"):
        model.embed("a", prompt_name="qeury")
    with pytest.raises(ConfigError, match="truncate_dim=17: wanted 1 to 16"):
        model.embed("a", truncate_dim=17)
    with pytest.raises(TextError, match="the text has no "):
        load(masked_lm).fill_mask("no mask here")
    with pytest.raises(TextError, match="the model reads at most 8,192"):
        model.embed("a " * 9000)


def test_a_cut_text_is_reported(embedders):
    with pytest.warns(TruncationWarning, match="cut to 8,192 tokens: the text lost "):
        embedders[1].embed("a " * 9000, truncate=True)


def test_a_graph_without_the_output_says_what_to_export(embedders, masked_lm):
    with pytest.raises(CheckpointError, match="gives logits, and sentence_embedding is needed; export it with --embedding"):
        load(masked_lm).embed("a")
    with pytest.raises(CheckpointError, match="and logits is needed; export a masked language model"):
        embedders[1].fill_mask("[MASK]")


def test_a_classifier_s_graph_fills_no_mask(tiny_folder, tmp_path):
    model = load_model(SequenceClassifier, tiny_folder, fresh=("head", "classifier"))
    save_model(model, model.config, tmp_path / "classifier", tokenizer=Tokenizer.load(tiny_folder))
    export(tmp_path / "classifier", tmp_path / "out", forms=["fp32"])
    with pytest.raises(
        CheckpointError, match=r"scores 2 classes, and fill_mask needs all .* tokens; export a masked language model"
    ):
        load(tmp_path / "out", threads=1).fill_mask("The capital of France is [MASK].")


def test_a_missing_or_damaged_file_is_named(masked_lm, tiny_folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"no .*model_q4\.onnx; write it with `modernbert export MODEL"):
        load(masked_lm, file="model_q4.onnx")
    with pytest.raises(CheckpointError, match=r"no .*model\.onnx"):
        load(tiny_folder)
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match=r"model\.onnx is damaged"):
        load(tmp_path)


NO_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "onnx"):
            raise RuntimeError(f"{name} was imported")

sys.meta_path.insert(0, Refuse())
"""


def test_nothing_imports_torch(masked_lm):
    code = f"from modernbert.runtime.model import load; print(len(load({str(masked_lm)!r}).fill_mask('a [MASK]')))"
    done = subprocess.run([sys.executable, "-c", f"{NO_TORCH}{code}"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("5\n", "")


def test_the_verbs_run_an_exported_folder_without_torch(masked_lm):
    code = f"from modernbert.cli import main; main(['fill-mask', '--top-k', '2', '--model', {str(masked_lm)!r}, 'a [MASK] b'])"
    done = subprocess.run([sys.executable, "-c", f"{NO_TORCH}{code}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip().splitlines()) == 3


def test_the_verbs_choose_the_exported_file_by_its_dtype(masked_lm):
    done = CliRunner().invoke(main, ["fill-mask", "--dtype", "int8", "--model", str(masked_lm), "a [MASK]"])
    assert isinstance(done.exception, SystemExit) and "model_quantized.onnx; write it with" in done.stderr
    done = CliRunner().invoke(main, ["fill-mask", "--dtype", "bfloat16", "--model", str(masked_lm), "a [MASK]"])
    assert "ONNX files are float32, float16 or int8, not bfloat16" in done.stderr


def test_a_missing_library_names_the_command_that_installs_it():
    code = "import sys; sys.modules['onnxruntime'] = None; import modernbert.runtime.session"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "running ONNX files needs onnxruntime: pip install 'modernbert[onnx]'" in done.stderr
