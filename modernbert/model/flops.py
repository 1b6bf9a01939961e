"""Floating-point operations of a training step, for shares of a GPU's peak."""

from modernbert.config import ModelConfig


def forward_flops_per_token(config: ModelConfig, *, mean_length: float, masked_share: float = 1.0) -> float:
    """Multiply-adds count two. Products, attention scores and values, and the masked-LM head at a share of the tokens.

    Args:
        mean_length: keys that a token of a global layer meets on average, in tokens.
        masked_share: share of tokens for which the head and the decoder run.

    >>> round(3 * forward_flops_per_token(ModelConfig(), mean_length=0, masked_share=0.3) / 1e9, 3)
    0.732
    """
    hidden, inside = config.hidden_size, config.intermediate_size
    products = config.num_hidden_layers * (4 * hidden * hidden + 3 * hidden * inside)
    keys = sum(
        mean_length if window is None else min(mean_length, 2 * window + 1)
        for window in map(config.window, range(config.num_hidden_layers))
    )
    head = masked_share * (hidden * hidden + config.vocab_size * hidden)
    return 2.0 * (products + 2 * hidden * keys + head)


PEAK_TFLOPS = {
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "H200": 989.0,
    "B200": 2250.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "RTX 4090": 165.0,
}
"""Dense bf16 tensor-core peak of GPUs, by a part of their names; the first that matches counts (NVIDIA's data sheets)."""


def peak_tflops(device: str) -> float | None:
    """Peak of a GPU by its name, None for what is not in the table.

    >>> peak_tflops("NVIDIA H100 80GB HBM3"), peak_tflops("x86_64 CPU")
    (989.0, None)
    """
    return next((peak for name, peak in PEAK_TFLOPS.items() if name in device), None)
