"""int8: what it loses, which layers it leaves alone, and what it takes."""

import numpy as np
import pytest
import torch

from modernbert.batch import pack
from modernbert.checkpoint.folder import load_model, save_model
from modernbert.checkpoint.names import EMBEDDER, resolve
from modernbert.config import ModelConfig
from modernbert.engine import engine as engine_module
from modernbert.engine import measured, quantized
from modernbert.engine.engine import load
from modernbert.engine.quantized import BOUND, Bf16Embedding, Int8Embedding, Int8Linear, quantize_model, sample
from modernbert.errors import ConfigError, HardwareError
from modernbert.kernels.linear_int8 import weight_levels
from modernbert.model.encoder import Encoder
from modernbert.model.heads import LateInteraction, MaskedLM, QuestionAnswerer, SequenceClassifier, TokenClassifier, pool
from modernbert.model.init import init_weights
from modernbert.text.tokenizer import Tokenizer

pytestmark = pytest.mark.skipif(weight_levels() is None, reason="this build of PyTorch has no exact int8 product for this chip")

CONFIG = ModelConfig(
    vocab_size=600,
    hidden_size=128,
    intermediate_size=192,
    num_hidden_layers=4,
    num_attention_heads=2,
    initializer_range=0.1,  # about 1/√hidden_size: with 0.02 every layer adds next to nothing, and errors with it
)
TEXTS = [
    "The capital of France is Paris.",
    "He walked to the store, didn't he?",
    "seven days",
    "def add(a, b):\n    return a + b",
]

UNSEEN = [
    "Limpid, ungainly prose about a taxidermist's divorce.",
    "Why won't my hydrangeas flower?",
    "Metformin reduced hepatic steatosis in obese adolescents.",
    "a dog-eared paperback, foxed and slightly warped",
    "sort a dictionary by value",
    "Goalkeepers dive; referees don't.",
]
"""Of the kind whose vectors err most: short, of rare words."""


def rows(*lengths):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(5, CONFIG.vocab_size, (length,), generator=generator).tolist() for length in lengths]


AMPLIFIED = 0.97
"""A cosine that is enough of `tiny_folder`: its weights are three times 1/√hidden_size, so that each layer multiplies the errors of the
ones before. Found 0.994 for vectors and 0.984 for logits."""
TRIED = pack(rows(40, 3, 60))
READ = pack(rows(30, 70, 5, 100))


def random_model(cls=MaskedLM, config=CONFIG):
    model = cls(config).eval()
    init_weights(model, config, torch.Generator().manual_seed(0))
    return model


@torch.no_grad()
def with_outliers(model, factor):
    """The same function with two channels `factor` times as large before every product of layer 1 and before layer 2's `mlp.Wo`, and
    their weights so much smaller; as trained models grow them."""
    first, second, channels = model.model.layers[1], model.model.layers[2], [3, 10]
    for norm, linear in ((first.attn_norm, first.attn.Wqkv), (first.mlp_norm, first.mlp.Wi)):
        norm.weight[channels] *= factor
        linear.weight[:, channels] /= factor
    values = [2 * CONFIG.hidden_size + channel for channel in channels]
    first.attn.Wqkv.weight[values] *= factor
    first.attn.Wo.weight[:, channels] /= factor
    for mlp in (first.mlp, second.mlp):
        mlp.Wi.weight[[CONFIG.intermediate_size + channel for channel in channels]] *= factor
        mlp.Wo.weight[:, channels] /= factor
    return model


