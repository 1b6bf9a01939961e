import pytest
import torch

from modernbert.kernels import linear_int8 as kernel
from modernbert.kernels.linear_int8 import linear_int8, linear_int8_reference, pack_weight, quantize_rows, weight_levels

fast = pytest.mark.skipif(weight_levels() is None, reason="this build of PyTorch has no exact int8 product for this chip")
SHAPES = [(768, 2304), (1152, 768), (32, 96), (33, 7)]


def normal(rows, columns, outlier=1.0):
    x_XI = torch.randn(rows, columns, dtype=torch.float64)
    x_XI[:, 0] *= outlier
    return x_XI


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("levels", [127, 64])
def test_rounding_moves_no_number_by_more_than_half_a_step(levels, dtype):
    x_XI = normal(50, 40, outlier=30).to(dtype)
    x_XI[3] = 0
    numbers_XI, scale_X = quantize_rows(x_XI, levels)
    assert numbers_XI.dtype == torch.int8 and scale_X.dtype == torch.float32
    assert numbers_XI.abs().amax(1).tolist() == [0 if i == 3 else levels for i in range(50)]
    off_XI = (numbers_XI.double() * scale_X[:, None].double() - x_XI.double()).abs()
    assert (off_XI <= scale_X[:, None].double() * (0.5 + levels * 2**-22)).all()  # and float32's rounding of x and the scale


@pytest.mark.parametrize("outlier", [1.0, 100.0])
@pytest.mark.parametrize("levels", [127, 64])
def test_the_definition_is_within_what_the_steps_allow(levels, outlier):
    x_TI, w_OI = normal(20, 96, outlier), normal(30, 96)
    (_, x_scale_T), (w_int8_OI, w_scale_O) = quantize_rows(x_TI.float()), quantize_rows(w_OI.float(), levels)
    found_TO = linear_int8_reference(x_TI.float(), w_int8_OI, w_scale_O).double()
    # (x + a)(w + b) − xw = xb + aw + ab, with |a| and |b| half a step at most
    half_T1, half_1O = x_scale_T.double()[:, None] / 2, w_scale_O.double()[None] / 2
    allowed_TO = x_TI.abs().sum(1)[:, None] * half_1O + half_T1 * w_OI.abs().sum(1)[None] + 96 * half_T1 * half_1O
    off_TO = (found_TO - x_TI @ w_OI.T).abs()
    assert (off_TO <= allowed_TO * (1 + 1e-4)).all()
    # and near what independent errors, even over a step, add up to: a step's variance is a twelfth of its square
    variance_TO = (x_TI.pow(2).sum(1)[:, None] * half_1O**2 + half_T1**2 * w_OI.pow(2).sum(1)[None]) / 3
    assert off_TO.pow(2).mean() < 1.3 * variance_TO.mean()


@fast
@pytest.mark.parametrize("tokens", [1, 7, 64, 130])
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_the_fast_form_gives_what_the_definition_does(tokens, inputs, outputs):
    x_TI = normal(tokens, inputs, outlier=20).float()
    w_int8_OI, scale_O = quantize_rows(normal(outputs, inputs).float(), weight_levels())
    found_TO = linear_int8(x_TI, pack_weight(w_int8_OI), scale_O)
    # the whole numbers are the same: float32 rounds three times on the way back
    torch.testing.assert_close(found_TO, linear_int8_reference(x_TI, w_int8_OI, scale_O), rtol=1e-6, atol=0)


@fast
@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_at_their_greatest_are_not_cut_off(sign):
    x_TI = torch.full((40, 1152), 127.0)
    x_TI[::2] *= -1
    w_int8_OI = torch.full((768, 1152), sign * weight_levels(), dtype=torch.int8)
    found_TO = linear_int8(x_TI, pack_weight(w_int8_OI), torch.ones(768))
    wanted_TO = (x_TI.double() @ w_int8_OI.double().T).float()
    torch.testing.assert_close(found_TO, wanted_TO, rtol=1e-6, atol=0)


@fast
def test_a_token_does_not_depend_on_its_batch():
    x_TI = normal(200, 64, outlier=50).float()
    w_int8_OI, scale_O = quantize_rows(normal(48, 64).float(), weight_levels())
    packed = pack_weight(w_int8_OI)
    together_TO = linear_int8(x_TI, packed, scale_O)
    assert all(torch.equal(linear_int8(x_TI[i : i + 1], packed, scale_O)[0], together_TO[i]) for i in range(0, 200, 9))


@fast
def test_no_tokens_give_no_outputs_and_a_token_that_is_no_number_stays_alone():
    w_int8_OI, scale_O = quantize_rows(normal(48, 64).float(), weight_levels())
    packed = pack_weight(w_int8_OI)
    assert linear_int8(torch.empty(0, 64), packed, scale_O).shape == (0, 48)
    x_TI = normal(3, 64).float()
    x_TI[1, 5] = torch.nan
    assert linear_int8(x_TI, packed, scale_O).isnan().all(1).tolist() == [False, True, False]
    assert linear_int8(x_TI.bfloat16(), packed, scale_O).dtype == torch.bfloat16


@pytest.mark.parametrize(("exact", "levels"), [({127, 64}, 127), ({64}, 64), (set(), None)])
def test_the_chip_is_tried_before_it_is_believed(monkeypatch, exact, levels):
    monkeypatch.setattr(kernel, "_is_exact", lambda levels: levels in exact)
    assert weight_levels.__wrapped__() == levels


@pytest.mark.parametrize("error", [AttributeError, RuntimeError])
def test_a_build_without_the_product_has_no_levels(monkeypatch, error):
    def absent(levels):
        raise error

    monkeypatch.setattr(kernel, "_is_exact", absent)
    assert weight_levels.__wrapped__() is None
