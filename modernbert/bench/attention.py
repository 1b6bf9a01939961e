"""Attention on a GPU, rotation included: our window kernels and every library's beside each other, and which tiles are best.

    modernbert bench attention               speeds; a minute, most of it compiling
    modernbert bench attention --resources   what each choice of tiles asks of a GPU, read off the compiler; needs no GPU

65,536 tokens × 12 heads of 64, window 64, in rows of 512, 1,024, 8,192, and of short texts (log-normal: median 25, mean 69). Bounds are
the fewest bytes that must move, at the speed of a large copy, and the products of pairs within the window, at the speed of a large one.

T tokens · N heads · H per head.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modernbert.batch import Batch, pack
from modernbert.bench.record import environment, summary
from modernbert.bench.timing import ceilings, milliseconds_of
from modernbert.engine.hardware import choose_device
from modernbert.errors import HardwareError
from modernbert.kernels import attention_window
from modernbert.kernels.attention import BACKENDS
from modernbert.kernels.attention_flash import flash_runs_on
from modernbert.kernels.attention_window import TILES, Tiles, window_runs_on
from modernbert.kernels.rope import rotary_tables
from modernbert.kernels.rope_packed import rotate_packed

TOKENS, HEADS, HEAD_DIM, WINDOW = 65_536, 12, 64, 64
RUNS_ON = {"window": window_runs_on, "flash": flash_runs_on}
"""Contestants, each with its rotation, and whether they run on a tensor."""
CANDIDATES = [
    Tiles(own=own, step=step, warps=warps, stages=stages, register_cap=cap)
    for own, step, warps, stages, cap in (
        *itertools.product((64,), (16, 32, 64), (4,), (1, 2, 3), (None, 128, 168)),
        *itertools.product((128,), (32, 64), (4, 8), (1, 2), (None, 128, 168)),
        *itertools.product((32,), (32, 64), (2, 4), (1, 2), (None, 128)),
        *itertools.product((64,), (32, 64), (2,), (1, 2), (None,)),
        *itertools.product((64,), (64,), (8,), (1, 2), (None,)),
        *itertools.product((128,), (16,), (4, 8), (1,), (None,)),
        (64, 128, 4, 1, None),
        (64, 128, 8, 1, None),
        (128, 128, 8, 1, None),
    )
]


def attention_record(*, tokens: int = TOKENS, repeats: int = 10, device: str | None = None) -> dict[str, Any]:
    """Milliseconds of forward and backward, by row length and by tiles.

    Args:
        tokens: in a batch.
        repeats: measurements of each figure, each of 10 calls.
        device: None takes the best one here.

    Raises:
        HardwareError: the kernels do not run there.
    """
    where = choose_device(device)
    dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
    if not window_runs_on(torch.empty(0, HEAD_DIM, device=where, dtype=dtype)):
        raise HardwareError(f"the window kernels do not run on {where}; use a CUDA GPU of capability 8.0 or newer, with triton")
    time_of = functools.partial(_milliseconds, device=where, repeats=repeats)
    copied, multiplied = ceilings(where, dtype, 8192 if where.type == "cuda" else 256)
    columns = {str(length): [length] * (tokens // length) for length in (512, 1024, 8192) if length <= tokens}
    columns["short texts"] = short_texts(tokens)
    first = next(iter(columns.values()))
    return {
        "subject": "attention",
        "environment": environment("torch", "triton"),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else where.type,
        "dtype": str(dtype),
        "case": {"tokens": tokens, "heads": HEADS, "head_dim": HEAD_DIM, "window": WINDOW},
        "copy_bytes_per_second": copied,
        "product_flops_per_second": multiplied,
        "rows": {name: _column(lengths, dtype, where, copied, multiplied, time_of) for name, lengths in columns.items()},
        "tiles": _tiles(first, dtype, where, time_of),
    }


def resources_record() -> dict[str, Any]:
    """Registers, spills, shared memory and instructions of each kernel and choice of tiles, compiled here for Hopper."""
    from modernbert.kernels.attention_window_resources import resources

    return {
        "subject": "attention resources",
        "environment": environment("torch", "triton"),
        "tiles": {
            name: [dataclasses.asdict(tiles) | dataclasses.asdict(resources(name, tiles)) for tiles in CANDIDATES]
            for name in TILES
        },
    }


def short_texts(tokens: int) -> list[int]:
    """Lengths of short texts that fill a batch: log-normal, median 25, mean 69, cut to 2 … 8,192.

    >>> sum(short_texts(1000)), min(short_texts(1000)) > 0
    (1000, True)
    """
    spread = (2 * np.log(69 / 25)) ** 0.5
    lengths = np.random.default_rng(0).lognormal(np.log(25), spread, tokens).clip(2, 8192).astype(int)
    ends = lengths.cumsum()
    whole = lengths[ends < tokens].tolist()
    return [*whole, tokens - sum(whole)]


def _column(
    lengths: list[int], dtype: torch.dtype, device: torch.device, copied: float, multiplied: float, time_of: Callable[..., Any]
) -> dict[str, Any]:
    batch, qkv_T3NH, do_TNH, tables = _inputs(lengths, dtype, device)
    place = (*tables, batch.pos_T, batch.cu_seqlens, batch.max_seqlen)
    contestants = {name: BACKENDS[name] for name, runs_on in RUNS_ON.items() if runs_on(qkv_T3NH)}
    size = qkv_T3NH.element_size()
    pairs = sum(min(length, i + WINDOW + 1) - max(0, i - WINDOW) for length in lengths for i in range(length))
    flops = 4 * HEADS * HEAD_DIM * pairs
    found: dict[str, Any] = {
        "rows": len(lengths),
        "forward_bound_ms": {"bytes": 1e3 * size * do_TNH.numel() * 4 / copied, "products": 1e3 * flops / multiplied},
        "backward_bound_ms": {"bytes": 1e3 * size * do_TNH.numel() * 8 / copied, "products": 2.5e3 * flops / multiplied},
    }
    for reach, (name, attend) in itertools.product((WINDOW, None), contestants.items()):
        long = len(qkv_T3NH) > 1024 * len(lengths)  # where a kernel made for windows takes seconds
        if (reach is None and name == "window" and long) or (reach is not None and name not in ("window", "flash")):
            continue
        call = functools.partial(attend, qkv_T3NH, *place, reach)
        with torch.no_grad():
            forward = time_of(call)
        backward = time_of(functools.partial(torch.autograd.grad, call(), qkv_T3NH, do_TNH, retain_graph=True))
        found[name if reach is not None else f"{name}, whole rows"] = {"forward_ms": forward, "backward_ms": backward}
    return found


def _tiles(lengths: list[int], dtype: torch.dtype, device: torch.device, time_of: Callable[..., Any]) -> dict[str, Any]:
    """Each kernel under each choice of tiles, fastest first."""
    tensors = _tensors(lengths, dtype, device)
    if device.type == "cuda":
        with concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as processes:
            list(processes.map(_compile, *zip(*itertools.product(TILES, CANDIDATES), strict=True), itertools.repeat(dtype)))
    found: dict[str, Any] = {}
    for name, kept in TILES.items():
        found[name] = []
        for tiles in CANDIDATES:
            TILES[name] = tiles
            try:
                taken = time_of(lambda name=name: attention_window.launch(name, tensors[name], WINDOW))
            except Exception as error:  # Triton has a class for each way in which tiles do not fit
                found[name].append(dataclasses.asdict(tiles) | {"failed": f"{type(error).__name__}: {error}"[:200]})
                continue
            found[name].append(dataclasses.asdict(tiles) | {"ms": taken})
        TILES[name] = kept
        found[name].sort(key=lambda one: one["ms"]["median"] if "ms" in one else float("inf"))
    return found


def _compile(name: str, tiles: Tiles, dtype: torch.dtype) -> None:
    """Leaves a kernel in Triton's cache, in a process of its own, so that all cores compile; tiles that do not fit fail again later."""
    TILES[name] = tiles
    with contextlib.suppress(Exception):
        attention_window.launch(name, _tensors([64], dtype, torch.device("cuda"))[name], WINDOW)


