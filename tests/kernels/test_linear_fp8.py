"""Products in 8-bit floats: what rounding costs, and the GPU's against the definition."""

import pytest
import torch
from torch.nn import functional as F

from modernbert.kernels.linear_fp8 import fp8_runs_on, linear_fp8, linear_fp8_reference, quantize_rows_fp8


def test_quantised_rows_are_within_half_a_step_and_no_row_minds_another():
    """Three bits of mantissa: half a step is a sixteenth at most; far below a row's largest number steps stay 2^−9 of its scale."""
    x_XI = torch.randn(50, 64) * torch.logspace(-6, 6, 50)[:, None]
    x_XI[7] = 0
    numbers_XI, scale_X1 = quantize_rows_fp8(x_XI)
    back_XI = numbers_XI.float() * scale_X1
    assert ((back_XI - x_XI).abs() <= x_XI.abs() / 16 + scale_X1 * 2**-10).all()
    assert torch.equal(quantize_rows_fp8(x_XI[3:4])[0].float(), numbers_XI[3:4].float())


@pytest.mark.parametrize("spread", [0.01, 1.0, 1000.0])
def test_a_product_loses_four_percent_at_most(spread):
    """Both sides are off by 2.7 % in the root mean square, independently; 1,152 summands keep the ratio."""
    x_TI, weight_OI = torch.randn(40, 1152) * spread, torch.randn(64, 1152)
    exact_TO = F.linear(x_TI, weight_OI)
    assert 0.03 < (linear_fp8(x_TI, *quantize_rows_fp8(weight_OI)) - exact_TO).norm() / exact_TO.norm() < 0.04


@pytest.mark.gpu
@pytest.mark.parametrize(("tokens", "inputs", "outputs"), [(0, 768, 2304), (1, 768, 768), (333, 1152, 768), (70, 256, 768)])
def test_the_gpu_multiplies_what_the_definition_says(tokens, inputs, outputs):
    """Same rounded numbers on both sides; the sum's 14 bits and the output's 8 remain."""
    if not fp8_runs_on(torch.device("cuda")):
        pytest.skip("this GPU has no fp8")
    x_TI, weight_OI = (torch.randn(shape).to("cuda", torch.bfloat16) for shape in ((tokens, inputs), (outputs, inputs)))
    packed = quantize_rows_fp8(weight_OI)
    found_TO, wanted_TO = linear_fp8(x_TI, *packed), linear_fp8_reference(x_TI, *packed)
    assert found_TO.dtype == torch.bfloat16 and found_TO.shape == (tokens, outputs)
    assert (found_TO - wanted_TO).float().norm() <= 4e-3 * wanted_TO.float().norm()
