"""A random folder for every head, and rows to run through it."""

import numpy as np
import pytest
import torch

from modernbert.checkpoint.folder import load_model, save_model
from modernbert.checkpoint.modules import Dense, Modules, save_late_interaction, save_sentence_transformer
from modernbert.checkpoint.settings import read_config
from modernbert.model.heads import (
    Embedder,
    LateInteraction,
    MaskedLM,
    MultipleChoice,
    QuestionAnswerer,
    SequenceClassifier,
    TokenClassifier,
)
from modernbert.model.init import init_weights
from modernbert.text.tokenizer import Tokenizer
from modernbert.vectors import LateSettings

HEADS = {
    "masked_lm": MaskedLM,
    "sequence": SequenceClassifier,
    "token": TokenClassifier,
    "question": QuestionAnswerer,
    "choice": MultipleChoice,
    "late": LateInteraction,
}
FOLDERS = (*HEADS, "embedding", "embedding_cls", "pylate")


@pytest.fixture(scope="session")
def model_folder(tiny_folder, tmp_path_factory):
    """Makes the folder of that name in `FOLDERS`."""

    def make(name):
        folder = tmp_path_factory.mktemp(name)
        tokenizer, config = Tokenizer.load(tiny_folder), read_config(tiny_folder)
        if name in HEADS:
            fresh = {"masked_lm": (), "late": ("linear",)}.get(name, ("head", "classifier"))
            config = config.with_(num_labels=3, extra={}) if name in ("sequence", "token") else config
            save_model(load_model(HEADS[name], tiny_folder, config=config, fresh=fresh), config, folder, tokenizer=tokenizer)
        elif name == "pylate":
            settings = LateSettings(query_prefix="", document_prefix="", document_length=400)
            save_late_interaction(
                load_model(LateInteraction, tiny_folder, fresh=("linear",)), config, folder, settings, tokenizer=tokenizer
            )
        else:
            stream = torch.Generator().manual_seed(1)
            dense = Dense(weight_OE=torch.randn(16, 32, generator=stream), bias_O=torch.randn(16), activation="gelu")
            modules = Modules(
                pooling="cls" if name.endswith("cls") else "mean",
                dense=(dense,),
                normalize=True,
                prompts={"query": "The capital: "},
                include_prompt=not name.endswith("cls"),
            )
            save_sentence_transformer(load_model(Embedder, tiny_folder), config, folder, modules, tokenizer=tokenizer)
        return folder

    return make


@pytest.fixture(scope="session")
def calm_folder(tiny_folder, tmp_path_factory):
    """The tiny folder with weights of σ = 0.15 ≈ 1/√hidden, as those of trained models: float16 and int8 bear them."""
    folder, config = tmp_path_factory.mktemp("calm"), read_config(tiny_folder)
    model = load_model(MaskedLM, tiny_folder)
    init_weights(model, config.with_(initializer_range=0.15), torch.Generator().manual_seed(0))
    save_model(model, config, folder, tokenizer=Tokenizer.load(tiny_folder))
    return folder


@pytest.fixture
def rows():
    """Token ids of three rows: one in a single block of the local layers, one of several blocks, and a short one."""
    stream = np.random.default_rng(3)
    return [stream.integers(5, 512, size=length).tolist() for length in (40, 330, 3)]
