"""The path from text to training batches, stage by stage: tokens a second of one core, and how full rows are.

    modernbert bench data SHARDS TEXT...

Two minutes for a sample of 16 million characters.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from modernbert.bench.record import environment, summary
from modernbert.data.documents import read_documents
from modernbert.data.loader import Item, Loader
from modernbert.data.packing import SPECIALS, EpochPlan
from modernbert.data.shards import TokenShards

LENGTHS = (1024, 8192)
TOKENS_PER_BATCH = 1 << 16
TOKENS_PER_REPEAT = 1 << 24
SAMPLE_CHARACTERS = 1 << 24
MASK_RATE = 0.3

T = TypeVar("T")


def data_record(folder: str | Path, texts: Sequence[str | Path], *, repeats: int = 10) -> dict[str, Any]:
    """Measures reading and tokenising documents, and planning and loading token shards at rows of 1,024 and 8,192 tokens.

    Speeds are tokens for each second of CPU time, over all threads: what one core does, on a busy machine, too. `by_the_clock` is
    what the loader's one thread gave with that machine's load beside it.

    Args:
        folder: token shards.
        texts: documents; the first 2^24 characters of them are read.
        repeats: measurements of each figure: passes over parts of the sample, epochs for the plan, runs of 2^24 tokens for the loader.

    Raises:
        DataError: the shards or the documents are missing or damaged.
    """
    shards = TokenShards.open(folder, verify=True)
    quantiles = np.quantile(shards.lengths, (0.5, 0.99)).tolist()
    return {
        "subject": "data",
        "environment": environment("numpy", "torch", "tokenizers", "pyarrow"),
        "load_average": os.getloadavg(),
        "documents": len(shards),
        "tokens": int(shards.lengths.sum()),
        "tokens_per_document": {"mean": float(shards.lengths.mean()), "median": quantiles[0], "p99": quantiles[1]},
        "text": _from_text(shards, texts, repeats),
        "lengths": {length: _at_length(shards, length, repeats) for length in LENGTHS},
    }


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.process_time()
    return work(), time.process_time() - start


def _from_text(shards: TokenShards, texts: Sequence[str | Path], repeats: int) -> dict[str, Any]:
    """Reading (decompression, JSON, checks) and tokenising, each for itself."""
    tokenizer = shards.tokenizer()

    def sample() -> list[str]:
        read, left = [], SAMPLE_CHARACTERS
        for document in read_documents(texts):
            read.append(document.text)
            left -= len(document.text)
            if left <= 0:
                break
        return read

    readings = [_timed(sample) for _ in range(repeats)]
    documents = readings[0][0]
    encoded = [_timed(lambda part=part: tokenizer.encode(documents[part::repeats], special=False)) for part in range(repeats)]  # type: ignore[misc]
    tokens = [sum(map(len, rows)) for rows, _ in encoded]
    return {
        "characters": sum(map(len, documents)),
        "tokens": sum(tokens),
        "read_tokens_per_core_second": summary([sum(tokens) / seconds for _, seconds in readings]),
        "tokenised_tokens_per_core_second": summary([n / seconds for n, (_, seconds) in zip(tokens, encoded, strict=True)]),
    }


def _at_length(shards: TokenShards, length: int, repeats: int) -> dict[str, Any]:
    plans = [_plan(shards, length, epoch) for epoch in range(repeats)]
    loader = Loader(shards, length=length, rows_per_batch=TOKENS_PER_BATCH // length, mask_rate=MASK_RATE, seed=0)
    batches = iter(loader)
    next(batches)
    speeds = [_loaded_per_second(batches) for _ in range(repeats)]
    return {
        "fill": summary([fill for fill, _, _ in plans]),
        "planned_pieces_per_core_second": summary([pieces for _, pieces, _ in plans]),
        "planned_tokens_per_core_second": summary([tokens for _, _, tokens in plans]),
        "loaded_tokens_per_core_second": summary([cpu for cpu, _ in speeds]),
        "loaded_tokens_per_second_by_the_clock": summary([clock for _, clock in speeds]),
        "attention_rows_per_batch": loader.attention_rows,
    }


def _plan(shards: TokenShards, length: int, epoch: int) -> tuple[float, float, float]:
    """Fill, pieces a second and tokens a second of the plan of one epoch."""
    start = time.process_time()
    plan = EpochPlan(shards.lengths, length, 0, epoch)
    blocks = [plan.block(block) for block in range(plan.blocks)]
    seconds = time.process_time() - start
    pieces = sum(len(block.pieces) for block in blocks)
    tokens = int(shards.lengths.sum()) + SPECIALS * pieces
    return tokens / (length * sum(map(len, blocks))), pieces / seconds, tokens / seconds


def _loaded_per_second(batches: Iterator[Item]) -> tuple[float, float]:
    """Tokens for each second of CPU time, and of the clock."""
    start, began, tokens = time.process_time(), time.perf_counter(), 0
    while tokens < TOKENS_PER_REPEAT:
        tokens += next(batches)[0].tokens
    return tokens / (time.process_time() - start), tokens / (time.perf_counter() - began)
