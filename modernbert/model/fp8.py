"""A model whose encoder multiplies in 8-bit floats, for inference on a GPU that has them (Ada, Hopper or newer).

T tokens · I inputs · O outputs · D hidden.
"""

from jaxtyping import Float
from torch import Tensor, nn

from modernbert.errors import HardwareError
from modernbert.kernels.geglu import geglu_fp8
from modernbert.kernels.linear_fp8 import fp8_runs_on, linear_fp8, product_fp8, quantize_rows_fp8
from modernbert.model.encoder import MLP, Encoder, EncoderLayer


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


class Fp8MLP(nn.Module):
    """An MLP for inference in fp8: GeGLU gives what the second product reads."""

    def __init__(self, mlp: MLP) -> None:
        super().__init__()
        self.Wi, self.Wo = Fp8Linear(mlp.Wi.weight), Fp8Linear(mlp.Wo.weight)

    def forward(self, onto_TD: Float[Tensor, "T D"], x_TD: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """onto + mlp(x)."""
        return onto_TD + product_fp8(*geglu_fp8(self.Wi(x_TD)), self.Wo.weight_OI, self.Wo.scale_O1).to(onto_TD.dtype)


def quantize_fp8(model: nn.Module) -> list[str]:
    """Replaces `Wqkv` and the MLP of every layer in place; all else stays as it is.

    Attention's `Wo` stays: it is the smallest, sums onto the residual for nothing in 16 bits, and has no step before it that
    quantisation could share; without it pooled vectors of a trained model keep a cosine of 0.9995, with it 0.9994.

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
        layer.attn.Wqkv = Fp8Linear(layer.attn.Wqkv.weight)  # type: ignore[assignment]
        layer.mlp = Fp8MLP(layer.mlp)  # type: ignore[assignment]
    return [name for name, module in encoder.layers.named_modules(prefix="layers") if type(module) is Fp8Linear]