OUTLYING = [f"layers.1.{name}" for name in ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo")] + ["layers.2.mlp.Wo"]


@torch.no_grad()
def cosines(model, wanted_TD):
    return torch.cosine_similarity(model.model(READ), wanted_TD, dim=-1)


@torch.no_grad()
def test_a_model_without_outliers_becomes_int8_whole_and_keeps_its_states():
    model = random_model()
    wanted_TD = model.model(READ)
    layers = quantize_model(model, TRIED)
    assert [layer.name for layer in layers] == [name for name, m in model.model.named_modules() if isinstance(m, Int8Linear)]
    assert len(layers) == 4 * CONFIG.num_hidden_layers and all(layer.int8 for layer in layers)
    # two rounded factors with steps of max/127 and max/64, normal numbers: 0.01 to 0.02 of a token's product, as the kernel's test derives;
    # the mean of some 30 tokens has a fifth of it, and a residual stream of equal size halves that
    assert all(0.0005 < layer.error < 0.004 for layer in layers)
    assert cosines(model, wanted_TD).min() > 0.999


@torch.no_grad()
def test_layers_with_outliers_stay_in_float_and_so_the_states_stay():
    plain, model = random_model(), with_outliers(random_model(), 300)
    wanted_TD = plain.model(READ)
    assert cosines(model, wanted_TD).min() > 1 - 1e-6  # it is the same function
    everywhere = with_outliers(random_model(), 300)
    assert all(layer.int8 for layer in quantize_model(everywhere, TRIED, bound=10.0, near=-1.0))
    layers = quantize_model(model, TRIED)
    assert [layer.name for layer in layers if not layer.int8] == OUTLYING
    assert min(layer.error for layer in layers if not layer.int8) > BOUND
    assert cosines(everywhere, wanted_TD).median() < 0.98
    assert cosines(model, wanted_TD).median() > 0.9995


@torch.no_grad()
def test_the_worst_layers_leave_int8_until_vectors_are_near():
    wanted_BD = pool(random_model().model(TRIED), TRIED, "mean")

    def leave(near):
        model = random_model()
        layers = quantize_model(model, TRIED, near=near)
        in_int8, in_float = [[layer.error for layer in layers if layer.int8 is int8] for int8 in (True, False)]
        assert max(in_int8, default=0.0) <= min(in_float, default=1.0)
        cosine = torch.cosine_similarity(pool(model.model(TRIED), TRIED, "mean"), wanted_BD).median().item()
        return len(in_float), len(layers), cosine

    none, count, far = leave(-1.0)
    every, _, rows_alone = leave(2.0)
    some, _, near = leave((far + rows_alone) / 2)  # what int8 loses depends on the chip's levels
    assert none == 0 < some < every == count
    assert far < near < rows_alone < 1  # the decoder shares the embeddings, which stay int8


@torch.no_grad()
def test_what_all_tokens_share_does_not_hide_an_error():
    plain, model = [random_model(config=CONFIG.with_(num_hidden_layers=1)) for _ in range(2)]
    for one in (plain, model):
        one.model.embeddings.tok_embeddings.weight[:, 7] += (
            100  # one channel outshines what differs, and means of texts are alike
        )
    layers = quantize_model(model, TRIED, bound=BOUND, near=-1.0)
    assert not layers[0].int8 and layers[0].name == "layers.0.attn.Wqkv"  # nothing norms its input
    means = [pool(one.model(TRIED), TRIED, "mean") for one in (plain, model)]
    assert torch.cosine_similarity(*means).min() > 0.99


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_the_decoder_reads_the_int8_rows_of_the_embedding_where_it_is_tied(tied):
    model = random_model(config=CONFIG.with_(tie_word_embeddings=tied))
    torch.nn.init.normal_(model.decoder.bias)
    weight_VD, bias_V = model.decoder.weight.clone(), model.decoder.bias.clone()
    table_VD = model.model.embeddings.tok_embeddings.weight.clone()
    quantize_model(model, TRIED)
    x_MD = torch.randn(5, CONFIG.hidden_size)
    steps_V = weight_VD.abs().amax(1) / 127 / 2 if tied else torch.zeros(len(weight_VD))
    off_MV = (model.decoder(x_MD) - (x_MD @ weight_VD.T + bias_V)).abs()
    assert (off_MV <= x_MD.abs().sum(1)[:, None] * steps_V + 1e-5).all()
    embedding = model.model.embeddings.tok_embeddings
    assert isinstance(embedding, Int8Embedding if tied else Bf16Embedding)
    assert embedding.weight_VD.dtype == (torch.int8 if tied else torch.bfloat16)
    rows_ID = embedding(torch.tensor([3, 0, 599]))
    assert rows_ID.dtype == torch.float32
    assert torch.dist(rows_ID, table_VD[[3, 0, 599]]) < (0.01 if tied else 0.003) * rows_ID.norm()


def test_int8_takes_a_quarter_of_the_bytes(tiny_folder):
    def held(module):
        packed = [vars(m.native) for m in module.modules() if isinstance(m, Int8Linear) and m.native is not None]
        parts = [part for m in module.modules() for part in (m._parameters, vars(m))]
        tensors = [tensor for part in (*parts, *packed) for tensor in part.values() if torch.is_tensor(tensor)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    config = CONFIG.with_(hidden_size=256, intermediate_size=384, num_attention_heads=4)
    model = random_model(Encoder, config)
    before = held(model)
    quantize_model(model, TRIED)
    # 1 byte for 4, and a float32 for each row of 256 numbers or more, and the norms; 2 bytes for 4 in the table
    table = 4 * config.vocab_size * config.hidden_size
    assert 0.25 < (held(model) - table / 2) / (before - table) < 0.27


@torch.no_grad()
def test_the_packaged_embedder_keeps_its_vectors_in_int8():
    """The bound that docs/int8.md promises; with every layer in int8 the least is 0.99 on a chip without VNNI."""
    folder = resolve(EMBEDDER)
    plain, small = load_model(Encoder, folder, dtype=torch.float32), load_model(Encoder, folder)
    tokenizer = Tokenizer.load(folder)
    layers = quantize_model(small, sample(tokenizer))
    assert sum(layer.int8 for layer in layers) > len(layers) // 2
    batch = pack(tokenizer.encode([*TEXTS, *UNSEEN]))
    means = [pool(encoder(batch), batch, "mean") for encoder in (plain, small)]
    assert torch.cosine_similarity(*means).min() > 0.995


@pytest.fixture
def quick(monkeypatch):
    """A chip on which int8 pays, whatever else this one does just now."""
    monkeypatch.setattr(engine_module, "int8_gain", lambda: 2.0)


@pytest.mark.parametrize("dtype", ["int8", torch.int8])
@pytest.mark.usefixtures("quick")
def test_a_folder_loads_as_int8(tiny_folder, dtype):
    small, plain = load(tiny_folder, dtype=dtype), load(tiny_folder, device="cpu", dtype="float32")
    assert small.device.type == "cpu"
    assert any(isinstance(module, Int8Linear) for module in small.model.modules())
    vectors, wanted = small.embed(TEXTS, normalize=True), plain.embed(TEXTS, normalize=True)
    assert vectors.dtype == np.float32
    assert (vectors * wanted).sum(1).min() > AMPLIFIED
    np.testing.assert_array_equal(small.embed(TEXTS[2]), small.embed(TEXTS, batch_tokens=10)[2])
    batch = pack([small.tokenizer.encode(["The capital of [MASK] is Paris."])[0]])
    logits = [engine.logits(batch, torch.arange(len(batch.ids_T))) for engine in (small, plain)]
    assert torch.cosine_similarity(*logits).mean() > AMPLIFIED
    assert len(small.fill_mask("The capital of [MASK] is Paris.", top_k=3)) == 3


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
@pytest.mark.usefixtures("quick")
def test_a_folder_in_half_precision_loads_as_int8_with_float32_around_it(tiny_folder, tmp_path, stored):
    model = load_model(MaskedLM, tiny_folder)
    save_model(model, model.config, tmp_path / "half", tokenizer=load(tiny_folder, device="cpu").tokenizer, dtype=stored)
    small = load(tmp_path / "half", dtype="int8")
    assert {parameter.dtype for parameter in small.model.parameters()} == {torch.float32}
    wanted = load(tmp_path / "half", device="cpu", dtype="float32").embed(TEXTS, normalize=True)
    assert (small.embed(TEXTS, normalize=True) * wanted).sum(1).min() > AMPLIFIED


@pytest.mark.usefixtures("quick")
def test_a_folder_stored_in_int8_loads_as_floats_and_as_int8(tiny_folder, tmp_path):
    model = load_model(MaskedLM, tiny_folder)
    save_model(model, model.config, tmp_path / "small", tokenizer=load(tiny_folder, device="cpu").tokenizer, dtype=torch.int8)
    wanted = load(tiny_folder, device="cpu").embed(TEXTS, normalize=True)
    for dtype in ("float32", "int8"):
        found = load(tmp_path / "small", device="cpu", dtype=dtype)
        assert type(found.model) is MaskedLM
        assert (found.embed(TEXTS, normalize=True) * wanted).sum(1).min() > AMPLIFIED


@pytest.mark.parametrize(
    ("cls", "score"),
    [
        (SequenceClassifier, lambda engine: [one["score"] for one in engine.classify("Paris is in France", top_k=None)]),
        (TokenClassifier, lambda engine: [one["score"] for one in engine.tag("Paris is", None, ignore_labels=[])]),
        (QuestionAnswerer, lambda engine: engine.answer("Where?", "Paris is in France")["score"]),
        (LateInteraction, lambda engine: engine.embed_tokens("Paris is in France").ravel().tolist()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.usefixtures("quick")
def test_every_head_runs_on_an_int8_encoder(head_folder, cls, score):
    folder = head_folder(cls)
    # large random weights, which amplify what the first layers lose; found 0.18 at most
    assert score(load(folder, dtype="int8")) == pytest.approx(score(load(folder, device="cpu")), abs=0.25)


@pytest.mark.parametrize(("gain", "why"), [(0.8, r"takes 1\.2 times as long as float32"), (0.0, "has no exact product")])
def test_a_chip_on_which_int8_is_slower_runs_in_float32_and_says_so(tiny_folder, monkeypatch, gain, why):
    monkeypatch.setattr(engine_module, "int8_gain", lambda: gain)
    with pytest.warns(UserWarning, match=rf"^int8 {why}.* on this CPU: the model runs in float32$"):
        engine = load(tiny_folder, dtype="int8")
    np.testing.assert_array_equal(engine.embed("a text"), load(tiny_folder, device="cpu").embed("a text"))


def test_int8_elsewhere_than_on_the_cpu_and_unknown_dtypes_are_refused(tiny_folder):
    with pytest.raises(HardwareError, match=r"^int8 runs on the CPU, not on meta; leave the device or the dtype out$"):
        load(tiny_folder, device="meta", dtype="int8")
    with pytest.raises(ConfigError, match=r"^dtype='int4': wanted one of float32, bfloat16, float16, int8, fp8$"):
        load(tiny_folder, dtype="int4")
    with pytest.raises(ConfigError, match=r"^dtype=torch.int32: wanted one of"):
        load(tiny_folder, dtype=torch.int32)


def test_the_gain_is_measured_with_one_thread_and_leaves_the_threads_alone(monkeypatch):
    threads = torch.get_num_threads()
    assert 0.1 < measured.int8_gain() < 20  # 1.5 on AVX2, about 4 with VNNI
    assert torch.get_num_threads() == threads
    monkeypatch.setattr(measured, "weight_levels", lambda: None)
    assert measured.int8_gain() == 0


def test_a_choice_of_layers_is_kept_for_the_same_weights_and_texts(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    outlying = with_outliers(random_model(), 300)
    first = quantize_model(with_outliers(random_model(), 300), TRIED, remember=True)
    assert {layer.int8 for layer in first} == {True, False}
    (kept,) = tmp_path.glob("modernbert/int8-*.json")

    def refuses(*_):
        raise AssertionError("chosen again")

    with monkeypatch.context() as patched:
        patched.setattr(quantized, "choose_layers", refuses)
        assert quantize_model(outlying, TRIED, remember=True) == first
        for other in (
            lambda: quantize_model(random_model(), TRIED, remember=True),
            lambda: quantize_model(with_outliers(random_model(), 300), READ, remember=True),
            lambda: quantize_model(with_outliers(random_model(), 300), TRIED, near=0.5, remember=True),
        ):
            with pytest.raises(AssertionError, match="chosen again"):
                other()
    wanted = with_outliers(random_model(), 300)
    quantize_model(wanted, TRIED)
    assert torch.equal(outlying.model(READ), wanted.model(READ))
    kept.write_text("[{")
    assert quantize_model(with_outliers(random_model(), 300), TRIED, remember=True) == first
    assert kept.read_text() != "[{"
