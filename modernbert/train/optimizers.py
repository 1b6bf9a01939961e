"""Optimizers: StableAdamW as ModernBERT was trained with, Muon with equal matrices stacked, and PyTorch's AdamW.

`build_optimizers` sorts a model's parameters into groups and returns the optimizers that step them.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from modernbert.config import check_limits
from modernbert.errors import ConfigError

OptimizerName = Literal["stableadamw", "adamw", "muon"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Which optimizer, and its settings; defaults are ModernBERT-base's pre-training (facts §2.1, §2.4)."""

    name: OptimizerName = "stableadamw"
    """stableadamw, adamw, or muon (Muon for the matrices inside the layers, StableAdamW for everything else)."""
    lr: float = 8e-4
    """Peak learning rate of StableAdamW or AdamW."""
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 1e-5
    """Fully decoupled: the share that a decayed weight loses each step at the peak rate, not multiplied by the rate (facts, trap 8)."""
    muon_lr: float = 2e-2
    """Peak learning rate of Muon: RMS of an update relative to an orthogonal matrix, scaled by √max(1, rows ÷ columns)."""
    muon_momentum: float = 0.95
    muon_weight_decay: float = 0.0
    """Share that a matrix loses each step, multiplied by the learning rate (PyTorch's Muon)."""

    def __post_init__(self) -> None:
        rates = ("lr", "eps", "weight_decay", "muon_lr", "muon_weight_decay")
        check_limits(self, dict.fromkeys(rates, (0, math.inf)) | dict.fromkeys(("betas", "muon_momentum"), (0, 0.999999)))


class StableAdamW(torch.optim.Optimizer):
    """AdamW whose learning rate shrinks, tensor by tensor, where the update would be larger than Adam expects.

    With m and v debiased into their decay rates (step 1 gives m = g, v = g²):

        rms = √ mean(g² / max(v, eps²));   lr_t = lr / max(1, rms)
        p ← p · (1 − lr_t / max_lr · weight_decay) − lr_t · m / (√v + eps)

    `max_lr` is the rate that the group was built with. It replaces gradient clipping. No host synchronisation: every tensor's scale
    stays on the device. With `compile`, each tensor is read twice and written once by two kernels; without, operation after operation over
    all tensors at once.

    Source: Wortsman et al. 2023 (arXiv 2304.13013) for the clipping; `decoupled_stableadamw` of ModernBERT's code (facts §2.4).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 1e-5,
        *,
        compile: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._step_tensor = torch.compile(stableadamw_step, dynamic=True) if compile else None
        for group in self.param_groups:
            group.setdefault("max_lr", group["lr"])
            group.setdefault("step", 0)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "StableAdamW takes no closure"
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                group["step"] += 1
                for p in params:
                    if not self.state[p]:
                        self.state[p].update(exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
                self._step_group(group, params)

    def _step_group(self, group: dict[str, Any], whole: list[Tensor]) -> None:
        params, grads = [_here(p) for p in whole], [_here(p.grad) for p in whole if p.grad is not None]
        m = [_here(self.state[p]["exp_avg"]) for p in whole]
        v = [_here(self.state[p]["exp_avg_sq"]) for p in whole]
        beta1, beta2 = (_debiased(beta, group["step"]) for beta in group["betas"])
        eps, lr = group["eps"], group["lr"]
        if self._step_tensor is not None:
            now = torch.stack([torch.full((), x, device=params[0].device) for x in (lr, beta1, beta2)])
            decay = group["weight_decay"] / group["max_lr"]
            for x, g, mean, square in zip(params, grads, m, v, strict=True):
                shape = (-1, x.shape[-1])
                self._step_tensor(x.view(shape), g.reshape(shape), mean.view(shape), square.view(shape), now, eps, decay)
            return

        torch._foreach_lerp_(m, grads, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, grads, grads, 1 - beta2)

        floor = torch._foreach_clamp_min(v, eps**2)
        ratio = torch._foreach_div(torch._foreach_mul(grads, grads), floor)
        mean_P = torch.stack([r.sum() / p.numel() for r, p in zip(ratio, whole, strict=True)])
        if isinstance(whole[0], DTensor):  # each process has summed its part
            dist.all_reduce(mean_P, group=whole[0].device_mesh.get_group())
        scale_P = lr / mean_P.sqrt().clamp(min=1.0)  # lr_t of each parameter

        if group["weight_decay"]:
            torch._foreach_mul_(params, list((1 - scale_P * (group["weight_decay"] / group["max_lr"])).unbind()))
        denominator = torch._foreach_sqrt(v)
        torch._foreach_add_(denominator, eps)
        update = torch._foreach_div(m, denominator)
        torch._foreach_mul_(update, list(scale_P.unbind()))
        torch._foreach_sub_(params, update)


def stableadamw_step(p: Tensor, g: Tensor, m: Tensor, v: Tensor, now: Tensor, eps: float, decay: float) -> None:
    """StableAdamW's formula for one matrix (a vector is one row of it), in place. `now` holds this step's learning rate and decay rates.

    The mean is taken by rows first: of a whole matrix whose size is variable, the compiler makes a single block of threads do the sum
    (15.6 ms a step of tiny on an H200).
    """
    lr, beta1, beta2 = now.unbind()
    m.copy_(beta1 * m + (1 - beta1) * g)
    v.copy_(beta2 * v + (1 - beta2) * g * g)
    lr_t = lr / (g * g / v.clamp(min=eps**2)).mean(-1).mean().sqrt().clamp(min=1.0)
    p.copy_(p * (1 - lr_t * decay) - lr_t * m / (v.sqrt() + eps))


class Muon(torch.optim.Optimizer):
    """PyTorch's Muon, with matrices of one shape made orthogonal together: a model of 7 layers takes some 70 launches, not 800.

        m ← lerp(m, g, 1 − momentum);  u = lerp(g, m, momentum)                      (Nesterov)
        o = u made orthogonal by five steps of Newton–Schulz in bfloat16
        p ← p · (1 − lr · weight_decay) − lr · √max(1, rows ÷ columns) · o

    Source: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/), as in `torch.optim.Muon`, whose states it reads.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                for p in params:
                    if not self.state[p]:
                        self.state[p]["momentum_buffer"] = torch.zeros_like(p)
                self._step_group(group, params)

    def _step_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        grads = [p.grad for p in params if p.grad is not None]
        m = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_lerp_(m, grads, 1 - group["momentum"])
        updates = torch._foreach_lerp(grads, m, group["momentum"])
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        for (rows, columns), same in _by_shape(params).items():
            o_PRC = orthogonal(torch.stack([updates[i] for i in same]))
            o_PRC *= -group["lr"] * math.sqrt(max(1.0, rows / columns))
            torch._foreach_add_([params[i] for i in same], list(o_PRC.unbind()))


