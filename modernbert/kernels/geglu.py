"""The MLP of a layer: Wi, GeGLU, Wo, as one operator whose way back is its own.

    x_TD ─→ u_TJ = [a │ g] ─→ h_TI = gelu(a) · g ─→ y_TD

Backward takes u and the gradient of h to the gradient of u in one pass, and makes h again in that pass, so that h is never kept:
`torch.compile` takes 2.5 times as long for the same (dev/LOG.md).

T tokens in the batch · D hidden · I inside the MLP · J = 2 · I.

Source: Shazeer 2020 (arXiv 2002.05202); the first half is activated, with the exact GELU (facts §1.2).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from modernbert.kernels.compiled import HERE, INTERPRETED, triton_pays_on, triton_runs_on

if HERE:
    from modernbert.kernels import geglu_triton as kernels

TILES = {"forward": (8, 128), "backward": (4, 256)}
"""Tokens and columns that one program makes; forward the best of eight choices (bench/results/encoder_h200_2026-11-27.md)."""
if INTERPRETED:
    TILES = dict.fromkeys(TILES, (64, 256))


def geglu(u_TJ: Float[Tensor, "T J"]) -> Float[Tensor, "T I"]:
    """The first half activated, times the second half; in one pass on a GPU without gradients.

    >>> geglu(torch.tensor([[0.0, 100.0, 7.0, 2.0]]))
    tensor([[  0., 200.]])
    """
    if triton_pays_on(u_TJ):
        h_TI = u_TJ.new_empty(len(u_TJ), u_TJ.shape[1] // 2)
        _launch("forward", u_TJ, (u_TJ.contiguous(), h_TI))
        return h_TI
    activated_TI, gate_TI = u_TJ.chunk(2, dim=-1)
    return F.gelu(activated_TI) * gate_TI


def geglu_mlp_reference(
    x_TD: Float[Tensor, "T D"], wi_JD: Float[Tensor, "J D"], wo_DI: Float[Tensor, "D I"]
) -> Float[Tensor, "T D"]:
    """The definition."""
    return F.linear(geglu(F.linear(x_TD, wi_JD)), wo_DI)


def geglu_mlp_pays(x_TD: Float[Tensor, "T D"]) -> bool:
    """Whether the one operator runs on this tensor and is the faster one: on a GPU, and with a way back.

    >>> geglu_mlp_pays(torch.zeros(1, 2))
    False
    """
    return x_TD.is_cuda and torch.is_grad_enabled() and triton_runs_on(x_TD)


def geglu_mlp(x_TD: Float[Tensor, "T D"], wi_JD: Float[Tensor, "J D"], wo_DI: Float[Tensor, "D I"]) -> Float[Tensor, "T D"]:
    """What the reference defines, with a way back of its own, where `geglu_mlp_pays`."""
    return _mlp(x_TD, wi_JD, wo_DI)[0]


@torch.library.custom_op("modernbert::geglu_mlp", mutates_args=())
def _mlp(x: Tensor, wi: Tensor, wo: Tensor) -> tuple[Tensor, Tensor]:
    """y and, for the way back, u."""
    u = F.linear(x, wi)
    h = u.new_empty(len(u), u.shape[1] // 2)
    _launch("forward", u, (u, h))
    return F.linear(h, wo), u


@torch.library.custom_op("modernbert::geglu_mlp_backward", mutates_args=())
def _mlp_backward(dy: Tensor, x: Tensor, wi: Tensor, wo: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dy = dy.contiguous()
    dh = dy @ wo
    h, du = torch.empty_like(dh), torch.empty_like(u)
    _launch("backward", u, (u, dh, h, du))
    return du @ wi, du.T @ x, dy.T @ h


def _launch(name: str, u: Tensor, tensors: tuple[Tensor, ...]) -> None:
    tokens, inside = len(u), u.shape[1] // 2
    if not tokens:
        return
    rows, columns = TILES[name]
    with torch.cuda.device_of(u):
        getattr(kernels, name)[(-(-tokens // rows), -(-inside // columns))](*tensors, tokens, inside, rows, columns, num_warps=4)


@_mlp.register_fake
def _(x: Tensor, wi: Tensor, wo: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], wo.shape[0]), x.new_empty(x.shape[0], wi.shape[0])


@_mlp_backward.register_fake
def _(dy: Tensor, x: Tensor, wi: Tensor, wo: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(wi), torch.empty_like(wo)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _mlp_backward(dy, *ctx.saved_tensors)


_mlp.register_autograd(_gradients, setup_context=_keep)
