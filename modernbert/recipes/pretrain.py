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
    """The packaged model's first run: 16.8M parameters, in ModernBERT's three phases: short rows, long ones under the higher base of the
    rotary frequencies, and a decay, which begins on short rows again because those cost less than half as much a token.

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
            vocab_size=16_384,
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


def tiny_24k() -> PretrainConfig:
    """Goes on from `tiny`'s first model with half as many tokens of vocabulary again, so that more words are one token: short rows, then
    a decay that ends on rows of 8,192. Each new token begins from the mean of its parts.

    The peak is 0.6 of `tiny`'s, as a step holds a third of its tokens. `shards` are the same text, cut by the larger tokenizer.
    """
    first = tiny()
    short = dataclasses.replace(
        first.phases[2],
        tokens=1_300_000_000,
        peak=0.6,
        warmup_tokens=15_000_000,
        decay_tokens=900_000_000,
        global_rope_theta=None,
    )
    long = dataclasses.replace(
        short, tokens=220_000_000, length=8192, peak=0.18, warmup_tokens=0, decay_tokens=220_000_000, floor=0.0
    )
    return dataclasses.replace(first, out="runs/tiny_24k", begin_from="runs/tiny/model", keep_shape=True, phases=(short, long))


def tiny_anneal() -> PretrainConfig:
    """Goes on from `tiny_24k`'s model for a last decay, from a third of `tiny`'s peak to nothing, on short rows in another order.

    A fifth of them are the texts of labelled sets' training rows (`dev/task_texts.py`): reviews, posts, questions, which books lack.
    """
    before = tiny_24k()
    last = dataclasses.replace(
        before.phases[0],
        tokens=360_000_000,
        weights=(0.7, 0.1, 0.2),
        peak=0.35,
        warmup_tokens=4_000_000,
        decay_tokens=356_000_000,
        floor=0.0,
    )
    return dataclasses.replace(
        before,
        shards=("text", "code", "tasks"),
        out="runs/tiny_anneal",
        begin_from="runs/tiny_24k/model",
        phases=(last,),
        seed=1,
    )


def race() -> PretrainConfig:
    """Under four minutes of an H100 to 0.75 bits per masked byte (dev/RECORDS.md, race 1; 0.744): `tiny` in one phase of short rows,
    which compiles once, with an early decay to zero, few masks, as the evaluation has, and half of `tiny`'s tokens a step.
    """
    model = tiny()
    first = dataclasses.replace(
        model.phases[0],
        tokens=580_000_000,
        mask_rate=0.2,
        warmup_tokens=4_000_000,
        decay_tokens=459_000_000,
        decay_shape="linear",
    )
    return dataclasses.replace(
        model,
        out="runs/race",
        shards=("text",),
        phases=(first,),
        optimizer=dataclasses.replace(model.optimizer, lr=3e-3),
        micro_batch_tokens=65_536,
        head_chunk=16_384,
        save_every_tokens=10**15,
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


def large() -> PretrainConfig:
    """ModernBERT-large as it was trained (facts §2.1): tiled from base across kinds of layers, 4,928 rows of 1,024 tokens a step, and a
    tenth of the learning rate from 900 billion tokens on, where the loss had stopped falling.

    Micro-batches are for 8 GPUs: 11 × 57,344 tokens on each. Its weight decay fell to 1e-6 with the learning rate; here it stays.
    """
    first = Phase(tokens=900_000_000_000, warmup_tokens=2_000_000_000, batch_warmup_tokens=10_000_000_000)
    extended = Phase(tokens=250_000_000_000, length=8192, peak=0.1, global_rope_theta=160_000.0)
    return PretrainConfig(
        model=preset("large").with_(global_rope_theta=10_000.0, attention_dropout=0.1),
        shards=("shards",),
        out="runs/large",
        begin_from="answerdotai/ModernBERT-base",
        keep_type=False,
        phases=(
            first,
            Phase(tokens=819_000_000_000, peak=0.1),
            extended,
            dataclasses.replace(extended, tokens=50_000_000_000, decay_tokens=50_000_000_000, floor=0.001),
        ),
        optimizer=OptimizerConfig(lr=5e-4, weight_decay=1e-5),
        micro_batch_tokens=57_344,
        micro_batches=11,
    )


def ettin_17m() -> PretrainConfig:
    """Ettin's smallest encoder: 2 trillion tokens took 141 hours of four H100s. Its local layers keep their base in the second phase."""
    return _ettin("ettin_17m", lr=3e-3, weight_decay=3e-4, warmup=4, batch_warmup=125, rows=144, local_rope_theta=10_000.0)


def ettin_32m() -> PretrainConfig:
    """Ettin's encoder of 32M parameters."""
    return _ettin("ettin_32m", lr=3e-3, weight_decay=3e-4, warmup=4, batch_warmup=100, rows=128)


def ettin_68m() -> PretrainConfig:
    """Ettin's encoder of 68M parameters."""
    return _ettin("ettin_68m", lr=3e-3, weight_decay=3e-4, warmup=3, batch_warmup=75, rows=96)


def ettin_150m() -> PretrainConfig:
    """Ettin's encoder of base's size."""
    return _ettin("ettin_150m", lr=8e-4, weight_decay=1e-5, warmup=3, batch_warmup=50, rows=72)


def ettin_400m() -> PretrainConfig:
    """Ettin's encoder of large's size."""
    return _ettin("ettin_400m", lr=5e-4, weight_decay=1e-5, warmup=2, batch_warmup=10, rows=48)


def ettin_1b() -> PretrainConfig:
    """Ettin's encoder of a billion parameters, which saw a third of the others' second and third phases."""
    return _ettin("ettin_1b", lr=5e-4, weight_decay=5e-5, warmup=2, batch_warmup=3, rows=24, later=1 / 3)


def _ettin(
    size: str,
    *,
    lr: float,
    weight_decay: float,
    warmup: float,
    batch_warmup: float,
    rows: int,
    local_rope_theta: float = 160_000.0,
    later: float = 1.0,
) -> PretrainConfig:
    """Ettin's three phases (Weller et al. 2025; facts §2.12) at 4,608 rows of 1,024 tokens a step of four GPUs.

    Args:
        size: a preset.
        lr, weight_decay: peak rate and decay.
        warmup, batch_warmup: billions of tokens.
        rows: of 1,024 tokens in a micro-batch of one GPU.
        local_rope_theta: base in local layers in the second phase; in the third it is 160,000.
        later: share of the second and third phases that was trained.

    Unlike Ettin's: rows are 8,192 long in the later phases, not 7,999, and a step holds as many tokens there as before, not eight times
    as many.
    """
    extension, last = int(250e9 * later), int(50e9 * later)
    extended = Phase(
        tokens=extension,
        length=8192,
        decay_tokens=extension,
        floor=0.5,
        global_rope_theta=160_000.0,
        local_rope_theta=local_rope_theta,
    )
    decay = dataclasses.replace(
        extended, tokens=last, decay_tokens=last, mask_rate=0.15, peak=0.5, floor=0.04, local_rope_theta=160_000.0
    )
    return PretrainConfig(
        model=preset(size).with_(global_rope_theta=10_000.0, attention_dropout=0.1),
        shards=("shards",),
        out=f"runs/{size}",
        phases=(
            Phase(tokens=1_700_000_000_000, warmup_tokens=int(warmup * 1e9), batch_warmup_tokens=int(batch_warmup * 1e9)),
            extended,
            decay,
        ),
        optimizer=OptimizerConfig(lr=lr, weight_decay=weight_decay),
        micro_batch_tokens=rows * 1024,
        micro_batches=4608 // (4 * rows),
    )
