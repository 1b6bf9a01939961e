"""A whole encoder in 8-bit floats, by the definition on a CPU and by the tensor cores on a GPU."""

import copy

import pytest
import torch

from modernbert.batch import pack
from modernbert.config import ModelConfig
from modernbert.errors import HardwareError
from modernbert.kernels.linear_fp8 import fp8_runs_on
from modernbert.model.encoder import Encoder
from modernbert.model.fp8 import Fp8NormLinear, quantize_fp8, replace_linears
from modernbert.model.heads import MaskedLM
from modernbert.model.init import init_weights

SMALL = ModelConfig(
    vocab_size=512, hidden_size=128, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2, initializer_range=0.1
)


def random_encoder():
    model = Encoder(SMALL).eval()
    init_weights(model, SMALL, torch.Generator().manual_seed(0))
    return model


def test_products_that_read_a_norm_become_fp8_and_hidden_states_stay_near():
    model = random_encoder()
    fp8 = copy.deepcopy(model)
    names = replace_linears(fp8)
    assert names == ["layers.0.mlp.Wi", *(f"layers.{i}.{name}" for i in range(1, 4) for name in ("attn.Wqkv", "mlp.Wi"))]
    assert all(isinstance(fp8.get_submodule(name), Fp8NormLinear) for name in names)
    batch = pack([list(range(200)), [5], list(range(70, 400))])
    with torch.no_grad():
        similarity_T = torch.cosine_similarity(model(batch), fp8(batch))
    assert similarity_T.min() > 0.99 and similarity_T.mean() < 0.99999  # it is another sum, and a near one


def test_weights_take_a_byte_each():
    model = random_encoder()
    weights = dict(model.named_parameters())
    before = sum(weights[f"{name}.weight"].numel() for name in replace_linears(model))
    assert sum(b.numel() * b.element_size() for name, b in model.named_buffers() if name.endswith("weight_OI")) == before


def test_a_cpu_is_told_which_hardware_it_takes():
    with pytest.raises(HardwareError, match=r"fp8 needs an NVIDIA GPU of capability 8\.9 or newer .* got cpu\. Leave fp8 out"):
        quantize_fp8(MaskedLM(SMALL))


@pytest.mark.gpu
def test_the_gpu_agrees_with_the_definition():
    if not fp8_runs_on(torch.device("cuda")):
        pytest.skip("this GPU has no fp8")
    model = random_encoder()
    batch = pack([list(range(200)), [5], list(range(70, 400))])
    replace_linears(model)
    with torch.no_grad():
        wanted_TD = model(batch)
        on_gpu = random_encoder().to("cuda", torch.bfloat16)
        quantize_fp8(on_gpu)
        found_TD = on_gpu(batch.to("cuda")).float().cpu()
    assert torch.cosine_similarity(found_TD, wanted_TD).min() > 0.99  # bf16 between the products, where the CPU has float32
