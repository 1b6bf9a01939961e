from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from modernbert.cli.overrides import describe, with_settings
from modernbert.config import ModelConfig
from modernbert.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Phase:
    tokens: int = 1000
    """How long it
    lasts."""
    masking: float = 0.3


@dataclass(frozen=True, kw_only=True)
class Run:
    shards: tuple[str, ...] = ("corpus",)
    """Folders of token shards."""
    betas: tuple[float, float] = (0.9, 0.98)
    optimizer: Literal["adamw", "muon"] = "adamw"
    out: Path = Path("runs/mine")
    seed: int | None = None
    compiled: bool = False
    name: str = "mine"
    model: ModelConfig = field(default_factory=lambda: ModelConfig(num_hidden_layers=4))
    phases: tuple[Phase, ...] = (Phase(), Phase(masking=0.15))


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("shards=a", "shards", ("a",)),
        ("shards=a,b/c", "shards", ("a", "b/c")),
        ("shards=('a',)", "shards", ("a",)),
        ("betas=0.9,1", "betas", (0.9, 1.0)),
        ("optimizer=muon", "optimizer", "muon"),
        ("out=runs/a=b", "out", Path("runs/a=b")),
        ("seed=7", "seed", 7),
        ("seed=None", "seed", None),
        ("compiled=true", "compiled", True),
        ("compiled=False", "compiled", False),
        ("name=17", "name", "17"),
        ("name='17'", "name", "17"),
    ],
)
def test_a_value_is_read_as_the_type_of_its_field(setting, key, value):
    found = getattr(with_settings(Run(), [setting]), key)
    assert (found, type(found)) == (value, type(value))


def test_settings_of_one_nested_config_change_together():
    run = with_settings(Run(), ["model.hidden_size=96", "model.num_attention_heads=3", "model.num_hidden_layers=7"])
    assert (run.model.hidden_size, run.model.head_dim, len(run.model.layer_types)) == (96, 32, 7)


def test_a_number_reaches_into_a_tuple_of_records():
    run = with_settings(Run(), ["phases.1.tokens=2e9"])
    assert run.phases == (Phase(), Phase(tokens=2_000_000_000, masking=0.15))


def test_the_later_of_two_values_counts():
    assert with_settings(Run(), ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seeed=1", "no setting named 'seeed'; did you mean 'seed'?"),
        (
            "model.globl_attn_every_n_layers=2",
            "no setting named 'model.globl_attn_every_n_layers'; did you mean 'model.global_attn_every_n_layers'?",
        ),
        ("hidden_size=64", "no setting named 'hidden_size'; did you mean 'model.hidden_size'?"),
        ("phases.2.tokens=1", "no setting named 'phases.2.tokens'; did you mean 'phases.1.tokens'?"),
        ("model=base", "'model' is a group of settings; set one of them, such as 'model.vocab_size'"),
        ("seed", "'seed' is no setting; wanted key=value, such as shards=…"),
        ("seed=many", "seed=many is not int or None; wanted, for example, seed=131_072"),
        ("seed=1.5", "seed=1.5 is not int or None; wanted, for example, seed=131_072"),
        ("zzzzz=1", "no setting named 'zzzzz'; --help lists them"),
        ("phases.0.tokens=inf", "phases.0.tokens=inf is not a finite number; wanted, for example, phases.0.tokens=131_072"),
        ("model.norm_eps=nan", "model.norm_eps=nan is not a finite number; wanted, for example, model.norm_eps=8e-4"),
        ("model.norm_eps=1e999", "model.norm_eps=1e999 is not a finite number"),
        ("compiled=1", "compiled=1 is not bool; wanted, for example, compiled=true"),
        ("optimizer=sgd", "optimizer=sgd is not adamw or muon; wanted, for example, optimizer=adamw"),
        ("betas=0.9", "betas=0.9 is not tuple of float; wanted, for example, betas=8e-4,8e-4"),
        ("model.hidden_size=770", "hidden_size=770 does not divide by num_attention_heads=12"),
    ],
)
def test_a_wrong_setting_says_what_was_wanted(setting, message):
    with pytest.raises(ConfigError) as error:
        with_settings(Run(), [setting])
    assert str(error.value).startswith(message)


def test_every_setting_is_described_with_its_type_value_and_documentation():
    rows = {key: rest for key, *rest in describe(Run())}
    assert rows["phases.1.tokens"] == ["int", 1000, "How long it lasts."]
    assert rows["shards"] == ["tuple of str", ("corpus",), "Folders of token shards."]
    assert rows["model.norm_eps"] == ["float", 1e-5, ""]
    assert "model.extra" not in rows
