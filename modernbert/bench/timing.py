"""Repeated timings on any device: warm first, the device's queue empty before and after each."""

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


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what it was given; the CPU always has."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize(device)
