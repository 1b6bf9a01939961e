"""Weights of a product as small numbers: int8 by output feature, or 4 bits by blocks of inputs.

O features out · I features in · G blocks of inputs.
"""

import numpy as np


def int8_rows(weight_OI: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row as int8 from −127 to 127, and its scale, float32 [O]: weight ≈ levels · scale.

    >>> levels, scale = int8_rows(np.array([[0.5, -1.27], [0.0, 0.0]], np.float32))
    >>> levels.tolist(), [round(float(s), 4) for s in scale]
    ([[50, -127], [0, 0]], [0.01, 1.0])
    """
    largest_O = np.abs(weight_OI).max(1)
    scale_O = np.where(largest_O > 0, largest_O / 127, 1).astype(np.float32)
    return np.round(weight_OI / scale_O[:, None]).astype(np.int8), scale_O


def four_bit(weight_OI: np.ndarray, block: int = 32) -> tuple[np.ndarray, np.ndarray, int]:
    """Blocks of `block` inputs as 4 bits around a zero of 8, two in a byte with the first in the low half.

    The value of a block that is farthest from 0 becomes level 0 exactly, so that all sixteen levels are in use.

    Args:
        weight_OI: float32.
        block: inputs that share a scale; a last block that is not full is filled up with zeros.

    Returns:
        uint8 [O, G, block ÷ 2], float32 scales [O · G], and the size of the block.

    Source: the layout of ONNX Runtime's `MatMulNBits`.

    >>> packed, scale, _ = four_bit(np.array([[-0.8, 0.7]], np.float32), block=16)
    >>> hex(packed[0, 0, 0]), round(float(scale[0]), 4)
    ('0xf0', 0.1)
    """
    out, into = weight_OI.shape
    padded = np.pad(weight_OI, ((0, 0), (0, -into % block))).reshape(out, -1, block)
    farthest = np.take_along_axis(padded, np.abs(padded).argmax(-1, keepdims=True), -1)
    scale = np.where(farthest == 0, 1, farthest / -8).astype(np.float32)
    levels = np.clip(np.round(padded / scale) + 8, 0, 15).astype(np.uint8)
    return levels[..., ::2] | levels[..., 1::2] << 4, scale.reshape(-1), block
