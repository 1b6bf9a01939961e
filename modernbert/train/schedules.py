"""Learning-rate multipliers as pure functions of tokens."""

import math
from typing import Literal

DecayShape = Literal["linear", "one_minus_sqrt"]


def wsd(
    tokens: float,
    *,
    warmup_tokens: float,
    decay_tokens: float,
    total_tokens: float,
    decay_shape: DecayShape = "one_minus_sqrt",
    floor: float = 0.0,
    cosine_tokens: float = 0.0,
) -> float:
    """Warm-up, stable, decay: linear from 0 to 1, flat, then down to `floor` over the last `decay_tokens`.

    With `cosine_tokens` the middle falls as `cosine_inverse_sqrt` of the tokens after the warm-up, and the decay begins where that stands.

    Source: `warmup_stable_decay` and `one_minus_sqrt` of ModernBERT's training code (facts §2.2); Hägele et al. 2024 for 1 − √.

    >>> wsd(50, warmup_tokens=10, decay_tokens=20, total_tokens=100)
    1.0
    >>> round(wsd(85, warmup_tokens=10, decay_tokens=20, total_tokens=100), 3)
    0.5
    """
    if tokens < warmup_tokens:
        return tokens / warmup_tokens
    begin = total_tokens - decay_tokens
    decaying = decay_tokens > 0 and tokens > begin
    after = (begin if decaying else tokens) - warmup_tokens
    level = cosine_inverse_sqrt(after, cosine_tokens) if cosine_tokens else 1.0
    if not decaying:
        return level
    share = min(1.0, (tokens - begin) / decay_tokens)
    return floor + (level - floor) * (1 - (share if decay_shape == "linear" else math.sqrt(share)))


def cosine_inverse_sqrt(tokens: float, cosine_tokens: float, low: float = 0.1) -> float:
    """The first half of a cosine's way from 1 to `low`, over c = `cosine_tokens`, then γ / √(t + δ), with no break in value or slope.

        t ≤ c:  low + (1 − low) · (1 + cos(π t / 2c)) / 2
        t > c:  δ + c = c (1 + low) / (π (1 − low)),   γ = (1 + low) / 2 · √(c + δ)

    Source: Stable LM 2 (Bellagente et al. 2024, arXiv 2402.17834); δ and γ as in ModernBERT's training code (facts §2.2).

    >>> [round(cosine_inverse_sqrt(t, 50), 3) for t in (0, 50, 990)]
    [1.0, 0.55, 0.078]
    """
    if tokens <= cosine_tokens:
        return low + (1 - low) * (1 + math.cos(math.pi * tokens / (2 * cosine_tokens))) / 2
    shifted = cosine_tokens * (1 + low) / (math.pi * (1 - low))  # c + δ
    return (1 + low) / 2 * math.sqrt(shifted / (tokens - cosine_tokens + shifted))


def micro_batches_after(tokens: float, *, warmup_tokens: float, largest: int) -> int:
    """Micro-batches of the step that begins after `tokens`, in a batch-size warm-up of equally many steps at each size.

    Sizes run 1, 2, … `largest`; size s is left after W · (1 + … + s) / (1 + … + (largest − 1)) tokens.

    Source: `BatchSizeWarmupScheduler` of ModernBERT's training code (facts §2.3): for base, 1 → 6 micro-batches of 768 rows in all,
    growing at 3.33, 10, 20, 33.3 and 50 billion tokens.

    >>> [micro_batches_after(t * 1e9, warmup_tokens=50e9, largest=6) for t in (0, 3.3, 3.4, 9.9, 10.1, 33.4, 50)]
    [1, 1, 2, 2, 3, 5, 6]
    """
    steps = largest * (largest - 1) / 2
    size, left = 1, 0
    while size < largest:
        left += size
        if tokens < warmup_tokens * left / steps:
            break
        size += 1
    return size
