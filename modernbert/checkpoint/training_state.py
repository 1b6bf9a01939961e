"""The state of a training run as data: tensors in safetensors, values in JSON, nothing pickled.

A run's folder holds folders such as `step-000123`, each whole or not there, of `state.safetensors`, `values.json` and
`manifest.json`.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from modernbert.checkpoint.atomic import staged
from modernbert.checkpoint.weights import write_tensors
from modernbert.errors import CheckpointError

_TENSORS, _VALUES, _MANIFEST = "state.safetensors", "values.json", "manifest.json"


def state_folder(run_folder: str | Path, step: int) -> Path:
    """Where the state after `step` lies.

    >>> state_folder("run", 123).as_posix()
    'run/step-000123'
    """
    return Path(run_folder) / f"step-{step:06d}"


def save_state(folder: str | Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Writes a state that appears whole or not at all, and survives a power cut once this returns.

    Args:
        folder: such as `state_folder(run, step)`.
        tensors: weights, optimizer and random states under flat names.
        values: anything that JSON holds: steps, tokens, the loader's place, the config.
    """
    with staged(Path(folder)) as stage:
        write_tensors(stage / _TENSORS, _apart(tensors))
        (stage / _VALUES).write_text(json.dumps(values, indent=1), encoding="utf-8")
        files = {name: {"bytes": (stage / name).stat().st_size, "sha256": _sha256(stage / name)} for name in (_TENSORS, _VALUES)}
        (stage / _MANIFEST).write_text(json.dumps(files, indent=1), encoding="utf-8")


def load_state(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `save_state` wrote: the tensors, on the CPU, and the values.

    Raises:
        CheckpointError: a file is missing, cut short or changed; names the newest state that is whole, if there is one.
    """
    folder = Path(folder)
    try:
        wrong = _what_is_wrong(folder)
        if wrong is None:
            for name, entry in json.loads((folder / _MANIFEST).read_text(encoding="utf-8")).items():
                if _sha256(folder / name) != entry["sha256"]:
                    raise CheckpointError(f"the bytes of {name} are not those that were written")
            return load_file(folder / _TENSORS), json.loads((folder / _VALUES).read_text(encoding="utf-8"))
    except (CheckpointError, OSError, SafetensorError, json.JSONDecodeError) as error:
        wrong = str(error)
    others = [state for state in _states(folder.parent) if state != folder and _what_is_wrong(state) is None]
    advice = f"delete it, and {others[-1]} is used instead" if others else "there is no other state here: start the run anew"
    raise CheckpointError(f"the training state {folder} is damaged ({wrong}); {advice}")


def latest_state(run_folder: str | Path) -> Path | None:
    """The newest state of a run that is whole by the size of its files; None when there is none."""
    return next((state for state in reversed(_states(Path(run_folder))) if _what_is_wrong(state) is None), None)


def retain(run_folder: str | Path, keep: int = 2, best: int = 0) -> None:
    """Deletes whole states: all but the newest `keep`, and the `best` whose `validation_loss` is lowest.

    Two of the newest, so that one remains if the last turns out damaged.
    """
    assert keep >= 1
    whole = [state for state in _states(Path(run_folder)) if _what_is_wrong(state) is None]
    kept = {*whole[-keep:], *best_states(run_folder, best)}
    for state in whole:
        if state not in kept:
            shutil.rmtree(state)


def best_states(run_folder: str | Path, count: int) -> list[Path]:
    """The whole states with the lowest `validation_loss` among their values, best first; states without one are none of them."""
    scored = []
    for state in _states(Path(run_folder)) if count else []:
        if _what_is_wrong(state) is None:
            loss = json.loads((state / _VALUES).read_text(encoding="utf-8")).get("validation_loss")
            if loss is not None:
                scored.append((loss, state))
    return [state for _, state in sorted(scored)[:count]]


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors takes them: on the CPU, contiguous, no two in one storage; copied only where they are not."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        seen.add(storage.data_ptr())
        found[name] = tensor
    return found


def _states(run_folder: Path) -> list[Path]:
    found = [path for path in run_folder.glob("step-*") if path.is_dir() and path.name.removeprefix("step-").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def _what_is_wrong(state: Path) -> str | None:
    """The first fault that names and sizes show; None when they show none."""
    try:
        files = json.loads((state / _MANIFEST).read_text(encoding="utf-8"))
        for name, entry in files.items():
            size = (state / name).stat().st_size
            if size != entry["bytes"]:
                return f"{name} has {size} bytes, {entry['bytes']} were written"
    except OSError as error:
        return f"{Path(error.filename).name} is missing or cannot be read"
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"{_MANIFEST} is not readable"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
