import copy
import dataclasses
import json
import pickle

import pytest
from transformers import ModernBertConfig

from modernbert.config import ModelConfig, preset
from modernbert.errors import ConfigError

LEGACY = {
    "architectures": ["ModernBertForMaskedLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 281,
    "classifier_activation": "gelu",
    "classifier_bias": False,
    "classifier_dropout": 0.1,
    "classifier_pooling": "mean",
    "cls_token_id": 281,
    "decoder_bias": True,
    "deterministic_flash_attn": False,
    "embedding_dropout": 0.0,
    "eos_token_id": 282,
    "global_attn_every_n_layers": 2,
    "global_rope_theta": 80000,
    "gradient_checkpointing": False,
    "hidden_activation": "gelu",
    "hidden_size": 128,
    "initializer_cutoff_factor": 2.0,
    "initializer_range": 0.02,
    "intermediate_size": 192,
    "layer_norm_eps": 1e-05,
    "local_attention": 64,
    "local_rope_theta": 5000.0,
    "max_position_embeddings": 512,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "model_type": "modernbert",
    "norm_bias": False,
    "norm_eps": 1e-05,
    "num_attention_heads": 2,
    "num_hidden_layers": 5,
    "pad_token_id": 283,
    "position_embedding_type": "absolute",
    "sep_token_id": 282,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "transformers_version": "4.47.0.dev0",
    "vocab_size": 320,
}
"""The keys of the published config.json, with every value that can differ made to differ."""


def written(config: ModelConfig) -> dict:
    return json.loads(json.dumps(config.to_json()))


YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 1024}


@pytest.mark.parametrize(
    "config",
    [
        preset("base"),
        preset("ettin_17m"),
        ModelConfig(num_hidden_layers=1, mask_token_id=None, tie_word_embeddings=False, num_labels=5),
        ModelConfig(num_hidden_layers=3, layer_types=("sliding_attention", "sliding_attention", "full_attention")),
        ModelConfig(num_hidden_layers=4, layer_types=("full_attention",) * 4, global_rope_theta=1.5e6),
        ModelConfig(num_labels=3, extra={"id2label": {"0": "a", "1": "b", "2": "c"}, "problem_type": None}),
        preset("base").with_(global_rope_theta=10_000.0, global_rope_factor=8.0, global_rope_length=512),
    ],
)
def test_what_is_written_is_read_back(config):
    assert ModelConfig.from_json(written(config)) == dataclasses.replace(config, mask_token_id=config.mask_token_id or 50_284)


def test_the_legacy_spelling_is_read():
    config = ModelConfig.from_json(LEGACY)
    for name in ("hidden_size", "intermediate_size", "vocab_size", "num_attention_heads", "max_position_embeddings"):
        assert getattr(config, name) == LEGACY[name]
    assert config.layer_types == tuple("full_attention" if i % 2 == 0 else "sliding_attention" for i in range(5))
    assert [config.rope(i).theta for i in range(3)] == [80_000, 5_000, 80_000]
    assert [config.window(i) for i in range(3)] == [None, 32, None]
    assert (config.cls_token_id, config.sep_token_id, config.pad_token_id) == (281, 282, 283)
    assert (config.classifier_pooling, config.classifier_dropout) == ("mean", 0.1)
    assert config.extra["transformers_version"] == "4.47.0.dev0"


def test_both_readers_agree_on_the_legacy_spelling():
    theirs = ModernBertConfig(**LEGACY)
    ours = ModelConfig.from_json(LEGACY)
    assert (
        ModelConfig.from_json(json.loads(theirs.to_json_string(use_diff=False))).to_json()["rope_parameters"]
        == theirs.rope_parameters
    )
    assert list(ours.layer_types) == theirs.layer_types


@pytest.mark.parametrize("diff", [False, True])
def test_the_current_spelling_is_read(diff):
    theirs = ModernBertConfig(
        num_hidden_layers=4,
        local_attention=96,
        layer_types=["full_attention", "full_attention", "sliding_attention", "full_attention"],
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 80_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5_000.0},
        },
        id2label={0: "x", 1: "y", 2: "z"},
        label2id={"x": 0, "y": 1, "z": 2},
    )
    config = ModelConfig.from_json(json.loads(theirs.to_json_string(use_diff=diff)))
    assert list(config.layer_types) == theirs.layer_types
    assert (config.global_rope_theta, config.local_rope_theta) == (80_000, 5_000)
    assert [config.window(i) for i in range(4)] == [None, None, theirs.sliding_window, None]
    assert config.num_labels == 3 and dict(config.extra["id2label"]) == {"0": "x", "1": "y", "2": "z"}


def test_the_defaults_are_those_of_transformers():
    theirs = ModernBertConfig().to_dict()
    ours = ModelConfig().to_json()
    common = theirs.keys() & ours.keys()
    assert len(common) > 25
    assert {name: ours[name] for name in common} == {name: theirs[name] for name in common}
    assert ModelConfig.from_json(theirs) == dataclasses.replace(ModelConfig(), extra=ModelConfig.from_json(theirs).extra)