def _tensors(lengths: list[int], dtype: torch.dtype, device: torch.device) -> dict[str, tuple[Tensor, ...]]:
    """What each kernel is given."""
    batch, qkv, do, (cos, sin) = _inputs(lengths, dtype, device)
    common = (qkv.detach(), cos, sin, batch.cu_seqlens)
    o, lse = attention_window._forward(qkv.detach(), cos, sin, batch.pos_T, batch.cu_seqlens, WINDOW)
    qk = rotate_packed(qkv.detach(), cos, sin, batch.pos_T)
    dqkv, delta = torch.empty_like(qkv), torch.zeros_like(lse)
    return {
        "forward": (*common, o, lse),
        "backward_queries": (qk, *common, o, lse, do, dqkv, delta),
        "backward_keys": (qk, *common, lse, do, dqkv, delta),
    }


def _inputs(lengths: list[int], dtype: torch.dtype, device: torch.device) -> tuple[Batch, Tensor, Tensor, tuple[Tensor, Tensor]]:
    batch = pack([[0] * length for length in lengths]).to(device)
    qkv_T3NH = torch.randn(sum(lengths), 3, HEADS, HEAD_DIM, device=device, dtype=dtype, requires_grad=True)
    do_TNH = torch.randn(sum(lengths), HEADS, HEAD_DIM, device=device, dtype=dtype)
    cos_LK, sin_LK = rotary_tables(batch.max_seqlen, HEAD_DIM, 10_000.0, device)
    halves = qkv_T3NH.is_cuda and dtype != torch.float32  # as the encoder has them
    return batch, qkv_T3NH, do_TNH, (cos_LK.half(), sin_LK.half()) if halves else (cos_LK, sin_LK)


