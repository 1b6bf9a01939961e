"""Names to folders: a packaged model, a local folder, or one on the Hugging Face hub.

The only door to huggingface_hub.
"""

import difflib
import os
import re
from pathlib import Path
from typing import Literal

from modernbert.errors import CheckpointError

DEFAULT = "tiny"
EMBEDDER = "tiny-embed"  # for vectors and search, when no name is given
PACKAGED = Path(__file__).parents[1] / "pretrained"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",  # sentence-transformers and PyLate say here, and in what follows, what comes after the encoder
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "?_Pooling/config.json",
    "?_Dense/config.json",
    "?_Dense/model.safetensors",
)


_DATA_FILES = ("*.jsonl", "*.jsonl.gz", "*.tsv", "*.tsv.gz", "*.csv", "*.parquet")


def packaged_names() -> list[str]:
    """The models that ship inside the package."""
    return sorted(path.parent.name for path in PACKAGED.glob("*/config.json"))


def resolve(name_or_folder: str | Path | None = None) -> Path:
    """The folder of a model.

    Args:
        name_or_folder: the name of a packaged model (None is the default one), an existing folder, or `org/name` on the
            Hugging Face hub, fetched once and then read from its cache. Where a name could be two of these, that order
            decides. A hub name brings only configuration, safetensors and tokenizer files.

    Raises:
        CheckpointError: nothing has that name, or the hub cannot be reached.
    """
    name = DEFAULT if name_or_folder is None else os.fspath(name_or_folder)
    if name in packaged_names():
        return PACKAGED / name
    folder = Path(name).expanduser()
    if folder.is_dir():  # ./tiny shall be the same folder when what was found is asked for again
        return folder.absolute() if str(folder) in packaged_names() else folder
    if folder.exists():
        raise CheckpointError(f"{name} is a file; give the folder that holds it, with its config.json")
    if isinstance(name_or_folder, str) and _HUB_ID.fullmatch(name):
        return _fetch(name)
    raise CheckpointError(_no_such(name))


def resolve_data(name_or_path: str | Path) -> Path:
    """The file or folder of a data set: one that exists, or `org/name` on the Hugging Face hub, fetched once and then read from its cache.

    Raises:
        CheckpointError: nothing has that name, or the hub cannot be reached.
    """
    path = Path(name_or_path).expanduser()
    if not path.exists() and isinstance(name_or_path, str) and _HUB_ID.fullmatch(name_or_path) and not path.suffix:
        return _fetch(name_or_path, _DATA_FILES, "dataset")
    return path


def _no_such(name: str) -> str:
    if Path(name).name != name or name.startswith((".", "~")):
        return f"no folder {name}; check the path, or name {_packaged()}"
    near = difflib.get_close_matches(name, packaged_names(), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"no model named {name!r}; {hint}wanted {_packaged()}, a folder, or a hub name like answerdotai/ModernBERT-base"


def _packaged() -> str:
    names = packaged_names()
    return f"a packaged model ({', '.join(names)})" if names else "a packaged model (none is in this installation)"


def _fetch(name: str, files: tuple[str, ...] = _FILES, kind: Literal["model", "dataset"] = "model") -> Path:
    import huggingface_hub  # half a second: only names on the hub pay for it
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        return Path(huggingface_hub.snapshot_download(name, repo_type=kind, allow_patterns=list(files)))
    except GatedRepoError:
        why = "its owner asks you to accept terms first: do so on its page, then log in with `hf auth login`"
    except (RepositoryNotFoundError, HFValidationError):
        why = f"the hub has no such public {kind}, and there is no such folder here; check the spelling"
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        why = (
            f"there is no such folder here, the hub cannot be reached ({type(error).__name__}), and the {kind} is not in the local "
            "cache; check the path, or go online, or copy its folder here and give the path"
        )
    raise CheckpointError(
        f"cannot fetch {name}: {why}." + (f" Without a network there is {_packaged()}" if kind == "model" else "")
    )
