"""Our window attention: compiled on a GPU, interpreted elsewhere, by the same tests. test_attention.py has more for the GPU."""

import inspect
import json
import os
import subprocess
import sys

import pytest
import torch

from modernbert.batch import pack
from modernbert.errors import HardwareError
from modernbert.kernels import attention_window
from modernbert.kernels.attention import attention
from modernbert.kernels.attention_window import Tiles, window_runs_on
from modernbert.kernels.compiled import INTERPRETED

pytest.importorskip("triton")

DEVICES = [
    pytest.param("cpu", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="Triton compiles here")),
    pytest.param("cuda", marks=pytest.mark.gpu),
]
# Rounding of float32 in sums of up to 129 products, in another order, as in test_attention.py; gradients by their greatest.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 5e-3}


@pytest.fixture(autouse=True)
def _interpret_faster(monkeypatch):
    """Triton's interpreter checks every sum of whole numbers for overflow, and dresses the language up anew at each inner call: half of
    its time."""
    if INTERPRETED:
        import triton.language as tl
        import triton.runtime.interpreter as interpreter

        monkeypatch.setattr(interpreter.interpreter_builder, "options", interpreter.InterpreterOptions(sanitize_overflow=False))
        dressed = [interpreter._patch_lang(function.fn) for function in (attention_window.kernels.forward, tl.sum)]
        monkeypatch.setattr(interpreter, "_patch_lang", lambda _: interpreter._LangPatchScope())
        yield
        for scope in reversed(dressed):
            scope.restore()
    else:
        yield


def cut(monkeypatch, own, step):
    for name in attention_window.TILES:
        monkeypatch.setitem(attention_window.TILES, name, Tiles(own=own, step=step, warps=4, stages=2))


def exact_tables(length, width, device):
    """From angles in float64: the kernels turn by differences of positions, which float32 angles near 8,000 have wrong by 5e-4."""
    frequency_K = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle_LK = torch.outer(torch.arange(length, dtype=torch.float64), frequency_K)
    return angle_LK.cos().float().to(device), angle_LK.sin().float().to(device)


def random_case(lengths, heads, width, device, dtype=torch.float32):
    qkv_T3NH = torch.randn(sum(lengths), 3, heads, width).to(device, dtype).requires_grad_()
    return qkv_T3NH, torch.randn(sum(lengths), heads, width).to(device, dtype)


def output_and_gradient(backend, lengths, window, qkv_T3NH, do_TNH):
    batch = pack([[0] * length for length in lengths]).to(qkv_T3NH.device)
    tables = exact_tables(max(lengths), qkv_T3NH.shape[-1], qkv_T3NH.device)
    if backend == "window" and qkv_T3NH.dtype == torch.float16:  # as the encoder gives them to 16 bits
        tables = tuple(table_LK.half() for table_LK in tables)
    o_TNH = attention(qkv_T3NH, *tables, batch.pos_T, batch.cu_seqlens, batch.max_seqlen, window, backend)
    return o_TNH, torch.autograd.grad(o_TNH, qkv_T3NH, do_TNH)[0]


def assert_close(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, atol=TOLERANCE[one.dtype] * max(1.0, other.abs().max().item()), rtol=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("lengths", "window", "width", "dtype", "own", "step"),
    [
        ([1], 64, 64, torch.float32, 64, 64),
        ([7, 1, 130], 64, 64, torch.float32, 64, 64),
        ([66, 65, 64, 63], 64, 64, torch.float32, 128, 64),
        ([0, 70, 0, 3, 200, 0, 0], 1, 64, torch.float32, 64, 128),
        ([90, 200], None, 64, torch.float32, 128, 64),  # in float32, 128 × 128 takes more shared memory than an H100 has
        ([40, 30], 0, 64, torch.float32, 16, 32),
        ([150, 20], 5, 32, torch.float16, 128, 128),
        ([150, 20], 2000, 128, torch.float32, 64, 64),
        ([3] + [0] * 150 + [9, 4], 2, 32, torch.float32, 16, 16),  # more rows than one step of the search sees
    ],
)
def test_the_kernels_agree_with_the_reference(monkeypatch, device, lengths, window, width, dtype, own, step):
    cut(monkeypatch, own, step)
    case = random_case(lengths, 2, width, device, dtype)
    assert_close(*(output_and_gradient(backend, lengths, window, *case) for backend in ("window", "reference")))


@pytest.mark.parametrize("device", DEVICES)
def test_rows_of_1_to_300_tokens_in_one_batch_agree_with_the_reference(monkeypatch, device):
    """The reference takes each row by itself, so that it needs no mask between rows."""
    cut(monkeypatch, 256, 256) if device == "cpu" else None
    lengths = list(range(1, 301))
    qkv_T3NH, do_TNH = random_case(lengths, 2, 64, device)
    rows = zip(qkv_T3NH.detach().split(lengths), do_TNH.split(lengths), strict=True)
    wanted = [output_and_gradient("reference", [len(do)], 64, qkv.requires_grad_(), do) for qkv, do in rows]
    found = output_and_gradient("window", lengths, 64, qkv_T3NH, do_TNH)
    assert_close(found, [torch.cat(part) for part in zip(*wanted, strict=True)])


@pytest.mark.parametrize("device", DEVICES)
def test_a_row_of_8192_tokens_agrees_with_the_banded_backend(monkeypatch, device):
    cut(monkeypatch, 256, 256) if device == "cpu" else None
    case = random_case([8192], 1, 64, device)
    assert_close(*(output_and_gradient(backend, [8192], 64, *case) for backend in ("window", "banded")))


