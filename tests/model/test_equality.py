"""Our model against transformers with the same random weights, and packed rows against rows alone; float32 on the CPU."""

import pytest
import torch

from modernbert.batch import pack
from modernbert.bench.equality import (
    HEADS,
    LONG,
    SHORT,
    backward,
    compare,
    our_outputs,
    random_model,
    random_rows,
    their_outputs,
    twin,
)
from modernbert.config import ModelConfig
from modernbert.model.heads import Embedder, LateInteraction
from modernbert.model.init import init_weights

# Both kinds of layer, both bases, the published window. σ of 0.15: attention of random weights is sharp, so that a wrong angle shows.
SMALL = ModelConfig(
    vocab_size=384,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=4,
    num_attention_heads=2,
    initializer_range=0.15,
    unk_token_id=0,
    cls_token_id=1,
    sep_token_id=2,
    mask_token_id=3,
    pad_token_id=383,
)
ONE_HEAD = SMALL.with_(num_hidden_layers=2, num_attention_heads=1)
BY_NAME = {head.name: head for head in HEADS}

LOGITS, GRADIENTS = 1e-4, 1e-3  # the project's promise; found here: 1.1e-5 and 3e-6 at most
PACKED = 1e-5  # other sizes of product, so other orders of summation


PADS_FIRST = pytest.mark.xfail(reason="transformers 5.17 pools index 0, which is padding")
CASES = [
    pytest.param(
        head, side, id=f"{head.name}-{side}", marks=[PADS_FIRST] if (head.name, side) == ("sequence_cls", "left") else []
    )
    for head in HEADS
    for side in ("right", "left")
]


@pytest.mark.parametrize(("head", "side"), CASES)
def test_logits_and_gradients_are_those_of_transformers(head, side):
    """Ours gets all rows packed, transformers gets them padded on either side.

    Its `cls` pooling takes index 0, wherever the row begins; the case is expected to fail until that is mended, and the next test
    compares ours with the rows unpadded instead.
    """
    difference = compare(head, SMALL, [SHORT, LONG] if side == "right" else [SHORT], side)
    assert difference.logits <= LOGITS
    assert difference.gradient <= GRADIENTS, difference.gradient_of


def test_yarn_is_that_of_transformers():
    """Rows sixteen times longer than those before; bounds as above."""
    difference = compare(
        BY_NAME["masked_lm"], SMALL.with_(global_rope_factor=16.0, global_rope_length=64), [SHORT, LONG], "right"
    )
    assert difference.logits <= LOGITS and difference.gradient <= GRADIENTS, difference.gradient_of


@pytest.mark.parametrize("name", ["sequence_cls", "multiple_choice_cls"])
def test_cls_pooling_is_that_of_transformers_on_rows_without_padding(name):
    head = BY_NAME[name]
    ours = random_model(head, SMALL)
    theirs = twin(head, ours, SMALL)
    for length in SHORT:
        rows = random_rows([length, length], SMALL.vocab_size)
        for one, other in zip(our_outputs(ours, rows), their_outputs(theirs, rows, "right"), strict=True):
            torch.testing.assert_close(one, other, atol=LOGITS, rtol=0)


def test_eager_attention_of_transformers_gives_the_same():
    difference = compare(BY_NAME["masked_lm"], SMALL, [SHORT], "right", attention="eager")
    assert difference.logits <= LOGITS and difference.gradient <= GRADIENTS


def test_a_row_of_8192_tokens_is_that_of_transformers():
    """One head and one layer of each kind: transformers attends densely in both, 8,192 × 8,192."""
    difference = compare(BY_NAME["masked_lm"], ONE_HEAD, [(8192,)], "right")
    assert difference.logits <= LOGITS
    assert difference.gradient <= GRADIENTS, difference.gradient_of


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_every_row_of_a_packed_batch_is_as_it_is_alone(head):
    model = random_model(head, SMALL)
    rows = random_rows([*SHORT, *LONG], SMALL.vocab_size)
    pairs = [rows[i : i + 2] for i in range(0, len(rows), 2)]  # two rows make a question, for multiple choice
    alone = [out for pair in pairs for out in our_outputs(model, pair)]
    if "multiple_choice" not in head.name:
        alone = [out for row in rows for out in our_outputs(model, [row])]
    for one, other in zip(our_outputs(model, rows), alone, strict=True):
        torch.testing.assert_close(one, other, atol=PACKED, rtol=0)


@pytest.mark.parametrize("head_class", [Embedder, LateInteraction])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_vectors_of_a_packed_batch_are_those_of_its_rows_alone(head_class, pooling):
    config = SMALL.with_(classifier_pooling=pooling)
    model = head_class(config)
    init_weights(model, config, torch.Generator().manual_seed(0))
    rows = random_rows([*SHORT, *LONG], SMALL.vocab_size)
    alone = torch.cat([model(pack([row])) for row in rows])
    torch.testing.assert_close(model(pack(rows)), alone, atol=PACKED, rtol=0)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_shuffled_rows_give_shuffled_outputs_and_the_same_gradients(head):
    rows = random_rows(SHORT, SMALL.vocab_size)
    pairs = [3, 0, 4, 1, 2]
    order = [2 * pair + i for pair in pairs for i in range(2)]
    model = random_model(head, SMALL)
    outputs = our_outputs(model, rows)
    gradient = _embedding_gradient(model, outputs)
    shuffled = our_outputs(model, [rows[i] for i in order])
    for i, out in zip(order, shuffled, strict=True):
        torch.testing.assert_close(out, outputs[i], atol=PACKED, rtol=0)
    back = [shuffled[order.index(i)] for i in range(len(rows))]
    torch.testing.assert_close(_embedding_gradient(model, back), gradient, atol=PACKED, rtol=1e-4)


def _embedding_gradient(model, outputs):
    model.zero_grad()
    backward(outputs)
    return next(model.parameters()).grad.clone()
