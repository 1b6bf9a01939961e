"""Rotary position embeddings over the whole head, halves paired (NeoX layout).

T tokens in the batch · L positions · N heads · H per head · K pairs per head, H = 2K.

YaRN reads longer rows with the frequencies of shorter ones: those that turn less than once within a trained row are slowed down by the
factor, those that turn 32 times or more stay, the ones between in part; and scores are a little sharper.

Source: Su et al. 2021 (arXiv 2104.09864); Peng et al. 2023 (YaRN, arXiv 2309.00071) §3, in transformers' rounding.
ModernBERT rotates all of the head and computes angles in float32 (facts §1.2).
"""

import functools
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def rotary_tables(
    length: int,
    head_dim: int,
    theta: float,
    device: torch.device | str | None = None,
    factor: float = 1.0,
    trained_length: int = 0,
) -> tuple[Float[Tensor, "L K"], Float[Tensor, "L K"]]:
    """Cosines and sines of every position below `length`, float32: bf16 loses the position beyond a few hundred tokens.

    Args:
        length: of the longest row.
        head_dim: H.
        theta: base of the frequencies.
        device: where the tables are to lie.
        factor, trained_length: YaRN's; 1 is plain rotation.

    >>> cos_LK, sin_LK = rotary_tables(8192, 64, 10_000.0)
    >>> cos_LK.shape, round(cos_LK[1, 0].item(), 4)
    (torch.Size([8192, 32]), 0.5403)
    """
    # Divided like this, as published: another rounding of the frequencies turns position 8,000 by up to 5e-4 rad.
    inverse_frequency_K = 1.0 / theta ** (torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
    positions_L = torch.arange(length, device=device, dtype=torch.float32)
    if factor == 1:
        angle_LK = torch.outer(positions_L, inverse_frequency_K)
        return angle_LK.cos(), angle_LK.sin()
    slower_K = torch.tensor(yarn_speeds(head_dim, theta, factor, trained_length), device=device)
    angle_LK = torch.outer(positions_L, inverse_frequency_K * slower_K)
    return angle_LK.cos() * yarn_sharpness(factor), angle_LK.sin() * yarn_sharpness(factor)


def kept_rotary_tables(
    length: int, head_dim: int, theta: float, factor: float = 1.0, trained_length: int = 0
) -> tuple[Float[Tensor, "L K"], Float[Tensor, "L K"]]:
    """As `rotary_tables` on the CPU for `length` positions or more, kept for the next call: for inference, where nobody writes to them.

    Cosines take 0.6 % of a forward of base at 512 tokens, and more where products are fast.

    >>> len(kept_rotary_tables(1000, 64, 10_000.0)[0])
    1024
    """
    return _tables_of_powers_of_two(max(512, 1 << (length - 1).bit_length()), head_dim, theta, factor, trained_length)


@functools.lru_cache(maxsize=16)
def _tables_of_powers_of_two(
    length: int, head_dim: int, theta: float, factor: float, trained_length: int
) -> tuple[Tensor, Tensor]:
    return rotary_tables(length, head_dim, theta, "cpu", factor, trained_length)


def yarn_speeds(head_dim: int, theta: float, factor: float, trained_length: int) -> list[float]:
    """What each of the K frequencies is multiplied by: from 1 for the fastest to 1 / factor for the slowest.

    >>> speeds = yarn_speeds(64, 10_000.0, 8.0, 1024)
    >>> speeds[0], round(speeds[12], 3), speeds[-1]
    (1.0, 0.529, 0.125)
    """

    def pair_that_turns(times: float) -> float:
        return head_dim * math.log(trained_length / (times * 2 * math.pi)) / (2 * math.log(theta))

    low, high = max(math.floor(pair_that_turns(32)), 0), min(math.ceil(pair_that_turns(1)), head_dim - 1)
    slowed = [min(1.0, max(0.0, (k - low) / (high - low or 0.001))) for k in range(head_dim // 2)]
    return [1 - share + share / factor for share in slowed]


def yarn_sharpness(factor: float) -> float:
    """What queries and keys are each multiplied by."""
    return 0.1 * math.log(factor) + 1


def rotate(
    x_TNH: Float[Tensor, "T N H"], cos_LK: Float[Tensor, "L K"], sin_LK: Float[Tensor, "L K"], pos_T: Int[Tensor, "T"]
) -> Float[Tensor, "T N H"]:
    """Turns each pair (x[k], x[k + K]) by its position's angle, in float32; returns the dtype of x."""
    cos_T1K, sin_T1K = cos_LK[pos_T][:, None], sin_LK[pos_T][:, None]
    a_TNK, b_TNK = x_TNH.float().chunk(2, dim=-1)
    turned = torch.cat([a_TNK * cos_T1K - b_TNK * sin_T1K, b_TNK * cos_T1K + a_TNK * sin_T1K], dim=-1)
    return turned.to(x_TNH.dtype)
