"""Which class a folder becomes, and what every folder can do whatever its head."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from modernbert.checkpoint.folder import ARCHITECTURES, load_model, save_model
from modernbert.engine.engine import load
from modernbert.errors import CheckpointError
from modernbert.model.encoder import Encoder
from modernbert.model.heads import (
    LateInteraction,
    MaskedLM,
    MultipleChoice,
    QuestionAnswerer,
    SequenceClassifier,
    TokenClassifier,
)
from modernbert.text.tokenizer import Tokenizer


def rename(folder, architectures):
    file = folder / "config.json"
    stated = json.loads(file.read_text())
    file.write_text(json.dumps({**stated, "architectures": architectures}))


@pytest.mark.parametrize("cls", [SequenceClassifier, TokenClassifier, QuestionAnswerer, MultipleChoice, LateInteraction])
def test_a_folder_becomes_the_class_that_its_architectures_name(head_folder, tiny_folder, cls):
    engine = load(head_folder(cls), device="cpu")
    assert type(engine._runner.model) is cls
    assert not engine._runner.model.training
    with pytest.raises(CheckpointError, match=rf"^this model is a {ARCHITECTURES[cls]} and has no masked-language-model head"):
        engine.fill_mask("a [MASK]")
    if cls is not LateInteraction:  # its encoder is the one that all of them were made from
        np.testing.assert_array_equal(engine.embed("a text"), load(tiny_folder, device="cpu").embed("a text"))


@pytest.mark.parametrize("architectures", [["ModernBertForMaskedLM"], [], None])
@pytest.mark.parametrize("cls", [MaskedLM, Encoder])
def test_weights_decide_where_the_name_is_missing_or_kept_from_the_origin(tiny_folder, tmp_path, architectures, cls):
    model = load_model(cls, tiny_folder)
    save_model(model, model.config, tmp_path, tokenizer=Tokenizer.load(tiny_folder))
    rename(tmp_path, architectures)
    assert type(load(tmp_path, device="cpu")._runner.model) is cls


def test_another_architecture_is_named(tiny_folder, tmp_path):
    model = load_model(Encoder, tiny_folder)
    save_model(model, model.config, tmp_path, tokenizer=Tokenizer.load(tiny_folder))
    rename(tmp_path, ["ModernBertForImages"])
    with pytest.raises(
        CheckpointError, match=r"config.json names the architecture ModernBertForImages; wanted one of ModernBertModel,"
    ):
        load(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("cls", "score"),
    [
        (SequenceClassifier, lambda engine: [label["score"] for label in engine.classify("Paris is in France", top_k=None)]),
        (TokenClassifier, lambda engine: [token["score"] for token in engine.tag("Paris is", None, ignore_labels=[])]),
        (QuestionAnswerer, lambda engine: engine.answer("Where?", "Paris is in France")["score"]),
        (MultipleChoice, lambda engine: engine.embed("Paris is in France", normalize=True).tolist()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_scores_in_bfloat16_are_near_those_in_float32_and_have_float32_s_steps(head_folder, cls, score):
    folder = head_folder(cls)
    found = score(load(folder, device="cpu", dtype=torch.bfloat16))
    # 8 bits through four layers with large weights: found 0.03 at most
    assert found == pytest.approx(score(load(folder, device="cpu")), abs=0.1)
    assert any(np.float32(torch.tensor(one).bfloat16().item()) != one for one in np.ravel(found).tolist())


def test_loading_does_not_import_the_compiler(tiny_folder):
    code = f"import sys; from modernbert.engine.engine import load; load({str(tiny_folder)!r}, device='cpu', dtype='float32').embed('a')"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('torch._dynamo' in sys.modules)"], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("False\n", "")  # it takes longer than torch itself
