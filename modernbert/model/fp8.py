"""A model whose encoder multiplies in 8-bit floats, for inference on a GPU that has them (Ada, Hopper or newer).

T tokens · I inputs · O outputs.
"""

from jaxtyping import Float
from torch import Tensor, nn

from modernbert.errors import HardwareError
from modernbert.kernels.linear_fp8 import fp8_runs_on, linear_fp8, quantize_rows_fp8
from modernbert.model.encoder import Encoder
from modernbert.model.layers import Linear

LAYERS = ("attn.Wqkv", "mlp.Wi", "mlp.Wo")
"""Products that become fp8. Attention's Wo stays: it is the smallest, sums onto the residual for nothing in 16 bits, and has no step
before it that quantisation could share; without it pooled vectors of a trained model keep a cosine of 0.9995, with it 0.9994."""


class Fp8Linear(nn.Module):
    """A Linear layer without bias, for inference: weights in e4m3 with a scale for each output, tokens quantised as they come."""

    weight_OI: Tensor
    scale_O1: Tensor

    def __init__(self, weight_OI: Float[Tensor, "O I"]) -> None:
        super().__init__()
        weight_e4m3_OI, scale_O1 = quantize_rows_fp8(weight_OI.detach())
        self.register_buffer("weight_OI", weight_e4m3_OI)
        self.register_buffer("scale_O1", scale_O1)

    def forward(self, x_TI: Float[Tensor, "T I"]) -> Float[Tensor, "T O"]:
        return linear_fp8(x_TI, self.weight_OI, self.scale_O1)


def quantize_fp8(model: nn.Module) -> list[str]:
    """Replaces the encoder's large Linear layers (`LAYERS`) in place; all else stays as it is.

    Args:
        model: in eval mode, in bfloat16, on its device.

    Returns:
        Names of the layers that became fp8.

    Raises:
        HardwareError: the device has no such products.
    """
    encoder = model if isinstance(model, Encoder) else model.model
    assert isinstance(encoder, Encoder)
    device = encoder.embeddings.tok_embeddings.weight.device
    if not fp8_runs_on(device):
        raise HardwareError(f"fp8 needs an NVIDIA GPU of capability 8.9 or newer (Ada, Hopper); got {device}. Leave fp8 out")
    return replace_linears(encoder)


def replace_linears(encoder: Encoder) -> list[str]:
    """As `quantize_fp8`, on any device; slow without such products."""
    names = [
        name for name, module in encoder.layers.named_modules(prefix="layers") if type(module) is Linear and name.endswith(LAYERS)
    ]
    for name in names:
        linear = encoder.get_submodule(name)
        assert isinstance(linear, Linear)
        encoder.set_submodule(name, Fp8Linear(linear.weight))
    return names
