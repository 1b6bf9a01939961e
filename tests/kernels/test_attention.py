"""Every backend that runs here against the dense reference, and the reference against the formula written out token by token."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from modernbert.batch import pack
from modernbert.errors import HardwareError
from modernbert.kernels import attention_banded, attention_flash, compiled
from modernbert.kernels.attention import BACKENDS, attention, choose_backend
from modernbert.kernels.rope import rotary_tables

HEADS, WIDTH, THETA = 2, 64, 10_000.0

LENGTHS = {
    "one token": [1],
    "three unlike": [7, 1, 130],
    "three blocks": [64] * 3,
    "about the reach": [63, 64, 65, 66],
    "about the width": [128, 129, 130, 131],
    "one long": [1000],
    "300 short": [i % 9 for i in range(300)],
    "empty within and at the end": [0, 70, 0, 3, 200, 0, 0],
}
WINDOWS = [None, 0, 1, 64, 2000]

# Float32: sums over up to 1,000 keys in another order. 16 bits: the reference rounds its output and gradients to the same dtype, the
# backends their probabilities too; bf16 keeps 8 bits (half a unit: 2e-3), fp16 11, and a gradient sums a few hundred of such.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}

CPU_BACKENDS = [pytest.param("banded", "cpu", torch.float32), pytest.param("banded", "cpu", torch.bfloat16)]
GPU_BACKENDS = [
    pytest.param("banded", "cuda", torch.float32, marks=pytest.mark.gpu),
    pytest.param("banded", "cuda", torch.float16, marks=pytest.mark.gpu),
    pytest.param("banded", "cuda", torch.bfloat16, marks=pytest.mark.gpu),
    pytest.param("flash", "cuda", torch.float16, marks=pytest.mark.gpu),
    pytest.param("flash", "cuda", torch.bfloat16, marks=pytest.mark.gpu),
    pytest.param("window", "cuda", torch.float32, marks=pytest.mark.gpu),
    pytest.param("window", "cuda", torch.float16, marks=pytest.mark.gpu),
    pytest.param("window", "cuda", torch.bfloat16, marks=pytest.mark.gpu),
]


def random_qkv(tokens, device="cpu", dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(tokens, 3, HEADS, WIDTH, generator=generator).to(device, dtype).requires_grad_()


def attend(backend, qkv_T3NH, lengths, window):
    batch = pack([[0] * length for length in lengths]).to(qkv_T3NH.device)
    tables = rotary_tables(max(batch.max_seqlen, 1), WIDTH, THETA, qkv_T3NH.device)
    return attention(qkv_T3NH, *tables, batch.pos_T, batch.cu_seqlens, batch.max_seqlen, window, backend)


def output_and_gradient(backend, qkv_T3NH, lengths, window):
    o_TNH = attend(backend, qkv_T3NH, lengths, window)
    weights_TNH = torch.randn(o_TNH.shape, generator=torch.Generator().manual_seed(1)).to(o_TNH)
    return o_TNH, torch.autograd.grad(o_TNH, qkv_T3NH, weights_TNH)[0]


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("backend", "device", "dtype"), CPU_BACKENDS + GPU_BACKENDS)
def test_every_backend_agrees_with_the_reference(backend, device, dtype, window, lengths):
    qkv_T3NH = random_qkv(sum(lengths), device, dtype)
    found = output_and_gradient(backend, qkv_T3NH, lengths, window)
    wanted = output_and_gradient("reference", qkv_T3NH, lengths, window)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == dtype
        scale = max(1.0, other.abs().max().item())
        torch.testing.assert_close(one, other, atol=TOLERANCE[dtype] * scale, rtol=0)


@pytest.mark.parametrize("window", [None, 2])
def test_the_reference_is_the_formula_written_out_token_by_token(window):
    """In float64, with rotation as a product of complex numbers; 1e-5 for the reference's float32."""
    lengths = [5, 1, 9]
    qkv_T3NH = random_qkv(sum(lengths)).detach()
    found_TNH = attend("reference", qkv_T3NH, lengths, window)

    def turned(x_H, position):
        pairs_K = torch.complex(*x_H.double().chunk(2))
        angles_K = torch.tensor([position * THETA ** (-2 * k / WIDTH) for k in range(WIDTH // 2)], dtype=torch.float64)
        return pairs_K * torch.polar(torch.ones_like(angles_K), angles_K)

    start = 0
    for length in lengths:
        for head in range(HEADS):
            q, k, v = qkv_T3NH[start : start + length, :, head].unbind(1)
            for i in range(length):
                seen = [j for j in range(length) if window is None or abs(i - j) <= window]
                scores = [(turned(q[i], i) * turned(k[j], j).conj()).real.sum().item() / WIDTH**0.5 for j in seen]
                total = sum(map(math.exp, scores))
                wanted_H = sum(math.exp(score) / total * v[j].double() for score, j in zip(scores, seen, strict=True))
                torch.testing.assert_close(found_TNH[start + i, head].double(), wanted_H, atol=1e-5, rtol=0)
        start += length


@pytest.mark.parametrize("token", [0, 63, 64, 65, 150, 299])
@pytest.mark.parametrize(
    ("backend", "device", "dtype"), [pytest.param("reference", "cpu", torch.float32), *CPU_BACKENDS, *GPU_BACKENDS]
)
def test_a_token_sees_exactly_64_tokens_on_each_side_and_none_of_another_row(backend, device, dtype, token):
    before, length, after = 50, 300, 70
    qkv_T3NH = random_qkv(before + length + after, device, dtype)
    o_TNH = attend(backend, qkv_T3NH, [before, length, after], 64)
    (gradient_T3NH,) = torch.autograd.grad(o_TNH[before + token].sum(), qkv_T3NH)
    reaches = gradient_T3NH[:, 2].abs().amax((1, 2)).nonzero().flatten().tolist()  # a value's gradient is its weight, never 0
    assert reaches == [before + i for i in range(max(0, token - 64), min(length, token + 65))]


class LargestTensor(TorchDispatchMode):
    """Remembers how many elements the largest result of any operation had."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_the_cost_of_a_local_layer_grows_with_tokens_times_window_not_with_the_row():
    """Counted with PyTorch's plain attention, whose scores are tensors that can be seen; one row each."""

    def cost(tokens):
        qkv_T3NH = random_qkv(tokens)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops, LargestTensor() as largest:
            attend("banded", qkv_T3NH, [tokens], 64).sum().backward()
        return flops.get_total_flops(), largest.elements

    flops_2k, elements_2k = cost(2048)
    flops_8k, elements_8k = cost(8192)
    assert flops_8k == 4 * flops_2k > 0
    assert elements_8k == pytest.approx(4 * elements_2k, rel=0.05)
    keys_a_query_meets = attention_banded.BLOCK + 2 * 64
    assert elements_8k <= 8192 * HEADS * max(keys_a_query_meets, 3 * WIDTH) * 1.05 < 8192 * 8192 / 16


def test_short_rows_need_no_loop_away_from_the_cpu():
    """The meta device has no values, so that reading `cu_seqlens`, which makes a GPU wait, fails there."""
    qkv_T3NH = torch.empty(200 * 25, 3, HEADS, WIDTH, device="meta")
    assert attend("banded", qkv_T3NH, [25] * 200, None).shape == (200 * 25, HEADS, WIDTH)


def test_a_whole_short_row_is_a_band(monkeypatch):
    """What other devices do with short rows, done here; tolerance as above."""
    lengths = LENGTHS["about the width"]
    qkv_T3NH = random_qkv(sum(lengths))
    wanted = output_and_gradient("banded", qkv_T3NH, lengths, None)
    monkeypatch.setattr(
        attention_banded, "_row_by_row", lambda q, k, v, cu: attention_banded._band(q, k, v, cu, max(lengths) - 1)
    )
    for one, other in zip(output_and_gradient("banded", qkv_T3NH, lengths, None), wanted, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("backend", ["banded", "reference"])
@pytest.mark.parametrize("window", [None, 64])
def test_no_tokens_give_no_output(backend, window):
    assert attend(backend, random_qkv(0), [0, 0], window).shape == (0, HEADS, WIDTH)


@pytest.mark.parametrize(
    ("capability", "dtype", "flash_enabled", "local", "whole"),
    [
        ((8, 0), torch.bfloat16, True, "window", "flash"),
        ((9, 0), torch.float16, True, "window", "flash"),
        ((7, 5), torch.float16, True, "banded", "banded"),  # T4
        ((7, 0), torch.float16, True, "banded", "banded"),  # V100
        ((9, 0), torch.float32, True, "banded", "banded"),
        ((9, 0), torch.bfloat16, False, "banded", "banded"),
    ],
)
def test_a_gpu_gets_the_fastest_backend_that_its_layers_have(monkeypatch, capability, dtype, flash_enabled, local, whole):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(compiled, "HERE", True)
    monkeypatch.setattr(compiled, "INTERPRETED", False)
    monkeypatch.setattr(torch.backends.cuda, "flash_sdp_enabled", lambda: flash_enabled)
    monkeypatch.setattr(torch.version, "hip", None)
    with FakeTensorMode():
        qkv_T3NH = torch.empty(4, 3, HEADS, WIDTH, device="cuda", dtype=dtype)
        assert (choose_backend(qkv_T3NH, 64, 8192), choose_backend(qkv_T3NH, None, 8192)) == (local, whole)
        assert choose_backend(qkv_T3NH, None, 200) == local


@pytest.mark.parametrize(
    ("capability", "dtype", "installed", "wanted"),
    [
        ((9, 0), torch.bfloat16, True, True),
        ((9, 0), torch.bfloat16, False, False),
        ((9, 0), torch.float16, True, False),
        ((8, 0), torch.bfloat16, True, False),
        ((10, 0), torch.bfloat16, True, False),
    ],
)
def test_flash_attention_3_is_for_hopper_in_bf16_where_it_is_installed(monkeypatch, capability, dtype, installed, wanted):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.backends.cuda, "flash_sdp_enabled", lambda: True)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(attention_flash, "_FA3_IS_HERE", installed)
    with FakeTensorMode():
        qkv_T3NH = torch.empty(4, 3, HEADS, WIDTH, device="cuda", dtype=dtype)
        assert attention_flash.fa3_runs_on(qkv_T3NH) == wanted


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_cpu_gets_the_banded_backend(dtype):
    assert choose_backend(random_qkv(4, dtype=dtype), 64, 4) == choose_backend(random_qkv(4, dtype=dtype), None, 4) == "banded"


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 64])
def test_a_gpu_with_flash_switched_off_gives_the_same(window):
    """In bf16: two kernels that round their probabilities in another order, tolerance as above."""
    lengths = [300, 5, 700]
    qkv_T3NH = random_qkv(sum(lengths), "cuda", torch.bfloat16)
    assert choose_backend(qkv_T3NH, window, 700) != "banded"
    wanted_TNH = attend(None, qkv_T3NH, lengths, window)
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        assert choose_backend(qkv_T3NH, window, 700) == "banded"
        found_TNH = attend(None, qkv_T3NH, lengths, window)
    torch.testing.assert_close(found_TNH, wanted_TNH, atol=TOLERANCE[torch.bfloat16], rtol=0)


def test_flash_on_the_cpu_says_what_to_use_instead():
    with pytest.raises(HardwareError, match=r"needs bf16 or fp16 on a CUDA GPU .* Use backend='banded'"):
        attend("flash", random_qkv(4), [4], None)


def test_an_unknown_backend_names_the_known_ones():
    with pytest.raises(HardwareError, match=f"no attention backend named 'flsh'; there are {', '.join(BACKENDS)}"):
        attend("flsh", random_qkv(4), [4], None)


@pytest.mark.gpu
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_flash_attention_3_agrees_with_the_reference_where_it_runs(monkeypatch, lengths):
    """Gradients are FlashAttention-2's, from the other's logsumexp. Tolerance as above."""
    monkeypatch.setattr(attention_flash, "FA3_FROM", 0)
    qkv_T3NH = random_qkv(sum(lengths), "cuda", torch.bfloat16)
    if not attention_flash.fa3_runs_on(qkv_T3NH):
        pytest.skip("not a Hopper GPU, or fa3-fwd is not installed")
    found = output_and_gradient("flash", qkv_T3NH, lengths, None)
    for one, other in zip(found, output_and_gradient("reference", qkv_T3NH, lengths, None), strict=True):
        scale = max(1.0, other.abs().max().item())
        torch.testing.assert_close(one, other, atol=TOLERANCE[torch.bfloat16] * scale, rtol=0)


def test_flash_attention_keeps_the_packed_qkv_and_its_result_for_the_way_back_and_nothing_turned():
    """Counted on tensors without storage: 8 numbers a token and head dimension would be with turned queries and keys, 4 without."""
    qkv_T3NH = torch.empty(96, 3, 2, 64, dtype=torch.bfloat16, device="meta", requires_grad=True)
    cos_LK, sin_LK = (torch.empty(96, 32, device="meta") for _ in range(2))
    whole = torch.empty(96, dtype=torch.int32, device="meta"), torch.empty(2, dtype=torch.int32, device="meta")
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        o_TNH, _ = attention_flash._forward(qkv_T3NH, cos_LK, sin_LK, *whole, 96, attention_flash.WHOLE)
        assert sum(x.numel() for x in kept if x.dtype == torch.bfloat16) == 96 * 4 * 2 * 64
    assert torch.autograd.grad(o_TNH.sum(), qkv_T3NH)[0].shape == qkv_T3NH.shape
