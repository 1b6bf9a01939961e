"""Our fused steps beside their plain definitions under `torch.compile`: a fast form stays only while it wins here.

    modernbert bench steps --table

Shapes are base's at 65,536 tokens; both sides take turns in one process. Steps that lie between a norm and a product are measured with
them, since that is what the compiler would fuse them with. fp8 is set beside the same layer in 16 bits, which is another sum.

T tokens · D hidden · I inside the MLP · N heads · H per head.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from modernbert.bench.record import environment, summary
from modernbert.bench.timing import milliseconds_of
from modernbert.config import preset
from modernbert.engine.hardware import choose_device, choose_dtype
from modernbert.kernels.geglu import geglu, geglu_mlp, geglu_mlp_reference
from modernbert.kernels.linear_add import linear_add, linear_add_reference
from modernbert.kernels.linear_fp8 import linear_fp8, quantize_rows_fp8
from modernbert.kernels.rope import rotary_tables
from modernbert.kernels.rope_packed import (
    gradient_packed,
    gradient_packed_reference,
    rotate_packed,
    rotate_packed_reference,
)

Sides = dict[str, tuple[Callable[[], object], Callable[[], object]]]
"""The fast and the plain way of a step, by its name."""


def steps_record(
    *, size: str = "base", tokens: int = 65_536, repeats: int = 10, device: str | None = None, compile: bool = True
) -> dict[str, Any]:
    """Milliseconds of each step, both ways.

    Args:
        size: published size whose shapes are taken.
        tokens: in a batch.
        repeats: measurements of each figure, each of 10 calls.
        device: None takes the best one here.
        compile: whether the plain way is compiled; not, where a test has no time for it.
    """
    where = choose_device(device)
    found: dict[str, Any] = {}
    for make in (_rotation, _mlp, _onto, _fp8):
        for name, ways in make(size, tokens, where, choose_dtype(where), compile).items():
            fast, plain = (summary(milliseconds_of(way, where, repeats=repeats)) for way in ways)
            found[name] = {"fast_ms": fast, "plain_ms": plain, "gain": plain["median"] / fast["median"]}
        torch.compiler.reset()
    return {
        "subject": "steps",
        "environment": environment("torch"),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else where.type,
        "case": {"size": size, "tokens": tokens},
        "steps": found,
    }


def markdown(record: dict[str, Any]) -> str:
    """The record as a table."""
    lines = [f"{record['device']}, {record['case']['size']}, {record['case']['tokens']:,} tokens", ""]
    lines += ["| step | ours, ms (least – most) | plain under torch.compile, ms | gain |", "|---|---:|---:|---:|"]
    for name, step in record["steps"].items():
        sides = [
            f"{step[key]['median']:.3f} ({step[key]['min']:.3f} – {step[key]['max']:.3f})" for key in ("fast_ms", "plain_ms")
        ]
        lines.append(f"| {name} | {sides[0]} | {sides[1]} | {step['gain']:.2f} × |")
    return "\n".join(lines)


def _compiled(function: Callable[..., Any], wanted: bool) -> Callable[..., Any]:
    """As within the engine's encoder: the count of tokens differs from batch to batch, widths are known."""
    if not wanted:
        return function
    compiled = torch.compile(function)

    def call(*given: Any) -> Any:
        for x in given:
            if isinstance(x, Tensor) and len(x) == given[0].shape[0]:
                torch._dynamo.maybe_mark_dynamic(x, 0)
        return compiled(*given)

    return call


def _rotation(size: str, tokens: int, device: torch.device, dtype: torch.dtype, compile: bool) -> Sides:
    heads, width = preset(size).num_attention_heads, preset(size).head_dim
    tables = rotary_tables(512, width, 10_000.0, device)
    pos_T = (torch.arange(tokens, device=device) % 512).int()
    qkv_T3NH = torch.randn(tokens, 3, heads, width, device=device, dtype=dtype)
    dq_TNH, dk_TNH, dv_TNH = torch.randn(3, tokens, heads, width, device=device, dtype=dtype).unbind()
    back = (dq_TNH, dk_TNH, dv_TNH, *tables, pos_T)
    forward, backward = _compiled(rotate_packed_reference, compile), _compiled(gradient_packed_reference, compile)
    return {
        "rotation": (lambda: rotate_packed(qkv_T3NH, *tables, pos_T), lambda: forward(qkv_T3NH, *tables, pos_T)),
        "rotation, back": (functools.partial(gradient_packed, *back), functools.partial(backward, *back)),
    }


