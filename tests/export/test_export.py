import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from click.testing import CliRunner

from modernbert import cli
from modernbert.checkpoint.folder import class_of, load_model, save_model
from modernbert.checkpoint.modules import Modules, read_modules
from modernbert.checkpoint.names import EMBEDDER
from modernbert.checkpoint.settings import read_config
from modernbert.engine.engine import load
from modernbert.errors import ConfigError, ExportError
from modernbert.export import check
from modernbert.export.check import expected
from modernbert.export.folder import export
from modernbert.export.graph import FORMS, Graph
from modernbert.model.heads import MaskedLM
from modernbert.runtime.padding import padded
from modernbert.text.tokenizer import Tokenizer
from tests.export.conftest import FOLDERS

FILES = [form.file for form in FORMS.values()]


@pytest.fixture(scope="module")
def masked_lm(calm_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("masked_lm")
    return out, export(calm_folder, out)


def run(file, ids_BL, mask_BL):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"input_ids": ids_BL, "attention_mask": mask_BL}), strict=True))


@pytest.mark.parametrize("name", FOLDERS)
def test_every_head_agrees_with_the_model_in_onnx_runtime_and_in_openvino(name, model_folder, rows, tmp_path):
    folder = model_folder(name)
    export(folder, tmp_path, forms=["fp32"])
    cls = class_of(folder)
    wanted = expected(load_model(cls, folder), read_modules(folder) or Modules(), rows)
    ids_BL, mask_BL = padded(rows, read_config(folder).pad_token_id)
    if name == "choice":
        ids_BL, mask_BL = ids_BL[None], mask_BL[None]
    file = tmp_path / "onnx" / "model.onnx"
    in_onnxruntime = run(file, ids_BL, mask_BL)
    assert in_onnxruntime.keys() == wanted.keys()
    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for results in (in_onnxruntime, compiled({"input_ids": ids_BL, "attention_mask": mask_BL})):
        for output, parts in wanted.items():
            for want, got in zip(parts, results[output], strict=True):
                got = got[: len(want)] if name != "choice" and got.ndim == want.ndim else got
                np.testing.assert_allclose(got, want, atol=1e-4 * max(1, np.abs(want).max()))  # what docs/export.md promises


def test_every_form_is_written_checked_and_smaller_than_the_one_before(masked_lm):
    out, found = masked_lm
    assert [one.file for one in found] == FILES == sorted(FILES, key=lambda file: -(out / "onnx" / file).stat().st_size)
    assert [one.difference <= one.allowed for one in found[:2]] == [True, True]
    assert found[0].cosine > 0.999999 and found[1].cosine > 0.9999
    assert (
        found[2].cosine > 0.98 and found[3].cosine > 0.6
    )  # weights of σ = 0.5 in 4 layers of 32: far harder than a trained model's


def test_the_files_are_plain_onnx_but_for_4_bit_products(masked_lm):
    out, _ = masked_lm
    for name, form in FORMS.items():
        model = onnx.load(out / "onnx" / form.file)
        onnx.checker.check_model(model)
        domains = {node.domain for node in model.graph.node}
        assert domains == ({"", "com.microsoft"} if name.startswith("q4") else {""})
        assert {entry.domain: entry.version for entry in model.opset_import}[""] == 17


def test_the_folder_holds_what_transformers_js_looks_for(masked_lm):
    out, _ = masked_lm
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "onnx",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    said = json.loads((out / "config.json").read_text())
    assert (said["model_type"], said["architectures"]) == ("modernbert", ["ModernBertForMaskedLM"])


def test_an_encoder_can_be_taken_out_of_a_masked_lm(tiny_folder, rows, tmp_path):
    export(tiny_folder, tmp_path, embedding=True, forms=["fp32"])
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["ModernBertModel"]
    assert (tmp_path / "1_Pooling" / "config.json").exists()
    text = "Seven days make a week."
    engine = load(tiny_folder)
    ids_BL, mask_BL = padded(engine.tokenizer.encode([text]), 0)
    found = run(tmp_path / "onnx" / "model.onnx", ids_BL, mask_BL)
    np.testing.assert_allclose(found["sentence_embedding"][0], engine.embed(text), atol=1e-5)


