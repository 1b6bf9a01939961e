"""What one process of `bench.inference` measures of one contestant. Each function is given names and numbers, as a process of its own is.

T tokens · N heads · H per head · D hidden.
"""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modernbert.batch import Batch, pack
from modernbert.bench.contestants import TABLES, Rows
from modernbert.bench.record import summary
from modernbert.bench.timing import seconds_of, synchronize
from modernbert.config import preset
from modernbert.engine.engine import load
from modernbert.engine.hardware import choose_dtype
from modernbert.engine.stream import Stream
from modernbert.errors import MissingExtraError
from modernbert.kernels.attention import attention
from modernbert.kernels.rope import rotary_tables
from modernbert.model.encoder import Encoder
from modernbert.model.heads import pool
from modernbert.model.init import init_weights

EMBED_TOKENS = 32_768
"""Of a batch of `embed`; 8,192 where nothing is said."""

Columns = dict[str, tuple[int, bool]]
"""Longest row in tokens, and whether lengths vary, by the column's name."""


def random_rows(tokens: int, longest: int, variable: bool, seed: int) -> list[list[int]]:
    """Rows of random ids, as many as make a full batch at the greatest length.

    >>> [len(row) for row in random_rows(64, 32, False, seed=0)]
    [32, 32]
    """
    random = np.random.default_rng(seed)
    rows = tokens // longest
    lengths = np.full(rows, longest)
    if variable:
        lengths = random.normal(longest / 2, longest / 4, rows).clip(16, longest).astype(int)
    return [random.integers(100, 16_000, length).tolist() for length in lengths]


def _batches(column: tuple[int, bool], tokens: int) -> list[list[list[int]]]:
    longest, variable = column
    return [random_rows(tokens, longest, variable, seed) for seed in range(4 if variable else 1)]


