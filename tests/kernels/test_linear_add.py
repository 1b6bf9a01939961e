"""The sum in place: the same numbers, in the residual's own memory, also within a compiled graph."""

import pytest
import torch
from torch.nn import functional as F

from modernbert.kernels.linear_add import _linear_add, linear_add, linear_add_reference

DEVICES = [pytest.param("cpu", torch.float32), pytest.param("cuda", torch.bfloat16, marks=pytest.mark.gpu)]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # bf16: the reference rounds the product before the sum


@pytest.mark.parametrize(("device", "dtype"), DEVICES)
@pytest.mark.parametrize("tokens", [0, 1, 70])
def test_the_sum_is_that_of_the_definition_and_lies_where_the_residual_lay(device, dtype, tokens):
    residual, x, weight = (torch.randn(shape).to(device, dtype) for shape in ((tokens, 48), (tokens, 32), (48, 32)))
    wanted = linear_add_reference(residual, x, weight)
    found = linear_add(residual, x, weight)
    assert found.data_ptr() == residual.data_ptr()
    torch.testing.assert_close(found, wanted, atol=TOLERANCE[dtype] * 8, rtol=0)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of the compiler itself
@pytest.mark.parametrize(("device", "dtype"), DEVICES)
def test_a_compiled_graph_that_reads_the_residual_before_the_sum_gets_its_old_value(device, dtype):
    x, weight = (torch.randn(shape).to(device, dtype) for shape in ((70, 32), (32, 32)))

    def layer(x):
        x = x * 2
        _linear_add(x, F.layer_norm(x, (32,)), weight)
        return x, x.sum()

    with torch.no_grad():
        wanted = linear_add_reference(x * 2, F.layer_norm(x * 2, (32,)), weight)
        found, total = torch.compile(layer)(x)
    torch.testing.assert_close(found, wanted, atol=TOLERANCE[dtype] * 8, rtol=0)
    torch.testing.assert_close(total, found.sum())


def test_pytorch_finds_the_operator_well_formed():
    torch.library.opcheck(_linear_add, (torch.randn(5, 4), torch.randn(5, 3), torch.randn(4, 3)))
