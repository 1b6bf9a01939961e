"""Systems by name: bm25, st:NAME for sentence-transformers' models, and models of ours; int8:NAME for these in int8."""

from modernbert.engine.engine import load
from modernbert.eval.peers import sentence_transformer
from modernbert.eval.systems import Bm25, System, engine_system


def systems_named(name: str, device: str | None = None) -> list[System]:
    """The systems of a name; several folders with commas between are seeds of one system, and share its name.

    Args:
        name: `bm25`; `st:` and a folder, hub name or installed package; `int8:` and what
            `modernbert.load` takes; else what `modernbert.load` takes.
        device: None takes the best one here.

    >>> [system.name for system in systems_named("bm25")]
    ['BM25']

    Raises:
        CheckpointError, MissingExtraError: a model cannot be loaded.
    """
    if name == "bm25":
        return [Bm25()]
    if name.startswith("st:"):
        peer = name.removeprefix("st:")
        return [sentence_transformer(peer.rstrip("/").rpartition("/")[2], peer, device)]
    dtype, folders = ("int8", name.removeprefix("int8:")) if name.startswith("int8:") else (None, name)
    return [engine_system(name, load(folder, device=device, dtype=dtype)) for folder in folders.split(",")]
