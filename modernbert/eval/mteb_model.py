"""A face by which `mteb` drives our engine: `mteb.evaluate(MtebModel(modernbert.load(folder), folder), tasks)`.

It has the methods that mteb 2 asks of an encoder (`EncoderProtocol`, mteb 2.26) and needs no mteb itself, except for the model's card.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from modernbert.engine.engine import Engine
from modernbert.errors import MissingExtraError


class MtebModel:
    """One vector a text, for mteb's tasks of every kind; queries get the folder's prompt for queries, documents that for documents."""

    def __init__(self, engine: Engine, name: str = "modernbert/local", batch_tokens: int | None = None) -> None:
        """Takes a model that is loaded; `name` stands in mteb's results, as owner/name."""
        self.engine, self.name, self.batch_tokens = engine, name, batch_tokens

    def encode(self, inputs: Iterable[dict[str, Any]], *, prompt_type: Any = None, **_: Any) -> np.ndarray:
        """Vectors, float32 [texts, width], of batches that hold their texts under "text"."""
        use = getattr(prompt_type, "value", prompt_type)
        prompts = self.engine.modules.prompts
        wanted = {"query": ("query",), "document": ("document", "passage"), "passage": ("document", "passage")}.get(str(use), ())
        prompt_name = next((name for name in wanted if name in prompts), None)
        texts = [text for batch in inputs for text in batch["text"]]
        return self.engine.embed(texts, prompt_name=prompt_name, truncate=True, batch_tokens=self.batch_tokens)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines of each of the first with each of the second."""
        return F.normalize(_tensor(embeddings1), dim=-1) @ F.normalize(_tensor(embeddings2), dim=-1).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines of the first with the first, the second with the second, and so on."""
        return F.cosine_similarity(_tensor(embeddings1), _tensor(embeddings2), dim=-1)

    @property
    def mteb_model_meta(self) -> Any:
        """The card that mteb keeps with its results. Raises MissingExtraError: mteb is not installed."""
        try:
            from mteb.models import ModelMeta
        except ImportError as error:
            raise MissingExtraError("mteb is not installed: pip install mteb") from error
        width = self.engine.embed("width").shape[-1]
        return ModelMeta.create_empty(
            overwrites={"name": self.name, "revision": "local", "embed_dim": width, "similarity_fn_name": "cosine"}
        )


def _tensor(vectors: Any) -> Tensor:
    return torch.as_tensor(np.asarray(vectors)).float()