def speeds(table: str, name: str, size: str, columns: Columns, tokens: int, device: str, repeats: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    where = torch.device(device)
    model = TABLES[table][name](size, where)
    for column, shape in columns.items():
        batches = _batches(shape, tokens)
        real = sum(len(row) for rows in batches for row in rows)
        try:
            with torch.inference_mode():
                calls = [model(rows) for rows in batches]
                _run(calls)
                if where.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                graphs = _graphs()
                times = seconds_of(functools.partial(_run, calls), where, repeats=repeats)
        except torch.OutOfMemoryError:
            found[column] = {"failed": "out of memory"}
            continue
        found[column] = {
            "tokens_per_second": summary([real / seconds for seconds in times]),
            "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if where.type == "cuda" else None,
            "compiled_after_warm_up": _graphs() - graphs,
        }
        del calls
    return found


def _run(calls: Sequence[Callable[[], object]]) -> None:
    for call in calls:
        call()


def _graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def roofline(size: str, columns: Columns, tokens: int, device: str, repeats: int) -> dict[str, Any]:
    """Seconds of a batch's products and attention, each measured alone, and the tokens a second that they would allow."""
    config, where = preset(size), torch.device(device)
    dtype = choose_dtype(where)
    width, inside = config.hidden_size, config.intermediate_size
    found: dict[str, Any] = {}
    for column, shape in columns.items():
        batch = pack(_batches(shape, tokens)[0]).to(where)
        count = len(batch.ids_T)
        products = 0.0
        for outer, inner in ((3 * width, width), (width, width), (2 * inside, width), (width, inside)):
            x, weight = torch.randn(count, inner, device=where, dtype=dtype), torch.randn(outer, inner, device=where, dtype=dtype)
            products += min(seconds_of(functools.partial(torch.nn.functional.linear, x, weight), where, repeats=repeats))
        qkv = torch.randn(count, 3, config.num_attention_heads, config.head_dim, device=where, dtype=dtype)
        cos, sin = rotary_tables(batch.max_seqlen, config.head_dim, 10_000.0, where)
        place = (qkv, cos, sin, batch.pos_T, batch.cu_seqlens, batch.max_seqlen)
        one = {
            window: min(seconds_of(functools.partial(attention, *place, window), where, repeats=repeats))
            for window in {config.window(i) for i in range(config.num_hidden_layers)}
        }
        attending = sum(one[config.window(i)] for i in range(config.num_hidden_layers))
        products *= config.num_hidden_layers
        found[column] = {
            "products_s": products,
            "attention_s": attending,
            "products_tokens_per_second": count / products,
            "roofline_tokens_per_second": count / (products + attending),
        }
    return found


def latency(table: str, name: str, size: str, device: str, repeats: int) -> dict[str, Any]:
    where = torch.device(device)
    with torch.inference_mode():
        call = TABLES[table][name](size, where)([list(range(100, 116))])
        times = seconds_of(lambda: call().cpu(), where, repeats=repeats, warm=20)
    return _percentiles(times)


def largest(table: str, name: str, size: str, columns: Columns, device: str, memory_gib: float | None) -> dict[str, Any]:
    """Most rows of a fixed length that one batch can have, found by doubling and halving; None where nothing limits it (no GPU)."""
    where = torch.device(device)
    if where.type != "cuda":
        return dict.fromkeys((column for column, shape in columns.items() if not shape[1]), None)
    if memory_gib is not None:
        total = torch.cuda.get_device_properties(where).total_memory / 2**30
        torch.cuda.set_per_process_memory_fraction(min(1.0, memory_gib / total), where)
    model = TABLES[table][name](size, where)
    found: dict[str, Any] = {}
    for column, (longest, variable) in columns.items():
        if variable:
            continue
        fits, fails = 0, None
        rows = max(1, 8192 // longest)
        while fails is None or fails - fits > max(1, fits // 32):
            if _fits(model, [[100 + i % 15_000 for i in range(longest)]] * rows, where):
                fits = rows
            else:
                fails = rows
            rows = 2 * rows if fails is None else (fits + fails) // 2
        found[column] = fits
    return found


def _fits(model: Callable[[Rows], Callable[[], torch.Tensor]], rows: Rows, where: torch.device) -> bool:
    try:
        with torch.inference_mode():
            model(rows)()
            synchronize(where)
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return True


def accuracy(size: str, device: str) -> dict[str, Any]:
    """‖16 bits − float32‖ ÷ ‖float32‖ of the hidden states, on the same weights and ids."""
    import transformers

    where, config = torch.device(device), preset(size)
    rows = [row for longest in (64, 512) for row in random_rows(4 * longest, longest, True, seed=longest)]
    reference = Encoder(config)
    init_weights(reference, config, torch.Generator().manual_seed(0))
    weights = reference.state_dict()
    hf_config = transformers.ModernBertConfig.from_dict(config.to_json(), attn_implementation="sdpa")
    batch = pack(rows).to(where)
    error: dict[str, Any] = {}
    with torch.inference_mode():
        exact = reference.to(where).eval()(batch)
        mine = Encoder(config)
        mine.load_state_dict(weights)
        error["modernbert"] = _error(mine.to(where, choose_dtype(where)).eval()(batch), exact)
        theirs = transformers.ModernBertModel(hf_config)
        theirs.load_state_dict(weights)
        theirs = theirs.to(where, choose_dtype(where)).eval()
        outputs = [theirs(input_ids=torch.tensor([row], device=where)).last_hidden_state[0] for row in rows]
        error["transformers"] = _error(torch.cat(outputs), exact)
    return error


def _error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.float() - exact).norm() / exact.norm())


def ours_embeds(
    folder: Path, texts: list[str], tokens: int, device: str, repeats: int, compile: bool = True, batch_invariant: bool = False
) -> dict[str, Any]:
    """From strings to vectors on the host; and graphs that were compiled after the first pass, of which there should be none."""
    where = torch.device(device)
    engine = load(folder, device=where, compile=compile and where.type == "cuda", batch_invariant=batch_invariant)
    engine.embed(texts, batch_tokens=EMBED_TOKENS)
    graphs = _graphs()
    times = seconds_of(lambda: engine.embed(texts, batch_tokens=EMBED_TOKENS), where, repeats=repeats, warm=1)
    return {
        "tokens_per_second": summary([tokens / seconds for seconds in times]),
        "compiled_after_warm_up": _graphs() - graphs,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if where.type == "cuda" else None,
    }


def invariance(folder: Path, texts: list[str], device: str, compile: bool = True, batches: int = 20) -> dict[str, Any]:
    """Greatest difference of a text's vector, alone in a call with all others, from those in random batches; relative to its length.

    Args:
        texts: each batch is a random part of them in random order.
    """
    found: dict[str, Any] = {}
    random = np.random.default_rng(0)
    orders = [random.permutation(len(texts))[: random.integers(1, len(texts) + 1)] for _ in range(batches)]
    for name, option in (("on", True), ("off", False)):
        engine = load(folder, device=device, compile=compile and device != "cpu", batch_invariant=option)
        whole = engine.embed(texts)
        length = np.linalg.norm(whole, axis=1, keepdims=True)
        greatest, unequal = 0.0, 0
        for order in orders:
            part = engine.embed([texts[i] for i in order])
            greatest = max(greatest, float((np.linalg.norm(part - whole[order], axis=1, keepdims=True) / length[order]).max()))
            unequal += int((part != whole[order]).any(axis=1).sum())
        found[name] = {"greatest_relative_difference": greatest, "vectors_with_another_bit": unequal}
    return found


def query(size: str, device: str, repeats: int) -> dict[str, Any]:
    """One row of 16 tokens through the engine's own way: from ids on the host to the pooled vector on the host."""
    where, config = torch.device(device), preset(size)
    encoder = Encoder(config)
    init_weights(encoder, config, torch.Generator().manual_seed(0))
    encoder.to(where, choose_dtype(where)).eval()
    stream = Stream(where)
    group: list[tuple[list[int], list[Sequence[int]]]] = [([0], [list(range(100, 116))])]

    def compute(batch: Batch) -> torch.Tensor:
        return pool(encoder(batch).float(), batch, "mean")

    times = seconds_of(lambda: list(stream.each(group, compute, "query")), where, repeats=repeats, warm=20)
    return _percentiles(times)


def _percentiles(times: Sequence[float]) -> dict[str, Any]:
    return {
        "milliseconds": summary([1e3 * t for t in times]),
        "p50_ms": 1e3 * statistics.median(times),
        "p99_ms": 1e3 * float(np.quantile(times, 0.99)),
    }


def theirs_embeds(folder: Path, texts: list[str], tokens: int, device: str, repeats: int, attention: str, rows: int) -> Any:
    try:
        import sentence_transformers
    except ImportError as error:
        raise MissingExtraError("this record compares with sentence-transformers: pip install sentence-transformers") from error
    dtype = choose_dtype(torch.device(device))
    settings = {"attn_implementation": attention, "dtype": dtype}
    model = sentence_transformers.SentenceTransformer(str(folder), device=device, model_kwargs=settings)

    def call() -> Any:
        return model.encode(texts, batch_size=rows)

    times = seconds_of(call, torch.device(device), repeats=repeats, warm=1)
    return {"tokens_per_second": summary([tokens / seconds for seconds in times])}


def first_vector(folder: Path, device: str, texts: Sequence[str] = ("a first text",), compile: bool = False) -> float:
    """Seconds from `load` to the vectors, in a process that has only just begun (imports not counted)."""
    start = time.perf_counter()
    load(folder, device=device, compile=compile and device != "cpu").embed(texts)
    return time.perf_counter() - start