@pytest.mark.parametrize("device", DEVICES)
def test_a_row_gives_the_same_bits_alone_and_in_any_batch_at_any_place(monkeypatch, device):
    cut(monkeypatch, 32, 32) if device == "cpu" else None
    lengths = [70, 5, 33]
    qkv_T3NH, do_TNH = random_case(lengths, 2, 64, device)
    rows = [(qkv.detach().requires_grad_(), do) for qkv, do in zip(qkv_T3NH.split(lengths), do_TNH.split(lengths), strict=True)]
    alone = [output_and_gradient("window", [len(do)], 20, qkv, do) for qkv, do in rows]
    for order in ([0, 1, 2], [1, 2, 0]):
        qkv = torch.cat([rows[i][0] for i in order]).detach().requires_grad_()
        do = torch.cat([rows[i][1] for i in order])
        together = output_and_gradient("window", [lengths[i] for i in order], 20, qkv, do)
        for found, part in zip(together, (0, 1), strict=True):
            assert torch.equal(found, torch.cat([alone[i][part] for i in order]))


@pytest.mark.parametrize("device", DEVICES)
def test_longer_tables_strided_inputs_and_expanded_gradients_change_nothing(monkeypatch, device):
    cut(monkeypatch, 32, 32)
    qkv_T3NH, _ = random_case([40], 2, 32, device)
    strided_T3NH = torch.stack([qkv_T3NH, qkv_T3NH], dim=-1).detach()[..., 0].requires_grad_()
    batch = pack([[0] * 40]).to(device)

    def gradient(x_T3NH, length):
        tables = exact_tables(length, 32, device)
        o_TNH = attention(x_T3NH, *tables, batch.pos_T, batch.cu_seqlens, 40, 8, "window")
        return torch.autograd.grad(o_TNH.sum(), x_T3NH)[0]

    wanted = gradient(qkv_T3NH, 40)
    assert torch.equal(gradient(qkv_T3NH, 1000), wanted)
    assert torch.equal(gradient(strided_T3NH, 40), wanted)


@pytest.mark.parametrize("device", DEVICES)
def test_a_compiled_function_holds_the_kernels_whole_and_gives_the_same_bits(monkeypatch, device):
    cut(monkeypatch, 32, 32)
    qkv_T3NH, do_TNH = random_case([40, 3], 2, 32, device)
    batch = pack([[0] * 40, [0] * 3]).to(device)
    tables = exact_tables(40, 32, device)
    attend = inspect.unwrap(attention_window.attention_window)  # the checks of shapes in the test run cannot be compiled

    def attend_twice(qkv_T3NH):
        o_TNH = attend(qkv_T3NH, *tables, batch.pos_T, batch.cu_seqlens, 40, 8)
        return attend(qkv_T3NH + o_TNH[:, None], *tables, batch.pos_T, batch.cu_seqlens, 40, None)

    outputs = [
        function(qkv_T3NH) for function in (torch.compile(attend_twice, fullgraph=True, backend="aot_eager"), attend_twice)
    ]
    assert torch.equal(*outputs)
    assert torch.equal(*(torch.autograd.grad(o_TNH, qkv_T3NH, do_TNH)[0] for o_TNH in outputs))


def test_the_operators_keep_the_rules_of_pytorch(monkeypatch):
    cut(monkeypatch, 16, 16)
    qkv_T3NH, _ = random_case([5, 4], 2, 32, "cpu")
    batch = pack([[0] * 5, [0] * 4])
    given = (qkv_T3NH, *exact_tables(5, 32, "cpu"), batch.pos_T, batch.cu_seqlens, 3)
    torch.library.opcheck(attention_window._forward, given)


@pytest.mark.parametrize("device", DEVICES)
def test_no_tokens_give_no_output(device):
    qkv_T3NH = torch.randn(0, 3, 2, 64, device=device)
    batch = pack([[], []]).to(device)
    o_TNH = attention(qkv_T3NH, *exact_tables(1, 64, device), batch.pos_T, batch.cu_seqlens, 0, 64, "window")
    assert o_TNH.shape == (0, 2, 64)


@pytest.mark.parametrize(("shape", "dtype"), [((4, 3, 2, 48), torch.float32), ((4, 3, 2, 64), torch.float64)])
def test_what_the_kernels_cannot_do_is_refused_with_another_way(shape, dtype):
    qkv_T3NH = torch.zeros(shape, dtype=dtype)
    assert not window_runs_on(qkv_T3NH)
    batch = pack([[0] * 4])
    with pytest.raises(HardwareError, match=r"needs triton>=3.6, .* heads of 32, 64 or 128; got .* Use backend='banded'"):
        attention(qkv_T3NH, *exact_tables(4, shape[-1], "cpu"), batch.pos_T, batch.cu_seqlens, 4, 64, "window")


COMPILE = """
import dataclasses, json
from modernbert.kernels.attention_window import TILES
from modernbert.kernels.attention_window_resources import resources
print(json.dumps([dataclasses.asdict(resources(name, tiles)) for name, tiles in TILES.items()]))
"""


def test_the_kernels_compile_for_hopper_and_hardly_spill():
    """With no GPU: Triton's wheel has the assembler. In a process of its own, where kernels are not interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert len(found) == 3
    for resources in found:
        assert resources["spilled"] <= 16  # bytes: four registers
        assert resources["resident"] >= 3  # programs on a processor: others compute while one waits for memory
