"""The norm of inference on a GPU: its kernels compiled there, interpreted elsewhere, by the same tests."""

import pytest
import torch

from modernbert.kernels.compiled import INTERPRETED
from modernbert.kernels.linear_fp8 import quantize_rows_fp8
from modernbert.kernels.norm import _launch, norm, norm_fp8, norm_reference

pytest.importorskip("triton")

DEVICES = [
    pytest.param("cpu", torch.float32, marks=pytest.mark.skipif(torch.cuda.is_available(), reason="Triton compiles here")),
    pytest.param("cpu", torch.float16, marks=pytest.mark.skipif(torch.cuda.is_available(), reason="Triton compiles here")),
    pytest.param("cuda", torch.float32, marks=pytest.mark.gpu),
    pytest.param("cuda", torch.bfloat16, marks=pytest.mark.gpu),
]
# Of numbers up to 5: float32 sums in another order, and 16 bits round once where the reference does.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.mark.parametrize(("device", "dtype"), DEVICES)
@pytest.mark.parametrize(("tokens", "width"), [(0, 48), (1, 48), (67, 200), (130, 128)])
def test_it_is_layer_norm_also_far_from_zero(device, dtype, tokens, width):
    x_TD = (torch.randn(tokens, width) * 3 + 10).to(device, dtype)
    weight_D = torch.randn(width).to(device, dtype)
    torch.testing.assert_close(
        norm(x_TD, weight_D, 1e-5), norm_reference(x_TD, weight_D, 1e-5), atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype]
    )


@pytest.mark.parametrize(("device", "dtype"), DEVICES)
@pytest.mark.parametrize(("tokens", "width"), [(1, 48), (67, 200)])
def test_its_e4m3_numbers_are_those_of_the_definition(device, dtype, tokens, width):
    """Within half a step of e4m3, a sixteenth of the number; Triton's interpreter misses that for one in twenty: it loses carries."""
    x_TD, weight_D = torch.randn(tokens, width).to(device, dtype), torch.randn(width).to(device, dtype)
    y_TD, scale_T1 = torch.empty_like(x_TD, dtype=torch.float8_e4m3fn), torch.empty(tokens, 1, device=device)
    _launch("norm_fp8", x_TD, weight_D, (y_TD, scale_T1), 1e-5)
    exact_TD = norm_reference(x_TD.float(), weight_D.float(), 1e-5)
    torch.testing.assert_close(scale_T1, quantize_rows_fp8(exact_TD)[1], rtol=1e-2, atol=0)
    bound_TD = (exact_TD.abs() / 16 + scale_T1 * 2**-10) * (1 + TOLERANCE[dtype])
    outside = ((y_TD.float() * scale_T1 - exact_TD).abs() > bound_TD).sum()
    assert outside <= (y_TD.numel() / 20 if INTERPRETED else 0)


def test_a_token_of_equal_numbers_becomes_zeros():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x_TD, y_TD = torch.full((2, 96), 7.0, device=device), torch.empty(2, 96, device=device, dtype=torch.float8_e4m3fn)
    scale_T1 = torch.empty(2, 1, device=device)
    _launch("norm_fp8", x_TD, torch.ones(96, device=device), (y_TD, scale_T1), 1e-5)
    assert not y_TD.float().any() and (scale_T1 > 0).all()


def test_where_the_kernel_does_not_run_e4m3_rows_come_from_the_definition():
    x_TD, weight_D = torch.randn(5, 32), torch.randn(32)
    found, wanted = norm_fp8(x_TD, weight_D, 1e-5), quantize_rows_fp8(norm_reference(x_TD, weight_D, 1e-5))
    assert all(one.float().equal(other.float()) for one, other in zip(found, wanted, strict=True))


@pytest.mark.gpu
def test_a_model_without_gradients_runs_it_and_gives_what_it_gives_with_them():
    """bf16, one step of rounding."""
    from modernbert.model.layers import LayerNorm

    layer = LayerNorm(96, 1e-5).to("cuda", torch.bfloat16)
    x_TD = torch.randn(70, 96).to("cuda", torch.bfloat16)
    with torch.inference_mode():
        found_TD = layer(x_TD)
    torch.testing.assert_close(found_TD, layer(x_TD).detach(), atol=3e-2, rtol=1e-2)
