"""A run's curves in TensorBoard, while it runs: the only door to it. `pip install 'modernbert[tensorboard]'`, then `tensorboard=True`.

tensorboard --logdir run/tensorboard
"""

from pathlib import Path
from typing import Any

from modernbert.errors import MissingExtraError


class Tracker:
    """Writes the numbers of the log's lines as TensorBoard's scalars."""

    def __init__(self, folder: Path, step: int) -> None:
        """Begins, or goes on at a step: what a killed run had written of later ones is not shown.

        Raises:
            MissingExtraError: tensorboard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("tensorboard=True needs a package: pip install 'modernbert[tensorboard]'") from error
        self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, line: dict[str, Any]) -> None:
        """One line of the log; a list is a scalar for each of its parts."""
        for name, value in line.items():
            parts = {f"{name}/{i}": part for i, part in enumerate(value)} if isinstance(value, list) else {name: value}
            for key, number in parts.items():
                if isinstance(number, int | float) and name != "step":
                    self.writer.add_scalar(key, number, line["step"])

    def close(self) -> None:
        """Has everything on the disk."""
        self.writer.close()
