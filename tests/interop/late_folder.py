"""Writes the seeded late-interaction folder that PyLate scores and we score: python tests/interop/late_folder.py FOLDER

Neither a trained vocabulary nor torch's generator takes part, so that it is the same everywhere, bit for bit.
"""

import json
import string
import sys

import numpy as np
import tokenizers
import torch

from modernbert.checkpoint.modules import save_late_interaction
from modernbert.config import ModelConfig
from modernbert.model.heads import LateInteraction
from modernbert.text.tokenizer import ROLES, Tokenizer
from modernbert.vectors import LateSettings

WORDS = ["the", "capital", "of", "france", "is", "paris", "and", "italy", "has", "rome", "he", "walked", "to", "store", "week"]
WORDS += ["seven", "days", "where"]
SPECIALS = [*ROLES.values(), "[Q] ", "[D] "]
QUERIES = ["where is paris", "the capital of italy", "seven days"]
DOCUMENTS = [
    "the capital of france is paris, and the capital of italy is rome.",
    "he walked to the store!",
    "a week has seven days: " * 20,  # beyond the window, and beyond document_length
]


def write(folder, **settings):
    """Four layers of both kinds, the published window and bases, every weight from a fixed stream."""
    vocab = {word: i for i, word in enumerate([*SPECIALS, *string.punctuation, *WORDS])}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="[UNK]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    raw.add_special_tokens(["[Q] ", "[D] "])
    config = ModelConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=2,
        **{f"{role}_token_id": vocab[name] for role, name in ROLES.items()},
    )
    model = LateInteraction(config)
    stream = np.random.RandomState(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            low, high = (0.5, 1.5) if name.endswith("norm.weight") else (-0.5, 0.5)
            parameter.copy_(torch.from_numpy(stream.uniform(low, high, parameter.shape)))
    save_late_interaction(model, config, folder, LateSettings(document_length=100, **settings), tokenizer=Tokenizer(raw, ROLES))


if __name__ == "__main__":
    write(sys.argv[1])
    print(json.dumps({"queries": QUERIES, "documents": DOCUMENTS}))
