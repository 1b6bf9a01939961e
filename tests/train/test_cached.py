"""Cached gradients on a linear model, where a plain backward is at hand."""

import pytest
import torch

from modernbert.train.cached import cached_backward
from modernbert.train.distributed import World


@pytest.mark.parametrize(("held", "passes"), [(1, 5), (2, 4), (3, 3), (9, 3)])
def test_groups_whose_graphs_are_held_pass_once_and_the_gradient_is_that_of_one_backward(held, passes):
    """Three groups of texts; vectors are float32, sums of them come in another order: 1e-5."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    x_XI = torch.randn(7, 4)
    groups = [torch.tensor([0, 3]), torch.tensor([1, 2, 6]), torch.tensor([4, 5])]
    seen = []

    def forward(number):
        seen.append(number)
        return model(x_XI[groups[number]])

    def loss_of(y_XD):
        return torch.logsumexp(y_XD @ y_XD.T, dim=-1).sum()

    loss = cached_backward(groups, 3, forward, loss_of, World(device=torch.device("cpu")), held)
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    plain = loss_of(model(x_XI))
    plain.backward()
    assert len(seen) == passes and loss.item() == pytest.approx(plain.item(), rel=1e-6)
    for one, other in zip(found, (p.grad for p in model.parameters()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
