"""Linear layer and cross-entropy as one: the decoder's scores exist for a few hundred positions at a time, never for all.

The gradient of the scores is the softmax less the label, so it can be had in the forward pass, chunk by chunk, and the scores of a
chunk are forgotten before the next:

    x_CD ─→ scores_CV ─→ loss, right guesses
                └──────→ softmax − label = g_CV ─→ g_CV · W  (gradient of x)
                                           └────→ g_CVᵀ · x  (added to the gradient of W)

Backward only multiplies what lies ready by the gradient of the loss. At base, 65,536 tokens and 30 % masked, all scores would be
2 GB in bfloat16 and as much again for their gradient.

M masked positions · C positions of a chunk · D hidden · V vocabulary.

Source: the cut into chunks after Liger's fused linear cross-entropy (Hsu et al. 2024, arXiv 2410.10989) and Cut Cross-Entropy (Wijmans
et al. 2024, arXiv 2411.09009); z-loss: Chowdhery et al. 2022 (PaLM, arXiv 2204.02311) §5.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from modernbert.kernels.compiled import HERE, INTERPRETED, triton_runs_on

if HERE:
    from modernbert.kernels import softmax_triton as kernels

IGNORE = -100
"""Label of a position that fills up a batch's constant shape and counts for nothing."""

CHUNK = 2048
"""Positions whose scores exist together: 200 MB in bfloat16 at a vocabulary of 50,368. On the CPU the size makes no difference to
time between 512 and 4,096 (bench/results/cross_entropy_2026-11-23.md); on a GPU each chunk adds a pass over the gradient of the
weights, which is reason for few chunks (not measured)."""


