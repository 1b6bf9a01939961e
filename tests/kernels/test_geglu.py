"""The MLP as one operator: its kernels compiled on a GPU, interpreted elsewhere, by the same tests."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from modernbert.kernels.compiled import triton_runs_on
from modernbert.kernels.geglu import _mlp, geglu_mlp, geglu_mlp_reference

pytest.importorskip("triton")

DEVICES = [
    pytest.param("cpu", torch.float32, marks=pytest.mark.skipif(torch.cuda.is_available(), reason="Triton compiles here")),
    pytest.param("cpu", torch.float16, marks=pytest.mark.skipif(torch.cuda.is_available(), reason="Triton compiles here")),
    pytest.param("cuda", torch.float32, marks=pytest.mark.gpu),
    pytest.param("cuda", torch.bfloat16, marks=pytest.mark.gpu),
]
# Of the norm: sums in another order; 16 bits round u, h and their gradients where the reference in float32 rounds none.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}


def random_mlp(device, dtype, tokens, hidden, inside):
    shapes = ((tokens, hidden), (2 * inside, hidden), (hidden, inside))
    return [(torch.randn(shape) / shape[1] ** (0.5 * bool(i))).to(device, dtype) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize(("device", "dtype"), DEVICES)
@pytest.mark.parametrize(("tokens", "hidden", "inside"), [(0, 32, 48), (1, 32, 48), (130, 64, 328)])
def test_output_and_gradients_are_those_of_the_definition(device, dtype, tokens, hidden, inside):
    given = random_mlp(device, dtype, tokens, hidden, inside)
    exact = [x.float().requires_grad_() for x in given]
    assert triton_runs_on(given[0])
    y_TD, wanted_TD = geglu_mlp(*(x.requires_grad_() for x in given)), geglu_mlp_reference(*exact)
    dy_TD = torch.randn(y_TD.shape).to(y_TD)
    found, wanted = torch.autograd.grad(y_TD, given, dy_TD), torch.autograd.grad(wanted_TD, exact, dy_TD.float())
    for one, other in zip((y_TD, *found), (wanted_TD, *wanted), strict=True):
        assert one.dtype == dtype
        assert (one.float() - other).norm() <= TOLERANCE[dtype] * other.norm()


def test_pytorch_finds_the_operator_well_formed():
    given = [x.requires_grad_() for x in random_mlp("cuda" if torch.cuda.is_available() else "cpu", torch.float32, 9, 32, 48)]
    torch.library.opcheck(_mlp, tuple(given))


def test_one_graph_serves_all_counts_of_tokens():
    counter = CompileCounter()
    compiled = torch.compile(lambda x_TD, *weights: _mlp(x_TD, *weights)[0], backend=counter, dynamic=True)
    for tokens in (5, 9, 17):
        compiled(*random_mlp("cuda" if torch.cuda.is_available() else "cpu", torch.float32, tokens, 32, 48))
    assert counter.frame_count == 1
