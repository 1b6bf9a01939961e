"""Folders of random weights for every head, and the Auto classes as ours for the length of a test."""

import pytest
import transformers
from transformers.models.auto import configuration_auto, modeling_auto

import modernbert.hf
from modernbert.checkpoint.folder import ARCHITECTURES, load_model, save_model
from modernbert.checkpoint.settings import read_config
from modernbert.text.tokenizer import Tokenizer

OURS = {name: cls for cls, name in ARCHITECTURES.items() if hasattr(transformers, name)}
NAMES = {"id2label": {"0": "O", "1": "B-PER", "2": "I-PER"}, "label2id": {"O": 0, "B-PER": 1, "I-PER": 2}}
ENTAILMENT = {
    "id2label": {"0": "contradiction", "1": "neutral", "2": "entailment"},
    "label2id": {"contradiction": 0, "neutral": 1, "entailment": 2},
}


@pytest.fixture(scope="session")
def folder_of(tiny_folder, tmp_path_factory):
    """The tiny model with the head that an architecture has, three classes where it may; `labels` are keys for config.json."""
    made = {}

    def make(architecture, labels=None, **changes):
        key = (architecture, str(labels), str(changes))
        if key not in made:
            made[key] = tmp_path_factory.mktemp(architecture)
            config = read_config(tiny_folder).with_(**{"num_labels": 2 if architecture.endswith("Answering") else 3, **changes})
            if labels:
                config = config.with_(extra={**config.extra, **labels})
            cls = OURS[architecture]
            fresh = ("head", "classifier") if hasattr(cls, "classify") else ()
            save_model(
                load_model(cls, tiny_folder, config=config, fresh=fresh), config, made[key], tokenizer=Tokenizer.load(tiny_folder)
            )
        return made[key]

    return make


@pytest.fixture
def registered(monkeypatch):
    """`register()`, undone after the test: others compare with transformers' own classes."""
    mappings = [
        v._model_mapping for v in vars(modeling_auto).values() if isinstance(v, type) and getattr(v, "_model_mapping", None)
    ]
    for mapping in (configuration_auto.CONFIG_MAPPING, *mappings):
        monkeypatch.setattr(mapping, "_extra_content", dict(mapping._extra_content))
    modernbert.hf.register()
