"""The shape of a ModernBERT: one frozen dataclass, the published sizes, and config.json in both spellings.

`ModelConfig` uses config.json's own field names. It is read from the legacy spelling (`global_attn_every_n_layers`,
`global_rope_theta`, `local_rope_theta`) and from the current one (`layer_types`, `rope_parameters`), and written as a superset of both.
"""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from modernbert.errors import ConfigError

LayerType = Literal["full_attention", "sliding_attention"]
Pooling = Literal["cls", "mean"]

HEAD_DIM = 64
"""Dimensions per attention head in every published size (Warner et al. 2024, app. B)."""


class Rope(NamedTuple):
    """What decides a layer's rotary tables: the base, and YaRN's factor and trained length where the factor is not 1."""

    theta: float
    factor: float = 1.0
    length: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that decides a model's weights and outputs. Defaults are ModernBERT-base (Warner et al. 2024, table 4)."""

    vocab_size: int = 50_368
    """Rows of the embedding table; a multiple of 64 keeps the decoder's product on whole tiles."""
    hidden_size: int = 768
    """Width of the residual stream."""
    intermediate_size: int = 1152
    """Width inside the MLP after the gate; `mlp.Wi` has twice as many rows."""
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    max_position_embeddings: int = 8192
    """Longest row in tokens, special tokens included."""
    norm_eps: float = 1e-5
    local_attention: int = 128
    """Total width of the sliding window in tokens: half of it to each side, so token i sees i−64 … i+64 (129 keys)."""
    global_attn_every_n_layers: int = 3
    """Layer i attends to the whole row if i is a multiple of this. Where `layer_types` is given, it follows from them."""
    layer_types: tuple[LayerType, ...] = ()
    """One entry a layer; empty means: follow `global_attn_every_n_layers`."""
    global_rope_theta: float = 160_000.0
    """Base of the rotary frequencies in global layers (10,000 during ModernBERT's pre-training, then 160,000)."""
    local_rope_theta: float = 10_000.0
    """Base of the rotary frequencies in sliding-window layers."""
    global_rope_factor: float = 1.0
    """YaRN in global layers: how many times longer than `global_rope_length` rows are; 1 is plain rotation, as in every published model."""
    global_rope_length: int = 1024
    """Longest row that the global layers were trained with before YaRN."""
    attention_dropout: float = 0.0
    """Dropout on the output of each attention layer: 0.1 in ModernBERT's pre-training, 0 in the published configs."""
    embedding_dropout: float = 0.0
    mlp_dropout: float = 0.0
    classifier_dropout: float = 0.0
    classifier_pooling: Pooling = "cls"
    """How a row becomes one vector in sequence-level heads; config.json's default is cls, published checkpoints say mean."""
    initializer_range: float = 0.02
    initializer_cutoff_factor: float = 2.0
    """Truncation of the initial normal distributions, in standard deviations."""
    tie_word_embeddings: bool = True
    num_labels: int = 2
    """Classes of a task head."""
    unk_token_id: int | None = 50_280
    cls_token_id: int = 50_281
    sep_token_id: int = 50_282
    pad_token_id: int = 50_283
    mask_token_id: int | None = 50_284
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    """Keys of a config.json that change nothing here (id2label, problem_type, …): kept and written back."""

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        dropouts = ("attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout")
        check_limits(self, dict.fromkeys((*sizes, "max_position_embeddings"), (1, math.inf)))
        check_limits(self, dict.fromkeys(dropouts, (0, 1)))
        check_limits(self, dict.fromkeys(("initializer_range", "initializer_cutoff_factor"), (1e-9, math.inf)))
        if self.hidden_size % self.num_attention_heads:
            heads = max(1, round(self.hidden_size / HEAD_DIM))
            raise ConfigError(
                f"hidden_size={self.hidden_size} does not divide by num_attention_heads={self.num_attention_heads}; "
                f"try {heads * HEAD_DIM} with {heads} heads (64 per head, as ModernBERT)"
            )
        if self.head_dim % 2:
            raise ConfigError(f"{self.head_dim} dimensions per head: rotary embeddings need an even number, such as 64")
        if self.local_attention < 2 or self.local_attention % 2:
            raise ConfigError(f"local_attention={self.local_attention}: an even number is needed, half of it to each side")
        for name in ("global_rope_theta", "local_rope_theta"):
            if getattr(self, name) <= 0:
                raise ConfigError(
                    f"{name}={getattr(self, name)} makes NaN rotary frequencies; a positive base is needed, such as 10000. "
                    "A local base of -1 comes from a research checkpoint that was converted before context extension: "
                    "it means 'the same as global_rope_theta'"
                )
        check_limits(self, {"global_rope_factor": (1, math.inf), "global_rope_length": (1, math.inf)})
        object.__setattr__(self, "layer_types", self._resolved_layer_types())
        object.__setattr__(self, "global_attn_every_n_layers", self._period())
        names = self.extra.get("id2label")
        if isinstance(names, Mapping) and len(names) != self.num_labels:
            raise ConfigError(
                f"num_labels={self.num_labels}, but id2label names {len(names)} classes; give the same number of both"
            )
        object.__setattr__(self, "extra", dict(self.extra))

    def _resolved_layer_types(self) -> tuple[LayerType, ...]:
        if not self.layer_types:
            every = self.global_attn_every_n_layers
            if every < 1:
                raise ConfigError(f"global_attn_every_n_layers={every}: at least 1 is needed (1 = every layer is global)")
            return _alternating(self.num_hidden_layers, every)
        if len(self.layer_types) != self.num_hidden_layers:
            raise ConfigError(
                f"layer_types has {len(self.layer_types)} entries, num_hidden_layers={self.num_hidden_layers}: one a layer is needed"
            )
        assert set(self.layer_types) <= set(get_args(LayerType))
        return self.layer_types

    def _period(self) -> int:
        """The period of `layer_types`; the one that was given where they have none, or leave several open."""
        given, depth = self.global_attn_every_n_layers, self.num_hidden_layers
        candidates = (given, *range(1, depth + 1))
        return next((n for n in candidates if n >= 1 and _alternating(depth, n) == self.layer_types), given)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def window(self, layer: int) -> int | None:
        """Reach of a layer to each side in tokens, ends included; None is the whole row.

        >>> ModelConfig().window(0), ModelConfig().window(1)
        (None, 64)
        """
        return None if self.layer_types[layer] == "full_attention" else self.local_attention // 2

    def rope(self, layer: int) -> Rope:
        """The rotation of a layer."""
        if self.layer_types[layer] == "sliding_attention":
            return Rope(self.local_rope_theta)
        if self.global_rope_factor == 1:
            return Rope(self.global_rope_theta)
        return Rope(self.global_rope_theta, self.global_rope_factor, self.global_rope_length)

    def ropes(self) -> set[Rope]:
        """The rotations of all layers."""
        return {self.rope(layer) for layer in range(self.num_hidden_layers)}

    def with_(self, **changes: Any) -> "ModelConfig":
        """A copy with some fields changed. A new depth or period brings new `layer_types`, unless they are given too; a new
        number of labels drops the names of the old ones.

        >>> ModelConfig().with_(num_hidden_layers=4).layer_types[-1]
        'full_attention'
        """
        if {"num_hidden_layers", "global_attn_every_n_layers"} & changes.keys():
            changes.setdefault("layer_types", ())
        if changes.get("num_labels", self.num_labels) != self.num_labels:  # the names of other classes go
            changes.setdefault("extra", {k: v for k, v in self.extra.items() if k not in ("id2label", "label2id")})
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "ModelConfig":
        """Builds a config from the contents of a config.json in either spelling.

        Raises:
            ConfigError: another architecture, a value of the wrong type, or a setting that no ModernBERT has.

        Source: the current spelling is transformers 5's (`layer_types`, `rope_parameters`), the legacy one 4.48's.
        """
        if found.get("model_type", "modernbert") != "modernbert":
            raise ConfigError(
                f"model_type is {found['model_type']!r}; wanted 'modernbert': this folder holds another architecture"
            )
        if found.get("rope_scaling") is not None:
            raise ConfigError(
                f"rope_scaling={found['rope_scaling']!r}: no ModernBERT scales its rotation, and it is not implemented"
            )
        for name, only in _ONLY.items():
            if found.get(name, only) != only:
                raise ConfigError(f"{name}={found[name]!r}: every ModernBERT has {only!r}, and nothing else is implemented")
        known = {field.name: field for field in dataclasses.fields(cls) if field.name != "extra"}
        values: dict[str, Any] = {name: found[name] for name in known if found.get(name) is not None}
        values.update(_read_rope(found))
        if isinstance(values.get("layer_types"), list):
            values["layer_types"] = tuple(values["layer_types"])
        if values.get("local_rope_theta", 1) == -1:  # the reference converter writes "unset" as -1 (facts, trap 11)
            values["local_rope_theta"] = values.get("global_rope_theta", cls.global_rope_theta)
        if isinstance(found.get("id2label"), Mapping):  # as in transformers, the names decide
            values["num_labels"] = len(found["id2label"])
        values = {name: _checked(name, value, known[name].default) for name, value in values.items()}
        extra = {k: v for k, v in found.items() if k not in known and k not in _DERIVED}
        return cls(**values, extra=extra)

    def to_json(self) -> dict[str, Any]:
        """The contents of a config.json that old and new readers understand: a superset of both spellings."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "extra"}
        own["layer_types"] = list(self.layer_types)
        if self.extra.get("id2label"):  # readers count the names
            del own["num_labels"]
        rotation: dict[str, Any] = {"rope_type": "default", "rope_theta": self.global_rope_theta}
        factor, length = own.pop("global_rope_factor"), own.pop("global_rope_length")
        if factor != 1:
            rotation |= {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": length}
        if self.layer_types != _alternating(self.num_hidden_layers, self.global_attn_every_n_layers):
            del own["global_attn_every_n_layers"]  # there is no period
        return {
            **self.extra,
            **own,
            **_ONLY,
            "model_type": "modernbert",
            "layer_norm_eps": self.norm_eps,
            "bos_token_id": self.cls_token_id,
            "eos_token_id": self.sep_token_id,
            "position_embedding_type": "absolute",
            "rope_parameters": {
                "full_attention": rotation,
                "sliding_attention": {"rope_type": "default", "rope_theta": self.local_rope_theta},
            },
        }


def check_limits(settings: Any, limits: Mapping[str, tuple[float, float]]) -> None:
    """Raises ConfigError for the first setting that is outside its limits; both limits are allowed, and a tuple's entries each count.

    >>> check_limits(ModelConfig(), {"num_hidden_layers": (1, 100)})
    """
    for name, (least, most) in limits.items():
        value = getattr(settings, name)
        for number in value if isinstance(value, tuple) else (value,):
            if not least <= number <= most or math.isinf(number):  # not: NaN is nowhere
                wanted = f"at most {most:g} is possible" if number > most else f"at least {least:g} is needed"
                wanted = wanted if math.isfinite(number) else "a finite number is needed"
                raise ConfigError(f"{name}={value}: {wanted}")


def _alternating(depth: int, every: int) -> tuple[LayerType, ...]:
    return tuple("sliding_attention" if i % every else "full_attention" for i in range(depth))


_ONLY: dict[str, Any] = {
    "attention_bias": False,
    "mlp_bias": False,
    "norm_bias": False,
    "decoder_bias": True,
    "classifier_bias": False,
    "hidden_activation": "gelu",
    "classifier_activation": "gelu",
}
"""Settings of config.json with one value in every ModernBERT: written, and refused where they differ."""

_DERIVED = {
    "model_type",
    "layer_norm_eps",
    "bos_token_id",
    "eos_token_id",
    "position_embedding_type",
    "rope_parameters",
    "sliding_window",
    *_ONLY,
}
"""Keys that follow from other fields: never kept in `extra`."""


_YARN = {"beta_fast": 32, "beta_slow": 1, "attention_factor": None, "partial_rotary_factor": 1.0, "truncate": True}
"""Settings of YaRN with their defaults, which are allowed to be written."""


def _read_rope(found: Mapping[str, Any]) -> dict[str, Any]:
    """The rotation in the current spelling, where that is present: it wins over the legacy one, as in transformers."""
    parameters = found.get("rope_parameters") or {}
    names = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}
    entries = {kind: parameters.get(kind) or {} for kind in names} if isinstance(parameters, Mapping) else {}
    if parameters and not (any(entries.values()) and all(isinstance(entry, Mapping) for entry in entries.values())):
        raise ConfigError(
            f"rope_parameters={parameters!r}; wanted full_attention and sliding_attention in it, each with its rope_theta"
        )
    values: dict[str, Any] = {}
    for kind, entry in entries.items():
        if kind == "full_attention" and entry.get("rope_type") == "yarn":
            wanted = {"factor": "global_rope_factor", "original_max_position_embeddings": "global_rope_length"}
            other = entry.keys() - {"rope_type", "rope_theta", *wanted} - {k for k, v in _YARN.items() if entry.get(k) == v}
            if other or not wanted.keys() <= entry.keys():
                raise ConfigError(
                    f"rope_parameters.{kind}={dict(entry)!r}: of YaRN, factor and original_max_position_embeddings are "
                    "needed, and nothing else is implemented"
                )
            values |= {ours: entry[theirs] for theirs, ours in wanted.items()}
            continue
        for setting, only in (("rope_type", "default"), ("partial_rotary_factor", 1.0)):
            if entry.get(setting, only) != only:
                raise ConfigError(f"rope_parameters.{kind}.{setting}={entry[setting]!r}; only {only!r} is implemented")
    return values | {names[kind]: entry["rope_theta"] for kind, entry in entries.items() if entry.get("rope_theta") is not None}


_WORDS: dict[str, tuple[str, ...]] = {"classifier_pooling": get_args(Pooling), "layer_types": get_args(LayerType)}


def _checked(name: str, value: Any, default: Any) -> Any:
    """The value, as the type of its field's default; JSON writes 160000 for 160000.0."""
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        wanted = {tuple: "a list"}.get(type(default), f"{type(default).__name__}, such as {default!r}")
        raise ConfigError(f"{name}={value!r} is {type(value).__name__}; wanted {wanted}")
    for word in value if isinstance(value, tuple) else [value]:
        if name in _WORDS and word not in _WORDS[name]:
            raise ConfigError(f"{name} holds {word!r}; wanted {' or '.join(map(repr, _WORDS[name]))}")
    return value


