"""Figures of this machine that are measured once and kept in a file: what the CPU gains by a dtype.

The file is ~/.cache/modernbert/measured.json (XDG_CACHE_HOME moves it). Deleting it measures again; where it cannot be read or
written, each process measures for itself.
"""

import contextlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from modernbert.checkpoint.atomic import staged
from modernbert.kernels.linear_int8 import linear_int8, pack_weight, quantize_rows, weight_levels


def bf16_gain() -> float:
    """How many times as fast a Linear layer is in bfloat16 as in float32 on one core of this CPU.

    About 2 where the chip multiplies in bfloat16 (AVX512-BF16, AMX), below 1 where it is emulated.
    """
    return measured("bf16_gain", _measure_bf16)


def int8_gain() -> float:
    """How many times as fast a Linear layer is in int8 as in float32 on one core of this CPU; 0 where int8 has no exact product."""
    levels = weight_levels()
    return 0.0 if levels is None else measured("int8_gain", lambda: _measure_int8(levels))


def _measure_bf16() -> float:
    x_TI, weight_OI = _layer()
    low_TI, low_OI = x_TI.bfloat16(), weight_OI.bfloat16()
    return _gain(lambda: F.linear(x_TI, weight_OI), lambda: F.linear(low_TI, low_OI))


def _measure_int8(levels: int) -> float:
    x_TI, weight_OI = _layer()
    weight_int8_OI, scale_O = quantize_rows(weight_OI, levels)
    packed = pack_weight(weight_int8_OI)
    return _gain(lambda: F.linear(x_TI, weight_OI), lambda: linear_int8(x_TI, packed, scale_O))


def _layer() -> tuple[Tensor, Tensor]:
    """Input and weights of a Linear layer of base."""
    generator = torch.Generator().manual_seed(0)
    x_TI, weight_OI = (torch.randn(rows, 768, generator=generator) for rows in (256, 768))
    return x_TI, weight_OI


def measured(name: str, measure: Callable[[], float]) -> float:
    """A figure of this machine and this PyTorch: from the file, else measured now and kept there."""
    path = cache_file()
    key = f"{name} | {_machine()} | torch {torch.__version__}"
    kept = _read(path)
    if key not in kept:
        kept[key] = measure()
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with staged(path.parent) as stage:
                (stage / path.name).write_text(json.dumps(kept, indent=1))
    return kept[key]


def cache_file() -> Path:
    """Where the figures are kept."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "modernbert" / "measured.json"


def _read(path: Path) -> dict[str, float]:
    """What the file holds, or nothing where it is damaged."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {k: float(v) for k, v in found.items() if isinstance(v, int | float) and math.isfinite(v)}


def _machine() -> str:
    """The chip with its abilities, as far as the system says them; a cache that moves to another machine measures anew."""
    return f"{cpu_name()} {torch.backends.cpu.get_cpu_capability()}"


def cpu_name() -> str:
    """The chip, as the system calls it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch computes on one thread meanwhile: two on a busy machine wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _gain(plain: Callable[[], Tensor], other: Callable[[], Tensor]) -> float:
    """How many times as fast the other is, on one thread: least CPU time of five rounds, the two taking turns; some 30 ms."""
    with one_thread():
        rounds = [(_seconds(plain), _seconds(other)) for _ in range(6)][1:]
    in_plain, in_other = map(min, zip(*rounds, strict=True))
    return in_plain / in_other


def _seconds(compute: Callable[[], Tensor]) -> float:
    start = time.thread_time()  # by the clock, a busy machine gave 1.8 to 5.4 for what is 1.6
    compute()
    return time.thread_time() - start
