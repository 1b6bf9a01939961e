"""What the JSON files of a folder say, read without torch: the config, and what sentence-transformers and PyLate add to it.

Both dialects of the latter are read (facts for serving, §6.4); `checkpoint/modules.py` adds the weights, and writes.
"""

import dataclasses
import json
import string
from pathlib import Path
from typing import Any, get_args

from modernbert.checkpoint.research import config_from_research
from modernbert.config import ModelConfig, Pooling
from modernbert.errors import CheckpointError, ConfigError
from modernbert.vectors import LateSettings, Similarity, VectorSettings

CONFIG = "config.json"
MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
LENGTHS = "sentence_bert_config.json"
TOKENIZER = "tokenizer_config.json"


def read_json(file: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        CheckpointError: the file is missing, or is something else.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        here = sorted(path.name for path in file.parent.iterdir())[:8] if file.parent.is_dir() else []
        raise CheckpointError(
            f"no {file.name} in {file.parent} (it holds: {', '.join(here) or 'nothing'}); wanted a Hugging Face model folder"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read as JSON ({error}); fetch or write it again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} is no object of settings, but of type {type(found).__name__}; fetch or write it again")
    return found


def read_config(folder: str | Path) -> ModelConfig:
    """Reads a folder's config.json: either spelling, or the settings of the research code.

    Raises:
        CheckpointError: there is no config.json, or it is not JSON.
        ConfigError: it describes what is not a ModernBERT.
    """
    file = Path(folder) / CONFIG
    found = read_json(file)
    try:
        return config_from_research(found) if "rotary_emb_base" in found else ModelConfig.from_json(found)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def read_pooling(folder: str | Path) -> Pooling:
    """How the folder's embeddings are pooled: "cls" or "mean".

    A sentence-transformers folder says so in `1_Pooling/config.json`, and that may differ from config.json's
    `classifier_pooling`, which it leaves as the pre-trained model had it.

    Raises:
        CheckpointError: it is pooled in another way.
    """
    file = Path(folder) / "1_Pooling" / CONFIG
    if not file.exists():
        return read_config(folder).classifier_pooling
    stated = read_json(file)
    chosen = {name for name, value in stated.items() if name.startswith("pooling_mode_") and value is True}
    if "pooling_mode" in stated:  # the newer spelling: one string in place of a flag for each mode
        chosen = {f"pooling_mode={stated['pooling_mode']}"}
    if chosen in ({"pooling_mode_cls_token"}, {"pooling_mode=cls"}):
        return "cls"
    if chosen in ({"pooling_mode_mean_tokens"}, {"pooling_mode=mean"}):
        return "mean"
    raise CheckpointError(
        f"{file} asks for {', '.join(sorted(chosen)) or 'no pooling'}; only the cls token or the mean of tokens is implemented"
    )


def read_vector_settings(folder: str | Path) -> VectorSettings | None:
    """Reads what a sentence-transformers or PyLate folder says of its vectors.

    Returns:
        None where there is no modules.json: a plain model folder.

    Raises:
        CheckpointError: a file is missing or damaged, or asks for what is not implemented; it is named.
    """
    folder = Path(folder)
    if not (folder / MODULES).exists():
        return None
    pooling: Pooling | None = None
    projected, normalize, include_prompt = False, False, True
    for kind, path in module_entries(folder):
        if kind == "Pooling" and not projected:
            pooling = read_pooling(folder)
            include_prompt = read_json(path / CONFIG).get("include_prompt", True)
        elif kind == "Dense" and not normalize:
            projected = True
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise CheckpointError(
                f"{folder / MODULES} has {kind} in an order or of a kind that is not implemented; "
                "wanted Transformer, Pooling, Dense (none or several), Normalize"
            )
    settings = read_json(folder / SETTINGS) if (folder / SETTINGS).exists() else {}
    late = None
    if pooling is None:
        given = {f.name: settings[f.name] for f in dataclasses.fields(LateSettings) if settings.get(f.name) is not None}
        given["query_expansion"] = settings.get("do_query_expansion", True)
        given["skiplist_words"] = tuple(given.get("skiplist_words", string.punctuation))
        late = LateSettings(**given)
    return VectorSettings(
        pooling=pooling,
        normalize=normalize,
        prompts=settings.get("prompts") or {},
        default_prompt=settings.get("default_prompt_name"),
        include_prompt=include_prompt,
        similarity=_similarity(settings.get("similarity_fn_name") or ("MaxSim" if late else "cosine"), folder),
        max_seq_length=_read_max_seq_length(folder),
        late=late,
    )


def module_entries(folder: Path) -> list[tuple[str, Path]]:
    """Class name and folder of each module, in order."""
    file = folder / MODULES
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
        entries = [(entry["type"].rpartition(".")[2], folder / entry["path"]) for entry in listed]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{file} is not a list of modules, each with its type and path ({error!r}); fetch it again"
        ) from error
    if not entries or entries[0] != ("Transformer", folder):
        found = f"{entries[0][0]} in {entries[0][1].name}" if entries else "nothing"
        raise CheckpointError(f"{file} begins with {found}; wanted a Transformer in the folder itself")
    return entries


def _read_max_seq_length(folder: Path) -> int | None:
    """From the older dialect's own file; in the newer it is the tokenizer's, where a huge number stands for none."""
    for file, key in ((LENGTHS, "max_seq_length"), (TOKENIZER, "model_max_length")):
        length = read_json(folder / file).get(key) if (folder / file).exists() else None
        if isinstance(length, int) and 0 < length < 1_000_000:
            return length
    return None


def _similarity(said: str, folder: Path) -> Similarity:
    if said not in get_args(Similarity):
        raise CheckpointError(f"{folder / SETTINGS}: similarity_fn_name is {said!r}; wanted {', '.join(get_args(Similarity))}")
    return next(known for known in get_args(Similarity) if known == said)
