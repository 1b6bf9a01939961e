import numpy as np
import pytest

from modernbert.data.documents import Document
from modernbert.data.shard_writing import write_shards
from modernbert.data.shards import TokenShards
from modernbert.text.train import train_tokenizer

WORDS = ["the", "of", "and", "to", "in", "is", "that", "for", "it", "was", "on", "are", "as", "with", "his", "they", "at", "be"]


def make_documents(count, seed=0, longest=400):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, longest, count)
    return [
        Document(text=" ".join(rng.choice(WORDS, length)), source=f"source-{number % 3}") for number, length in enumerate(lengths)
    ]


@pytest.fixture(scope="session")
def documents():
    return make_documents(120)


@pytest.fixture(scope="session")
def tokenizer(documents):
    return train_tokenizer([document.text for document in documents[:50]], 384)


@pytest.fixture(scope="session")
def shards(documents, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(documents, tokenizer, folder, tokens_per_shard=6_000)
    return TokenShards.open(folder)
