"""What one process of `bench.inference` measures of one contestant. Each function is given names and numbers, as a process of its own is.

T tokens · N heads · H per head · D hidden.
"""

import functools
import json
import os
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modernbert.batch import Batch, pack
from modernbert.bench.contestants import TABLES, Rows
from modernbert.bench.record import summary
from modernbert.bench.timing import milliseconds_of, seconds_of, synchronize
from modernbert.config import preset
from modernbert.engine.engine import load
from modernbert.engine.hardware import choose_dtype
from modernbert.engine.stream import Stream
from modernbert.errors import MissingExtraError
from modernbert.kernels.attention import attention
from modernbert.kernels.compiled import kernels_made
from modernbert.kernels.linear_fp8 import fp8_runs_on, product_fp8, quantize_rows_fp8
from modernbert.kernels.rope import rotary_tables
from modernbert.model.encoder import Encoder
from modernbert.model.heads import pool
from modernbert.model.init import init_weights
from modernbert.text.rows import TruncationWarning

LONGEST_S, LEAST_REPEATS = 15, 2
"""A figure takes at most so many seconds, but two measurements: DeBERTa needs half a minute for rows of 8,192."""

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
                before = compiled()
                (once,) = seconds_of(functools.partial(_run, calls), where, repeats=1, warm=0)
                affordable = min(repeats, max(LEAST_REPEATS, int(LONGEST_S / once)))
                times = seconds_of(functools.partial(_run, calls), where, repeats=affordable, warm=0)
        except torch.OutOfMemoryError:
            found[column] = {"failed": "out of memory"}
            continue
        found[column] = {
            "tokens_per_second": summary([real / seconds for seconds in times]),
            "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if where.type == "cuda" else None,
            "compiled_after_warm_up": compiled() - before,
        }
        del calls
    return found


def _run(calls: Sequence[Callable[[], object]]) -> None:
    for call in calls:
        call()


def compiled() -> int:
    """Graphs of `torch.compile` and kernels of Triton that this process has compiled since it first asked, or loaded compiled."""
    dynamo = sys.modules.get("torch._dynamo")
    return kernels_made().total() + (int(dynamo.utils.counters["stats"]["unique_graphs"]) if dynamo else 0)


def roofline(size: str, columns: Columns, tokens: int, device: str, repeats: int) -> dict[str, Any]:
    """Seconds of a batch's products and attention, each measured alone, and the tokens a second that they would allow; and with fp8, where
    the device has it: the products behind norms in it, all but the first."""
    config, where = preset(size), torch.device(device)
    dtype, layers = choose_dtype(where), config.num_hidden_layers
    width, inside = config.hidden_size, config.intermediate_size

    def least(call: Callable[[], object]) -> float:
        return min(milliseconds_of(call, where, repeats=repeats)) / 1e3

    found: dict[str, Any] = {}
    for column, shape in columns.items():
        batch = pack(_batches(shape, tokens)[0]).to(where)
        count = len(batch.ids_T)
        products = fp8_products = 0.0
        for outer, inner, behind_norm in (
            (3 * width, width, layers - 1),
            (width, width, 0),
            (2 * inside, width, layers),
            (width, inside, 0),
        ):
            x, weight = torch.randn(count, inner, device=where, dtype=dtype), torch.randn(outer, inner, device=where, dtype=dtype)
            one = least(functools.partial(torch.nn.functional.linear, x, weight))
            products += layers * one
            fp8_products += (layers - behind_norm) * one
            if behind_norm and fp8_runs_on(where):
                quantised = *quantize_rows_fp8(x), *quantize_rows_fp8(weight)
                fp8_products += behind_norm * least(functools.partial(product_fp8, *quantised))
        qkv = torch.randn(count, 3, config.num_attention_heads, config.head_dim, device=where, dtype=dtype)
        cos, sin = rotary_tables(batch.max_seqlen, config.head_dim, 10_000.0, where)
        place = (qkv, cos, sin, batch.pos_T, batch.cu_seqlens, batch.max_seqlen)
        windows = [config.window(i) for i in range(layers)]
        with torch.inference_mode():
            each = {window: least(functools.partial(attention, *place, window)) for window in set(windows)}
        attending = sum(each[window] for window in windows)
        found[column] = {
            "products_s": products,
            "attention_s": attending,
            "roofline_tokens_per_second": count / (products + attending),
        }
        if fp8_runs_on(where):
            found[column] |= {
                "fp8_products_s": fp8_products,
                "fp8_roofline_tokens_per_second": count / (fp8_products + attending),
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
        number = torch.cuda.current_device() if where.index is None else where.index
        torch.cuda.set_per_process_memory_fraction(min(1.0, memory_gib / total), number)
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
    except RuntimeError as error:
        # fa3-fwd's allocations fail without saying that memory is out
        if isinstance(error, torch.OutOfMemoryError) or "aten::new_empty" in str(error):
            return False
        raise
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
    folder: Path,
    texts: list[str],
    tokens: int,
    device: str,
    repeats: int,
    dtype: str | None = None,
    batch_invariant: bool = False,
) -> dict[str, Any]:
    """From strings to vectors on the host, after two passes in which kernels and graphs are made; and what was compiled after them, which
    should be nothing."""
    where = torch.device(device)
    compiled()
    engine = load(folder, device=where, dtype=dtype, batch_invariant=batch_invariant)

    def call() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)
            engine.embed(texts, truncate=True)

    seconds_of(call, where, repeats=2, warm=0)
    before = compiled()
    times = seconds_of(call, where, repeats=repeats, warm=0)
    return {
        "tokens_per_second": summary([tokens / seconds for seconds in times]),
        "compiled_after_warm_up": compiled() - before,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if where.type == "cuda" else None,
    }


def invariance(folder: Path, texts: list[str], device: str, batches: int = 20) -> dict[str, Any]:
    """Greatest difference of a text's vector, alone in a call with all others, from those in random batches; relative to its length.

    Args:
        texts: each batch is a random part of them in random order.
    """
    found: dict[str, Any] = {}
    random = np.random.default_rng(0)
    orders = [random.permutation(len(texts))[: random.integers(1, len(texts) + 1)] for _ in range(batches)]
    for name, option in (("on", True), ("off", False)):
        engine = load(folder, device=device, batch_invariant=option)
        whole = engine.embed(texts, truncate=True)
        length = np.linalg.norm(whole, axis=1, keepdims=True)
        greatest, unequal = 0.0, 0
        for order in orders:
            part = engine.embed([texts[i] for i in order], truncate=True)
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


_FIRST_VECTOR = """
import json, sys, time
start = time.perf_counter()
import torch
torch_s = time.perf_counter() - start
from modernbert.engine.engine import load
from modernbert.kernels.compiled import kernels_made
kernels = kernels_made()
imported = time.perf_counter()
engine = load(sys.argv[1], device=sys.argv[2])
loaded = time.perf_counter()
engine.embed("a first text")
first = time.perf_counter()
parts = {"torch_s": torch_s, "imports_s": imported - start, "load_s": loaded - imported, "vector_s": first - loaded}
print(json.dumps({**parts, "kernels": kernels}))
"""


def first_vector(folder: Path, device: str) -> dict[str, Any]:
    """Seconds that a process of its own takes to its first vector, by parts; and kernels that it compiled, and loaded compiled.

    Python keeps what it compiles beside the folder, as every installation keeps it: without, PyTorch's import, a part of all imports
    here, takes more than twice as long. The first process makes it.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder.parent / "compiled")
    command = [sys.executable, "-c", _FIRST_VECTOR, str(folder), device]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return dict(json.loads(run.stdout.splitlines()[-1]))
