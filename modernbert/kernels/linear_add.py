"""A product added to what is there: the sum happens where the product is written, and costs nothing beyond reading the residual.

T tokens · I inputs · D hidden.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from modernbert.kernels.compiled import runs_plain


def linear_add_reference(
    residual_TD: Float[Tensor, "T D"], x_TI: Float[Tensor, "T I"], weight_DI: Float[Tensor, "D I"]
) -> Float[Tensor, "T D"]:
    """The definition."""
    return residual_TD + F.linear(x_TI, weight_DI)


def linear_add_pays(residual_TD: Float[Tensor, "T D"]) -> bool:
    """Whether the sum may be in place, and gains by it: on a GPU, without a way back. `torch.compile` adds into a copy instead.

    >>> linear_add_pays(torch.zeros(1, 2))
    False
    """
    return residual_TD.is_cuda and not torch.is_grad_enabled()


def linear_add(
    residual_TD: Float[Tensor, "T D"], x_TI: Float[Tensor, "T I"], weight_DI: Float[Tensor, "D I"]
) -> Float[Tensor, "T D"]:
    """What the reference defines, written over `residual_TD`; summed in float32 before the one rounding."""
    if runs_plain(residual_TD):
        return torch.addmm(residual_TD, x_TI, weight_DI.T, out=residual_TD)
    _linear_add(residual_TD, x_TI, weight_DI)
    return residual_TD


@torch.library.custom_op("modernbert::linear_add_", mutates_args=("residual",))
def _linear_add(residual: Tensor, x: Tensor, weight: Tensor) -> None:
    torch.addmm(residual, x, weight.T, out=residual)


@_linear_add.register_fake
def _(residual: Tensor, x: Tensor, weight: Tensor) -> None:
    return None
