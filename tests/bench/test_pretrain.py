import json

import numpy as np
import pytest

from modernbert.bench.pretrain import Case, made_up_shards, markdown, pretrain_record
from modernbert.config import ModelConfig
from modernbert.data.documents import Document
from modernbert.data.shard_writing import write_shards
from modernbert.data.shards import TokenShards
from modernbert.errors import HardwareError
from modernbert.text.train import train_tokenizer


def test_the_record_has_ours_and_transformers_for_each_case(tmp_path):
    texts = [f"{n} and {n} make {2 * n}. " * (1 + n % 9) for n in range(100)]
    write_shards((Document(text=text, source="sums") for text in texts), train_tokenizer(texts, 320), tmp_path)
    small = ModelConfig(vocab_size=320, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=1)
    small = small.with_(pad_token_id=319)
    cases = [Case(name="toy", model=small, length=64, micro_batch_tokens=128, peer_tokens=128)]
    record = json.loads(json.dumps(pretrain_record(tmp_path, steps=10, warm=2, device="cpu", cases=cases)))
    toy = record["cases"]["toy"]
    assert toy["tokens_per_second"]["min"] > 0 and toy["transformers"]["tokens_per_second"]["n"] == 5
    assert 0 <= toy["waiting"] < 1 and 0.5 < toy["fill"] <= 1
    assert markdown(record).count("\n") == 2 and "times" in markdown(record)


SMALL = ModelConfig(vocab_size=320, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1)


@pytest.mark.parametrize(("documents", "lengths"), [(None, {62}), ((30, 8), set(range(16, 63)))])
def test_made_up_documents_have_the_lengths_and_the_vocabulary_of_the_case(documents, lengths, tmp_path):
    case = Case(name="toy", model=SMALL, length=64, documents=documents)
    shards = TokenShards.open(made_up_shards(tmp_path, case, 5_000), verify=True)
    assert set(shards.lengths.tolist()) <= lengths and 4_700 < shards.lengths.sum() <= 5_000
    assert abs(shards.lengths.mean() - (documents or (62, 0))[0]) < 2
    tokenizer = shards.tokenizer()
    ids, counts = np.unique(np.concatenate([shards.document(i) for i in range(len(shards))]), return_counts=True)
    assert tokenizer.vocab_size == 320 and not set(ids.tolist()) & tokenizer.special_ids
    assert counts.max() > 20 * counts.min()  # common and rare ones


def test_a_device_that_is_not_there_is_named_before_documents_are_made(monkeypatch):
    monkeypatch.setattr("modernbert.bench.pretrain.measure", lambda *_: pytest.fail("began"))
    with pytest.raises(HardwareError, match=r"^cannot run on device 'cuda:99'"):
        pretrain_record(device="cuda:99")


def test_ours_alone_runs_on_made_up_documents():
    cases = [Case(name="toy", model=SMALL.with_(pad_token_id=319), length=64, micro_batch_tokens=128)]
    record = pretrain_record(steps=10, warm=2, device="cpu", cases=cases, peers=False)
    assert record["cases"]["toy"]["transformers"] is None and record["cases"]["toy"]["fill"] > 0.9
    assert markdown(record).endswith("| – | – | – |")
