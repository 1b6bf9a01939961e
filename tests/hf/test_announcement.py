"""The two code samples of the ModernBERT announcement, unchanged, on our folders: with transformers, without this package.

Source: the model card of answerdotai/ModernBERT-base, which the announcement quotes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modernbert.checkpoint.folder import class_of
from modernbert.checkpoint.names import packaged_names, resolve
from modernbert.engine.engine import load
from modernbert.model.heads import MaskedLM

PACKAGED = [folder for folder in map(resolve, packaged_names()) if class_of(folder) is MaskedLM]

AUTO = """
from transformers import AutoTokenizer, AutoModelForMaskedLM
model_id = "answerdotai/ModernBERT-base"
tokenizer = AutoTokenizer.from_pretrained(model_id)
model = AutoModelForMaskedLM.from_pretrained(model_id)
text = "The capital of France is [MASK]."
inputs = tokenizer(text, return_tensors="pt")
outputs = model(**inputs)
# To get predictions for the mask:
masked_index = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
predicted_token_id = outputs.logits[0, masked_index].argmax(axis=-1)
predicted_token = tokenizer.decode(predicted_token_id)
print("Predicted token:", predicted_token)
"""
PIPELINE = """
import torch
from transformers import pipeline
from pprint import pprint
pipe = pipeline(
    "fill-mask",
    model="answerdotai/ModernBERT-base",
    torch_dtype=torch.bfloat16,
)
input_text = "He walked to the [MASK]."
results = pipe(input_text)
pprint(results)
"""
TELL = """
import json, sys
assert "modernbert" not in sys.modules
print("FOUND", json.dumps({"token": int(predicted_token_id), "words": results}))
"""


@pytest.fixture(scope="module", params=["random", *PACKAGED], ids=lambda folder: Path(folder).name)
def folder(request, tiny_folder):
    return tiny_folder if request.param == "random" else request.param


@pytest.fixture(scope="module")
def found(folder, tmp_path_factory):
    """What the samples found, one after the other in a fresh interpreter; only the name of the model is ours."""
    code = (AUTO + PIPELINE).replace("answerdotai/ModernBERT-base", str(folder)) + TELL
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=elsewhere, env=env)
    assert done.returncode == 0, done.stderr
    assert "Ignored unknown" not in done.stdout + done.stderr, "the tokenizer's files say what transformers does not know"
    return json.loads(done.stdout.rpartition("FOUND ")[2])


def test_the_sample_with_the_auto_classes_runs_unchanged(found, folder):
    wanted = load(folder, device="cpu").fill_mask("The capital of France is [MASK].", top_k=1)
    assert found["token"] == wanted[0]["token"]


def test_the_sample_with_the_pipeline_runs_unchanged(found, folder):
    """In bf16 there, in float32 here: the scores are near, and each of the words is among our own likeliest."""
    ours = {word["token"]: word for word in load(folder, device="cpu").fill_mask("He walked to the [MASK].", top_k=50)}
    assert len(found["words"]) == 5
    for word in found["words"]:
        assert word.keys() == {"score", "token", "token_str", "sequence"}
        assert word["sequence"] == ours[word["token"]]["sequence"]
        assert word["score"] == pytest.approx(ours[word["token"]]["score"], rel=0.3)  # bf16 logits have steps of 1/16 and more