@pytest.mark.parametrize(
    "config",
    [
        preset("base").with_(global_rope_theta=80_000.0, local_rope_theta=5_000.0, local_attention=64),
        preset("ettin_32m").with_(num_labels=7),
        ModelConfig(num_hidden_layers=2, layer_types=("sliding_attention", "full_attention")),
        ModelConfig(num_labels=2, extra={"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}),
    ],
)
def test_transformers_reads_what_is_written(config):
    theirs = ModernBertConfig(**written(config))
    assert theirs.rope_parameters["full_attention"]["rope_theta"] == config.global_rope_theta
    assert theirs.rope_parameters["sliding_attention"]["rope_theta"] == config.local_rope_theta
    assert theirs.layer_types == list(config.layer_types)
    assert theirs.sliding_window == config.local_attention // 2
    assert theirs.num_labels == config.num_labels
    names = config.extra.get("id2label", {str(i): f"LABEL_{i}" for i in range(config.num_labels)})
    assert theirs.id2label == {int(i): name for i, name in names.items()}
    for name in ("hidden_size", "vocab_size", "norm_eps", "pad_token_id", "cls_token_id", "classifier_pooling"):
        assert getattr(theirs, name) == getattr(config, name)


def test_the_period_is_written_only_where_there_is_one():
    mixed = ModelConfig(num_hidden_layers=3, layer_types=("sliding_attention", "full_attention", "full_attention"))
    assert "global_attn_every_n_layers" not in mixed.to_json()
    every_layer = ModelConfig(num_hidden_layers=3, layer_types=("full_attention",) * 3)
    assert every_layer.to_json()["global_attn_every_n_layers"] == 1


def test_an_unset_local_theta_is_the_global_one():
    config = ModelConfig.from_json({**LEGACY, "global_rope_theta": 10_000.0, "local_rope_theta": -1})
    assert config.local_rope_theta == 10_000.0


def test_a_new_number_of_labels_drops_the_old_names():
    config = ModelConfig(extra={"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}, "problem_type": None})
    assert config.with_(num_labels=3).extra == {"problem_type": None}
    assert config.with_(classifier_dropout=0.1).extra == config.extra


def test_a_config_can_be_copied_pickled_and_hashed():
    config = ModelConfig(extra={"id2label": {"0": "no", "1": "yes"}})
    assert copy.deepcopy(config) == config == pickle.loads(pickle.dumps(config))
    assert hash(config) == hash(copy.deepcopy(config))
    assert dataclasses.asdict(config)["extra"] == config.extra


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            {"hidden_size": 770},
            "hidden_size=770 does not divide by num_attention_heads=12; try 768 with 12 heads (64 per head, as ModernBERT)",
        ),
        ({"hidden_size": "768"}, "hidden_size='768' is str; wanted int, such as 768"),
        ({"num_hidden_layers": True}, "num_hidden_layers=True is bool; wanted int, such as 22"),
        ({"norm_eps": "1e-5"}, "norm_eps='1e-5' is str; wanted float, such as 1e-05"),
        ({"layer_types": "full_attention"}, "layer_types='full_attention' is str; wanted a list"),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 entries, num_hidden_layers=22: one a layer is needed"),
        ({"num_hidden_layers": 1, "layer_types": ["local"]}, "layer_types holds 'local'; wanted 'full_attention' or"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0: at least 1 is needed"),
        ({"local_attention": 129}, "local_attention=129: an even number is needed, half of it to each side"),
        ({"model_type": "bert"}, "model_type is 'bert'; wanted 'modernbert': this folder holds another architecture"),
        ({"attention_bias": True}, "attention_bias=True: every ModernBERT has False, and nothing else is implemented"),
        ({"classifier_pooling": "max"}, "classifier_pooling holds 'max'; wanted 'cls' or 'mean'"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "no ModernBERT scales its rotation"),
        ({"rope_parameters": {"rope_theta": 1e4}}, "rope_parameters={'rope_theta': 10000.0}; wanted full_attention and"),
        (
            {"rope_parameters": {"full_attention": 1e4}},
            "wanted full_attention and sliding_attention in it, each with its rope_theta",
        ),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear"}}}, "rope_type='linear'; only 'default' is implemented"),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 8.0}}},
            "original_max_position_embeddings are needed",
        ),
        ({"rope_parameters": {"sliding_attention": {"rope_type": "yarn"}}}, "rope_type='yarn'; only 'default' is implemented"),
        (
            {"rope_parameters": {"full_attention": YARN | {"beta_fast": 16}}},
            "beta_fast': 16}: of YaRN, factor and original_max_position_embeddings are needed, and nothing else is implemented",
        ),
        ({"global_rope_factor": 0.5}, "global_rope_factor=0.5: at least 1 is needed"),
    ],
)
def test_a_config_that_is_no_modernbert_is_refused(found, message):
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_json(found)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["global_rope_theta", "local_rope_theta"])
def test_a_negative_theta_is_refused_with_its_cause(name):
    with pytest.raises(ConfigError, match=rf"{name}=-1.0 makes NaN rotary frequencies.*the same as global_rope_theta"):
        ModelConfig(**{name: -1.0})


def test_names_that_do_not_count_the_labels_are_refused():
    with pytest.raises(ConfigError, match="num_labels=3, but id2label names 2 classes"):
        ModelConfig(num_labels=3, extra={"id2label": {"0": "no", "1": "yes"}})


def test_an_unknown_size_names_the_nearest():
    with pytest.raises(ConfigError, match="no size named 'larg'; did you mean 'large'"):
        preset("larg")
