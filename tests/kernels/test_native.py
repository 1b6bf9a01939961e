"""The library of native.cpp against plain PyTorch, and a machine that cannot have it."""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from modernbert.batch import pack
from modernbert.kernels import native
from modernbert.kernels.attention_reference import attention_reference
from modernbert.kernels.linear_int8 import linear_int8_reference, quantize_rows
from modernbert.kernels.rope import rotary_tables

KINDS = sorted(native.kinds(), key=str)
here = pytest.mark.skipif(not KINDS, reason="no AVX2 or no compiler here: PyTorch's operators do the work")
EXACT = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Of the largest value: another order of sums; bf16 rounds turned queries and keys, weights and what comes out by 2⁻⁹ each."""


TILES = [False, True] if native.use_tiles(True) else [False]


@pytest.fixture(params=TILES, ids=lambda on: "tiles" if on else "vectors")
def ways(request):
    """Each way that products and attention have on this chip: AVX-512, and AMX where it is."""
    native.use_tiles(request.param)
    yield
    native.use_tiles(True)


def close(found, wanted, dtype):
    error, wanted = found.double() - wanted.double(), wanted.double()
    return error.abs().max() <= EXACT[dtype] * wanted.abs().max() and error.norm() <= EXACT[dtype] / 2 * wanted.norm()


@here
@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("tokens", [1, 5, 6, 13, 290])
@pytest.mark.parametrize("inputs", [192, 896])
@pytest.mark.usefixtures("ways")
def test_products_agree_with_pytorch(dtype, tokens, inputs):
    x_TI, weight_OI = torch.randn(tokens, inputs), torch.randn(256, inputs) / inputs**0.5
    if dtype == torch.int8:
        numbers_OI, scale_O = quantize_rows(weight_OI, native.levels())
        weight, wanted_TO = native.pack(numbers_OI, scale_O), linear_int8_reference(x_TI, numbers_OI, scale_O)
    else:
        weight = native.pack(weight_OI.to(dtype))
        wanted_TO = F.linear(x_TI.to(dtype).float(), weight_OI.to(dtype).float())
    x = native.rows(x_TI, dtype)
    kept_TO, added_TO, gated_TO = torch.empty(tokens, 256), torch.full((tokens, 256), 2.0), torch.empty(tokens, 128)
    native.product(x, weight, kept_TO)
    native.add_product(x, weight, added_TO)
    native.geglu_product(x, weight, gated_TO)
    # a value that lies between two levels may go either way: one level of one input is 1/127 of its largest, times a weight
    loose = {"rtol": 0, "atol": 0.02 if dtype == torch.int8 else 1e-5}
    torch.testing.assert_close(kept_TO, wanted_TO, **loose)
    torch.testing.assert_close(added_TO, wanted_TO + 2, **loose)
    a_TO, b_TO = wanted_TO.chunk(2, dim=-1)
    # what goes on in bf16 or bytes has a GELU that is right to 3e-4 of itself
    gated = {"rtol": 0, "atol": 3 * loose["atol"]} if dtype != torch.bfloat16 else {"rtol": 5e-4, "atol": 1e-4}
    torch.testing.assert_close(gated_TO, F.gelu(a_TO) * b_TO, **gated)


@here
def test_gelu_is_the_exact_one_over_all_its_range():
    x_T = torch.linspace(-12, 12, 64 * 64).view(-1, 64)
    both = torch.cat([torch.eye(64), torch.zeros(64, 64)])
    both[64:, 0] = 1  # the gate of every output: x[0]
    x_T[:, 0] = 1
    y_TO = torch.empty(len(x_T), 64)
    native.geglu_product(native.rows(x_T, torch.float32), native.pack(both), y_TO)
    torch.testing.assert_close(y_TO, F.gelu(x_T), rtol=0, atol=2e-6)  # 1.5e-7 of x, which is 12 at the end


@here
@pytest.mark.parametrize("dtype", [dtype for dtype in KINDS if dtype != torch.int8], ids=str)
@pytest.mark.parametrize("lengths", [[1], [7, 1, 0, 130], [64] * 3, [300, 17], [600]])
@pytest.mark.parametrize("window", [None, 0, 5, 64, 200])
@pytest.mark.usefixtures("ways")
def test_attention_agrees_with_the_reference(dtype, lengths, window):
    batch = pack([[5] * length for length in lengths])
    qkv_T3NH = torch.randn(len(batch.ids_T), 3, 2, 64).to(dtype)
    cos_LK, sin_LK = rotary_tables(batch.max_seqlen, 64, 10_000.0)
    exact = qkv_T3NH.double(), cos_LK.double(), sin_LK.double()
    wanted = attention_reference(*exact, batch.pos_T, batch.cu_seqlens, batch.max_seqlen, window)
    assert close(native.attention(qkv_T3NH, cos_LK, sin_LK, batch.cu_seqlens, window), wanted, dtype)


@here
def test_attention_bears_scores_that_overflow_without_their_greatest():
    batch = pack([[5] * 300])
    qkv_T3NH = 30 * torch.randn(300, 3, 2, 64)
    qkv_T3NH[:, 2] /= 30
    cos_LK, sin_LK = rotary_tables(300, 64, 10_000.0)
    exact = qkv_T3NH.double(), cos_LK.double(), sin_LK.double()
    wanted = attention_reference(*exact, batch.pos_T, batch.cu_seqlens, 300, None)
    found = native.attention(qkv_T3NH, cos_LK, sin_LK, batch.cu_seqlens, None)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=5e-3)  # scores reach 8,000, where float32 has steps of 5e-4


@here
@pytest.mark.parametrize("dtype", [dtype for dtype in KINDS if dtype != torch.int8], ids=str)
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("window", [None, 64])
@pytest.mark.usefixtures("ways")
def test_attention_bears_scores_that_are_all_far_from_zero_or_only_the_last(dtype, sign, window):
    batch = pack([[5] * 300, [5] * 300])
    qkv_T3NH = torch.randn(600, 3, 2, 64)
    qkv_T3NH[:, 0, :, 31], qkv_T3NH[:, 1, :, 31] = 20, 20 * sign  # this dimension is hardly turned: 50 for each score, 2^72
    qkv_T3NH[300:590, 1, :, 31] = 0
    qkv_T3NH = qkv_T3NH.to(dtype)
    cos_LK, sin_LK = rotary_tables(300, 64, 10_000.0)
    exact = qkv_T3NH.double(), cos_LK.double(), sin_LK.double()
    wanted = attention_reference(*exact, batch.pos_T, batch.cu_seqlens, batch.max_seqlen, window)
    found = native.attention(qkv_T3NH, cos_LK, sin_LK, batch.cu_seqlens, window)
    # queries and keys in bf16 are off by 2⁻⁹ each, scores of 50 by up to 0.2, and so are ten weights that share a row
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-4 if dtype == torch.float32 else 0.3)


@here
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16], ids=str)
def test_norms_agree_with_pytorch(given):
    x_TI, weight_I = (3 * torch.randn(9, 192) + 1).to(given), torch.rand(192)
    wanted_TI = F.layer_norm(x_TI.float(), (192,), weight_I, eps=1e-5)
    torch.testing.assert_close(native.rows(x_TI, torch.float32, weight_I, 1e-5).x_TI, wanted_TI, rtol=1e-5, atol=1e-5)
    assert torch.equal(native.rows(x_TI, torch.float32).x_TI, x_TI.float())


@here
def test_bytes_are_those_of_quantize_rows_up_to_ties():
    x_TI = torch.randn(9, 192)
    x_TI[4] = 0
    numbers_TI, scale_T = quantize_rows(x_TI)
    found = native.rows(x_TI, torch.int8)
    torch.testing.assert_close(found.scale_T, scale_T)
    assert (found.x_TI.int() - 128 - numbers_TI.int()).abs().max() <= 1
    assert (found.x_TI[4] == 128).all()


@here
def test_two_threads_give_what_one_gives():
    batch = pack([[5] * 200])
    qkv_T3NH = torch.randn(200, 3, 3, 64)
    tables = rotary_tables(200, 64, 10_000.0)
    alone = native.attention(qkv_T3NH, *tables, batch.cu_seqlens, 64)
    torch.set_num_threads(2)
    try:
        assert torch.equal(native.attention(qkv_T3NH, *tables, batch.cu_seqlens, 64), alone)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("lack", ["compiler", "switch"])
def test_without_a_compiler_or_switched_off_there_are_no_kinds(tmp_path, lack):
    environ = {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": ":".join(filter(None, sys.path))}
    environ |= {"PATH": str(tmp_path)} if lack == "compiler" else {"MODERNBERT_NATIVE": "0", "PATH": "/usr/bin:/bin"}
    code = "from modernbert.kernels import native; print(sorted(map(str, native.kinds())))"
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
