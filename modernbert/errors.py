"""Every error that modernbert raises on purpose, as one tree.

    ModernBertError
    ├── ConfigError        a setting or config.json asks for what cannot be built
    ├── CheckpointError    a weights file or folder is missing, foreign, damaged or incomplete
    ├── TokenizerError     a tokenizer is missing, damaged or lacks what ModernBERT needs
    ├── TextError          a text cannot be processed (not UTF-8, too long, no mask)
    ├── DataError          documents or token shards are missing or damaged
    ├── TrainingError      a run cannot start, go on or resume
    ├── ExportError        an exported file does not compute what the model does
    ├── HardwareError      the machine cannot do what was asked
    └── MissingExtraError  an optional package is not installed

Each message says what was wanted, what came, and what to do. The command line prints it as one line and exits with 2.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path


class ModernBertError(Exception):
    """The root: `except ModernBertError` catches everything that this package raises on purpose."""


class ConfigError(ModernBertError):
    """A setting or a config.json asks for what cannot be built."""


class CheckpointError(ModernBertError):
    """A weights file or folder is missing, foreign, damaged or incomplete."""


class TokenizerError(ModernBertError):
    """A tokenizer is missing, damaged, or lacks what ModernBERT needs."""


class TextError(ModernBertError):
    """A text cannot be processed: not UTF-8, too long, or without the mask that was asked for."""


class DataError(ModernBertError):
    """Documents or token shards are missing or damaged."""


class TrainingError(ModernBertError):
    """A run cannot start, go on or resume."""


class ExportError(ModernBertError):
    """An exported file does not compute what the model does."""


class HardwareError(ModernBertError):
    """The machine cannot do what was asked."""


class MissingExtraError(ModernBertError):
    """An optional package is not installed; the message names the command that installs it."""


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """A block that writes `path`: an error of the disk that names no file, as a full one's does, names this one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
