"""ModernBERT's encoder as an ONNX graph over padded rows: what `model/encoder.py` computes, for runtimes that know no packed rows.

Local layers do not build the L × L table. The rows are cut into blocks of queries, and each block meets its own keys and a halo of
`window` on both sides, gathered by indices that are computed once for all layers:

    keys    ┊ halo │     block      │ halo ┊
    queries        │     block      │

A row of up to `SHORT` tokens is one block without a halo.

B rows · L padded length · G blocks · Q queries in a block · S keys a block meets · N heads · H per head · K = H / 2 · D hidden.

Source: Warner et al. 2024 (arXiv 2412.13663) §2.1.
"""

import dataclasses

import numpy as np

from modernbert.config import ModelConfig, Rope
from modernbert.export.graph import Graph
from modernbert.kernels.rope import yarn_sharpness, yarn_speeds

BLOCK = 64
"""Queries in a block."""
SHORT = 256
"""Tokens up to which the whole table is cheaper than blocks. One AVX2 core, ONNX Runtime, width 384, µs a token and local layer, whole /
blocks: 128 tokens 57 / 60, 256 60 / 60, 512 92 / 80, 2,048 168 / 75, 8,192 – / 78 (bench/results/export_2026-11-23.md)."""
HIDDEN = -3e4
"""Added to the scores of keys that are not seen: finite, so that a row of padding is no NaN, and within float16."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """Values that all layers share."""

    length: str
    """L, as a tensor of one number."""
    tables: dict[Rope, tuple[str, str]]
    """Cosines and sines, [L, K], by what decides them."""
    unseen: str
    """[B, 1, 1, L]: `HIDDEN` at padding, else 0."""
    queries: str
    """[G, Q]: the token that each query of a block is; the last one again where the row has ended."""
    keys: str
    """[G, S]: likewise the keys of a block."""
    unseen_local: str
    """[B, 1, G, Q, S]: `HIDDEN` beyond the window, beyond the row and at padding."""


def encoder(g: Graph, config: ModelConfig, ids: str, mask: str, prefix: str = "model.") -> str:
    """Adds the encoder.

    Args:
        g: the graph, with the encoder's weights under `prefix`.
        config: of the model.
        ids, mask: names of int64 [B, L]; the mask is 0 at padding.
        prefix: of the weights' names.

    Returns:
        The name of the hidden states, [B, L, D].
    """
    rows = _rows(g, config, ids, mask)
    table = g.rows_of_table(ids, f"{prefix}embeddings.tok_embeddings.weight")
    x = g.layer_norm(table, f"{prefix}embeddings.norm.weight", config.norm_eps)
    for layer in range(config.num_hidden_layers):
        at = f"{prefix}layers.{layer}."
        normed = g.layer_norm(x, f"{at}attn_norm.weight", config.norm_eps) if layer else x
        x = g.op("Add", x, _attention(g, config, layer, normed, rows, at))
        x = g.op("Add", x, _mlp(g, config, g.layer_norm(x, f"{at}mlp_norm.weight", config.norm_eps), at))
    return g.layer_norm(x, f"{prefix}final_norm.weight", config.norm_eps)


def _rows(g: Graph, config: ModelConfig, ids: str, mask: str) -> Rows:
    length = g.op("Slice", g.op("Shape", ids), g.constant([1]), g.constant([2]))
    positions = g.op("Range", g.constant(0), g.op("Squeeze", length), g.constant(1))
    tables = {rope: _rotary(g, config, positions, rope) for rope in config.ropes()}
    seen = g.op("Greater", mask, g.constant(0))
    unseen = _unseen(g, g.op("Unsqueeze", seen, g.constant([1, 2])))
    queries, keys, unseen_local = _blocks(g, config.local_attention // 2, g.op("Squeeze", length), seen)
    return Rows(length=length, tables=tables, unseen=unseen, queries=queries, keys=keys, unseen_local=unseen_local)


def _rotary(g: Graph, config: ModelConfig, positions: str, rope: Rope) -> tuple[str, str]:
    """Angles in float32 whatever the form: float16 loses the position beyond a few hundred tokens."""
    halves = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    frequencies = (np.float32(1.0) / np.float32(rope.theta) ** halves).astype(np.float32)
    if rope.factor != 1:
        frequencies *= np.array(yarn_speeds(config.head_dim, *rope), np.float32)
    at = g.op("Unsqueeze", g.cast(positions, np.float32), g.constant([1]))
    angles = g.op("Mul", at, g.constant(frequencies[None], np.float32))
    cos, sin = g.op("Cos", angles), g.op("Sin", angles)
    if rope.factor != 1:
        sharper = g.constant(yarn_sharpness(rope.factor), np.float32)
        cos, sin = g.op("Mul", cos, sharper), g.op("Mul", sin, sharper)
    return g.to_real(cos), g.to_real(sin)


def _unseen(g: Graph, seen: str) -> str:
    return g.op("Where", seen, g.real(0.0), g.real(HIDDEN))


def _blocks(g: Graph, window: int, length: str, seen: str) -> tuple[str, str, str]:
    short = g.op("LessOrEqual", length, g.constant(SHORT))
    block = g.op("Where", short, length, g.constant(BLOCK))
    halo = g.op("Where", short, g.constant(0), g.constant(window))
    last = g.op("Sub", length, g.constant(1))
    starts = g.op("Unsqueeze", g.op("Range", g.constant(0), length, block), g.constant([1]))
    queries = g.op("Add", starts, g.op("Range", g.constant(0), block, g.constant(1)))
    reach = g.op("Range", g.op("Neg", halo), g.op("Add", block, halo), g.constant(1))
    places = g.op("Add", starts, reach)
    keys = g.op("Max", g.op("Min", places, last), g.constant(0))
    distance = g.op("Abs", g.op("Sub", g.op("Unsqueeze", queries, g.constant([2])), g.op("Unsqueeze", places, g.constant([1]))))
    near = g.op("LessOrEqual", distance, g.constant(window))
    inside = g.op("Unsqueeze", g.op("Equal", places, keys), g.constant([1]))
    present = g.op("Unsqueeze", g.op("Gather", seen, keys, axis=1), g.constant([1, 3]))
    unseen = _unseen(g, g.op("And", present, g.op("And", near, inside)))
    return g.op("Min", queries, last), keys, unseen


def _attention(g: Graph, config: ModelConfig, layer: int, x: str, rows: Rows, at: str) -> str:
    heads, width = config.num_attention_heads, config.head_dim
    split = g.reshape(g.linear(x, f"{at}attn.Wqkv.weight"), 0, 0, 3 * heads, width)
    qk, v = g.split(g.op("Transpose", split, perm=[0, 2, 1, 3]), [2 * heads, heads], axis=1)
    cos, sin = rows.tables[config.rope(layer)]
    a, b = g.split(qk, [width // 2, width // 2], axis=3)
    left = g.op("Sub", g.op("Mul", a, cos), g.op("Mul", b, sin))
    right = g.op("Add", g.op("Mul", b, cos), g.op("Mul", a, sin))
    q, k = g.split(g.op("Concat", left, right, axis=3), [heads, heads], axis=1)
    if config.window(layer) is None:
        o = _attend(g, q, k, v, rows.unseen, width, axes=4)
    else:
        q, k, v = (g.op("Gather", part, at_, axis=2) for part, at_ in ((q, rows.queries), (k, rows.keys), (v, rows.keys)))
        blocks = _attend(g, q, k, v, rows.unseen_local, width, axes=5)
        o = g.slice(g.reshape(blocks, 0, 0, -1, width), 0, rows.length, axis=2)
    joined = g.reshape(g.op("Transpose", o, perm=[0, 2, 1, 3]), 0, 0, heads * width)
    return g.linear(joined, f"{at}attn.Wo.weight")


def _attend(g: Graph, q: str, k: str, v: str, unseen: str, width: int, axes: int) -> str:
    scaled = g.op("Mul", q, g.real(width**-0.5))
    turned = g.op("Transpose", k, perm=[*range(axes - 2), axes - 1, axes - 2])
    scores = g.op("Add", g.op("MatMul", scaled, turned), unseen)
    return g.op("MatMul", g.op("Softmax", scores, axis=-1), v)


def _mlp(g: Graph, config: ModelConfig, x: str, at: str) -> str:
    inside = config.intermediate_size
    activated, gate = g.split(g.linear(x, f"{at}mlp.Wi.weight"), [inside, inside], axis=2)
    return g.linear(g.op("Mul", g.gelu(activated), gate), f"{at}mlp.Wo.weight")
