"""A run's folder belongs to one run: its settings lie there, and others are turned away."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from modernbert.checkpoint.atomic import staged, sweep
from modernbert.errors import TrainingError

CONFIG = "config.json"


def claim(run: Path, settings: dict[str, Any], free: Collection[str]) -> None:
    """Writes the settings into a run's folder, and clears away what a killed process left half written.

    Args:
        settings: JSON-able.
        free: which may differ from those that are there already, as they do not change the run's curve.

    Raises:
        TrainingError: another run lives there, or its settings cannot be read.
    """
    mine = json.loads(json.dumps(settings))
    path = run / CONFIG
    if path.exists():
        try:
            theirs = json.loads(path.read_text())
        except ValueError as error:
            raise TrainingError(f"{path} is damaged ({error}); give out= another folder, or delete the file to go on") from error
        changed = [name for name in mine if mine[name] != theirs.get(name) and name not in free]
        if changed:
            raise TrainingError(
                f"{run} holds a run with other settings ({', '.join(changed)} differ); give out= another folder, or the same settings"
            )
    with staged(run) as stage:
        (stage / path.name).write_text(json.dumps(mine, indent=2) + "\n")
    sweep(run)
    sweep(run / "checkpoints")
