"""Encoder layers on `kernels.native`: the same weights, with everything between two products joined to one of them.

    x ─→ norm ─→ Wqkv ─→ attention ─→ Wo, added to x ─→ norm ─→ Wi and GeGLU ─→ Wo, added to x

Products, norms and sums go through the tokens in pieces that stay in the cache, which threads share; attention is shared by heads. The
hidden state is float32; what goes into a product has that product's dtype.

T tokens in the batch · D hidden · I inside the MLP.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modernbert.batch import Batch
from modernbert.engine.mapped import page_out
from modernbert.engine.quantized import Int8Linear
from modernbert.kernels import native
from modernbert.model.attention import Rotary
from modernbert.model.encoder import Encoder, EncoderLayer
from modernbert.model.layers import LayerNorm

PIECE = 1024
"""Tokens that go through a layer's products together."""


def use_native_layers(model: nn.Module) -> bool:
    """Puts `NativeLayer` in place of each layer of a model on the CPU, in float32, bfloat16 or int8; says whether it could.

    A model keeps its parameters under their names. Nothing changes where the chip, the dtype or the shape is not one that the kernels know.
    """
    encoder = model if isinstance(model, Encoder) else model.model
    assert isinstance(encoder, Encoder)
    layers = [layer for layer in encoder.layers if isinstance(layer, EncoderLayer)]
    if not all(map(_runs, layers)):
        return False
    for i, layer in enumerate(layers):
        encoder.layers[i] = NativeLayer(layer)
    encoder.compute_dtype = torch.float32
    return True


class NativeLayer(EncoderLayer):
    """A layer with the parameters of another, for inference. With gradients, or another dtype than its own, it is that layer again."""

    def __init__(self, layer: EncoderLayer) -> None:
        nn.Module.__init__(self)
        self.attn_norm, self.attn, self.mlp_norm, self.mlp = layer.attn_norm, layer.attn, layer.mlp_norm, layer.mlp
        self.train(layer.training)
        self._real = torch.bfloat16 if native.kinds() >= {torch.bfloat16} and not _is_float32(layer) else torch.float32
        self._weights = {name: _packed(linear, self._real) for name, linear in _linears(layer).items()}
        norms = {"attn": layer.attn_norm, "mlp": layer.mlp_norm}
        self._norms = {name: _norm(module) for name, module in norms.items()}

    def forward(
        self, x_TD: Float[Tensor, "T D"], batch: Batch, rotary: Rotary, backend: str | None = None
    ) -> Float[Tensor, "T D"]:
        """As the layer it was made from; `x_TD` is overwritten."""
        if torch.is_grad_enabled() or backend is not None or x_TD.dtype != torch.float32:
            return super().forward(x_TD, batch, rotary, backend)
        tokens, width = x_TD.shape
        qkv_TE = native.kept((tokens, 3 * width), self._real, "qkv")
        self._each_piece(tokens, lambda piece: self._before(x_TD[piece], qkv_TE[piece]))
        cos_LK, sin_LK = rotary[self.attn.rope]
        qkv_T3NH = qkv_TE.view(tokens, 3, -1, self.attn.head_dim)
        o_TNH = native.attention(qkv_T3NH, cos_LK, sin_LK, batch.cu_seqlens, self.attn.window, partial(native.kept, name="o"))
        o_TD = o_TNH.view(tokens, width)
        self._each_piece(tokens, lambda piece: self._after(o_TD[piece], x_TD[piece]))
        return x_TD

    def _before(self, x_TD: Tensor, qkv_TE: Tensor) -> None:
        weight = self._weights["attn.Wqkv"]
        native.product(_rows(x_TD, weight, *self._norms["attn"]), weight, qkv_TE)

    def _after(self, o_TD: Tensor, x_TD: Tensor) -> None:
        """Everything behind attention, added to `x_TD`."""
        out, inner, outer = (self._weights[name] for name in ("attn.Wo", "mlp.Wi", "mlp.Wo"))
        native.add_product(_rows(o_TD, out), out, x_TD)
        h_TI = native.kept((len(x_TD), outer.inputs), self._real, "h")
        native.geglu_product(_rows(x_TD, inner, *self._norms["mlp"]), inner, h_TI)
        native.add_product(_rows(h_TI, outer), outer, x_TD)

    def _each_piece(self, tokens: int, compute: Callable[[slice], None]) -> None:
        threads = torch.get_num_threads()
        size = min(PIECE, max(native.ALONE, -(-tokens // threads)))
        native.in_threads([partial(compute, slice(a, min(a + size, tokens))) for a in range(0, tokens, size)])


def _rows(x_TI: Tensor, weight: native.Packed, norm_I: Tensor | None = None, eps: float = 0.0) -> native.Rows:
    return native.rows(x_TI, weight.dtype, norm_I, eps, partial(native.kept, name="rows"))


def _linears(layer: EncoderLayer) -> dict[str, nn.Module]:
    return {"attn.Wqkv": layer.attn.Wqkv, "attn.Wo": layer.attn.Wo, "mlp.Wi": layer.mlp.Wi, "mlp.Wo": layer.mlp.Wo}


def _runs(layer: EncoderLayer) -> bool:
    return bool(native.kinds()) and layer.attn.head_dim == native.HEAD and all(map(_product_runs, _linears(layer).values()))


def _product_runs(linear: nn.Module) -> bool:
    if isinstance(linear, Int8Linear):
        return linear.native is not None
    if not isinstance(linear, nn.Linear) or linear.bias is not None:
        return False
    weight_OI = linear.weight
    return weight_OI.device.type == "cpu" and weight_OI.dtype in native.kinds() and native.fits(*weight_OI.shape)


def _is_float32(layer: EncoderLayer) -> bool:
    """Whether every product is float32: else attention, and what int8 leaves alone, run in bfloat16 where the chip has it."""
    return all(isinstance(linear, nn.Linear) and linear.weight.dtype == torch.float32 for linear in _linears(layer).values())


def _packed(linear: nn.Module, real: torch.dtype) -> native.Packed:
    if isinstance(linear, Int8Linear):
        assert linear.native is not None
        return linear.native
    assert isinstance(linear, nn.Linear)
    packed = native.pack(linear.weight.detach().to(real))
    page_out(linear.weight)
    return packed


def _norm(module: nn.Module) -> tuple[Tensor | None, float]:
    """Weight and ε; the first layer's attention has no norm."""
    if not isinstance(module, LayerNorm):
        return None, 0.0
    return module.weight.detach().float().contiguous(), module.eps
