"""The fused head against PyTorch's cross-entropy on all scores, and z-loss against its formula."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from modernbert.kernels.compiled import triton_runs_on
from modernbert.kernels.cross_entropy import (
    IGNORE,
    _softmax_gradient,
    linear_cross_entropy,
    linear_cross_entropy_reference,
    softmax_gradient_reference,
)

M, D, V = 77, 24, 203


def inputs(dtype=torch.float32, weights=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(M, D, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(V, D, generator=generator, dtype=torch.float64).to(weights)
    bias = torch.randn(V, generator=generator, dtype=torch.float64).to(weights)
    labels = torch.randint(V, (M,), generator=generator)
    labels[::7] = IGNORE
    labels[3:20] = F.linear(x, weight.to(dtype), bias.to(dtype)).argmax(-1)[3:20]  # some right guesses
    return [p.requires_grad_() for p in (x, weight, bias)], labels


def gradients(loss, leaves):
    return torch.autograd.grad(loss * 0.37, leaves)


def relative(got, wanted):
    return ((got - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("chunk", [1, 10, 77, 1000])
def test_loss_and_gradients_are_those_of_pytorch_on_all_scores(chunk):
    """Relative 1e-6: float32 has 6e-8, and sums run in another order."""
    leaves, labels = inputs()
    logits = F.linear(*leaves)
    wanted = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    loss, right = linear_cross_entropy(*leaves, labels, chunk=chunk)
    assert relative(loss, wanted) < 1e-6
    assert right == (logits.argmax(-1) == labels).sum() > 10
    for got, other in zip(gradients(loss, leaves), gradients(wanted, leaves), strict=True):
        assert relative(got, other) < 1e-6


def test_z_loss_is_the_square_of_log_z():
    """By autograd of the formula on float64, where 1e-12 is rounding."""
    leaves, labels = inputs(torch.float64, torch.float64)
    log_z = F.linear(*leaves).exp().sum(-1).log()[labels != IGNORE]
    plain, _ = linear_cross_entropy(*leaves, labels, chunk=10)
    both, _ = linear_cross_entropy(*leaves, labels, z_loss=0.5, chunk=10)
    assert (both - plain).item() == pytest.approx(0.5 * log_z.square().sum().item(), rel=1e-12)
    wanted = F.cross_entropy(F.linear(*leaves), labels, ignore_index=IGNORE, reduction="sum") + 0.5 * log_z.square().sum()
    for got, other in zip(gradients(both, leaves), gradients(wanted, leaves), strict=True):
        assert relative(got, other) < 1e-12


def test_in_bfloat16_it_is_as_near_to_float32_as_the_plain_form():
    """The softmax is float32 in both; what is left is bfloat16's own rounding (8 bits) of scores and of their gradient."""
    exact, labels = inputs()
    mixed, _ = inputs(torch.bfloat16)
    truth = gradients(linear_cross_entropy_reference(*exact, labels, 1e-2)[0], exact)
    plain, chunked = (
        gradients(form(*mixed, labels, 1e-2)[0], mixed) for form in (linear_cross_entropy_reference, linear_cross_entropy)
    )
    for leaf, wanted, one, other in zip(mixed, truth, plain, chunked, strict=True):
        assert other.dtype == leaf.dtype
        assert relative(other, wanted) < 1.2 * relative(one, wanted) + 1e-3 < 0.02


def test_positions_without_a_label_count_for_nothing():
    leaves, _ = inputs()
    loss, right = linear_cross_entropy(*leaves, torch.full((M,), IGNORE), z_loss=1e-2)
    assert (loss.item(), right.item()) == (0.0, 0)
    assert all((gradient == 0).all() for gradient in gradients(loss, leaves))


def test_scores_that_overflow_exp_do_not_overflow_the_loss():
    leaves, labels = inputs()
    wanted = F.cross_entropy(F.linear(leaves[0] * 100, *leaves[1:]), labels, ignore_index=IGNORE, reduction="sum")
    loss, _ = linear_cross_entropy(leaves[0] * 100, *leaves[1:], labels, chunk=10)
    assert relative(loss, wanted) < 1e-6


def test_without_gradients_none_are_made():
    leaves, labels = inputs()
    with torch.no_grad():
        loss, _ = linear_cross_entropy(*leaves, labels)
    assert not loss.requires_grad


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("vocab", [1, 203, 5000])
def test_the_kernel_makes_loss_guess_and_gradient_of_the_definition(device, wanted, vocab):
    """Float32, through Triton's interpreter on a CPU: 1e-6 of numbers up to 10."""
    scores_CV = 3 * torch.randn(7, vocab, generator=torch.Generator().manual_seed(0)).to(device)
    labels_C = torch.tensor([0, IGNORE, vocab - 1, vocab // 2, IGNORE, 0, 0], device=device)
    labels_C[3] = scores_CV[3].argmax()
    if not triton_runs_on(scores_CV):
        pytest.skip("Triton runs nowhere here")
    found = _softmax_gradient(scores_CV, labels_C, 1e-2, wanted)
    loss_C, right_C, g_CV = softmax_gradient_reference(scores_CV, labels_C, 1e-2, wanted)
    torch.testing.assert_close(found[0], loss_C, rtol=1e-6, atol=1e-6)
    assert torch.equal(found[1], right_C) and right_C[3] == 1
    if wanted:
        torch.testing.assert_close(found[2], g_CV, rtol=1e-5, atol=1e-6)


COMPILE = """
import torch
from modernbert.kernels.cross_entropy import linear_cross_entropy
x, w, b, y = torch.randn(77, 24), torch.randn(203, 24), torch.randn(203), torch.randint(203, (77,))
leaves = [p.requires_grad_() for p in (x, w, b)]
compiled = torch.compile(linear_cross_entropy, backend="aot_eager", fullgraph=True)
one, other = (form(*leaves, y, z_loss=1e-3, chunk=30)[0] for form in (linear_cross_entropy, compiled))
torch.testing.assert_close(other, one, rtol=1e-6, atol=0)
for got, wanted in zip(torch.autograd.grad(other, leaves), torch.autograd.grad(one, leaves), strict=True):
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
"""


def test_the_compiler_takes_it_whole():
    """One graph, no break, in the compiler's front end and autograd; generated code would take minutes on a small machine. In a process of
    its own: the compiler cannot read the checks of shapes that the tests wrap around every function.
    """
    done = subprocess.run([sys.executable, "-c", COMPILE], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
