"""GPTQ to float8: matrices rounded so that what they give changes least, not they themselves (Frantar et al. 2022, arXiv 2210.17323).

An error in one weight is made up for by the weights of its row that are not rounded yet, as far as their inputs go together.

O outputs · I inputs of a matrix.
"""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modernbert.batch import Batch, pack
from modernbert.checkpoint.float8 import FLOAT8
from modernbert.text.tokenizer import Tokenizer

DAMPING = 0.01
"""Added to each input's mean square, as a share of their mean: inputs that were never seen must not be free to make up for others."""


ROW, ROWS, BATCHES = 512, 50, 24
"""Longest row, rows of a batch, and batches that are read."""


def batches_of(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[Batch]:
    """The beginnings of the first texts, as `round_linears` wants them."""
    rows: list[list[int]] = []
    for text in texts:
        rows.append(tokenizer.encode([text])[0][:ROW])
        if len(rows) == ROWS * BATCHES:
            break
    for first in range(0, len(rows), ROWS):
        yield pack(rows[first : first + ROWS])


@torch.no_grad()
def round_linears(model: nn.Module, batches: Iterable[Batch]) -> None:
    """Rounds the weights of linear layers to float8, in place; `save_model(dtype=FLOAT8)` then stores just these.

    Not those that are token vectors, too (a tied decoder), nor a classifier's, which `to_float8` leaves as they are.

    Half of the error of rounding each weight by itself is left: vectors of `tiny-embed` lie at a mean cosine of 0.9976 to
    float32's instead of 0.9946 (300 texts of 60 to 900 characters; embeddings, which nothing can make up for, are 0.0012 of it).

    Args:
        model: in float32 and on the CPU, where every layer is called by itself; it is run on every batch.
        batches: text of the kind that it will read; 60,000 tokens are enough for 16.8M parameters.
    """
    modules = dict(model.named_modules())
    tied = {module.weight for module in modules.values() if isinstance(module, nn.Embedding)}
    linears = [m for name, m in modules.items() if isinstance(m, nn.Linear) and m.weight not in tied and name != "classifier"]
    grams: dict[nn.Module, Tensor] = {
        module: torch.zeros(module.in_features, module.in_features, dtype=torch.float64) for module in linears
    }

    def add_inputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x_TI = inputs[0].flatten(0, -2).float()
        grams[module] += (x_TI.T @ x_TI).double().cpu()

    hooks = [module.register_forward_pre_hook(add_inputs) for module in linears]
    for batch in batches:
        model(batch)
    for hook in hooks:
        hook.remove()
    for module in linears:
        module.weight.copy_(rounded(module.weight, grams[module]))


def rounded(weight_OI: Float[Tensor, "O I"], gram_II: Float[Tensor, "I I"]) -> Float[Tensor, "O I"]:
    """Values of float8 near the weights, for inputs whose products sum up to `gram_II`.

    >>> rounded(torch.tensor([[0.33, 0.33]]), torch.tensor([[1.0, 1.0], [1.0, 1.0]])).tolist()  # alone, each becomes 0.34375
    [[0.34375, 0.3125]]
    """
    assert gram_II.any(), "no batch has reached this layer: on a GPU some are not called by themselves"
    gram = gram_II.double().cpu()
    gram = gram + DAMPING * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    order_I = gram.diagonal().argsort(descending=True)  # what matters most is rounded while all others can still make up for it
    gram = gram[order_I][:, order_I]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    upper = torch.linalg.cholesky(inverse, upper=True)
    left_OI = weight_OI.double().cpu()[:, order_I]
    found_OI = torch.empty_like(left_OI)
    for i in range(len(gram)):
        found_OI[:, order_I[i]] = nearest = left_OI[:, i].float().to(FLOAT8).double()
        left_OI[:, i:] -= torch.outer((left_OI[:, i] - nearest) / upper[i, i], upper[i, i:])
    return found_OI.to(weight_OI)
