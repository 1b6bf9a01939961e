"""One process or many: what torchrun started, and what its processes share.

    torchrun --nproc-per-node 2 -m modernbert pretrain RECIPE …

Each process holds the whole model and takes its share of every batch's rows; gradients are summed by PyTorch's
DistributedDataParallel. A run gives the same curve on any number of processes, up to the rounding of sums.
"""

import contextlib
import dataclasses
import os
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
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
        return parallel.no_sync() if isinstance(parallel, DistributedDataParallel) else contextlib.nullcontext()

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


def join(device: str) -> World:
    """Joins the processes that torchrun started, or stands alone; `auto` is the first of CUDA, Apple's GPU and the CPU."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(None if device == "auto" else device)
    if size == 1:
        return World(device=chosen)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return World(device=chosen, rank=dist.get_rank(), size=size)
