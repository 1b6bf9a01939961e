"""Another library's encoder in our loop: padded as transformers pads it, learning, handed over, not run again."""

import dataclasses
import json

import pytest
import torch
import transformers
from train.labelled import has_paris, job_of, sentences, write

import modernbert.bench.encoder_peer as module
from modernbert.batch import pack
from modernbert.bench.encoder_peer import PaddedEncoder, peer_record
from modernbert.data.labelled import Source
from modernbert.tasks.sequence import SequenceTask
from modernbert.text.tokenizer import Tokenizer
from modernbert.train.suite import Member


@pytest.fixture(scope="module")
def bert(tiny_folder, tmp_path_factory):
    """A random BERT with the tests' tokenizer."""
    folder, tokenizer = tmp_path_factory.mktemp("bert"), Tokenizer.load(tiny_folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        pad_token_id=tokenizer.pad_id,
    )
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


def test_packed_rows_get_the_scores_of_padded_ones(bert):
    tokenizer = Tokenizer.load(bert)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(bert).eval()
    pairs = [("Paris in France", "a week"), ("seven", "add sixty minute week store"), ("café", "Rome")]
    rows = tokenizer.encode_pairs(pairs)
    found = PaddedEncoder(model, tokenizer.sep_id)(pack(rows))
    for row, pair, scores in zip(rows, pairs, found, strict=True):  # one by one: no padding, types by the first text's length
        first = len(tokenizer.encode([pair[0]])[0])
        types = torch.tensor([[0] * first + [1] * (len(row) - first)])
        alone = model(input_ids=torch.tensor([row]), token_type_ids=types).logits[0]
        torch.testing.assert_close(scores, alone, atol=1e-5, rtol=1e-5)


def test_it_learns_is_handed_over_and_goes_on_where_it_was(bert, tmp_path, monkeypatch):
    rows = [has_paris(words) for words in sentences(200)]
    config = job_of(tmp_path, SequenceTask(), rows, learning_rates=(3e-3,), epochs=6, seeds=(0, 1), optimizer="adamw")
    write(tmp_path / "train.jsonl", rows[:160])
    write(tmp_path / "dev.jsonl", rows[160:])
    first = Member(name="first", config=config, sources=(Source(train="train.jsonl", dev="dev.jsonl"),))
    rests = dataclasses.replace(config, epochs=1, learning_rates=(1e-9,), seeds=(0,))
    members = [first, dataclasses.replace(first, name="second", begins_from="first", config=rests)]
    record = peer_record(members, bert, tmp_path, tmp_path / "record")
    assert [(run["set"], run["seed"]) for run in record["runs"]] == [("first", 0), ("first", 1), ("second", 0)]
    assert module.markdown(record).splitlines()[2].startswith("| first | accuracy | 0.003 | ")
    assert max(run["score"] for run in record["runs"]) > 0.8
    before = tmp_path / "record" / "first.safetensors"
    model, kept = module.peer_start(bert, 2, torch.device("cpu"), 0, before), module.load_file(before)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.padded.base_model.state_dict().items())
    monkeypatch.setattr(module, "train_once", None)
    again = peer_record(members, bert, tmp_path, tmp_path / "record")
    assert again["runs"] == record["runs"] == json.loads((tmp_path / "record" / "peer.json").read_text())["runs"]