def test_padding_and_neighbours_change_nothing(masked_lm, rows):
    out, _ = masked_lm
    for file, tolerance in (("model.onnx", 1e-4), ("model_quantized.onnx", 1e-3)):  # int8 is scaled by token, not by batch
        together = run(out / "onnx" / file, *padded(rows, 3))["logits"]
        for row, got in zip(rows, together, strict=True):
            alone = run(out / "onnx" / file, *padded([row], 3))["logits"][0]
            np.testing.assert_allclose(got[: len(row)], alone, atol=tolerance)


def test_a_file_that_computes_something_else_is_not_written(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Graph, "gelu", lambda self, x: self.op("Relu", x))
    with pytest.raises(
        ExportError, match=r"model\.onnx differs from the model by .*, and 0\.0001 is allowed; nothing was written"
    ):
        export(tiny_folder, tmp_path / "out", forms=["fp32"])
    assert not (tmp_path / "out" / "config.json").exists()
    assert not (tmp_path / "out" / "onnx").exists()


def test_yarn_is_exported(tiny_folder, tmp_path):
    """The export compares itself with the model, within 1e-4."""
    config = read_config(tiny_folder).with_(global_rope_factor=4.0, global_rope_length=16)
    folder = tmp_path / "yarn"
    save_model(load_model(MaskedLM, tiny_folder, config=config), config, folder, tokenizer=Tokenizer.load(tiny_folder))
    export(folder, tmp_path / "out", forms=["fp32"])
    plain, turned = (load(where).embed("Seven days make a week.") for where in (tiny_folder, folder))
    assert np.abs(plain - turned).max() > 1e-4


def test_numbers_that_are_not_finite_are_an_error(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "expected", lambda *_: {"logits": [np.full((7, 512), np.nan, np.float32)] * 3})
    with pytest.raises(ExportError, match="differs from the model by nan"):
        export(tiny_folder, tmp_path / "out", forms=["fp32"])


def test_an_unknown_form_names_the_known_ones(tiny_folder, tmp_path):
    with pytest.raises(ConfigError, match="no form named 'fp8'; there are fp32, fp16, int8, q4, q4f16"):
        export(tiny_folder, tmp_path, forms=["fp8"])


def test_the_verb_prints_how_close_each_file_comes(tiny_folder, tmp_path):
    done = CliRunner().invoke(cli.main, ["export", str(tiny_folder), str(tmp_path), "--form", "fp32", "--form", "int8"])
    assert done.exit_code == 0, done.output
    head, fp32, int8 = done.stdout.splitlines()
    assert head.split() == ["MB", "difference", "allowed", "cosine"]
    assert fp32.split()[0] == "model.onnx" and fp32.split()[3] == "1e-04"
    assert int8.split()[0] == "model_quantized.onnx" and int8.split()[3] == "–"


def test_a_missing_library_names_the_command_that_installs_it():
    code = "import sys; sys.modules['onnx'] = None; from modernbert.cli import main; main(['export', 'a', 'b'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "modernbert: export writes ONNX files: pip install 'modernbert[export]'\n")


def test_the_packaged_embedder_keeps_its_vectors_in_the_int8_file(tmp_path):
    """The bound of docs/int8.md, on short texts of rare words; products that would cost more are float."""
    export(EMBEDDER, tmp_path, forms=["int8"])
    file = tmp_path / "onnx" / "model_quantized.onnx"
    stored = [tensor.name for tensor in onnx.load(file).graph.initializer if tensor.name.startswith("model.layers.")]
    assert 14 < sum(name.endswith(".weight.uint8") for name in stored) < 28
    texts = [
        "Limpid, ungainly prose about a taxidermist's divorce.",
        "Why won't my hydrangeas flower?",
        "sort a dictionary by value",
    ]
    engine = load(EMBEDDER, device="cpu", dtype="float32")
    found_BD = run(file, *padded(engine.tokenizer.encode(texts), 0))["sentence_embedding"]
    wanted_BD = engine.embed(texts)
    lengths = np.linalg.norm(found_BD, axis=1) * np.linalg.norm(wanted_BD, axis=1)
    assert ((found_BD * wanted_BD).sum(1) / lengths).min() > 0.995
