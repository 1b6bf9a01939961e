"""A model's weights under another tokenizer, against the tokenizers themselves."""

import math

import pytest
import torch

from modernbert.batch import pack
from modernbert.checkpoint.folder import load_model
from modernbert.data.documents import Document
from modernbert.data.shard_writing import write_shards
from modernbert.model.heads import MaskedLM
from modernbert.text.tokenizer import Tokenizer
from modernbert.text.train import train_tokenizer
from modernbert.train.optimizers import OptimizerConfig
from modernbert.train.pretrain import pretrain
from modernbert.train.report import read_log
from modernbert.train.settings import Phase, PretrainConfig
from modernbert.train.vocabulary import pieces_of, with_vocabulary

TEXTS = [f"Der Koch kocht {n} Kartoffeln für {n % 7} Gäste." for n in range(200)]


@pytest.fixture(scope="module")
def old(tiny_folder):
    return load_model(MaskedLM, tiny_folder), Tokenizer.load(tiny_folder)


def test_shared_tokens_keep_their_rows_and_others_take_the_mean_of_their_pieces(old):
    model, before = old
    after = train_tokenizer(TEXTS, 384)
    made = with_vocabulary(model, before, after)
    rows, old_rows = (m.model.embeddings.tok_embeddings.weight for m in (made, model))
    assert made.decoder.weight is rows
    shared = others = 0
    for id in range(after.vocab_size):
        same = before.id(after.token(id))
        if same is not None:
            assert torch.equal(rows[id], old_rows[same]) and made.decoder.bias[id] == model.decoder.bias[same]
            shared += 1
        elif after.decode([id]).isalpha():
            wanted = old_rows[before.encode([after.decode([id])], special=False)[0]].mean(0)
            torch.testing.assert_close(rows[id], wanted, rtol=0, atol=1e-6)
            others += 1
    assert shared > 200 and others > 10
    assert made.config.mask_token_id == after.mask_id
    assert torch.equal(rows[after.mask_id], old_rows[before.mask_id])


def test_a_text_of_shared_tokens_gives_the_same_scores(old):
    model, before = old
    after = train_tokenizer(TEXTS, 384)
    made = with_vocabulary(model, before, after)
    token = "e"
    scores = [
        m(pack([[t.cls_id, t.id(token), t.mask_id, t.sep_id]]))[2, t.id(token)] for m, t in ((model, before), (made, after))
    ]
    torch.testing.assert_close(*scores, rtol=0, atol=1e-5)


def test_the_same_tokenizer_changes_nothing(old):
    _, tokenizer = old
    assert pieces_of(tokenizer, tokenizer) == [[id] for id in range(tokenizer.vocab_size)]


def test_a_run_goes_on_from_weights_with_its_own_tokenizer_and_learns(old, tiny_folder, tmp_path):
    """A toy run: it starts where the old model, which knows nothing, stands, and falls below the loss of guessing."""
    model, _ = old
    write_shards((Document(text=text, source="kitchen") for text in TEXTS), train_tokenizer(TEXTS, 384), tmp_path / "shards")
    config = PretrainConfig(
        model=model.config,
        shards=(str(tmp_path / "shards"),),
        out=str(tmp_path / "run"),
        phases=(Phase(tokens=20_000, length=64, warmup_tokens=2_000),),
        optimizer=OptimizerConfig(lr=1e-2),
        begin_from=str(tiny_folder),
        micro_batch_tokens=512,
        compute_dtype="float32",
        compile=False,
        device="cpu",
        log_every_steps=1,
    )
    folder = pretrain(config)
    lines, _ = read_log(tmp_path / "run")
    assert lines[-1]["loss"] < math.log(384) < lines[0]["loss"]
    assert Tokenizer.load(folder).vocab_size == 384
