"""The settings of contrastive training and distillation."""

import dataclasses
import math

from modernbert.config import check_limits
from modernbert.errors import ConfigError
from modernbert.tasks.contrastive import CandidateScores, InBatch, TeacherVectors
from modernbert.tasks.pairs import PairColumns
from modernbert.train.optimizers import OptimizerConfig
from modernbert.train.retrievers import RetrieverConfig
from modernbert.train.schedules import DecayShape


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """Everything that decides the training of a retriever. Defaults follow the paper's single-vector models (facts §3.2)."""

    train: tuple[str, ...] = ("pairs.jsonl",)
    """Files of pairs, .jsonl (also .gz, .zst) or .parquet, or folders of them."""
    weights: tuple[str, ...] = ()
    """How often pairs of a source come, relative to others, as NAME:NUMBER; 1 where nothing is said. A source is what a row names in
    `source`, else the file's name. A batch is of one source, so that topics alone do not tell its documents apart."""
    mixed: bool = False
    """Whether batches are drawn from all sources alike: for distillation, where documents do not compete."""
    columns: PairColumns = dataclasses.field(default_factory=PairColumns)
    dev: tuple[str, ...] = ()
    """Sets to search: folders in BEIR's layout, or files of pairs with the same columns."""
    dev_split: str = "dev"
    """Of such folders."""
    out: str = "runs/retriever"
    """The run's folder; a run that finds its own checkpoints there goes on from the last one."""
    retriever: RetrieverConfig = dataclasses.field(default_factory=RetrieverConfig)
    in_batch: InBatch = dataclasses.field(default_factory=InBatch)
    scores: CandidateScores = dataclasses.field(default_factory=CandidateScores)
    teacher: TeacherVectors = dataclasses.field(default_factory=TeacherVectors)
    dims: tuple[int, ...] = ()
    """Matryoshka: the loss is the mean over vectors cut to these widths (Kusupati et al. 2022, arXiv 2205.13147); empty is the whole."""
    negatives: int = 1
    """Given negatives that each pair brings along; of more, a random choice each time."""
    batch_pairs: int = 512
    """Pairs of a batch; each has all other documents of the batch as negatives."""
    micro_batch_tokens: int = 65_536
    """Tokens that go through the model at once, on each device: what fits the memory, as results do not depend on it."""
    epochs: float = 1.0
    """Passes over as many pairs as there are; sources of greater weight are passed more often, others less."""
    optimizer: OptimizerConfig = dataclasses.field(default_factory=lambda: OptimizerConfig(lr=8e-5, weight_decay=1e-6))
    warmup: float = 0.05
    """Share of the steps in which the rate rises."""
    decay: float = 0.95
    """Share of the steps, at the end, in which it falls."""
    decay_shape: DecayShape = "linear"
    seed: int = 0
    evaluations: int = 1
    """Searches of the dev sets, evenly spread; the last is at the end."""
    device: str = "auto"
    """auto is the first of CUDA, Apple's GPU and the CPU that is there; a GPU that has bfloat16 computes in it. Under torchrun, each
    process takes a GPU of its own."""
    save_every_steps: int = 500
    keep_checkpoints: int = 2
    log_every_steps: int = 20

    def __post_init__(self) -> None:
        counts = ("batch_pairs", "micro_batch_tokens", "save_every_steps", "keep_checkpoints", "log_every_steps", "evaluations")
        shares = dict.fromkeys(("warmup", "decay"), (0, 1))
        check_limits(
            self, {**dict.fromkeys(counts, (1, math.inf)), **shares, "negatives": (0, math.inf), "epochs": (1e-9, math.inf)}
        )
        if not any(part.weight for part in (self.in_batch, self.scores, self.teacher)):
            raise ConfigError("in_batch.weight, scores.weight and teacher.weight are all 0: there is nothing to learn from")
        if self.mixed and (self.weights or self.teacher.not_for):
            raise ConfigError(
                "mixed=True: batches are of no one source, so weights and teacher.not_for say nothing; leave them out"
            )
        if self.retriever.kind == "tokens" and (self.dims or self.teacher.weight):
            raise ConfigError(
                "dims and teacher are for one vector a text; a late-interaction model learns from in_batch and scores"
            )


FREE = {"out", "device", "micro_batch_tokens", "log_every_steps", "save_every_steps", "keep_checkpoints"}
"""Settings that may change while a run goes on: they decide where and how, not what is learnt."""
