"""Rotation of the packed QKV: compiled on a GPU, interpreted elsewhere, by the same tests."""

import pytest
import torch

from modernbert.kernels.compiled import triton_runs_on
from modernbert.kernels.rope import rotary_tables
from modernbert.kernels.rope_packed import gradient_packed, rotate_packed, rotate_packed_reference

pytest.importorskip("triton")

DEVICES = [
    pytest.param("cpu", torch.float32, marks=pytest.mark.skipif(torch.cuda.is_available(), reason="Triton compiles here")),
    pytest.param("cpu", torch.float16, marks=pytest.mark.skipif(torch.cuda.is_available(), reason="Triton compiles here")),
    pytest.param("cuda", torch.float32, marks=pytest.mark.gpu),
    pytest.param("cuda", torch.bfloat16, marks=pytest.mark.gpu),
]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}  # one rounding of numbers up to 4


@pytest.mark.parametrize(("device", "dtype"), DEVICES)
@pytest.mark.parametrize(("tokens", "heads", "width"), [(1, 2, 64), (70, 2, 64), (33, 12, 64), (20, 3, 32)])
def test_turning_in_one_pass_and_its_gradient_are_those_of_the_definition(device, dtype, tokens, heads, width):
    """The gradient by autograd, in which queries and keys turn and values go by."""
    tables = rotary_tables(50, width, 10_000.0, device)
    pos_T = torch.randint(50, (tokens,), dtype=torch.int32, device=device)
    qkv_T3NH = torch.randn(tokens, 3, heads, width).to(device, dtype).requires_grad_()
    assert triton_runs_on(qkv_T3NH)
    wanted_2TNH = rotate_packed_reference(qkv_T3NH, *tables, pos_T)
    torch.testing.assert_close(rotate_packed(qkv_T3NH, *tables, pos_T), wanted_2TNH, atol=TOLERANCE[dtype], rtol=0)
    dq_TNH, dk_TNH, dv_TNH = torch.randn(3, tokens, heads, width).to(device, dtype).unbind()
    sums = (wanted_2TNH * torch.stack([dq_TNH, dk_TNH])).sum() + (qkv_T3NH[:, 2] * dv_TNH).sum()
    (wanted_T3NH,) = torch.autograd.grad(sums, qkv_T3NH)
    found_T3NH = gradient_packed(dq_TNH, dk_TNH, dv_TNH, *tables, pos_T)
    torch.testing.assert_close(found_T3NH, wanted_T3NH, atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize(("device", "dtype"), [one for one in DEVICES if one.values[1] != torch.float32])
def test_tables_of_16_bits_change_less_than_rounding_does(device, dtype):
    tables = rotary_tables(50, 64, 10_000.0, device)
    halves = [table_LK.half() for table_LK in tables]
    pos_T = torch.randint(50, (70,), dtype=torch.int32, device=device)
    qkv_T3NH = torch.randn(70, 3, 2, 64).to(device, dtype)
    exact_2TNH = rotate_packed_reference(qkv_T3NH.float(), *tables, pos_T)
    errors = [(rotate_packed(qkv_T3NH, *given, pos_T).float() - exact_2TNH).norm() for given in (tables, halves)]
    assert errors[1] <= 1.5 * errors[0]
    torch.testing.assert_close(
        gradient_packed(*rotate_packed(qkv_T3NH, *halves, pos_T), qkv_T3NH[:, 2], *halves, pos_T),
        qkv_T3NH,
        atol=2 * TOLERANCE[dtype],
        rtol=0,
    )


def test_no_tokens_turn_to_none():
    tables = rotary_tables(1, 64, 10_000.0)
    pos_T = torch.empty(0, dtype=torch.int32)
    assert rotate_packed(torch.empty(0, 3, 2, 64), *tables, pos_T).shape == (2, 0, 2, 64)
    assert gradient_packed(*torch.empty(3, 0, 2, 64), *tables, pos_T).shape == (0, 3, 2, 64)
