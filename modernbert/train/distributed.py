"""One process or many: what torchrun started, and what its processes share.

    torchrun --nproc-per-node 2 -m modernbert pretrain RECIPE …

Each process takes its share of every batch's rows. It holds the whole model, and PyTorch's DistributedDataParallel averages the
gradients; or it holds a part of every tensor (FSDP2's `fully_shard`), and layers are gathered as they are needed. A run gives the same
curve on any number of processes, up to the rounding of sums.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from modernbert.engine.hardware import choose_device

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """The processes of a run, and this one among them."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def seed(self, seed: int, step: int) -> int:
        """A seed for each step and process: equal ones would drop the same places of every process's rows.

        >>> [World(device=torch.device("cpu"), rank=rank, size=2).seed(0, step) for step in (0, 1) for rank in (0, 1)]
        [0, 1, 2, 3]
        """
        return seed + step * self.size + self.rank

    def sum(self, x: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place and without waiting for the host."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def parallel(self, model: nn.Module) -> nn.Module:
        """A model whose backward averages gradients over the processes."""
        return DistributedDataParallel(model, gradient_as_bucket_view=True) if self.size > 1 else model

    def without_sync(self, parallel: nn.Module) -> contextlib.AbstractContextManager[None]:
        """A block whose backward keeps its gradients to this process, to be averaged with the next one's."""
        if isinstance(parallel, FSDPModule):
            return _without_sync(parallel)
        return parallel.no_sync() if isinstance(parallel, DistributedDataParallel) else contextlib.nullcontext()

    def shard(self, model: nn.Module, layers: Iterable[nn.Module]) -> nn.Module:
        """The same model, of whose tensors each process holds a part. Its layers are gathered one by one, and let go after use."""
        if self.size > 1:
            mesh = init_device_mesh(self.device.type, (self.size,))
            for layer in layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(model, mesh=mesh)
        return model

    def gather(self, value: T) -> list[T]:
        """The value of every process, in their order, on each of them."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def leave(self) -> None:
        """Ends the processes' connection."""
        if self.size > 1:
            dist.destroy_process_group()


@contextlib.contextmanager
def _without_sync(model: FSDPModule) -> Iterator[None]:
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)


def join(device: str) -> World:
    """Joins the processes that torchrun started, or stands alone; `auto` is the first of CUDA, Apple's GPU and the CPU."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(None if device == "auto" else device)
    if size == 1:
        return World(device=chosen)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return World(device=chosen, rank=dist.get_rank(), size=size)


@contextlib.contextmanager
def repeatable(wanted: bool) -> Iterator[None]:
    """A block in which, if so wanted, every operation gives the same bits each time, on a GPU too, for some of its speed.

    Operations that cannot are refused by PyTorch with their name. On a CPU single-threaded sums repeat themselves anyway.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]  # type: ignore[attr-defined]
