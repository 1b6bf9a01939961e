"""Repeated timings on any device: warm first, the device's queue empty before and after each; and what the device can do at most."""

import statistics
import time
from collections.abc import Callable

import torch


def seconds_of(call: Callable[[], object], device: torch.device, *, repeats: int = 10, warm: int = 3) -> list[float]:
    """Wall time of each of `repeats` calls, in seconds, after `warm` calls that do not count."""
    for _ in range(warm):
        call()
    times = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return times


TOGETHER = 10
"""Calls between two looks at the clock."""

HEAD_START = 20_000_000
"""Cycles that the device idles before the first of them, some 10 ms: what starting kernels takes is hidden behind it."""


def milliseconds_of(call: Callable[[], object], device: torch.device, *, repeats: int = 10) -> list[float]:
    """Of one call, `repeats` times by the device's own clock, each the mean of `TOGETHER` calls; one plain timing without a GPU."""
    if device.type != "cuda":
        return [1e3 * seconds for seconds in seconds_of(call, device, repeats=1, warm=0)]
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(HEAD_START)
        before.record()
        for _ in range(TOGETHER):
            call()
        after.record()
        after.synchronize()
        times.append(before.elapsed_time(after) / TOGETHER)
    return times


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what it was given; the CPU always has."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize(device)


def ceilings(device: torch.device, dtype: torch.dtype, side: int) -> tuple[float, float]:
    """Bytes a second of a large copy, read and written counted, and floating-point operations a second of a square product.

    Args:
        side: of the matrices of the product; four of them are copied.
    """
    a, b, product = torch.randn(3, side, side, device=device, dtype=dtype).unbind()
    source = torch.randn(4, side, side, device=device, dtype=dtype)
    target = torch.empty_like(source)
    copying = statistics.median(seconds_of(lambda: target.copy_(source), device))
    multiplying = statistics.median(seconds_of(lambda: torch.mm(a, b, out=product), device))
    return 2 * source.numel() * source.element_size() / copying, 2 * side**3 / multiplying
