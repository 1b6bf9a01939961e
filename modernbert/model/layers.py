"""Linear and LayerNorm that follow the dtype of their input, so that float32 weights train in bf16 without autocast.

The cast is differentiable: gradients arrive in the dtype of the weights.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from modernbert.kernels.compiled import triton_pays_on
from modernbert.kernels.linear_add import linear_add, linear_add_pays
from modernbert.kernels.norm import norm


class Linear(nn.Linear):
    """`nn.Linear` that computes in the dtype of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class LayerNorm(nn.LayerNorm):
    """LayerNorm without bias (as everywhere in ModernBERT), statistics in float32, result in the dtype of its input."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps=eps, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if triton_pays_on(x):
            return norm(x, self.weight, self.eps)
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), None, self.eps)


def add(residual_TD: Tensor, linear: nn.Module, x_TI: Tensor) -> Tensor:
    """residual + linear(x); in place of the residual where it can be. Adapters and quantised layers have ways of their own."""
    if type(linear) is Linear and linear.bias is None and linear_add_pays(residual_TD):
        return linear_add(residual_TD, x_TI, linear.weight.to(x_TI.dtype))
    return residual_TD + linear(x_TI)
