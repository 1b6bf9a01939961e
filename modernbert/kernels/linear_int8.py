"""Linear layers in int8 on the CPU: each token and each row of the weights is whole numbers times a scale of its own.

    x ≈ x_scale · x_int8        w ≈ w_scale · w_int8        y = x_scale · w_scale · (x_int8 · w_int8ᵀ)

Both are symmetric: the largest magnitude becomes the highest level, and zero stays zero. A token is quantised as it comes, so that
neither its batch nor any calibration changes it. The product is an exact sum of whole numbers; what is lost is lost in rounding x and w.

**Levels of the weights.** Chips with VNNI multiply int8 exactly. Those without it (AVX2, the first AVX512) add two products in 16 bits and
cut what does not fit, in silence: oneDNN's and FBGEMM's products are both wrong there, by up to the whole result. With weights of at
most ±64 two products always fit: 2 · 255 · 64 < 2¹⁵. So `weight_levels` tries the chip, and says 127 or 64. The bit is taken from the
weights because it is activations that have outliers.

T tokens · I inputs · O outputs.
"""

import functools

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor

ROWS = 512
"""Rows that weights are packed for. Others run too: it is a hint to oneDNN, whose default is a single row."""


def quantize_rows(x_XI: Float[Tensor, "X I"], levels: int = 127) -> tuple[Int8[Tensor, "X I"], Float[Tensor, "X"]]:
    """Whole numbers in ± `levels` and a float32 scale for each row; a row of zeros stays zeros.

    >>> numbers, scale = quantize_rows(torch.tensor([[-2.0, 0.5, 1.0]]))
    >>> numbers.tolist(), round(scale.item(), 5)
    ([[-127, 32, 64]], 0.01575)
    """
    # four plain passes: aminmax, vector_norm, or a conversion to uint8 in place of int8, are each slower than all of these
    scale_X = x_XI.abs().amax(-1).float().clamp_(min=1e-30).div_(levels)
    return (x_XI / scale_X[:, None]).round_().to(torch.int8), scale_X


def linear_int8_reference(
    x_TI: Float[Tensor, "T I"], weight_OI: Int8[Tensor, "O I"], scale_O: Float[Tensor, "O"]
) -> Float[Tensor, "T O"]:
    """The definition, a hundred times slower than `linear_int8`: quantise each token, multiply in int32, scale back."""
    x_int8_TI, scale_T = quantize_rows(x_TI)
    sums_TO = x_int8_TI.int() @ weight_OI.int().T
    return (sums_TO.float() * scale_O * scale_T[:, None]).to(x_TI.dtype)


def pack_weight(weight_OI: Int8[Tensor, "O I"]) -> Tensor:
    """Weights in the order in which this chip reads them, for `linear_int8`; one byte each."""
    return torch.ops.onednn.qlinear_prepack(weight_OI.contiguous(), [ROWS, weight_OI.shape[1]])


def linear_int8(x_TI: Float[Tensor, "T I"], packed: Tensor, scale_O: Float[Tensor, "O"]) -> Float[Tensor, "T O"]:
    """What `linear_int8_reference` defines, by oneDNN; without gradients.

    Args:
        x_TI: activations.
        packed: from `pack_weight`, of numbers in ± `weight_levels()`.
        scale_O: of each output's weights, float32.
    """
    x_int8_TI, scale_T = quantize_rows(x_TI)
    # bytes from 0 to 255 around 128: oneDNN reads these faster than signed ones (7.4 and 9.2 ms for 256 × 768 × 2,304, AVX2)
    y_TO = multiply_bytes(x_int8_TI.view(torch.uint8).bitwise_xor_(128), packed, scale_O)
    return y_TO.mul_(scale_T[:, None]).to(x_TI.dtype)


def multiply_bytes(x_TI: UInt8[Tensor, "T I"], packed: Tensor, scale_O: Float[Tensor, "O"]) -> Float[Tensor, "T O"]:
    """The product of bytes around 128 and packed weights, times the scales of these; float32."""
    return torch.ops.onednn.qlinear_pointwise(
        x_TI,
        *(1.0, 128),  # scale and zero of x: a scale for each token is more than the operator knows, so it comes afterwards
        *(packed, scale_O, torch.zeros(1, dtype=torch.int64)),
        *(None, 1.0, 0, torch.float32),  # bias; scale, zero and dtype of the output
        *("none", [], ""),  # nothing fused
    )


@functools.cache
def weight_levels() -> int | None:
    """The highest level of weights with which this chip's products are exact: 127, or 64; None where there is no such product.

    It tries: all numbers at their greatest, and random ones.
    """
    for levels in (127, 64):
        try:
            if _is_exact(levels):
                return levels
        except (AttributeError, RuntimeError):  # no oneDNN in this build of PyTorch, or none of its kernels runs on this chip
            return None
    return None


def _is_exact(levels: int) -> bool:
    generator = torch.Generator().manual_seed(0)
    x_TI = torch.randint(-127, 128, (64, 256), generator=generator).float()
    weight_OI = torch.randint(-levels, levels + 1, (96, 256), generator=generator).to(torch.int8)
    x_TI[:2], weight_OI[:32], weight_OI[32:64] = 127, levels, -levels
    packed, scale_O = pack_weight(weight_OI), torch.ones(96)
    wanted_TO = linear_int8_reference(x_TI, weight_OI, scale_O)
    # one row may take another kernel than many; what is cut off is thousands
    return all(torch.allclose(linear_int8(x_TI[:rows], packed, scale_O), wanted_TO[:rows], rtol=1e-5) for rows in (1, 64))
