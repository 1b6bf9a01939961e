"""Optimizers against their formulas, written out plainly."""

import pytest
import torch
from torch import nn

from modernbert.errors import ConfigError
from modernbert.train.optimizers import Muon, OptimizerConfig, StableAdamW, build_optimizers, set_learning_rates


def stableadamw_by_the_formula(p, grads, *, lr, max_lr, betas, eps, weight_decay):
    """Tensor by tensor in float64, as facts §2.4 write it."""
    p, m, v = p.double().clone(), torch.zeros_like(p).double(), torch.zeros_like(p).double()
    for t, g in enumerate(grads, start=1):
        g = g.double()
        b1, b2 = ((b**t - b) / (b**t - 1) for b in betas)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        rms = (g * g / v.clamp(min=eps**2)).mean().sqrt()
        lr_t = lr / max(1.0, rms.item())
        p = p * (1 - lr_t / max_lr * weight_decay)
        p = p - lr_t * m / (v.sqrt() + eps)
    return p


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of the compiler itself
@pytest.mark.parametrize(("lr", "compile"), [(1e-2, False), (3e-3, False), (3e-3, True)])
def test_stableadamw_equals_its_formula_also_where_it_clips(lr, compile):
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in [(5, 3), (7,)]]
    # the fourth gradient is a hundred times larger than those before: there the update is clipped
    scales = [1.0, 1.0, 1.0, 100.0, 1.0]
    grads = [[s * torch.randn(p.shape, generator=generator) for s in scales] for p in params]
    settings = {"betas": (0.9, 0.98), "eps": 1e-6, "weight_decay": 0.1}
    wanted = [
        stableadamw_by_the_formula(p.detach(), g, lr=lr, max_lr=1e-2, **settings) for p, g in zip(params, grads, strict=True)
    ]
    optimizer = StableAdamW(params, lr=1e-2, **settings, compile=compile)
    for group in optimizer.param_groups:
        group["lr"] = lr
    for step in range(len(scales)):
        for p, g in zip(params, grads, strict=True):
            p.grad = g[step].clone()
        optimizer.step()
    for p, w in zip(params, wanted, strict=True):
        torch.testing.assert_close(p.detach().double(), w, rtol=1e-5, atol=1e-6)  # float32 against float64, five steps


def test_without_clipping_and_decay_stableadamw_is_adam():
    """Beta-debiasing is Adam's bias correction in another place; equal up to where ε is added (1e-12 here)."""
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(torch.ones(64)), nn.Parameter(torch.ones(64))
    a = StableAdamW([ours], lr=1e-3, betas=(0.9, 0.999), eps=1e-12, weight_decay=0.0)
    b = torch.optim.Adam([theirs], lr=1e-3, betas=(0.9, 0.999), eps=1e-12)
    base = torch.randn(64)
    for step in range(10):
        g = base * 0.9**step  # shrinking gradients keep the RMS ratio at or below 1
        ours.grad, theirs.grad = g.clone(), g.clone()
        a.step()
        b.step()
    torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=0, atol=1e-6)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Module()
        self.model.tok_embeddings = nn.Embedding(10, 4)
        self.model.layers = nn.ModuleList([nn.Linear(4, 4)])
        self.norm = nn.LayerNorm(4, bias=False)


@pytest.mark.parametrize("name", ["stableadamw", "adamw", "muon"])
def test_every_parameter_is_stepped_once_and_only_matrices_are_decayed(name):
    model = Small()
    optimizers = build_optimizers(model, OptimizerConfig(name=name, weight_decay=0.01, muon_weight_decay=0.01))
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    stepped = [id(p) for group in groups for p in group["params"]]
    assert sorted(stepped) == sorted(id(p) for p in model.parameters())
    for group in groups:
        for p in group["params"]:
            assert (group["weight_decay"] > 0) == (p.ndim > 1)


def test_muon_takes_the_matrices_inside_the_layers_and_leaves_the_embedding():
    model = Small()
    _, muon = build_optimizers(model, OptimizerConfig(name="muon"))
    assert isinstance(muon, Muon)
    assert [id(p) for p in muon.param_groups[0]["params"]] == [id(model.model.layers[0].weight)]


def test_rates_are_multiples_of_each_groups_peak():
    optimizers = build_optimizers(Small(), OptimizerConfig(name="muon", lr=1.0, muon_lr=3.0))
    set_learning_rates(optimizers, 0.5)
    assert sorted({group["lr"] for o in optimizers for group in o.param_groups}) == [0.5, 1.5]


def test_an_unknown_optimizer_is_refused_by_name():
    config = OptimizerConfig()
    object.__setattr__(config, "name", "adam")  # as a caller without type checks might
    with pytest.raises(ConfigError, match="no optimizer named 'adam'"):
        build_optimizers(Small(), config)


def test_muon_is_a_momentum_made_orthogonal():
    """The formula of Jordan et al. 2024 in float64, five steps of Newton–Schulz; PyTorch's runs in bfloat16 (8 bits), hence 2 %."""
    torch.manual_seed(0)
    weight, grads = torch.randn(6, 4), [torch.randn(6, 4) for _ in range(3)]
    model = nn.Module()
    model.layers = nn.Module()
    inner = nn.Module()
    inner.model = model
    model.layers.w = nn.Parameter(weight.clone())
    config = OptimizerConfig(name="muon", muon_lr=0.1, muon_momentum=0.9, muon_weight_decay=0.5)
    _, muon = build_optimizers(inner, config)
    wanted, momentum = weight.double(), torch.zeros(6, 4, dtype=torch.float64)
    for grad in grads:
        model.layers.w.grad = grad.clone()
        muon.step()
        momentum = 0.9 * momentum + 0.1 * grad.double()
        x = (0.1 * grad.double() + 0.9 * momentum).T  # Nesterov; wide, as the iteration wants it
        x = x / x.norm()
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        wanted = wanted * (1 - 0.1 * 0.5) - 0.1 * (6 / 4) ** 0.5 * x.T
    moved = (wanted - weight.double()).norm()
    assert ((model.layers.w.detach().double() - wanted).norm() / moved).item() < 0.02


def test_stacked_muon_steps_as_pytorchs_does():
    """Matrices of several shapes, wide, tall and square, four steps. Both work in bfloat16 (8 bits), in another order: 1 % of the way."""
    torch.manual_seed(0)
    shapes = [(48, 16), (16, 16), (16, 32), (48, 16), (16, 16), (16, 32)]
    start = [torch.randn(shape) for shape in shapes]
    ours, theirs = ([nn.Parameter(x.clone()) for x in start] for _ in range(2))
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.3}
    a, b = Muon(ours, **settings), torch.optim.Muon(theirs, **settings)
    for _ in range(4):
        for x, y in zip(ours, theirs, strict=True):
            x.grad = torch.randn(x.shape)
            y.grad = x.grad.clone()
        a.step()
        b.step()
    for x, y, begin in zip(ours, theirs, start, strict=True):
        assert ((x - y).norm() / (y - begin).norm()).item() < 0.01
        torch.testing.assert_close(a.state[x]["momentum_buffer"], b.state[y]["momentum_buffer"], rtol=0, atol=0)
