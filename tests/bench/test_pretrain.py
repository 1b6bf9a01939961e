import json

from modernbert.bench.pretrain import Case, markdown, pretrain_record
from modernbert.config import ModelConfig
from modernbert.data.documents import Document
from modernbert.data.shards import write_shards
from modernbert.text.train import train_tokenizer


def test_the_record_has_ours_and_transformers_for_each_case(tmp_path):
    texts = [f"{n} and {n} make {2 * n}. " * (1 + n % 9) for n in range(100)]
    write_shards((Document(text=text, source="sums") for text in texts), train_tokenizer(texts, 320), tmp_path)
    small = ModelConfig(vocab_size=320, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=1)
    small = small.with_(pad_token_id=319)
    cases = (Case(name="toy", model=small, length=64, micro_batch_tokens=128, peer_tokens=128),)
    record = json.loads(json.dumps(pretrain_record(tmp_path, steps=10, warm=2, device="cpu", cases=cases)))
    toy = record["cases"]["toy"]
    assert toy["tokens_per_second"]["min"] > 0 and toy["transformers"]["tokens_per_second"]["n"] == 10
    assert 0 <= toy["waiting"] < 1 and 0.5 < toy["fill"] <= 1
    assert markdown(record).count("\n") == 2
