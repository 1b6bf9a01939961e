"""The report on what int8 loses."""

import json
import shutil

import pytest
import torch
from click.testing import CliRunner

import modernbert
from modernbert.checkpoint.folder import load_model, save_model
from modernbert.cli import main
from modernbert.engine import quantized_report
from modernbert.engine.engine import load
from modernbert.engine.quantized_report import int8_report
from modernbert.errors import HardwareError, TextError
from modernbert.kernels.linear_int8 import weight_levels
from modernbert.model.heads import MaskedLM

needs_int8 = pytest.mark.skipif(weight_levels() is None, reason="this build of PyTorch has no exact int8 product for this chip")
TEXTS = [
    "The capital of France is Paris.",
    "He walked to the store, didn't he?",
    "seven days",
    "def add(a, b):\n    return a + b",
]


@pytest.fixture(scope="module")
def folder(tiny_folder, tmp_path_factory):
    """The tiny folder with outliers in front of layer 2's `mlp.Wo`: one channel is 1,000 times as large, its weights so much smaller."""
    folder = tmp_path_factory.mktemp("outliers")
    model = load_model(MaskedLM, tiny_folder)
    with torch.no_grad():
        mlp = model.model.layers[2].mlp
        mlp.Wi.weight[model.config.intermediate_size + 5] *= 1000
        mlp.Wo.weight[:, 5] /= 1000
    save_model(model, model.config, folder, tokenizer=load(tiny_folder, device="cpu").tokenizer)
    return folder


@needs_int8
def test_the_report_says_what_the_engines_say(folder, monkeypatch):
    monkeypatch.setattr("modernbert.engine.engine.int8_gain", lambda: 2.0)
    report = int8_report(folder, TEXTS)
    vectors = [load(folder, device="cpu", dtype=dtype).embed(TEXTS, normalize=True) for dtype in ("float32", "int8")]
    # the folder pools by the mean, as the report does; in another order, as rows are grouped by length
    assert sorted(report.texts.tolist()) == pytest.approx(sorted((vectors[0] * vectors[1]).sum(1).tolist()), abs=1e-5)
    assert len(report.tokens) == sum(map(len, load(folder, device="cpu").tokenizer.encode(TEXTS)))
    in_float = {layer.name: layer.error for layer in report.layers if not layer.int8}
    assert max(in_float, key=in_float.__getitem__) == "layers.2.mlp.Wo" and len(in_float) < 4
    assert report.levels == weight_levels()


@needs_int8
def test_a_text_that_is_too_long_is_judged_in_pieces(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "short")
    file = tmp_path / "short" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "max_position_embeddings": 64}))
    text = "seven days " * 50
    tokens = len(load(folder, device="cpu").tokenizer.encode([text])[0])
    report = int8_report(tmp_path / "short", [text, "seven"])
    assert len(report.texts) == -(-tokens // 64) + 1 > 2
    assert len(report.tokens) > tokens


@needs_int8
def test_without_a_text_there_is_nothing_to_judge(folder):
    with pytest.raises(TextError, match=r"^no text to judge the model on; give one or more$"):
        int8_report(folder, [])


def test_without_a_product_the_report_says_so(folder, monkeypatch):
    monkeypatch.setattr(quantized_report, "weight_levels", lambda: None)
    with pytest.raises(HardwareError, match="no exact int8 product for this CPU"):
        int8_report(folder, TEXTS)


@needs_int8
def test_the_command_prints_tables_or_json(folder, tmp_path):
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    shown = CliRunner().invoke(main, ["eval", "int8", str(folder), "--file", str(file)])
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:4] + lines[7:]] == [
        *("of texts", "of tokens"),
        *("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"),
    ]
    assert lines[-1].startswith("| mlp.Wo | 3 of 4 |") and "2 (" in lines[-1]
    found = json.loads(CliRunner().invoke(main, ["eval", "int8", str(folder), *TEXTS, "--json"]).stdout)
    assert found["texts"]["n"] == 4 and len(found["layers"]) == 16


@pytest.mark.parametrize("verb", [["embed"], ["fill-mask"], ["classify"], ["tag"], ["rerank", "q"], ["answer", "q"]])
def test_every_verb_that_runs_a_model_takes_a_dtype(verb, monkeypatch):
    asked = []

    def refuse(name, dtype=None):
        asked.append((name, dtype))
        raise HardwareError("enough")

    monkeypatch.setitem(vars(modernbert), "load", refuse)
    done = CliRunner().invoke(main, [*verb, "a text", "--model", "m", "--dtype", "int8"])
    assert (done.exit_code, asked) == (2, [("m", "int8")])
    assert (
        "is not one of 'float32', 'bfloat16', 'float16', 'int8', 'fp8'"
        in CliRunner().invoke(main, [*verb, "t", "--dtype", "q4"]).stderr
    )
