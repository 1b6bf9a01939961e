"""Masked accuracy by position: the sums of `eval masked` itself, and short rows that hold the same tokens."""

import json

import numpy as np
import pytest

from modernbert.checkpoint.folder import load_model, save_model
from modernbert.checkpoint.settings import read_config
from modernbert.engine.engine import load
from modernbert.errors import ConfigError, DataError
from modernbert.eval.masked import evaluate_masked, masked_rows
from modernbert.eval.positions import SHORT, _pieces, evaluate_positions
from modernbert.model.heads import MaskedLM
from modernbert.text.tokenizer import Tokenizer
from tests.conftest import SENTENCES


@pytest.fixture(scope="module")
def engine(tiny_folder):
    return load(tiny_folder, device="cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory, tiny_folder):
    """One document of exactly two rows of 2,048 tokens, and a short one that is left out."""
    path, tokenizer = tmp_path_factory.mktemp("documents") / "long.jsonl", Tokenizer.load(tiny_folder)
    words = " ".join(SENTENCES * 300)
    (ids,) = tokenizer.encode([words], special=False)
    text = tokenizer.decode(ids[: 2 * 2046])
    path.write_text(json.dumps({"text": text, "source": "a"}) + "\n" + json.dumps({"text": "short", "source": "b"}) + "\n")
    assert len(tokenizer.encode([text], special=False)[0]) == 2 * 2046
    return path


def test_bands_add_up_to_the_whole(engine, file):
    result = evaluate_positions(engine, [file], length=2048)
    whole = evaluate_masked(engine, [file], length=2048).sources["a"]
    assert result.rows == 2 and [(b.first, b.last) for b in result.bands] == [(0, 511), (512, 1023), (1024, 2047)]
    assert sum(b.masked for b in result.bands) == whole.masked
    assert sum(b.right for b in result.bands) == whole.right
    assert sum(b.bits for b in result.bands) == pytest.approx(whole.bits, rel=1e-5)
    assert result.to_markdown().count("\n") == 6


def test_short_rows_hold_the_same_masked_tokens_behind_other_positions(engine, file):
    tokenizer = engine.tokenizer
    from modernbert.data.documents import read_documents

    rows = [r for r in masked_rows(read_documents([file]), tokenizer, length=4096, rate=0.15, seed=0) if len(r.ids) > 2048]
    (row,) = rows
    pieces = _pieces(row, tokenizer.cls_id, tokenizer.sep_id)
    assert pieces
    for short, places in pieces:
        assert len(short.ids) == SHORT and short.ids[0] == tokenizer.cls_id and short.ids[-1] == tokenizer.sep_id
        compared = short.labels[short.at >= SHORT // 2]
        assert np.array_equal(compared, row.labels[places]) and (row.at[places] >= len(row.ids) // 2).all()
        assert all(short.ids[i] == tokenizer.mask_id for i in short.at)


def test_a_model_without_attention_finds_the_same_at_both_places(tiny_folder, file, tmp_path):
    """Then a token's scores depend on itself alone: no difference between long and short rows."""
    model, config = load_model(MaskedLM, tiny_folder), read_config(tiny_folder)
    for layer in model.model.layers:
        layer.attn.Wo.weight.data.zero_()
    save_model(model, config, tmp_path / "blind", tokenizer=Tokenizer.load(tiny_folder))
    result = evaluate_positions(load(tmp_path / "blind", device="cpu"), [file], length=2048)
    assert result.paired > 30 and result.in_long == result.in_short and result.difference_se == 0


def test_what_cannot_be_compared_is_refused(engine, file):
    with pytest.raises(ConfigError, match="length=1024: wanted 2,048 to 8,192 tokens"):
        evaluate_positions(engine, [file], length=1024)
    with pytest.raises(DataError, match="no document has 8,192 tokens"):
        evaluate_positions(engine, [file], length=8192)
