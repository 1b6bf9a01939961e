"""Replayed steps, with the recording of graphs left out: what fills a batch up changes nothing of what is its own."""

from types import SimpleNamespace

import pytest
import torch

from modernbert.batch import pack
from modernbert.config import ModelConfig
from modernbert.model.heads import QuestionAnswerer, SequenceClassifier, TokenClassifier
from modernbert.train import replay
from modernbert.train.replay import USES_BEFORE_CAPTURE, Recorded, Replayed, fill_up, filled_tokens

ROWS = [[5, 6, 7], [8, 9], list(range(4, 40))]


class Again(Recorded):
    """Instead of a graph: runs what it was given once more, into the same memory."""

    def __init__(self, model, batch, pool):
        self.batch, self.model = batch, model
        self.weights = dict(model.named_parameters())
        self.found = self._run()
        self.given = [torch.zeros_like(one) for one in self.found]
        self.forward, self.backward = SimpleNamespace(replay=self._forward), SimpleNamespace(replay=self._backward)

    def _run(self):
        found = self.model(self.batch)
        return found if isinstance(found, tuple) else (found,)

    def _forward(self):
        with torch.enable_grad():
            self.found = self._run()

    def _backward(self):
        self.gradients = torch.autograd.grad(self.found, list(self.weights.values()), self.given, allow_unused=True)


@pytest.fixture(autouse=True)
def recorded(monkeypatch):
    shapes = []
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(replay, "Recorded", lambda *args: shapes.append(len(args[1].ids_T)) or Again(*args))
    return shapes


@pytest.fixture
def config():
    return ModelConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_labels=3,
        classifier_pooling="mean",
    )


@pytest.mark.parametrize("head", [SequenceClassifier, TokenClassifier, QuestionAnswerer])
def test_a_filled_batch_says_the_same_and_learns_the_same(head, config, recorded):
    torch.manual_seed(0)
    model, batch = head(config), pack(ROWS)
    replayed = Replayed(model, longest=36)
    gradients = []
    for _ in range(USES_BEFORE_CAPTURE + 1):  # the last one is filled up
        found = replayed(batch)
        loss = sum(one.square().sum() for one in (found if isinstance(found, tuple) else (found,)))
        model.zero_grad()
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    assert len(recorded) == 1
    plain = model(batch)
    for one, other in zip(
        found if isinstance(found, tuple) else (found,), plain if isinstance(plain, tuple) else (plain,), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)  # float32, other sums in attention
    for one, other in zip(gradients[0], gradients[-1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_a_shape_is_recorded_once_and_only_when_it_has_come_often(config, recorded):
    replayed = Replayed(SequenceClassifier(config), longest=36)
    for times, wanted in ((USES_BEFORE_CAPTURE, 0), (3, 1)):
        for _ in range(times):
            replayed(pack(ROWS))
        assert len(recorded) == wanted
    for _ in range(USES_BEFORE_CAPTURE + 1):
        replayed(pack([*ROWS, [1]]))  # a row more
    assert len(recorded) == 2


@pytest.mark.parametrize("tokens", [1, 127, 128, 129, 800, 4095, 4096, 9000])
def test_filling_is_one_short_row(tokens):
    missing = filled_tokens(tokens) - tokens
    assert 1 <= missing <= max(128, tokens // 8 + 1)
    filled = fill_up(pack([[7] * tokens]), tokens + missing, 16_384)
    assert filled.cu_seqlens.tolist() == [0, tokens, tokens + missing]
    assert filled.pos_T[tokens:].tolist() == list(range(missing))
