"""What every speed record says besides its figures: the machine, the versions, and how sure the figures are."""

import importlib.metadata
import os
import platform
import statistics
from collections.abc import Sequence
from typing import Any

from modernbert import __version__
from modernbert.engine.measured import cpu_name


def environment(*packages: str) -> dict[str, Any]:
    """The machine and the versions of Python, modernbert and `packages`."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "modernbert": __version__,
        **{name: importlib.metadata.version(name) for name in packages},
    }


def summary(values: Sequence[float]) -> dict[str, Any]:
    """n, median, least and greatest of repeated measurements.

    >>> summary([3.0, 1.0, 2.0])
    {'n': 3, 'median': 2.0, 'min': 1.0, 'max': 3.0}
    """
    return {"n": len(values), "median": statistics.median(values), "min": min(values), "max": max(values)}
