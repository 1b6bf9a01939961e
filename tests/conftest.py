"""A small model folder with random weights, for tests that need a whole model."""

import pytest
import torch

from modernbert.checkpoint.folder import save_model
from modernbert.config import ModelConfig
from modernbert.model.heads import MaskedLM
from modernbert.model.init import init_weights
from modernbert.text.train import train_tokenizer

SENTENCES = [
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "He walked to the store, didn't he? She walked to the café.",
    "def add(a, b):\n    return a + b\n",
    "Seven days make a week; sixty seconds make a minute.",
]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """Four layers of both kinds, a window of 8 to each side, 512 ids; its weights are large, so that rows differ well."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = train_tokenizer(SENTENCES * 3, 512)
    config = ModelConfig(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=2,
        local_attention=16,
        classifier_pooling="mean",
        initializer_range=0.5,
        unk_token_id=tokenizer.unk_id,
        cls_token_id=tokenizer.cls_id,
        sep_token_id=tokenizer.sep_id,
        pad_token_id=tokenizer.pad_id,
        mask_token_id=tokenizer.mask_id,
    )
    model = MaskedLM(config).eval()
    init_weights(model, config, torch.Generator().manual_seed(0))
    save_model(model, config, folder, tokenizer=tokenizer)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _float32_on_every_cpu(tmp_path_factory):
    """Also on one that computes bfloat16 natively, and with nothing written to the user's cache; before any fixture loads a model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modernbert.engine.hardware.bf16_gain", lambda: 0.0)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield
