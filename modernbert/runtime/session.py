"""ONNX Runtime, which runs the files that `modernbert export` writes."""

from pathlib import Path
from typing import Any

import numpy as np

from modernbert.errors import CheckpointError, MissingExtraError

try:
    import onnxruntime
except ImportError as error:
    raise MissingExtraError("running ONNX files needs onnxruntime: pip install 'modernbert[onnx]'") from error

BESIDE = "graph.onnx"
"""Of a folder: a graph that reads its weights from the folder's own `model.safetensors`; `export.beside` writes it."""


class Session:
    """One ONNX file, ready to run on the CPU."""

    def __init__(self, file: Path, *, threads: int = 0) -> None:
        """Loads it.

        Args:
            file: of an exported folder.
            threads: 0 is one a core.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        if not file.is_file():
            raise CheckpointError(f"no {file}; write it with `modernbert export MODEL {file.parent.parent}`")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors alone: what else it says is about its own choices
        try:
            self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's own classes have no public root
            raise CheckpointError(f"{file} is damaged, or needs a newer onnxruntime ({error}); export it again") from error
        self.widths: dict[str, Any] = {output.name: output.shape[-1] for output in self._session.get_outputs()}
        """Of each output its last axis."""

    def run(self, output: str, ids_BL: np.ndarray, mask_BL: np.ndarray) -> np.ndarray:
        """One output for padded rows of token ids, int64, and their mask, 0 at padding."""
        alone = onnxruntime.RunOptions()
        alone.only_execute_path_to_fetches = True  # one graph may hold a head and vectors
        (found,) = self._session.run([output], {"input_ids": ids_BL, "attention_mask": mask_BL}, alone)
        return found