def linear_cross_entropy_reference(
    x_MD: Float[Tensor, "M D"],
    weight_VD: Float[Tensor, "V D"],
    bias_V: Float[Tensor, "V"],
    labels_M: Int[Tensor, "M"],
    z_loss: float = 0.0,
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """The definition: all scores at once. Arguments and result as `linear_cross_entropy`."""
    logits_MV = F.linear(x_MD, weight_VD.to(x_MD.dtype), bias_V.to(x_MD.dtype))
    scores_MV = logits_MV.to(_exact(x_MD))
    loss = F.cross_entropy(scores_MV, labels_M, ignore_index=IGNORE, reduction="sum")
    if z_loss:
        loss = loss + z_loss * (scores_MV.logsumexp(-1).square() * (labels_M != IGNORE)).sum()
    return loss, (logits_MV.argmax(-1) == labels_M).sum()


def linear_cross_entropy(
    x_MD: Float[Tensor, "M D"],
    weight_VD: Float[Tensor, "V D"],
    bias_V: Float[Tensor, "V"],
    labels_M: Int[Tensor, "M"],
    z_loss: float = 0.0,
    chunk: int = CHUNK,
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Σ over labels of log Z − score(label) + z_loss · log² Z, with Z = Σ exp(score), and how many first guesses are right.

    Args:
        x_MD: what the decoder reads; its dtype is that of the products.
        weight_VD, bias_V: of the decoder, in any dtype; their gradients are summed over the chunks in it.
        labels_M: −100 counts for nothing.
        z_loss: weight of log² Z, which holds Z near 1; PaLM's is 1e-4.
        chunk: positions whose scores exist together.

    Returns:
        The summed loss in nats, float32 (float64 for such x), and the number of right first guesses.

    >>> x, weight, bias = torch.ones(3, 2), torch.zeros(4, 2), torch.zeros(4)
    >>> loss, right = linear_cross_entropy(x, weight, bias, torch.tensor([0, 1, -100]))
    >>> round(loss.item() / 2, 4), right.item()  # ln 4 each; of equal scores the first is the guess
    (1.3863, 1)
    """
    wanted = torch.is_grad_enabled()
    loss, right = _Chunked.apply(x_MD, weight_VD, bias_V, labels_M, z_loss, chunk, wanted)
    return loss, right


class _Chunked(torch.autograd.Function):
    """Gradients are made in `forward`, where the scores are."""

    @staticmethod
    def forward(
        ctx: Any,
        x_MD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor,
        labels_M: Tensor,
        z_loss: float,
        chunk: int,
        wanted: bool,
    ) -> tuple[Tensor, Tensor]:
        w_VD, b_V = weight_VD.to(x_MD.dtype), bias_V.to(x_MD.dtype)
        loss = torch.zeros((), dtype=_exact(x_MD), device=x_MD.device)
        right = torch.zeros((), dtype=torch.int64, device=x_MD.device)
        # Sums are new tensors: where `loss += …` makes a graph's output, PyTorch 2.11's compiler gives it no gradient, and says nothing.
        x_grads: list[Tensor] = []
        weight_grad_VD, bias_grad_V = (torch.zeros_like(p) if wanted else None for p in (weight_VD, bias_V))
        for x_CD, labels_C in zip(x_MD.split(chunk), labels_M.split(chunk), strict=True):
            loss_C, right_C, g_CV = softmax_gradient(F.linear(x_CD, w_VD, b_V), labels_C, z_loss, wanted)
            loss, right = loss + loss_C.sum(), right + right_C.sum()
            if weight_grad_VD is not None and bias_grad_V is not None:
                bias_grad_V += g_CV.sum(0, dtype=_exact(x_MD))
                g_CV = g_CV.to(x_MD.dtype)
                x_grads.append(g_CV @ w_VD)
                weight_grad_VD += g_CV.T @ x_CD
        if wanted:
            ctx.save_for_backward(torch.cat(x_grads), weight_grad_VD, bias_grad_V)
        ctx.mark_non_differentiable(right)
        return loss, right

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        x_MD, weight_VD, bias_V = ((made * grad).to(made.dtype) for made in ctx.saved_tensors)
        return x_MD, weight_VD, bias_V, None, None, None, None


def softmax_gradient(scores_CV: Tensor, labels_C: Tensor, z_loss: float, wanted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Each position's loss, whether its first guess is right (0 or 1), and if `wanted` the gradient of its scores; by a kernel on
    a GPU."""
    if scores_CV.is_cuda and triton_runs_on(scores_CV):
        return _softmax_gradient(scores_CV, labels_C, z_loss, wanted)
    return softmax_gradient_reference(scores_CV, labels_C, z_loss, wanted)


def softmax_gradient_reference(scores_CV: Tensor, labels_C: Tensor, z_loss: float, wanted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The definition, without a copy where scores are exact already."""
    scores_CV = scores_CV.to(_exact(scores_CV))
    counts_C1, at_C1 = (labels_C != IGNORE)[:, None], labels_C.clamp(min=0)[:, None]
    largest_C1, guess_C1 = scores_CV.max(-1, keepdim=True)
    own_C1 = scores_CV.gather(-1, at_C1)
    g_CV = scores_CV.sub_(largest_C1).exp_()
    total_C1 = g_CV.sum(-1, keepdim=True)
    log_z_C1 = largest_C1 + total_C1.log()
    loss_C1 = (log_z_C1 - own_C1 + z_loss * log_z_C1.square()) * counts_C1
    if wanted:
        g_CV *= (1 + 2 * z_loss * log_z_C1) * counts_C1 / total_C1
        if torch.compiler.is_compiling():  # fused into the pass over g; a scatter would need all of it in float32 first
            own_CV = (torch.arange(g_CV.shape[1], device=g_CV.device) == at_C1) & counts_C1
            g_CV = g_CV - own_CV.to(g_CV.dtype)
        else:
            g_CV.scatter_add_(-1, at_C1, -counts_C1.to(g_CV.dtype))
    return loss_C1[:, 0], (guess_C1[:, 0] == labels_C).long(), g_CV


@torch.library.custom_op("modernbert::softmax_gradient", mutates_args=())
def _softmax_gradient(scores: Tensor, labels: Tensor, z_loss: float, wanted: bool) -> tuple[Tensor, Tensor, Tensor]:
    positions, vocab = scores.shape
    loss, right, g = _results(scores, labels, wanted)
    if positions:
        with torch.cuda.device_of(scores):
            kernels.softmax_gradient[(positions,)](
                scores.contiguous(), labels, loss, right, g, z_loss, vocab, IGNORE, wanted, 4096 if INTERPRETED else 2048, num_warps=8
            )  # fmt: skip
    return loss, right, g


@_softmax_gradient.register_fake
def _(scores: Tensor, labels: Tensor, z_loss: float, wanted: bool) -> tuple[Tensor, Tensor, Tensor]:
    return _results(scores, labels, wanted)


def _results(scores: Tensor, labels: Tensor, wanted: bool) -> tuple[Tensor, Tensor, Tensor]:
    loss = scores.new_empty(scores.shape[0], dtype=torch.float32)
    return loss, torch.empty_like(labels), torch.empty_like(scores) if wanted else scores.new_empty(0)


def _exact(x: Tensor) -> torch.dtype:
    """Dtype of the softmax."""
    return torch.promote_types(x.dtype, torch.float32)