def _by_shape(matrices: list[Tensor]) -> dict[tuple[int, int], list[int]]:
    found: dict[tuple[int, int], list[int]] = {}
    for i, matrix in enumerate(matrices):
        found.setdefault((matrix.shape[0], matrix.shape[1]), []).append(i)
    return found


def orthogonal(x_PRC: Tensor) -> Tensor:
    """Each matrix of a stack with its singular values drawn towards 1 (to 0.7 … 1.2), in x's dtype; the work is done in bfloat16.

    Five steps of x ← a x + (b A + c A²) x with A = x xᵀ, whose coefficients rise fastest at 0 (Jordan et al. 2024).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x_PRC.shape[1] > x_PRC.shape[2]
    x = x_PRC.bfloat16()
    if tall:
        x = x.mT
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(x_PRC.dtype)


def _here(x: Tensor) -> Tensor:
    """The part of a tensor that this process holds."""
    return x.to_local() if isinstance(x, DTensor) else x


def _debiased(beta: float, step: int) -> float:
    """The decay rate whose running mean needs no bias correction at `step`.

    >>> _debiased(0.9, 1), round(_debiased(0.9, 1000), 6)
    (0.0, 0.9)
    """
    return beta * (1 - beta ** (step - 1)) / (1 - beta**step)


def build_optimizers(model: nn.Module, config: OptimizerConfig, *, compile: bool = False) -> list[torch.optim.Optimizer]:
    """Groups the parameters and builds the optimizers. Vectors and biases are not decayed; embeddings are (facts §2.4).

    Args:
        model: whose parameters lie whole in this process, where `compile` is true.
        config: which one, and its settings.
        compile: whether StableAdamW's step is compiled.

    Raises:
        ConfigError: an unknown optimizer.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if config.name not in ("stableadamw", "adamw", "muon"):
        raise ConfigError(f"no optimizer named {config.name!r}; there are stableadamw, adamw and muon")
    matrices = [p for name, p in named if config.name == "muon" and ".layers." in name and p.ndim == 2]
    taken = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = []
    if config.name == "adamw":
        fused = all(p.is_cuda for p in rest)  # one launch for all tensors; a small model's step on a GPU is launches
        optimizers.append(torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused))
    else:
        optimizers.append(StableAdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, compile=compile))
    if matrices:
        optimizers.append(Muon(matrices, lr=config.muon_lr, momentum=config.muon_momentum, weight_decay=config.muon_weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["max_lr"] = group["lr"]
    return optimizers


def set_learning_rates(optimizers: Iterable[torch.optim.Optimizer], multiplier: float) -> None:
    """Sets every group's rate to its peak times `multiplier`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["max_lr"] * multiplier
