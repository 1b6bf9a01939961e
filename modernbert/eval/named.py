"""Systems by name: bm25, st:NAME for sentence-transformers' models, and models of ours; int8:NAME for these in int8.

Any of one vector a text may have more before its name: passages:NAME searches by the best passages of each document, dim64:NAME by the
first 64 numbers of each vector (Matryoshka).
"""

import re
from collections.abc import Sequence

import numpy as np

from modernbert.engine.engine import load
from modernbert.errors import ConfigError
from modernbert.eval.peers import sentence_transformer
from modernbert.eval.systems import Bm25, System, Vectors, engine_system
from modernbert.text.passages import passages_of
from modernbert.vectors import check_wishes


def systems_named(name: str, device: str | None = None) -> list[System]:
    """The systems of a name; several folders with commas between are seeds of one system, and share its name.

    Args:
        name: `bm25`; `st:` and a folder, hub name or installed package; `int8:` and what
            `modernbert.load` takes; else what `modernbert.load` takes. With `passages:` before it, documents are cut into passages as
            `text.passages` says, and the mean of the best counts; with `dim64:`, vectors to their first 64 numbers.
        device: None takes the best one here.

    >>> [system.name for system in systems_named("bm25")]
    ['BM25']

    Raises:
        CheckpointError, MissingExtraError: a model cannot be loaded.
        ConfigError: passages or dimensions of a system that does not give one vector a text.
    """
    if wish := re.match(r"passages:|dim(\d+):", name):
        systems = systems_named(name[wish.end() :], device)
        if not all(isinstance(system, Vectors) for system in systems):
            raise ConfigError(f"{name}: {wish[0]} is for models that give one vector a text")
        vectors = [system for system in systems if isinstance(system, Vectors)]
        if wish[1]:
            return [_shortened(system, int(wish[1])) for system in vectors]
        return [Vectors(f"{system.name}, passages", system.embed, system.device, passages_of) for system in vectors]
    if name == "bm25":
        return [Bm25()]
    if name.startswith("st:"):
        peer = name.removeprefix("st:")
        return [sentence_transformer(peer.rstrip("/").rpartition("/")[2], peer, device)]
    dtype, folders = ("int8", name.removeprefix("int8:")) if name.startswith("int8:") else (None, name)
    return [engine_system(name, load(folder, device=device, dtype=dtype)) for folder in folders.split(",")]


def _shortened(system: Vectors, dim: int) -> Vectors:
    def embed(texts: Sequence[str], is_query: bool) -> np.ndarray:
        vectors = system.embed(texts, is_query)
        check_wishes("float32", dim, vectors.shape[1], len(texts))
        return vectors[:, :dim]

    return Vectors(f"{system.name}, {dim} dimensions", embed, system.device, system.passages)
