"""Recipes of retrievers and rerankers: `modernbert finetune RECIPE MODEL train=FILE out=FOLDER key=value …`.

Rates, batches and warm-ups are those of ModernBERT-base's retrieval models where the paper states them (facts §3.2).
"""

import dataclasses

from modernbert.tasks.contrastive import CandidateScores, InBatch, TeacherVectors
from modernbert.tasks.reranking import RerankTask
from modernbert.train.finetune import FinetuneConfig
from modernbert.train.optimizers import OptimizerConfig
from modernbert.train.retrieval_settings import ContrastiveConfig
from modernbert.train.retrievers import RetrieverConfig


def dense() -> ContrastiveConfig:
    """One vector a text, from pairs of a query and a document, and perhaps negatives; the paper's single-vector recipe.

    Large: optimizer.lr=1e-4.
    """
    return ContrastiveConfig(out="runs/dense")


def late() -> ContrastiveConfig:
    """One vector a token (ColBERT), distilled from a teacher's scores of candidates; the paper's multi-vector recipe.

    Rows need `negatives` and `scores`; `modernbert prepare teacher` makes scores. Without a teacher: scores.weight=0 in_batch.weight=1.
    Large: optimizer.lr=3e-5.
    """
    return ContrastiveConfig(
        out="runs/late",
        retriever=RetrieverConfig(kind="tokens", query_length=32, document_length=180),
        in_batch=InBatch(weight=0, scale=1),
        scores=CandidateScores(weight=1, kind="kl", min_max=True),
        negatives=31,
        batch_pairs=16,
        optimizer=OptimizerConfig(lr=1e-4, weight_decay=1e-6),
    )


def distilled() -> ContrastiveConfig:
    """One vector a text, from a teacher's vectors alone: teacher.file of `modernbert prepare teacher`."""
    return ContrastiveConfig(
        out="runs/distilled",
        in_batch=InBatch(weight=0),
        teacher=TeacherVectors(weight=1, kind="cosine", file="teacher.npy"),
        batch_pairs=512,
        optimizer=OptimizerConfig(lr=2e-4, weight_decay=1e-6),
    )


_PROMPTED = RetrieverConfig(query_prompt="query: ", document_prompt="document: ", query_length=256, document_length=288)


def tiny_distilled() -> ContrastiveConfig:
    """The first stage of the packaged `tiny-embed`, from `tiny`: each text's vector shall point where the teacher's points.

    Both are 384 wide, so nothing stands between them. Batches of all sources, because documents do not compete. Muon, because in trials of
    250 steps it left 0.26 of a cosine where StableAdamW left 0.38; many passes, because half a million pairs are few.
    """
    return ContrastiveConfig(
        train=("pairs",),
        mixed=True,
        out="runs/tiny-distilled",
        retriever=_PROMPTED,
        in_batch=InBatch(weight=0),
        teacher=TeacherVectors(weight=1, kind="cosine", file="teacher.parquet"),
        negatives=0,
        batch_pairs=2048,
        micro_batch_tokens=400_000,
        epochs=23,
        optimizer=OptimizerConfig(name="muon", muon_lr=0.02, lr=4e-3, weight_decay=1e-5),
        warmup=0.03,
        decay=0.97,
        save_every_steps=100,
    )


def tiny_embed() -> ContrastiveConfig:
    """The packaged `tiny-embed`, from what `tiny_distilled` leaves: pairs with in-batch negatives, and a teacher's similarities.

    A small rate, so that the first stage is not lost; whole documents of 8,192 tokens; similarities say which of a batch's documents
    are no negatives. Sources where the student shall become better than the teacher are named in teacher.not_for.
    `examples/tiny_embed.sh` has the weights of the sources.
    """
    return ContrastiveConfig(
        train=("pairs",),
        out="runs/tiny-embed",
        retriever=dataclasses.replace(_PROMPTED, query_length=128, document_length=8192),
        in_batch=InBatch(scale=30, symmetric=True),
        teacher=TeacherVectors(weight=2, kind="similarities", scale=20, file="teacher.parquet"),
        dims=(64, 128, 256, 384),
        batch_pairs=1024,
        micro_batch_tokens=300_000,
        epochs=3,
        optimizer=OptimizerConfig(lr=5e-4, weight_decay=1e-5),
        warmup=0.05,
        decay=0.95,
        save_every_steps=100,
    )


def reranking() -> FinetuneConfig:
    """A cross-encoder that scores a document for a query: from labelled pairs, from a document and negatives, or from candidates."""
    return FinetuneConfig(task=RerankTask(), out="runs/reranking", learning_rates=(5e-5,), epochs=2)
