"""What a folder says of its vectors beyond the encoder, and smaller types for them. Needs numpy alone.

D width of a vector.
"""

import dataclasses
import string
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from modernbert.config import Pooling
from modernbert.errors import ConfigError

Similarity = Literal["cosine", "dot", "euclidean", "manhattan", "MaxSim"]
Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LateSettings:
    """How queries and documents become token vectors for MaxSim. Defaults are PyLate's."""

    query_prefix: str = "[Q] "
    """One token, put behind `[CLS]` of a query; empty for none."""
    document_prefix: str = "[D] "
    query_length: int = 32
    """Tokens of a query, special tokens and prefix included; it is cut there, and filled up to it with `[MASK]` by expansion."""
    document_length: int = 180
    query_expansion: bool = True
    """Whether short queries are filled up with `[MASK]`, which are scored as other tokens are."""
    attend_to_expansion_tokens: bool = False
    """Whether other tokens see those masks; if not, the masks see the query, yet not each other."""
    skiplist_words: tuple[str, ...] = tuple(string.punctuation)
    """Tokens of documents that are not scored."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VectorSettings:
    """How texts become vectors, without the weights that take part."""

    pooling: Pooling | None = "mean"
    """None gives a vector a token: late interaction."""
    normalize: bool = False
    prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Text to put before a text, by the name of its use, such as "query"."""
    default_prompt: str | None = None
    """Name of the prompt for texts that come without one."""
    include_prompt: bool = True
    """Whether the prompt's tokens are pooled too."""
    similarity: Similarity = "cosine"
    max_seq_length: int | None = None
    """Longest row in tokens; None is what the encoder reads."""
    late: LateSettings | None = None


def quantize(vectors: np.ndarray, precision: Precision, ranges: np.ndarray | None = None) -> np.ndarray:
    """Vectors in fewer bits.

    Args:
        vectors: float32 [n, D].
        precision: int8 and uint8 cut each dimension's range in 256 steps; binary and ubinary keep the sign, eight
            dimensions a byte (as int8, less 128, and as uint8); float32 is as it was.
        ranges: [2, D], least and greatest value of each dimension in your collection; None takes those of `vectors`. Vectors
            compare only if their ranges are the same, so keep the collection's for its queries.

    Returns:
        int8 or uint8 [n, D], or [n, ⌈D ÷ 8⌉] for the binary ones.

    >>> quantize(np.array([[0.0, 1.0], [255.0, 1.0]]), "uint8").tolist()
    [[0, 0], [255, 0]]
    >>> quantize(np.array([[-1.0, 2.0]]), "ubinary").tolist()
    [[64]]

    Source: sentence-transformers' `quantize_embeddings` (6.2).
    """
    if precision == "float32":
        return vectors
    if precision.endswith("binary"):
        bits = np.packbits(vectors > 0, axis=-1)
        return bits if precision == "ubinary" else (bits ^ 0x80).view(np.int8)  # less 128
    if ranges is None:
        ranges = np.stack([vectors.min(0), vectors.max(0)]) if len(vectors) else np.zeros((2, vectors.shape[1]))
    low, high = ranges.astype(np.float32)
    steps = (high - low) / 255
    levels = np.floor((vectors - low) / np.where(steps == 0, 1, steps)).clip(0, 255)
    return levels.astype(np.uint8) if precision == "uint8" else (levels - 128).astype(np.int8)


def prompt_of(settings: VectorSettings, prompt: str | None, prompt_name: str | None) -> str:
    """The text to put before each text: the one given, the one of that name, or the folder's default.

    >>> prompt_of(VectorSettings(prompts={"query": "search_query: "}), None, "query")
    'search_query: '

    Raises:
        ConfigError: both are given, or there is no prompt of that name.
    """
    if prompt is not None and prompt_name is not None:
        raise ConfigError("prompt and prompt_name are both given; give one of them")
    if prompt is not None:
        return prompt
    wanted = prompt_name if prompt_name is not None else settings.default_prompt
    if wanted is None:
        return ""
    if wanted not in settings.prompts:
        known = ", ".join(map(repr, settings.prompts)) or "none"
        raise ConfigError(f"no prompt named {wanted!r}; this model's folder has {known}; give the text itself as prompt=…")
    return settings.prompts[wanted]


def check_wishes(precision: Precision, truncate_dim: int | None, width: int, texts: int) -> None:
    """Checks what a caller of `embed` asks for.

    Raises:
        ConfigError: no such precision, no such width, or the range of each dimension of a single text.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"precision={precision!r}: wanted one of {', '.join(get_args(Precision))}")
    if precision.endswith("int8") and texts == 1:
        raise ConfigError(
            f"precision={precision!r} measures each dimension's range over the texts, and there is one; "
            "embed it in float32 and call `quantize` with the ranges of your collection"
        )
    if truncate_dim is not None and not 1 <= truncate_dim <= width:
        raise ConfigError(f"truncate_dim={truncate_dim!r}: wanted 1 to {width}, the width of the model's vectors")


def finished(vectors: np.ndarray, normalize: bool, truncate_dim: int | None, precision: Precision) -> np.ndarray:
    """The model's vectors, float32 [n, D], as the caller wants them: fewer dimensions, then length 1, then a smaller type.

    >>> finished(np.array([[3.0, 4.0, 12.0]]), True, 2, "float32").tolist()
    [[0.6, 0.8]]
    """
    vectors = vectors[:, :truncate_dim]
    if normalize:
        vectors = unit(vectors)
    return quantize(np.ascontiguousarray(vectors), precision)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [n, D] scaled to length 1; those of nothing but zeros stay.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
