"""A model of an exported folder, ready for use: what `Engine.fill_mask` and `Engine.embed` give, by onnxruntime alone.

B rows · L padded length · M masked positions · V vocabulary · K words for each mask.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modernbert.checkpoint.names import resolve
from modernbert.checkpoint.settings import read_config, read_pooling, read_vector_settings
from modernbert.config import ModelConfig
from modernbert.errors import CheckpointError
from modernbert.runtime.padding import groups, padded
from modernbert.runtime.session import BESIDE, Session
from modernbert.text.masks import check_masks, check_top_k, words_of
from modernbert.text.rows import list_of, prompted, rows_of
from modernbert.text.tokenizer import Tokenizer
from modernbert.vectors import Precision, VectorSettings, check_wishes, finished


def load(name_or_folder: str | Path | None = None, *, file: str | None = None, threads: int = 0) -> "Model":
    """Loads a packaged model, or what `modernbert export` wrote.

    Args:
        name_or_folder: a packaged model's name, or the folder; None is our own model.
        file: under `onnx/`: model.onnx, model_fp16.onnx, model_quantized.onnx, model_q4.onnx or model_q4f16.onnx. None is the graph beside
            the folder's own weights, where it has one, else model.onnx.
        threads: 0 is one a core.

    Raises:
        CheckpointError, ConfigError, TokenizerError: a file is missing or damaged; it is named.
    """
    folder = resolve(name_or_folder)
    beside = folder / BESIDE
    path = beside if file is None and beside.is_file() else folder / "onnx" / (file or "model.onnx")
    session = Session(path, threads=threads)
    settings = read_vector_settings(folder) or VectorSettings(pooling=read_pooling(folder))
    return Model(session, Tokenizer.load(folder), read_config(folder), settings)


class Model:
    """An exported model; made by `load`. Arguments, results and errors are those of the engine's methods of the same names."""

    def __init__(self, session: Session, tokenizer: Tokenizer, config: ModelConfig, settings: VectorSettings) -> None:
        self.config, self.tokenizer, self.settings = config, tokenizer, settings
        self._session = session

    def fill_mask(self, text: str | Iterable[str], top_k: int = 5) -> list[Any]:
        """The likeliest words at each mask: see `Engine.fill_mask`."""
        return _fill_mask(self, text, top_k)

    def embed(
        self,
        texts: str | Iterable[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        normalize: bool = False,
        truncate_dim: int | None = None,
        precision: Precision = "float32",
        truncate: bool = False,
    ) -> np.ndarray:
        """One vector a text: see `Engine.embed`."""
        return _embed(self, texts, prompt, prompt_name, normalize, truncate_dim, precision, truncate)

    def width(self, output: str) -> int:
        """The last axis of an output of the graph.

        Raises:
            CheckpointError: it has no such output.
        """
        if output not in self._session.widths:
            has = ", ".join(self._session.widths)
            advice = "export a masked language model" if output == "logits" else "export it with --embedding"
            raise CheckpointError(f"the exported graph gives {has}, and {output} is needed; {advice}")
        return int(self._session.widths[output])

    def run(self, output: str, rows: Sequence[Sequence[int]], skip: int = 0) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yields numbers of rows with the rows' results, [B, …].

        Args:
            output: its name in the graph.
            rows: token ids.
            skip: first tokens of each row that are seen, yet not pooled.
        """
        for group in groups([len(row) for row in rows]):
            ids_BL, mask_BL = padded([rows[i] for i in group], self.tokenizer.pad_id)
            mask_BL[:, :skip] *= 2  # export/heads.py: above 1 is seen, yet not pooled
            yield group, self._session.run(output, ids_BL, mask_BL)


def _fill_mask(model: Model, text: Any, top_k: int) -> list[Any]:
    tokenizer = model.tokenizer
    if (width := model.width("logits")) < tokenizer.vocab_size:
        raise CheckpointError(
            f"the exported graph scores {width:,} classes, and fill_mask needs all {tokenizer.vocab_size:,} tokens; "
            "export a masked language model"
        )
    check_top_k(top_k, width)
    rows = rows_of(tokenizer, text, limit=model.config.max_position_embeddings, truncate=None)
    check_masks(tokenizer, rows, alone=isinstance(text, str))
    answers: list[Any] = [None] * len(rows)
    for group, logits_BLV in model.run("logits", rows):
        for i, logits_LV in zip(group, logits_BLV, strict=True):
            at_M = [place for place, token in enumerate(rows[i]) if token == tokenizer.mask_id]
            answers[i] = words_of(tokenizer, rows[i], _likeliest(logits_LV[at_M], top_k))
    return answers[0] if len(answers) == 1 else answers


def _likeliest(logits_MV: np.ndarray, top_k: int) -> Iterator[tuple[list[float], list[int]]]:
    shifted_MV = np.exp(logits_MV - logits_MV.max(-1, keepdims=True))
    probabilities_MV = shifted_MV / shifted_MV.sum(-1, keepdims=True)
    tokens_MK = np.argsort(-probabilities_MV, axis=-1, kind="stable")[:, :top_k]
    scores_MK = np.take_along_axis(probabilities_MV, tokens_MK, -1)
    return zip(scores_MK.tolist(), tokens_MK.tolist(), strict=True)


def _embed(
    model: Model,
    texts: Any,
    prompt: str | None,
    prompt_name: str | None,
    normalize: bool,
    truncate_dim: int | None,
    precision: Precision,
    truncate: bool,
) -> np.ndarray:
    width = model.width("sentence_embedding")
    items = texts if isinstance(texts, str) else list_of(texts)
    check_wishes(precision, truncate_dim, width, len(list_of(items)))
    given, skip = prompted(model.tokenizer, model.settings, items, prompt, prompt_name)
    longest = model.config.max_position_embeddings
    rows = rows_of(model.tokenizer, given, limit=min(model.settings.max_seq_length or longest, longest), truncate=truncate)
    found: list[np.ndarray] = [np.empty(0)] * len(rows)
    for group, vectors in model.run("sentence_embedding", rows, skip):
        for i, vector in zip(group, vectors, strict=True):
            found[i] = vector
    vectors = np.stack(found) if rows else np.empty((0, width), dtype=np.float32)
    vectors = finished(vectors, normalize, truncate_dim, precision)
    return vectors[0] if isinstance(texts, str) else vectors
