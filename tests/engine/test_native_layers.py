"""Layers on the native kernels compute what the plain ones do."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from modernbert.batch import pack
from modernbert.config import ModelConfig
from modernbert.engine import native_layers
from modernbert.engine.native_layers import NativeLayer, use_native_layers
from modernbert.engine.quantized import quantize_model
from modernbert.kernels import native
from modernbert.model.heads import MaskedLM
from modernbert.model.init import init_weights

CONFIG = ModelConfig(
    vocab_size=600,
    hidden_size=128,
    intermediate_size=192,
    num_hidden_layers=4,
    num_attention_heads=2,
    initializer_range=0.1,  # about 1/√hidden_size: with 0.02 every layer adds next to nothing
)
here = pytest.mark.skipif(not native.kinds(), reason="no AVX2 or no compiler here")
LEAST = {torch.float32: 0.999999, torch.bfloat16: 0.9995, torch.int8: 0.998}
"""Cosine of each token; int8 errs by about 0.02 of each product, bf16 by 0.003."""


def random_model(config=CONFIG):
    model = MaskedLM(config).eval()
    init_weights(model, config, torch.Generator().manual_seed(0))
    return model


def batch_of(*lengths):
    generator = torch.Generator().manual_seed(1)
    return pack([torch.randint(5, CONFIG.vocab_size, (length,), generator=generator).tolist() for length in lengths])


def made(dtype):
    model = random_model()
    if dtype == torch.int8:
        quantize_model(model, batch_of(40, 3))
    else:
        model.to(dtype)
    assert use_native_layers(model)
    return model


@here
@pytest.mark.parametrize("dtype", sorted(native.kinds(), key=str), ids=str)
@torch.inference_mode()
def test_every_dtype_stays_near_the_plain_float32_model(dtype):
    batch = batch_of(30, 1, 200, 70)
    cosine_T = torch.cosine_similarity(made(dtype).model(batch).float(), random_model().model(batch), dim=-1)
    assert cosine_T.min() > LEAST[dtype]


@here
@torch.inference_mode()
def test_memory_kept_between_layers_is_no_threads_but_its_own_and_no_result():
    model, batches = made(torch.float32), [batch_of(30, 200), batch_of(7), batch_of(300)]
    first_TD = model.model(batches[0])
    wanted = [model.model(batch).clone() for batch in batches]
    assert torch.equal(first_TD, wanted[0])  # what came out stays as it was
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(torch.inference_mode()(model.model), batches * 4))
    assert all(torch.equal(*pair) for pair in zip(found, wanted * 4, strict=True))


@here
@torch.inference_mode()
def test_a_text_does_not_depend_on_its_neighbours_or_on_pieces_and_threads(monkeypatch):
    model = made(torch.int8 if torch.int8 in native.kinds() else torch.float32)
    alone, among = batch_of(150), batch_of(150, 33, 200)
    wanted_TD = model.model(alone)
    monkeypatch.setattr(native_layers, "PIECE", 64)
    torch.set_num_threads(2)
    try:
        found_TD = model.model(among)[:150]
    finally:
        torch.set_num_threads(1)
    assert torch.equal(found_TD, wanted_TD)


@here
def test_parameters_keep_their_names_and_gradients_flow_through_the_plain_layer():
    plain, model = random_model(), made(torch.float32)
    assert model.state_dict().keys() == plain.state_dict().keys()
    batch = batch_of(20, 5)
    model(batch).sum().backward()
    plain(batch).sum().backward()
    name = "model.layers.2.mlp.Wi.weight"
    assert torch.equal(model.get_parameter(name).grad, plain.get_parameter(name).grad)


@here
@torch.inference_mode()
def test_a_layer_that_stays_in_float_keeps_its_digits():
    """All layers are left alone where the bound is 0: an int8 model whose products are all bfloat16 or float32."""
    model = random_model()
    quantize_model(model, batch_of(40, 3), bound=0.0)
    assert use_native_layers(model)
    batch = batch_of(30, 100)
    cosine_T = torch.cosine_similarity(model.model(batch), random_model().model(batch), dim=-1)
    assert cosine_T.min() > LEAST[torch.bfloat16]


def test_other_shapes_and_dtypes_stay_plain():
    narrow = random_model(CONFIG.with_(num_attention_heads=4))  # heads of 32
    odd = random_model(CONFIG.with_(intermediate_size=200))
    doubled = random_model().double()
    for model in (narrow, odd, doubled):
        before = copy.deepcopy(model.state_dict())
        assert not use_native_layers(model)
        assert not any(isinstance(layer, NativeLayer) for layer in model.model.layers)
        assert model.model.compute_dtype is None and before.keys() == model.state_dict().keys()
