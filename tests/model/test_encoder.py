"""What the encoder as a whole promises: its window, its dropout, its precision, the same with every backend."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from modernbert.batch import pack
from modernbert.config import ModelConfig
from modernbert.kernels.rope import rotary_tables
from modernbert.model.attention import Attention
from modernbert.model.encoder import Encoder
from modernbert.model.heads import MaskedLM
from modernbert.model.init import init_weights

SMALL = ModelConfig(
    vocab_size=512, hidden_size=128, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2, initializer_range=0.1
)


def random_encoder(**changes):
    config = SMALL.with_(**changes)
    model = Encoder(config).eval()
    init_weights(model, config, torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize("backend", ["banded", "reference", pytest.param("flash", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("token", [0, 64, 65, 200, 299])
def test_one_local_layer_sees_exactly_64_tokens_on_each_side(backend, token):
    """Every token has an id of its own, so that the embedding's gradient says which tokens were seen."""
    model = random_encoder(num_hidden_layers=1, layer_types=("sliding_attention",))
    model.backend = backend
    device, model.compute_dtype = ("cuda", torch.bfloat16) if backend == "flash" else ("cpu", None)
    batch = pack([list(range(400, 450)), list(range(300)), list(range(450, 500))])
    x_TD = model.to(device)(batch.to(device))
    x_TD[50 + token].float().square().sum().backward()
    seen = model.embeddings.tok_embeddings.weight.grad.abs().amax(1).nonzero().flatten().tolist()
    assert seen == list(range(max(0, token - 64), min(300, token + 65)))


def test_the_first_and_every_third_layer_see_the_whole_row():
    """The two local layers alone would carry the first token's news 128 tokens far, not 499."""
    model = random_encoder()
    assert [model.layers[i].attn.window for i in range(4)] == [None, 64, 64, None]
    model(pack([list(range(500))]))[0].square().sum().backward()
    seen = model.embeddings.tok_embeddings.weight.grad.abs().amax(1).nonzero().flatten().tolist()
    assert seen == list(range(500))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_the_banded_backend_computes_in_16_bits_what_float32_computes(dtype, tolerance):
    """Hidden states are of size 1 after the last norm, up to 4; four layers add their rounding, of 8 bits in bf16 and 11 in fp16."""
    model = random_encoder()
    model.backend = "banded"
    batch = pack([list(range(200)), [5], list(range(70, 400))])
    with torch.no_grad():
        exact_TD = model(batch)
        model.compute_dtype = dtype
        mixed_TD = model(batch)
        model.to(dtype).compute_dtype = None
        cast_TD = model(batch)
    for x_TD in (mixed_TD, cast_TD):
        assert x_TD.dtype == dtype
        torch.testing.assert_close(x_TD.float(), exact_TD, atol=tolerance, rtol=0)
        assert (x_TD.float() - exact_TD).square().mean().sqrt() < tolerance / 5


def test_the_backends_agree_on_the_whole_model():
    model = random_encoder()
    batch = pack([list(range(200)), [5], list(range(70, 400))])
    model.backend = "reference"
    wanted_TD = model(batch)
    for backend in ("banded", None):
        model.backend = backend
        torch.testing.assert_close(model(batch), wanted_TD, atol=1e-5, rtol=0)  # float32, sums in another order


def test_float32_weights_get_float32_gradients_from_a_bf16_pass():
    """Cosine over 0.99: bf16 keeps 8 bits of each factor, and their errors do not add up."""
    model = random_encoder()
    batch = pack([list(range(300))])
    gradients = []
    for dtype in (None, torch.bfloat16):
        model.compute_dtype = dtype
        model.zero_grad()
        model(batch).float()[:, ::3].sum().backward()
        assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


def test_dropout_sits_on_the_output_of_attention_and_nowhere_else():
    """As in ModernBERT's training: entries of a layer's output are zeroed and the rest scaled; probabilities stay whole."""
    config = SMALL.with_(attention_dropout=0.25)
    batch = pack([[0] * 300])
    attention = Attention(config, 1)
    x_TD, rotary = torch.randn(300, config.hidden_size), {config.rope(1): rotary_tables(300, config.head_dim, 10_000.0)}
    nothing_TD = torch.zeros_like(x_TD)
    exact_TD = attention.eval()(nothing_TD, x_TD, batch, rotary)
    found_TD = attention.train()(nothing_TD, x_TD, batch, rotary)
    kept_TD = found_TD != 0
    torch.testing.assert_close(found_TD, exact_TD / 0.75 * kept_TD)
    assert kept_TD.float().mean().item() == pytest.approx(0.75, abs=0.01)  # 38,400 entries: five standard deviations

    active = [name for name, module in MaskedLM(config).named_modules() if isinstance(module, nn.Dropout) and module.p > 0]
    assert active == [f"model.layers.{i}.attn.out_drop" for i in range(4)]


COMPILED = """
import json
import sys
import torch
from modernbert.batch import pack
from modernbert.config import ModelConfig
from modernbert.model.encoder import Encoder
from modernbert.model.fp8 import quantize_fp8
from modernbert.model.init import init_weights

config = ModelConfig.from_json(json.loads(sys.argv[1]))
model = Encoder(config).eval()
init_weights(model, config, torch.Generator().manual_seed(0))
model.to("cuda", torch.bfloat16)
if sys.argv[2] == "fp8":
    quantize_fp8(model)
compiled = torch.compile(model, dynamic=True, fullgraph=True)
with torch.inference_mode():
    for lengths in ([200, 5, 330], [40, 17], [300] * 9):
        batch = pack([list(range(length)) for length in lengths]).to("cuda")
        print(torch.cosine_similarity(compiled(batch).float(), model(batch).float()).min().item())
"""


@pytest.mark.gpu
@pytest.mark.parametrize("products", ["bf16", "fp8"])
def test_the_compiled_encoder_is_one_graph_for_batches_of_any_size_and_agrees_with_the_eager_one(products):
    """Both in bf16, on a GPU; the compiler keeps float32 between fused steps where eager steps round.

    In a process of its own: the checks of shapes that a test run puts around functions cannot be compiled.
    """
    config = json.dumps(SMALL.with_(num_hidden_layers=3).to_json())
    done = subprocess.run([sys.executable, "-c", COMPILED, config, products], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.split()) == 3 and min(map(float, done.stdout.split())) > 0.999


@pytest.mark.gpu
def test_the_sums_in_place_give_what_sums_with_gradients_give():
    """bf16 on a GPU: with gradients the residual is a tensor of its own."""
    model = random_encoder().to("cuda", torch.bfloat16)
    batch = pack([list(range(200)), [5], list(range(70, 400))]).to("cuda")
    wanted_TD = model(batch).detach().float()
    with torch.inference_mode():
        found_TD = model(batch).float()
    torch.testing.assert_close(found_TD, wanted_TD, atol=0.1, rtol=0)  # numbers up to 4, rounded to 8 bits four layers long
    assert torch.cosine_similarity(found_TD, wanted_TD).min() > 0.999
