import itertools

import pytest
import torch

from modernbert.batch import pack
from modernbert.checkpoint.float8 import FLOAT8
from modernbert.checkpoint.folder import load_model, save_model
from modernbert.config import ModelConfig
from modernbert.export.float8_rounding import batches_of, round_linears, rounded
from modernbert.model.heads import Embedder, MaskedLM
from modernbert.text.tokenizer import Tokenizer


def each_by_itself(weight):
    return weight.to(FLOAT8).float()


def test_inputs_that_do_not_go_together_leave_every_weight_to_itself():
    weight = torch.randn(7, 16)
    gram = torch.diag(torch.rand(16) + 0.1)
    assert torch.equal(rounded(weight, gram), each_by_itself(weight))


def test_what_a_layer_gives_changes_less_than_by_rounding_each_weight_by_itself():
    inputs = torch.randn(500, 4) @ torch.randn(4, 32) + 0.1 * torch.randn(500, 32)
    weight = torch.randn(64, 32) / 8
    found = rounded(weight, inputs.T @ inputs)
    assert torch.equal(found, each_by_itself(found))

    def error(other):
        return ((inputs @ (other - weight).T) ** 2).mean()

    # inputs of four dimensions and a little noise: most of an error can be made up for (0.035 is left here)
    assert error(found) < 0.2 * error(each_by_itself(weight))


@pytest.fixture
def embedder():
    """Its token vectors lie in four dimensions, as those of real models lie in few, and are float8 already."""
    config = ModelConfig(
        vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, initializer_range=0.1
    )
    model = Embedder(config).eval()
    tokens = model.model.embeddings.tok_embeddings.weight.data
    tokens.copy_(each_by_itself(torch.randn(512, 4) @ torch.randn(4, 32)))
    return model


def rows(count):
    return pack([torch.randint(0, 512, (40,)).tolist() for _ in range(count)])


@torch.no_grad()
def test_vectors_of_a_rounded_model_are_nearer_and_its_folder_holds_what_was_rounded(embedder, tmp_path):
    unseen = rows(50)
    wanted = embedder(unseen)
    plain = Embedder(embedder.config).eval()
    plain.load_state_dict({name: each_by_itself(w) if w.ndim == 2 else w for name, w in embedder.state_dict().items()})
    round_linears(embedder, [rows(8) for _ in range(6)])

    def error(model):
        return 1 - torch.cosine_similarity(model(unseen), wanted, dim=-1).mean()

    assert error(embedder) < 0.3 * error(plain)  # a fifteenth here
    save_model(embedder, embedder.config, tmp_path, dtype=FLOAT8)
    read = load_model(Embedder, tmp_path, dtype=torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(embedder.state_dict().values(), read.state_dict().values(), strict=True))


@torch.no_grad()
def test_token_vectors_stay_where_the_decoder_shares_them():
    config = ModelConfig(vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
    model = MaskedLM(config).eval()
    vectors, dense = model.model.embeddings.tok_embeddings.weight.clone(), model.head.dense.weight.clone()
    round_linears(model, [rows(8)])
    assert torch.equal(model.decoder.weight, vectors)
    assert not torch.equal(model.head.dense.weight, dense)


def test_texts_are_read_from_their_beginnings_and_no_more_than_are_needed(tiny_folder):
    tokenizer = Tokenizer.load(tiny_folder)
    endless = (f"text {number} " * 600 for number in itertools.count())
    batches = list(batches_of(endless, tokenizer))
    assert [batch.rows for batch in batches] == [50] * 24
    assert {batch.max_seqlen for batch in batches} == {512}
    assert next(endless).startswith("text 1200 ")
    assert list(batches_of([], tokenizer)) == []
