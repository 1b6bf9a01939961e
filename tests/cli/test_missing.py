"""Every verb that wants an optional package says which command installs it, where only the core dependencies are there."""

import json
import subprocess
import sys

import pytest

OPTIONAL = [
    *(
        "accelerate",
        "bm25s",
        "datasets",
        "matplotlib",
        "mteb",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "openvino",
        "peft",
        "pycrfsuite",
    ),
    *("scipy", "sentence_transformers", "sklearn", "tensorboard", "transformers", "triton"),
]

WITHOUT = """
import json, sys
from importlib.machinery import PathFinder

optional, commands = json.loads(sys.argv[1])
find_spec = PathFinder.find_spec
PathFinder.find_spec = staticmethod(lambda name, *more: None if name.split(".")[0] in optional else find_spec(name, *more))

from click.testing import CliRunner
from modernbert.cli import main

print(json.dumps([(done.exit_code, done.stderr) for done in (CliRunner().invoke(main, command) for command in commands)]))
"""

WANTED = {
    ("from-text", "three_phases", "PAIRS"): "a report needs matplotlib: pip install 'modernbert[report]'",
    ("export", "tiny", "OUT"): "export writes ONNX files: pip install 'modernbert[export]'",
    ("eval", "retrieval", "bm25", "PAIRS"): "BM25 needs bm25s: pip install 'modernbert[eval]'",
    ("eval", "retrieval", "st:any", "PAIRS"): "a peer needs sentence-transformers: pip install 'modernbert[eval]'",
    ("fill-mask", "--model", "ONNX", "[MASK]"): "running ONNX files needs onnxruntime: pip install 'modernbert[onnx]'",
    ("bench", "finetune", "tiny", "--data", "OUT", "--out", "OUT"): "plain baselines need scikit-learn: pip install 'modernbert[bench]'",
    ("bench", "trainer", "tiny", "--data", "OUT", "--out", "OUT"): (
        "this record compares with transformers' Trainer: pip install 'modernbert[bench,hf]'"
    ),
    ("bench", "peer", "ONNX", "--data", "OUT", "--out", "OUT"): (
        "another library's encoder needs transformers: pip install 'modernbert[hf]'"
    ),
    ("bench", "pretrain"): "this record compares with transformers: pip install 'modernbert[hf]'",
}  # fmt: skip


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """One process for all: what each command says on standard error."""
    folder = tmp_path_factory.mktemp("missing")
    (folder / "pairs.jsonl").write_text('{"query": "who", "document": "Ada"}\n')
    (folder / "onnx").mkdir()
    places = {"OUT": folder / "out", "PAIRS": folder / "pairs.jsonl", "ONNX": folder}
    commands = [[str(places.get(word, word)) for word in command] for command in WANTED]
    asked = json.dumps([OPTIONAL, commands])
    done = subprocess.run([sys.executable, "-c", WITHOUT, asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(WANTED, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("command", WANTED, ids=" ".join)
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(said, command):
    assert said[command] == [2, f"modernbert: {WANTED[command]}\n"]
