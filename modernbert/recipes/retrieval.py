"""Recipes of retrievers and rerankers: `modernbert finetune RECIPE MODEL train=FILE out=FOLDER key=value …`.

Rates, batches and warm-ups are those of ModernBERT-base's retrieval models where the paper states them (facts §3.2).
"""

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


def tiny_embed() -> ContrastiveConfig:
    """The packaged `tiny-embed`, from `tiny`: pairs of prose and code with in-batch negatives, and a teacher's similarities.

    For one H200 and less than 10 minutes. Why these settings: batches of 4,096 because every other document is a negative for nothing
    but a product of matrices; rows of 256 tokens because nearly all pairs are shorter, and length was learnt in pre-training; scale 50
    and 8e-4 as small encoders of unit vectors want sharper softmaxes and larger steps than base's 20 and 8e-5; the teacher's
    similarities teach which of the 4,095 negatives are none. Not measured yet: the training waits for a GPU.
    """
    return ContrastiveConfig(
        train=("pairs",),
        out="runs/tiny-embed",
        retriever=RetrieverConfig(query_prompt="query: ", document_prompt="document: ", query_length=128, document_length=256),
        in_batch=InBatch(scale=50, symmetric=True),
        teacher=TeacherVectors(weight=1, kind="similarities", scale=20, file="teacher.npy"),
        dims=(64, 128, 256, 384),
        batch_pairs=4096,
        micro_batch_tokens=131_072,
        epochs=3,
        optimizer=OptimizerConfig(lr=8e-4, weight_decay=1e-5),
        warmup=0.1,
        decay=0.9,
        evaluations=4,
        save_every_steps=100,
    )


def reranking() -> FinetuneConfig:
    """A cross-encoder that scores a document for a query: from labelled pairs, from a document and negatives, or from candidates."""
    return FinetuneConfig(task=RerankTask(), out="runs/reranking", learning_rates=(5e-5,), epochs=2)
