"""Random folders with each task head, and the text that they read."""

import pytest
import torch

from modernbert.checkpoint.folder import load_model, save_model
from modernbert.checkpoint.settings import read_config
from modernbert.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def long_text():
    """Some 500 tokens of the tiny folder's tokenizer."""
    return "He walked to the café, and the capital of France is Paris; seven days make a week. " * 12


@pytest.fixture(scope="session")
def head_folder(tiny_folder, tmp_path_factory):
    """Makes a folder with a head of a class on the tiny encoder; its config's settings may be changed."""

    def make(cls, **changes):
        folder = tmp_path_factory.mktemp(cls.__name__)
        tokenizer = Tokenizer.load(tiny_folder)
        base = read_config(tiny_folder)
        extra = {**base.extra, **changes.pop("extra", {})}
        config = base.with_(**changes, extra=extra) if extra else base.with_(**changes)
        fresh = ("linear",) if cls.__name__ == "LateInteraction" else ("head", "classifier")
        model = load_model(cls, tiny_folder, config=config, fresh=fresh, seed=1)
        with torch.no_grad():
            for parameter in (p for name, p in model.named_parameters() if name.startswith("classifier")):
                parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(2))  # far apart, so that classes differ
        save_model(model, config, folder, tokenizer=tokenizer)
        return folder

    return make
