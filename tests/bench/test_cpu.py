import json

import pytest

from modernbert.bench import cpu
from modernbert.config import ModelConfig
from modernbert.errors import ConfigError

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
        assert record["ceilings"][column]["fp32"]["min"] > 0 and record["ceilings"][column]["bf16"]["n"] == 2
    page = (tmp_path / "cpu.md").read_text()
    assert "| our fp32, share of it |" in page and "| our int8" not in page
    assert "| modernbert, fp32 |" in page and "- not run: nobody: KeyError" in page
    assert (tmp_path / "cpu.png").stat().st_size > 0


def test_a_contestant_that_nobody_knows_is_named():
    with pytest.raises(ConfigError, match=r"^no contestant named 'nobody'; there are 'modernbert, fp32', "):
        cpu.cpu_record(only=["modernbert, fp32", "nobody"])


def test_a_ceiling_counts_attention_at_the_speed_of_floats(monkeypatch):
    monkeypatch.setattr(cpu, "product_speeds", lambda config, tokens: {"fp32": 90e9, "bf16": 193e9, "int8": 380e9})
    found = {column: cpu.ceilings(ModelConfig(), lengths) for column, (lengths, _) in cpu.COLUMNS.items()}
    # worked out by hand from these speeds: about 810 / 1,480 at 512 tokens and 700 / 1,150 at 2,048
    assert [round(found[cpu.FIXED][kind], -1) for kind in ("bf16", "int8")] == [810, 1480]
    assert [round(found[cpu.LONG][kind], -1) for kind in ("bf16", "int8")] == [700, 1150]
