"""What each head adds to the encoder's graph, under the names of outputs that others look for.

| head | inputs | outputs |
|---|---|---|
| masked LM | input_ids, attention_mask [B, L] | logits [B, L, V] |
| sequence | | logits [B, C] |
| token | | logits [B, L, C] |
| question answering | | start_logits, end_logits [B, L] |
| multiple choice | [B, choices, L] | logits [B, choices] |
| embedding | | last_hidden_state [B, L, D], sentence_embedding [B, O] |
| late interaction | | token_embeddings [B, L, O] |

`sentence_embedding` is pooled, projected and normalised as the folder says (TEI takes it as it is); `last_hidden_state` is the encoder's
own, which sentence-transformers and transformers.js pool themselves. Tokens whose `attention_mask` is above 1 are seen, yet not pooled: so
our runtime leaves out prompts where the folder says so (`include_prompt`).

B rows · L padded length · V vocabulary · C classes · D hidden · O width of a vector.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from modernbert.checkpoint.modules import Activation, Dense, Modules
from modernbert.config import ModelConfig, Pooling
from modernbert.export.encoder import encoder
from modernbert.export.graph import Form, Graph, Place, PlacedGraph
from modernbert.model.encoder import Encoder
from modernbert.model.heads import (
    Embedder,
    LateInteraction,
    MaskedLM,
    MultipleChoice,
    QuestionAnswerer,
    SequenceClassifier,
    TokenClassifier,
)

Outputs = dict[str, tuple[str, Sequence[str | int]]]
"""Of each output the value and its axes: a name, or a size."""

ROWS = ("batch", "sequence")
IDS, MASK = "input_ids", "attention_mask"


def write_graph(
    model: nn.Module, modules: Modules, form: Form, file: Path, places: Mapping[str, Place] | None = None, weights_file: str = ""
) -> None:
    """Writes a model as one ONNX file.

    Args:
        model: one of `checkpoint.folder.ARCHITECTURES`; an encoder is written as an embedder.
        modules: what comes after an encoder.
        form: how weights are stored.
        file: where to.
        places: where `weights_file`, beside the graph, holds weights, for `PlacedGraph`; it gives vectors of texts beside every head's
            output.
        weights_file: its name.
    """
    weights = {name: tensor.detach().float().cpu().numpy() for name, tensor in model.state_dict().items()}
    if isinstance(model, Encoder):
        weights = {f"model.{name}": array for name, array in weights.items()}
        places = None if places is None else {f"model.{name}": place for name, place in places.items()}
    for i, dense in enumerate(modules.dense):
        given = {"weight": dense.weight_OE, "bias": dense.bias_O, "residual": dense.residual_OE}
        weights |= {f"dense.{i}.{name}": tensor.detach().float().numpy() for name, tensor in given.items() if tensor is not None}
    g = Graph(weights, form) if places is None else PlacedGraph(weights, weights_file, places)
    config = model.config
    assert isinstance(config, ModelConfig)
    if isinstance(model, MultipleChoice):
        axes: Sequence[str] = ("batch", "choices", "sequence")
        length = g.op("Slice", g.op("Shape", IDS), g.constant([2]), g.constant([3]))
        flat = g.op("Concat", g.constant([-1]), length, axis=0)
        x, mask = _encoded(g, config, g.op("Reshape", IDS, flat), g.op("Reshape", MASK, flat))
        scores = _classified(g, config, pooled(g, x, mask, config.classifier_pooling))
        shape = g.op("Slice", g.op("Shape", IDS), g.constant([0]), g.constant([2]))
        outputs: Outputs = {"logits": (g.to_float32(g.op("Reshape", scores, shape)), axes[:2])}
    else:
        axes = ROWS
        x, mask = _encoded(g, config, IDS, MASK)
        outputs = _outputs(g, model, config, modules, x, mask)
        if places is not None and not isinstance(model, LateInteraction):
            outputs = _embedded(g, config, modules, x, mask) | outputs
    g.save(file, {IDS: axes, MASK: axes}, outputs)


def _encoded(g: Graph, config: ModelConfig, ids: str, mask: str) -> tuple[str, str]:
    return encoder(g, config, ids, mask), mask


def _outputs(g: Graph, model: nn.Module, config: ModelConfig, modules: Modules, x: str, mask: str) -> Outputs:
    if isinstance(model, MaskedLM):
        table = "model.embeddings.tok_embeddings.weight"
        tied = config.tie_word_embeddings
        weight = table if tied else "decoder.weight"
        scores = g.linear(_headed(g, config, x), weight, "decoder.bias", is_table=tied)
        return {"logits": (g.to_float32(scores), (*ROWS, config.vocab_size))}
    if isinstance(model, SequenceClassifier):
        vector = pooled(g, x, mask, config.classifier_pooling)
        return {"logits": (g.to_float32(_classified(g, config, vector)), (ROWS[0], config.num_labels))}
    if isinstance(model, TokenClassifier):
        return {"logits": (g.to_float32(_classified(g, config, x)), (*ROWS, config.num_labels))}
    if isinstance(model, QuestionAnswerer):
        start, end = g.split(g.to_float32(_classified(g, config, x)), [1, 1], axis=2)
        last = g.constant([-1])
        return {"start_logits": (g.op("Squeeze", start, last), ROWS), "end_logits": (g.op("Squeeze", end, last), ROWS)}
    if isinstance(model, LateInteraction):
        return {"token_embeddings": (normalized(g, g.linear(x, "linear.weight")), (*ROWS, model.width))}
    assert isinstance(model, Encoder | Embedder), f"{type(model).__name__} is no head of ours"
    return _embedded(g, config, modules, x, mask)


def _embedded(g: Graph, config: ModelConfig, modules: Modules, x: str, mask: str) -> Outputs:
    if modules.pooling is None:
        vectors, width = projected(g, x, modules.dense, config.hidden_size)
        return {"token_embeddings": (normalized(g, vectors), (*ROWS, width))}
    vector, width = projected(g, pooled(g, x, mask, modules.pooling), modules.dense, config.hidden_size)
    vector = normalized(g, vector) if modules.normalize else g.to_float32(vector)
    return {"last_hidden_state": (g.to_float32(x), (*ROWS, config.hidden_size)), "sentence_embedding": (vector, (ROWS[0], width))}


def _headed(g: Graph, config: ModelConfig, x: str) -> str:
    return g.layer_norm(g.gelu(g.linear(x, "head.dense.weight")), "head.norm.weight", config.norm_eps)


def _classified(g: Graph, config: ModelConfig, x: str) -> str:
    return g.linear(_headed(g, config, x), "classifier.weight", "classifier.bias")


def pooled(g: Graph, x: str, mask: str, pooling: Pooling) -> str:
    """One vector a row: of its first pooled token, or the mean over them, in float32."""
    chosen = g.op("Equal", mask, g.constant(1))
    if pooling == "cls":
        first = g.op("ArgMax", g.cast(chosen, np.int64), axis=1, keepdims=1)
        return g.op("GatherND", x, first, batch_dims=1)
    weight = g.op("Unsqueeze", g.cast(chosen, np.float32), g.constant([2]))
    sums = g.op("ReduceSum", g.op("Mul", g.to_float32(x), weight), g.constant([1]), keepdims=0)
    return g.to_real(g.op("Div", sums, g.op("ReduceSum", weight, g.constant([1]), keepdims=0)))


def projected(g: Graph, x: str, layers: Sequence[Dense], width: int) -> tuple[str, int]:
    """Behind the folder's Dense layers; and how wide it is then."""
    for i, dense in enumerate(layers):
        y = g.linear(x, f"dense.{i}.weight", None if dense.bias_O is None else f"dense.{i}.bias")
        y = _activated(g, y, dense.activation)
        if dense.residual:
            y = g.op("Add", y, x if dense.residual_OE is None else g.linear(x, f"dense.{i}.residual"))
        x, width = y, len(dense.weight_OE)
    return x, width


def _activated(g: Graph, x: str, activation: Activation) -> str:
    if activation == "gelu":
        return g.gelu(x)
    operators: Mapping[Activation, str] = {"identity": "Identity", "tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid"}
    return g.op(operators[activation], x)


def normalized(g: Graph, x: str) -> str:
    """Scaled to length 1, in float32."""
    x = g.to_float32(x)
    length = g.op("Sqrt", g.op("ReduceSum", g.op("Mul", x, x), g.constant([-1]), keepdims=1))
    return g.op("Div", x, g.op("Max", length, g.constant(1e-12, np.float32)))
