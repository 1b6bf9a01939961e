"""The loss on held-out shards during training, against PyTorch's own cross-entropy on what the loader gives."""

import json

import pytest
import torch
from torch.nn import functional as F

from modernbert.checkpoint.folder import load_model
from modernbert.config import ModelConfig
from modernbert.data.documents import Document
from modernbert.data.loader import Loader
from modernbert.data.shard_writing import write_shards
from modernbert.data.shards import TokenShards
from modernbert.errors import ConfigError, DataError
from modernbert.model.heads import MaskedLM
from modernbert.text.train import train_tokenizer
from modernbert.train.optimizers import OptimizerConfig
from modernbert.train.pretrain import pretrain
from modernbert.train.settings import Phase, PretrainConfig

TEXTS = [" ".join(f"{k} and {n} make {n + k}." for k in range(1 + n % 20)) for n in range(120)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Shards to train on and shards held out, with one tokenizer."""
    folder, tokenizer = tmp_path_factory.mktemp("data"), train_tokenizer(TEXTS, 384)
    for name, texts in (("train", TEXTS[:90]), ("held_out", TEXTS[90:])):
        write_shards((Document(text=text, source="sums") for text in texts), tokenizer, folder / name)
    return folder


def config(folders, out, **changes):
    return PretrainConfig(
        model=ModelConfig(
            num_hidden_layers=2, hidden_size=32, intermediate_size=32, num_attention_heads=1, attention_dropout=0.1
        ),
        shards=(str(folders / "train"),),
        out=str(out),
        phases=(Phase(tokens=5_000, length=64),),
        optimizer=OptimizerConfig(lr=1e-2),
        micro_batch_tokens=512,
        compute_dtype="float32",
        compile=False,
        device="cpu",
        save_every_tokens=1_000,
        keep_checkpoints=1,
        **changes,
    )


def test_each_checkpoint_has_the_loss_on_held_out_shards_and_the_best_stay(folders, tmp_path):
    """Recomputed without dropout from the last model, on 15 % masks; float32 and sums in another order, 1e-4."""
    folder = pretrain(config(folders, tmp_path, validation=str(folders / "held_out"), keep_best=2))
    lines = [line for line in map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines()) if "validation_loss" in line]
    assert len(lines) == 6  # five on the way and one at the end
    model, held_out = load_model(MaskedLM, folder), TokenShards.open(folders / "held_out")
    losses, tokens = [], 0
    for batch, _ in Loader(held_out, length=64, rows_per_batch=8, mask_rate=0.15, seed=0):
        with torch.no_grad():
            logits_MV = model(batch.batch, batch.masked_M)
        losses.append(F.cross_entropy(logits_MV, batch.labels_M, reduction="none")[batch.labels_M >= 0])
        tokens += batch.tokens
        if tokens >= held_out.lengths.sum():
            break
    assert lines[-1]["validation_loss"] == pytest.approx(torch.cat(losses).mean().item(), abs=1e-4)
    values = [json.loads(path.read_text()) for path in (tmp_path / "checkpoints").glob("*/values.json")]
    kept = sorted(value["validation_loss"] for value in values)
    assert kept[:2] == pytest.approx(sorted({line["step"]: line["validation_loss"] for line in lines}.values())[:2], abs=1e-5)
    assert len(kept) in (2, 3)


def test_validation_changes_nothing_in_training(folders, tmp_path):
    with_it, without = (
        load_model(MaskedLM, pretrain(config(folders, tmp_path / str(n), validation=held_out)))
        for n, held_out in enumerate((str(folders / "held_out"), None))
    )
    assert all(torch.equal(a, b) for a, b in zip(with_it.parameters(), without.parameters(), strict=True))


def test_held_out_shards_of_another_tokenizer_are_refused(folders, tmp_path):
    write_shards([Document(text=TEXTS[0], source="sums")], train_tokenizer(TEXTS, 320), tmp_path / "other")
    with pytest.raises(DataError, match=r"was made with another tokenizer than .*; prepare it with the same"):
        pretrain(config(folders, tmp_path / "run", validation=str(tmp_path / "other")))


def test_the_best_need_something_to_be_best_at(folders, tmp_path):
    with pytest.raises(ConfigError, match="keep_best=2 needs validation=FOLDER"):
        pretrain(config(folders, tmp_path / "run", keep_best=2))


def test_muon_and_cut_matrices_are_refused(folders, tmp_path):
    settings = config(folders, tmp_path / "run", shard_weights=True)
    object.__setattr__(settings, "optimizer", OptimizerConfig(name="muon"))
    with pytest.raises(ConfigError, match="muon needs whole matrices"):
        pretrain(settings)
