"""Systems by name: bm25, st:NAME for sentence-transformers' models, and models of ours; int8:NAME for these in int8.

passages:NAME is any of one vector a text by the best passages of each document.
"""

from modernbert.engine.engine import load
from modernbert.errors import ConfigError
from modernbert.eval.peers import sentence_transformer
from modernbert.eval.systems import Bm25, System, Vectors, engine_system
from modernbert.text.passages import passages_of


def systems_named(name: str, device: str | None = None) -> list[System]:
    """The systems of a name; several folders with commas between are seeds of one system, and share its name.

    Args:
        name: `bm25`; `st:` and a folder, hub name or installed package; `int8:` and what
            `modernbert.load` takes; else what `modernbert.load` takes. With `passages:` before it, documents are cut into passages as
            `text.passages` says, and the mean of the best counts.
        device: None takes the best one here.

    >>> [system.name for system in systems_named("bm25")]
    ['BM25']

    Raises:
        CheckpointError, MissingExtraError: a model cannot be loaded.
        ConfigError: passages of a system that does not give one vector a text.
    """
    if name.startswith("passages:"):
        systems = systems_named(name.removeprefix("passages:"), device)
        if not all(isinstance(system, Vectors) for system in systems):
            raise ConfigError(f"{name}: passages are for models that give one vector a text")
        return [
            Vectors(f"{system.name}, passages", system.embed, system.device, passages_of)
            for system in systems
            if isinstance(system, Vectors)
        ]
    if name == "bm25":
        return [Bm25()]
    if name.startswith("st:"):
        peer = name.removeprefix("st:")
        return [sentence_transformer(peer.rstrip("/").rpartition("/")[2], peer, device)]
    dtype, folders = ("int8", name.removeprefix("int8:")) if name.startswith("int8:") else (None, name)
    return [engine_system(name, load(folder, device=device, dtype=dtype)) for folder in folders.split(",")]
