"""Linear layers in 8-bit floats on a GPU: each token and each row of the weights has a scale of its own.

    x ≈ x_scale · x_e4m3        w ≈ w_scale · w_e4m3        y = x_scale · w_scale · (x_e4m3 · w_e4m3ᵀ)

The largest magnitude of a row becomes 448, the largest of e4m3 (4 bits of exponent, 3 of mantissa). A token is quantised as it comes, so
that neither its batch nor any calibration changes it; `norm.norm_fp8` does it in the norm's own pass.

T tokens · I inputs · O outputs.

Source: Micikevicius et al. 2022 (arXiv 2209.05433), the two formats.
"""

import torch
from jaxtyping import Float, Float8e4m3fn
from torch import Tensor
from torch.nn import functional as F

from modernbert.kernels.compiled import constant_in_graphs

LARGEST = 448.0
"""Of e4m3."""


def fp8_runs_on(device: torch.device) -> bool:
    """Whether products with a scale for each row run there: NVIDIA from Ada (8.9) on.

    >>> fp8_runs_on(torch.device("cpu"))
    False
    """
    return device.type == "cuda" and torch.version.hip is None and _has_fp8(device)


@constant_in_graphs
def _has_fp8(device: torch.device) -> bool:
    """Asked while a graph is traced: as a part of it, the question would cut it in two."""
    return torch.cuda.get_device_capability(device) >= (8, 9)


def quantize_rows_fp8(x_XI: Float[Tensor, "X I"]) -> tuple[Float8e4m3fn[Tensor, "X I"], Float[Tensor, "X 1"]]:
    """Numbers in e4m3 and a float32 scale for each row; a row of zeros stays zeros.

    >>> numbers, scale = quantize_rows_fp8(torch.tensor([[-2.0, 0.5, 1.0]]))
    >>> (numbers.float() * scale).tolist(), round(scale.item(), 5)
    ([[-2.0, 0.5, 1.0]], 0.00446)
    """
    scale_X1 = x_XI.abs().amax(-1, keepdim=True).float().clamp(min=1e-30) / LARGEST
    return (x_XI.float() / scale_X1).to(torch.float8_e4m3fn), scale_X1


def linear_fp8_reference(
    x_TI: Float[Tensor, "T I"], weight_OI: Float8e4m3fn[Tensor, "O I"], scale_O1: Float[Tensor, "O 1"]
) -> Float[Tensor, "T O"]:
    """The definition: quantise each token, multiply in float32."""
    x_e4m3_TI, scale_T1 = quantize_rows_fp8(x_TI)
    return F.linear(x_e4m3_TI.float() * scale_T1, weight_OI.float() * scale_O1).to(x_TI.dtype)


def linear_fp8(
    x_TI: Float[Tensor, "T I"], weight_OI: Float8e4m3fn[Tensor, "O I"], scale_O1: Float[Tensor, "O 1"]
) -> Float[Tensor, "T O"]:
    """What the reference defines, on the tensor cores of a GPU where they can."""
    return product_fp8(*quantize_rows_fp8(x_TI), weight_OI, scale_O1).to(x_TI.dtype)


def product_fp8(
    x_TI: Float8e4m3fn[Tensor, "T I"],
    scale_T1: Float[Tensor, "T 1"],
    weight_OI: Float8e4m3fn[Tensor, "O I"],
    scale_O1: Float[Tensor, "O 1"],
) -> Float[Tensor, "T O"]:
    """The product of quantised rows; in bfloat16 from a GPU that has it, else in float32.

    The tensor cores sum with 14 bits of mantissa (`use_fast_accum`): up to 20 % faster, and with 1,024 summands far below what
    rounding to 3 bits costs.
    """
    if not fp8_runs_on(x_TI.device):
        return F.linear(x_TI.float() * scale_T1, weight_OI.float() * scale_O1)
    return torch._scaled_mm(x_TI, weight_OI.T, scale_T1, scale_O1.T, out_dtype=torch.bfloat16, use_fast_accum=True)
