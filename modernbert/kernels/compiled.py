"""Where our Triton kernels run: the one place that asks whether Triton is here and whether it compiles for a tensor."""

import functools
import importlib.util
import os
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton runs kernels as Python, on any device: for tests, some thousand times slower."""

HERE = importlib.util.find_spec("triton") is not None and (torch.version.cuda is not None or INTERPRETED)
"""Whether to import kernels: it takes a third of a second, which builds for the CPU need not spend."""


@functools.cache
def kernels_made() -> Counter[str]:
    """Kernels that Triton has compiled, and loaded compiled from its cache on disk, since this was first asked."""
    made: Counter[str] = Counter()
    if HERE:
        from triton import knobs

        def count(*, cache_hit: bool, **_: Any) -> None:
            made["loaded" if cache_hit else "compiled"] += 1

        knobs.compilation.listener = count
    return made


F = TypeVar("F", bound=Callable[..., Any])


def constant_in_graphs(function: F) -> F:
    """`torch.compiler.assume_constant_result`, which would import torch._dynamo: that takes longer than PyTorch itself."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@constant_in_graphs
def generation_of(device: torch.device) -> int:
    """A CUDA device's: 8 is Ampere and Ada, 9 Hopper. Asked while a graph is traced: as a part of it, the question would cut it in two.

    One number: PyTorch 2.11 cannot compare a pair that it takes as constant.
    """
    return torch.cuda.get_device_capability(device)[0]


def runs_plain(x: Tensor) -> bool:
    """Whether a kernel may run on this tensor as a plain call: on a GPU, without a way back, and with no compiler looking on."""
    return x.is_cuda and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def triton_runs_on(x: Tensor) -> bool:
    """Whether Triton compiles for this tensor's device (CUDA from Ampere, 8.0, on) and dtype, or interprets it."""
    if not HERE:
        return False
    if INTERPRETED:  # which multiplies the bits of bf16 as if they were whole numbers
        return x.dtype in (torch.float16, torch.float32)
    capable = x.is_cuda and torch.version.hip is None and generation_of(x.device) >= 8
    return capable and x.dtype in (torch.bfloat16, torch.float16, torch.float32)


def triton_pays_on(x: Tensor) -> bool:
    """Whether a kernel for rows of inference runs on this tensor, and is faster than PyTorch's operators one by one.

    >>> triton_pays_on(torch.zeros(1, 2))
    False
    """
    return runs_plain(x) and x.ndim == 2 and triton_runs_on(x)
