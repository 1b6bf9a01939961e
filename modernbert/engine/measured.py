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
import uuid
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F


def bf16_gain() -> float:
    """How many times as fast a Linear layer is in bfloat16 as in float32 on one core of this CPU.

    About 2 where the chip multiplies in bfloat16 (AVX512-BF16, AMX), below 1 where it is emulated.
    """
    return measured("bf16_gain", _measure_bf16)


def measured(name: str, measure: Callable[[], float]) -> float:
    """A figure of this machine and this PyTorch: from the file, else measured now and kept there."""
    path = cache_file()
    key = f"{name} | {_machine()} | torch {torch.__version__}"
    kept = _read(path)
    if key not in kept:
        kept[key] = measure()
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            stage = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}.tmp")
            stage.write_text(json.dumps(kept, indent=1))
            os.replace(stage, path)
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
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _measure_bf16() -> float:
    """Least CPU time of five rounds, the two taking turns: some 30 ms."""
    x_TI, weight_OI = torch.randn(256, 768), torch.randn(768, 768)
    low_TI, low_OI = x_TI.bfloat16(), weight_OI.bfloat16()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads on a busy machine wait for each other most of the time
    try:
        rounds = [(_seconds(x_TI, weight_OI), _seconds(low_TI, low_OI)) for _ in range(6)][1:]
    finally:
        torch.set_num_threads(threads)
    single, half = map(min, zip(*rounds, strict=True))
    return single / half


def _seconds(x_TI: torch.Tensor, weight_OI: torch.Tensor) -> float:
    start = time.thread_time()
    F.linear(x_TI, weight_OI)
    return time.thread_time() - start
