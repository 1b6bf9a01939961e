"""A model whose encoder multiplies in 8-bit floats, for inference on a GPU that has them (Ada, Hopper or newer).

T tokens · I inputs · O outputs · D hidden.
"""

from jaxtyping import Float
from torch import Tensor, nn

from modernbert.errors import HardwareError
from modernbert.kernels.linear_fp8 import fp8_runs_on, product_fp8, quantize_rows_fp8
from modernbert.kernels.norm import norm_fp8
from modernbert.model.encoder import Encoder, EncoderLayer
from modernbert.model.layers import LayerNorm


class Fp8NormLinear(nn.Module):
    """A norm and the Linear without bias that reads it, for inference: weights in e4m3 with a scale for each output, tokens quantised as
    they leave the norm."""

    weight_OI: Tensor
    scale_O1: Tensor

    def __init__(self, norm: LayerNorm, weight_OI: Float[Tensor, "O I"]) -> None:
        super().__init__()
        self.norm = norm
        weight_e4m3_OI, scale_O1 = quantize_rows_fp8(weight_OI.detach())
        self.register_buffer("weight_OI", weight_e4m3_OI)
        self.register_buffer("scale_O1", scale_O1)

    def forward(self, x_TI: Float[Tensor, "T I"]) -> Float[Tensor, "T O"]:
        quantised = norm_fp8(x_TI, self.norm.weight.to(x_TI.dtype), self.norm.eps)
        return product_fp8(*quantised, self.weight_OI, self.scale_O1).to(x_TI.dtype)


def quantize_fp8(model: nn.Module) -> list[str]:
    """Replaces the products that read a norm's output, `Wqkv` and `Wi`, in place; all else stays as it is.

    Both `Wo` stay: in 16 bits they sum onto the residual for nothing, which takes as long as fp8 would gain. So does the first `Wqkv`,
    which reads the embedding. A text's vector keeps a cosine of 0.999 to bfloat16's at least (bench/results/encoder_h200_2026-11-27.md).

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
    for layer in encoder.layers:
        assert isinstance(layer, EncoderLayer)
        if isinstance(layer.attn_norm, LayerNorm):
            layer.attn.Wqkv = Fp8NormLinear(layer.attn_norm, layer.attn.Wqkv.weight)  # type: ignore[assignment]
            layer.attn_norm = nn.Identity()
        layer.mlp.Wi = Fp8NormLinear(layer.mlp_norm, layer.mlp.Wi.weight)  # type: ignore[assignment]
        layer.mlp_norm = nn.Identity()  # type: ignore[assignment]
    return [name for name, module in encoder.layers.named_modules(prefix="layers") if type(module) is Fp8NormLinear]
