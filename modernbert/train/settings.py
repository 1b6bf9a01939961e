"""The settings of a pre-training run: phases as data, everything else beside them, and what does not fit together."""

import dataclasses
import math
from typing import Any, Literal

from modernbert.config import ModelConfig, check_limits
from modernbert.errors import ConfigError
from modernbert.kernels.cross_entropy import CHUNK
from modernbert.train.optimizers import OptimizerConfig
from modernbert.train.schedules import DecayShape, wsd


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training with one row length, one masking rate and one learning-rate shape. All lengths count tokens."""

    tokens: int
    """Tokens of this phase; padding does not count."""
    length: int = 1024
    """Longest row; longer documents are read in pieces, none is lost."""
    weights: tuple[float, ...] = ()
    """Share of the tokens that each folder of `shards` gives; empty reads each in proportion to its size."""
    long_from: tuple[int, ...] = ()
    """Lengths in tokens, ascending, from which documents are read `long_times` an epoch, for context extension (ProLong reads long ones
    more often, arXiv 2410.02660; facts §2.1)."""
    long_times: tuple[float, ...] = ()
    """How often, for each of `long_from`; 2.5 reads half of the documents twice and the others three times, anew in each epoch."""
    mask_rate: float = 0.3
    """Share of tokens to predict (0.3 in ModernBERT's training)."""
    mask_share: float = 0.8
    """Of those, how many become [MASK]; BERT's share."""
    random_share: float = 0.1
    """Of those, how many become a random token; the rest stay as they are."""
    warmup_tokens: int = 0
    decay_tokens: int = 0
    decay_shape: DecayShape = "one_minus_sqrt"
    cosine_tokens: int = 0
    """0 keeps the learning rate flat between warm-up and decay; otherwise it falls as half a cosine over these tokens, then as one over the
    square root of the tokens (Stable LM 2's schedule, one of those that ModernBERT compared)."""
    peak: float = 1.0
    """Flat part of the learning rate, relative to the optimizer's."""
    floor: float = 0.0
    """Learning rate at the end of the decay, relative to the flat part."""
    batch_warmup_tokens: int = 0
    """Over these, a step grows from one micro-batch to all of them, with equally many steps at each size."""
    global_rope_theta: float | None = None
    """Base of the rotary frequencies in global layers from this phase on; None leaves it (context extension sets 160,000)."""
    local_rope_theta: float | None = None
    theta_tokens: int = 0
    """Over these, the base of global layers moves from the phase before to this one's, in `theta_steps` equal factors, the first at once;
    0 changes it in one."""
    theta_steps: int = 8
    global_rope_factor: float | None = None
    """YaRN in global layers from this phase on, in place of a higher base: how many times longer its rows are than those before, 8 from
    1,024 to 8,192; None leaves it."""

    def __post_init__(self) -> None:
        shares = dict.fromkeys(("mask_share", "random_share"), (0, 1))
        amounts = dict.fromkeys(
            ("warmup_tokens", "decay_tokens", "batch_warmup_tokens", "cosine_tokens", "theta_tokens", "peak", "floor"),
            (0, math.inf),
        )
        rotation = ("global_rope_theta", "local_rope_theta", "global_rope_factor")
        check_limits(self, {name: (1, math.inf) for name in rotation if getattr(self, name) is not None})
        check_limits(
            self,
            {
                "tokens": (1, math.inf),
                "length": (3, math.inf),
                "theta_steps": (1, math.inf),
                "mask_rate": (0.001, 1),
                **shares,
                **amounts,
            },
        )
        if self.mask_share + self.random_share > 1:
            raise ConfigError(
                f"mask_share={self.mask_share} and random_share={self.random_share}: together at most 1 is possible"
            )
        if len(self.long_from) != len(self.long_times) or list(self.long_from) != sorted(set(self.long_from)):
            raise ConfigError(
                f"long_from={self.long_from} and long_times={self.long_times}: wanted ascending lengths and a number for each, "
                "such as long_from=4096,8192 long_times=2,5"
            )
        if any(not 0 <= number < math.inf for number in (*self.weights, *self.long_times)):
            raise ConfigError(f"weights={self.weights} and long_times={self.long_times}: none below 0 is possible")

    def rate(self, tokens: float) -> float:
        """The learning-rate multiplier after `tokens` of this phase."""
        return self.peak * wsd(
            tokens,
            warmup_tokens=self.warmup_tokens,
            decay_tokens=self.decay_tokens,
            total_tokens=self.tokens,
            decay_shape=self.decay_shape,
            floor=self.floor,
            cosine_tokens=self.cosine_tokens,
        )

    def theta(self, tokens: float, before: float) -> float:
        """Base of the rotary frequencies in global layers after `tokens` of this phase, where it was `before`.

        >>> extended = Phase(tokens=100, global_rope_theta=160_000.0, theta_tokens=40, theta_steps=4)
        >>> [extended.theta(tokens, before=10_000.0) for tokens in (0, 9, 10, 20, 30, 99)]
        [20000.0, 20000.0, 40000.0, 80000.0, 160000.0, 160000.0]
        """
        wanted = self.global_rope_theta or before
        step = 1 + int(tokens * self.theta_steps / self.theta_tokens) if self.theta_tokens else self.theta_steps
        if step >= self.theta_steps:
            return wanted
        return before * (wanted / before) ** (step / self.theta_steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Everything that decides a pre-training run."""

    model: ModelConfig
    """Vocabulary size and special token ids are replaced by those of the shards' tokenizer."""
    shards: tuple[str, ...]
    """Folders written by `modernbert prepare tokens` with one tokenizer; the phases' `weights` mix them."""
    out: str
    """The run's folder; a run that finds its own checkpoints there goes on from the last one."""
    phases: tuple[Phase, ...]
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    micro_batch_tokens: int = 65_536
    """Tokens that go through the model at once, on each device; a multiple of every phase's length."""
    micro_batches: int = 1
    """Micro-batches that make one optimizer step."""
    begin_from: str | None = None
    """A folder or name of a masked language model, to begin from its weights: as they are where the shapes agree, tiled where the new
    model is larger. Where the shards have another tokenizer, its tokens begin from those of the old one. None is random weights."""
    keep_shape: bool = False
    """Whether the model has the shape of `begin_from`: sizes, kinds of layers, rotation, and lengths, whatever `model` says of them."""
    keep_type: bool = True
    """Whether a deeper model's layers begin from layers of the same kind, global or local; ModernBERT-large crossed 12 of 28."""
    z_loss: float = 0.0
    """Weight of log² Z in the loss, Z the softmax's denominator; 1e-4 in PaLM, none in ModernBERT's training."""
    head_chunk: int = CHUNK
    """Masked positions whose scores over the vocabulary exist together; fewer take less memory, results stay."""
    recompute: bool = False
    """Whether each layer runs again on the way back instead of keeping what it computed: less memory, a third more work, the same
    gradients (gradient checkpointing)."""
    norms_again: bool = False
    """Whether a compiled step makes norms again on the way back instead of keeping them: base at 65,536 tokens keeps 4.2 GiB less."""
    shard_weights: bool = False
    """Whether each process holds a part of the weights and the optimizer only (FSDP2), for models that do not fit otherwise."""
    compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Dtype after the embedding; weights and optimizer stay in float32."""
    compile: bool = True
    """Whether `torch.compile` fuses the step."""
    device: str = "auto"
    """auto is the first of CUDA, Apple's GPU and the CPU that is there; under torchrun, each process takes a GPU of its own."""
    deterministic: bool = False
    """Whether a GPU gives the same bits each time, for some of its speed; a CPU always does, on one thread."""
    seed: int = 0
    save_every_tokens: int = 250_000_000
    """Tokens between checkpoints; `model` and the validation are as of the last one."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay."""
    keep_best: int = 0
    """How many others stay, those with the lowest loss on the validation shards: to choose from, or to average."""
    validation: str | None = None
    """Folder of shards kept apart from training, with the same tokenizer; their loss is taken at each checkpoint."""
    validation_tokens: int = 2_000_000
    """How many of their tokens at most."""
    log_every_steps: int = 50
    tensorboard: bool = False
    """Whether the log's numbers also go to TensorBoard, in `tensorboard` in the run's folder."""

    def __post_init__(self) -> None:
        counts = ("micro_batch_tokens", "micro_batches", "save_every_tokens", "keep_checkpoints", "log_every_steps")
        check_limits(self, dict.fromkeys((*counts, "head_chunk", "validation_tokens"), (1, math.inf)))
        check_limits(self, {"seed": (0, 2**62)} | dict.fromkeys(("z_loss", "keep_best"), (0, math.inf)))


def check(config: PretrainConfig) -> None:
    """Raises ConfigError where settings do not fit together."""
    if not config.phases:
        raise ConfigError("phases is empty: at least one is needed")
    if config.keep_best and config.validation is None:
        raise ConfigError(f"keep_best={config.keep_best} needs validation=FOLDER of shards, whose loss says which are best")
    if config.shard_weights and config.optimizer.name == "muon":
        raise ConfigError("muon needs whole matrices, and shard_weights=True cuts them; try optimizer.name=stableadamw")
    for i, phase in enumerate(config.phases):
        if config.micro_batch_tokens % phase.length:
            raise ConfigError(
                f"micro_batch_tokens={config.micro_batch_tokens} is no multiple of phases.{i}.length={phase.length}; "
                f"try {max(1, config.micro_batch_tokens // phase.length) * phase.length}"
            )
        if phase.warmup_tokens + phase.decay_tokens > phase.tokens:
            raise ConfigError(
                f"phases.{i}: warmup_tokens={phase.warmup_tokens:_} and decay_tokens={phase.decay_tokens:_} do not fit into "
                f"tokens={phase.tokens:_}; change them too"
            )
        if phase.weights and len(phase.weights) != len(config.shards):
            raise ConfigError(
                f"phases.{i}.weights={','.join(map(str, phase.weights))} do not fit shards={','.join(config.shards)}; "
                "wanted one weight for each folder"
            )
        if phase.length > config.model.max_position_embeddings:
            raise ConfigError(
                f"phases.{i}.length={phase.length} is longer than max_position_embeddings={config.model.max_position_embeddings}"
            )


def settings(config: PretrainConfig) -> dict[str, Any]:
    """The config as JSON-able data."""
    rest = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    return {
        **rest,
        "model": config.model.to_json(),
        "phases": [dataclasses.asdict(phase) for phase in config.phases],
        "optimizer": dataclasses.asdict(config.optimizer),
    }