SIZES: dict[str, tuple[int, int, int, int]] = {
    # facts §1.1; ettin_150m is base and ettin_400m is large (Weller et al. 2025, table 1)
    "ettin_17m": (7, 256, 384, 4),
    "ettin_32m": (10, 384, 576, 6),
    "ettin_68m": (19, 512, 768, 8),
    "ettin_150m": (22, 768, 1152, 12),
    "ettin_400m": (28, 1024, 2624, 16),
    "ettin_1b": (28, 1792, 3840, 28),
    "base": (22, 768, 1152, 12),
    "large": (28, 1024, 2624, 16),
}
"""Published sizes by name: layers, hidden, intermediate, heads."""


def preset(name: str) -> ModelConfig:
    """A published size by name: ettin_17m, ettin_32m, ettin_68m, ettin_150m, ettin_400m, ettin_1b, base or large.

    Raises:
        ConfigError: no such size; names the nearest.

    >>> preset("large").num_hidden_layers
    28
    """
    if name not in SIZES:
        near = difflib.get_close_matches(name, SIZES, n=1, cutoff=0.0)[0]
        raise ConfigError(f"no size named {name!r}; did you mean {near!r}? There are {', '.join(SIZES)}")
    layers, hidden, intermediate, heads = SIZES[name]
    theta = 160_000.0 if name.startswith("ettin") else 10_000.0  # Ettin ends with one base for both kinds of layer (facts §1.2)
    return ModelConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_attention_heads=heads,
        local_rope_theta=theta,
        classifier_pooling="mean",
    )
