import json

from modernbert.bench import cpu
from modernbert.config import ModelConfig

SMALL = ModelConfig(vocab_size=128, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=1)


def test_the_record_has_every_contestant_or_the_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu, "preset", lambda size: SMALL)
    monkeypatch.setattr(cpu, "CONTESTANTS", {**cpu.CONTESTANTS, "nobody": None})
    columns = {"fixed": ([16], 16), "variable": ([20, 3], 24)}
    record = cpu.cpu_record(repeats=2, only=["modernbert, fp32", "nobody"], document=False, columns=columns)
    cpu.write(record, tmp_path)
    record = json.loads((tmp_path / "cpu.json").read_text())
    assert record["tokens_per_second"].keys() == {"modernbert, fp32"}
    assert record["skipped"].keys() == {"nobody"}
    for column in columns:
        assert record["tokens_per_second"]["modernbert, fp32"][column]["n"] == 2
        assert record["ceiling_fp32"][column]["min"] > 0
    page = (tmp_path / "cpu.md").read_text()
    assert "| modernbert, fp32 |" in page and "- not run: nobody: KeyError" in page
    assert (tmp_path / "cpu.png").stat().st_size > 0
