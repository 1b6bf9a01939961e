import json

from modernbert.bench import data
from modernbert.data.documents import Document
from modernbert.data.shard_writing import write_shards
from modernbert.text.train import train_tokenizer


def test_the_record_says_how_full_and_how_fast_on_what(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "TOKENS_PER_REPEAT", 1 << 17)
    texts = ["to be or not to be " * number for number in range(100)]
    (tmp_path / "play.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    tokenizer = train_tokenizer(["to be or not"], 320)
    written = write_shards([Document(text=text, source="play") for text in texts], tokenizer, tmp_path / "shards")
    record = json.loads(json.dumps(data.data_record(tmp_path / "shards", [tmp_path / "play.jsonl"], repeats=2)))
    assert record["environment"].keys() >= {"cpu", "cores", "python", "modernbert", "numpy", "torch", "tokenizers"}
    assert (record["documents"], record["tokens"]) == (written.documents, written.tokens)
    assert (record["text"]["tokens"], record["text"]["characters"]) == (written.tokens, sum(map(len, texts)))
    assert record["text"]["tokenised_tokens_per_core_second"]["n"] == record["text"]["read_tokens_per_core_second"]["n"] == 2
    assert record["lengths"].keys() == {"1024", "8192"}
    for figures in record["lengths"].values():
        assert figures["fill"]["n"] == 2 and 0.5 < figures["fill"]["median"] <= 1
        assert figures["loaded_tokens_per_core_second"]["min"] > 0
