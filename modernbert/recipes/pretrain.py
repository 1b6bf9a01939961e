"""Pre-training recipes: `modernbert pretrain RECIPE shards=FOLDER out=FOLDER key=value …`."""

import dataclasses

from modernbert.config import ModelConfig, preset
from modernbert.train.optimizers import OptimizerConfig
from modernbert.train.settings import Phase, PretrainConfig


def first_result() -> PretrainConfig:
    """A model of 1M parameters that learns something in minutes on two CPU cores: the way to see the whole path run.

    Weights begin at 1/√hidden_size: with 0.02, made for six times the width, it still guesses by frequency alone after 300,000
    tokens (5 % right, not 15 %; dev/LOG.md).
    """
    return PretrainConfig(
        model=ModelConfig(
            num_hidden_layers=3,
            hidden_size=128,
            intermediate_size=192,
            num_attention_heads=2,
            initializer_range=0.08,
            classifier_pooling="mean",
        ),
        shards=("shards",),
        out="runs/first_result",
        phases=(Phase(tokens=1_000_000, length=128, mask_rate=0.2, warmup_tokens=20_000, decay_tokens=500_000),),
        optimizer=OptimizerConfig(lr=3e-3),
        micro_batch_tokens=1024,
        compute_dtype="float32",
        compile=False,
        save_every_tokens=250_000,
    )


def three_phases() -> PretrainConfig:
    """ModernBERT's three phases at the size of `first_result`: short rows, then long ones with documents from 256 tokens read twice and
    the higher base of the rotary frequencies, then a decay (facts §2.1). The way to see `modernbert from-text` run, in minutes.
    """
    small = first_result()
    longer = Phase(
        tokens=200_000, length=512, mask_rate=0.2, peak=0.5, global_rope_theta=160_000.0, long_from=(256,), long_times=(2.0,)
    )
    return dataclasses.replace(
        small,
        model=small.model.with_(vocab_size=4096, global_rope_theta=10_000.0),
        out="runs/three_phases",
        phases=(
            Phase(tokens=600_000, length=128, mask_rate=0.2, warmup_tokens=20_000),
            longer,
            dataclasses.replace(longer, decay_tokens=200_000),
        ),
        save_every_tokens=50_000,
    )


def tiny() -> PretrainConfig:
    """The packaged model: 16.8M parameters, in ModernBERT's three phases: short rows, long ones under the higher base of the rotary
    frequencies, and a decay, which begins on short rows again because those cost less than half as much a token.

    Shape and rates are the best of short runs; dev/LOG.md has them. All chosen tokens become [MASK] (Wettig et al. 2022,
    arXiv 2202.08005, found no use in BERT's random ones), and the decay masks fewer, as Ettin's does. `shards` are text and code.
    """
    short = Phase(tokens=2_700_000_000, warmup_tokens=30_000_000, mask_share=1.0, random_share=0.0)
    long = dataclasses.replace(short, tokens=250_000_000, length=8192, warmup_tokens=0, global_rope_theta=160_000.0)
    decay = dataclasses.replace(
        long, tokens=850_000_000, length=1024, mask_rate=0.2, decay_tokens=850_000_000, decay_shape="linear", floor=0.3
    )
    return PretrainConfig(
        model=ModelConfig(
            num_hidden_layers=7,
            hidden_size=384,
            intermediate_size=768,
            num_attention_heads=6,
            global_rope_theta=10_000.0,
            classifier_pooling="mean",
        ),
        shards=("text", "code"),
        out="runs/tiny",
        phases=(
            short,
            long,
            decay,
            dataclasses.replace(decay, tokens=350_000_000, decay_tokens=350_000_000, length=8192, peak=0.3, floor=0.0),
        ),
        optimizer=OptimizerConfig(name="muon", lr=4e-3, muon_lr=0.02, muon_weight_decay=0.02),
        micro_batch_tokens=131_072,
    )


def domain() -> PretrainConfig:
    """Goes on training a masked language model on your own texts, before it is fine-tuned for a task of theirs (Gururangan et al.
    2020, arXiv 2004.10964). With shards of the model's own tokenizer all of it goes on; with those of another its vocabulary is swapped.
    """
    return PretrainConfig(
        model=preset("base"),
        shards=("shards",),
        out="runs/domain",
        begin_from="answerdotai/ModernBERT-base",
        keep_shape=True,
        phases=(Phase(tokens=100_000_000, warmup_tokens=5_000_000, decay_tokens=95_000_000, decay_shape="linear"),),
        optimizer=OptimizerConfig(lr=1e-4),
        save_every_tokens=10_000_000,
    )


def ettin_17m() -> PretrainConfig:
    """Ettin's smallest encoder at its own rates (Weller et al. 2025; facts §2.12), first phase, for a corpus of your own."""
    return PretrainConfig(
        model=preset("ettin_17m"),
        shards=("shards",),
        out="runs/ettin_17m",
        phases=(Phase(tokens=2_000_000_000, warmup_tokens=40_000_000, decay_tokens=400_000_000),),
        optimizer=OptimizerConfig(lr=3e-3, weight_decay=3e-4),
        micro_batch_tokens=131_072,
    )


def base() -> PretrainConfig:
    """ModernBERT-base as it was trained (Warner et al. 2024; facts §2.1): three phases, 4,608 rows of 1,024 tokens a step.

    Micro-batches are for 8 GPUs: 6 × 98,304 tokens on each make a step. Masking protects [CLS] and [SEP], which the original did not.
    """
    extended = Phase(tokens=250_000_000_000, length=8192, peak=0.375, global_rope_theta=160_000.0)
    return PretrainConfig(
        model=preset("base").with_(global_rope_theta=10_000.0, attention_dropout=0.1),
        shards=("shards",),
        out="runs/base",
        phases=(
            Phase(tokens=1_719_000_000_000, warmup_tokens=3_000_000_000, batch_warmup_tokens=50_000_000_000),
            extended,
            dataclasses.replace(extended, tokens=50_000_000_000, decay_tokens=50_000_000_000, floor=0.001),
        ),
        optimizer=OptimizerConfig(lr=8e-4, weight_decay=1e-5),
        micro_batch_tokens=98_304,
        micro_batches=6,
    )
