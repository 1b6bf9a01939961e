"""Gradients of a loss over more texts than fit into memory, and over several processes: the vectors are cached, not the activations.

    each group of texts ─→ vectors, no graph kept ─→ all vectors of all processes ─→ loss ─→ a gradient for each vector
    each group of texts ─→ vectors once more, with a graph ─→ backward from its vectors' gradients

The result is that of one backward through everything. The last groups keep their graphs the first time, as many as may be held together,
so that what fits into memory costs nothing extra.

X vectors · D their width.

Source: Gao et al. 2021 (arXiv 2101.06983), GradCache.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from modernbert.train.distributed import World


def cached_backward(
    groups: Sequence[Tensor],
    width: int,
    forward: Callable[[int], Tensor],
    loss_of: Callable[[Tensor], Tensor],
    world: World,
    held: int = 1,
) -> Tensor:
    """Adds the loss's gradient to the parameters: of this process's groups, and of its share of the loss.

    The sum over processes is the whole gradient; `sum_gradients` makes it.

    Args:
        groups: for each group of texts the places of its vectors among all X; together each place once. Process r takes every
            `world.size`-th group from the r-th on.
        width: D.
        forward: from the number of a group to its vectors. It must give the same each time: dropout is to be seeded by the number.
        loss_of: from all vectors [X, D] to this process's share of the loss.
        held: how many groups' graphs may be in memory at once.

    Returns:
        This process's share of the loss, without a graph.
    """
    mine = range(world.rank, len(groups), world.size)
    x_XD = torch.zeros((sum(map(len, groups)), width), device=world.device)
    graphs: dict[int, Tensor] = {}
    for place, number in enumerate(mine):
        with torch.set_grad_enabled(place >= len(mine) - held):
            x = forward(number).float()
        x_XD[groups[number]] = x.detach()
        if x.requires_grad:
            graphs[number] = x
    x_XD = world.sum(x_XD).requires_grad_()
    loss = loss_of(x_XD)
    loss.backward()
    assert x_XD.grad is not None
    gradient_XD = world.sum(x_XD.grad)
    for number in reversed(mine):
        x = graphs.pop(number) if number in graphs else forward(number).float()
        x.backward(gradient_XD[groups[number]])
    return loss.detach()


def sum_gradients(parameters: Sequence[Tensor], world: World) -> None:
    """Replaces each gradient by its sum over all processes, in one message."""
    if world.size == 1:
        return
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    for p, part in zip(parameters, world.sum(flat).split([p.numel() for p in parameters]), strict=True):
        p.grad = part.view_as(p).clone()
