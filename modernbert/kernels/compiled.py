"""Where our Triton kernels run: the one place that asks whether Triton is here and whether it compiles for a tensor."""

import importlib.util
import os

import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton runs kernels as Python, on any device: for tests, some thousand times slower."""

HERE = importlib.util.find_spec("triton") is not None and (torch.version.cuda is not None or INTERPRETED)
"""Whether to import kernels: it takes a third of a second, which builds for the CPU need not spend."""


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def capability(device: torch.device) -> tuple[int, int]:
    """Of a CUDA device. Asked while a graph is traced: as a part of the graph, the question would cut it in two."""
    return torch.cuda.get_device_capability(device)


def triton_runs_on(x: Tensor) -> bool:
    """Whether Triton compiles for this tensor's device (CUDA from Ampere, 8.0, on) and dtype, or interprets it."""
    if not HERE:
        return False
    if INTERPRETED:  # which multiplies the bits of bf16 as if they were whole numbers
        return x.dtype in (torch.float16, torch.float32)
    capable = x.is_cuda and torch.version.hip is None and capability(x.device) >= (8, 0)
    return capable and x.dtype in (torch.bfloat16, torch.float16, torch.float32)