def _mlp(size: str, tokens: int, device: torch.device, dtype: torch.dtype, compile: bool) -> Sides:
    config = preset(size)
    width, inside = config.hidden_size, config.intermediate_size
    x_TD, dy_TD = torch.randn(2, tokens, width, device=device, dtype=dtype).unbind()
    weights = [_weight(2 * inside, width, device, dtype), _weight(width, inside, device, dtype)]
    given = [x.requires_grad_() for x in (x_TD, *weights)]

    def there_and_back(mlp: Callable[..., Tensor]) -> object:
        return torch.autograd.grad(mlp(*given), given, dy_TD)

    plain = _compiled(geglu_mlp_reference, compile)
    return {"MLP, there and back": (lambda: there_and_back(geglu_mlp), lambda: there_and_back(plain))}


def _onto(size: str, tokens: int, device: torch.device, dtype: torch.dtype, compile: bool) -> Sides:
    width = preset(size).hidden_size
    residual_TD, x_TD = torch.randn(2, tokens, width, device=device, dtype=dtype).unbind()
    weight_DD, scale_D = _weight(width, width, device, dtype), torch.ones(width, device=device, dtype=dtype)

    def then_norm(add: Callable[..., Tensor], residual_TD: Tensor, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        sum_TD = add(residual_TD, x_TD, weight_DD)
        return sum_TD, F.layer_norm(sum_TD, (width,), scale_D)

    fast, plain = (_compiled(functools.partial(then_norm, add), compile) for add in (linear_add, linear_add_reference))
    return {"attention's last product, sum, norm": _without_gradients(fast, plain, residual_TD.zero_(), x_TD * 1e-3)}


def _fp8(size: str, tokens: int, device: torch.device, dtype: torch.dtype, compile: bool) -> Sides:
    config = preset(size)
    width, inside = config.hidden_size, config.intermediate_size
    x_TD, u_TJ = (torch.randn(tokens, n, device=device, dtype=dtype) for n in (width, 2 * inside))
    scale_D = torch.ones(width, device=device, dtype=dtype)
    before: dict[str, tuple[Callable[[Tensor], Tensor], Tensor, int]] = {
        "fp8: norm, Wqkv": (lambda x_TD: F.layer_norm(x_TD, (width,), scale_D), x_TD, 3 * width),
        "fp8: attention's Wo": (lambda x_TD: x_TD, x_TD, width),
        "fp8: norm, Wi": (lambda x_TD: F.layer_norm(x_TD, (width,), scale_D), x_TD, 2 * inside),
        "fp8: GeGLU, Wo": (geglu, u_TJ, width),
    }
    found: Sides = {}
    for name, (step, given, outputs) in before.items():
        weight_OI = _weight(outputs, inside if step is geglu else width, device, dtype)
        packed = quantize_rows_fp8(weight_OI)
        fast = _compiled(functools.partial(lambda step, packed, x: linear_fp8(step(x), *packed), step, packed), compile)
        plain = _compiled(functools.partial(lambda step, weight_OI, x: F.linear(step(x), weight_OI), step, weight_OI), compile)
        found[name] = _without_gradients(fast, plain, given)
    return found


def _weight(outputs: int, inputs: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return (torch.randn(outputs, inputs, device=device) / inputs**0.5).to(dtype)


def _without_gradients(fast: Callable[..., Any], plain: Callable[..., Any], *given: Tensor) -> Any:
    def one(way: Callable[..., Any]) -> object:
        with torch.no_grad():
            return way(*given)

    return functools.partial(one, fast), functools.partial(one, plain)