def _milliseconds(call: Callable[[], object], *, device: torch.device, repeats: int) -> dict[str, Any]:
    return summary(milliseconds_of(call, device, repeats=repeats))


def markdown(record: dict[str, Any]) -> str:
    """Speeds by row length and the five best tiles of each kernel, as tables."""
    lines = [f"{record['device']}, {record['dtype']}", ""]
    lines += ["| rows | way | forward ms | bound | backward ms | bound |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for name, column in record["rows"].items():
        bounds = [max(column[f"{way}_bound_ms"].values()) for way in ("forward", "backward")]
        for way, times in column.items():
            if isinstance(times, dict) and "forward_ms" in times:
                one = [
                    f"{_spread(times[f'{way_}_ms'])} | {bound:.3f}"
                    for way_, bound in zip(("forward", "backward"), bounds, strict=True)
                ]
                lines.append(f"| {name} | {way} | {one[0]} | {one[1]} |")
    lines += [
        "",
        "| kernel | own | step | warps | stages | register cap | ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kernel, choices in record["tiles"].items():
        for one in choices[:5]:
            shape = " | ".join(str(one[field.name]) for field in dataclasses.fields(Tiles))
            lines.append(f"| {kernel} | {shape} | {_spread(one['ms']) if 'ms' in one else one['failed']} |")
    return "\n".join(lines)


def resources_markdown(record: dict[str, Any]) -> str:
    """One table for each kernel."""
    lines = []
    for kernel, choices in record["tiles"].items():
        names = list(choices[0])
        lines += [f"{kernel}:", "", "| " + " | ".join(name.replace("_", " ") for name in names) + " |"]
        lines += ["| " + " | ".join("---:" for _ in names) + " |"]
        lines += ["| " + " | ".join(f"{one[name] or 0:,}" for name in names) + " |" for one in choices] + [""]
    return "\n".join(lines)


def _spread(times: dict[str, Any]) -> str:
    return f"{times['median']:.3f} ({times['min']:.3f} – {times['max']:.3f})"
