import json
import os
import shutil
import stat

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from modernbert.batch import pack
from modernbert.checkpoint.folder import ARCHITECTURES, load_model, save_model
from modernbert.checkpoint.settings import read_config, read_pooling
from modernbert.checkpoint.weights import read_weights
from modernbert.config import ModelConfig
from modernbert.errors import CheckpointError, ConfigError
from modernbert.model.encoder import Encoder
from modernbert.model.heads import Embedder, LateInteraction, MaskedLM, MultipleChoice, SequenceClassifier
from modernbert.model.init import init_weights

CONFIG = ModelConfig(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=80,
    num_hidden_layers=4,
    num_attention_heads=1,
    global_rope_theta=80_000.0,
    local_rope_theta=5_000.0,
    num_labels=3,
    unk_token_id=0,
    cls_token_id=1,
    sep_token_id=2,
    pad_token_id=3,
    mask_token_id=4,
)
THEIRS = [name for name in sorted(set(ARCHITECTURES.values())) if hasattr(transformers, name)]
ROW = [1, 17, 40, 4, 90, 2]


def new(cls, config=CONFIG, seed=0):
    model = cls(config)
    init_weights(model, config, torch.Generator().manual_seed(seed))
    return model.eval()


@pytest.fixture
def saved(tmp_path):
    """A masked-LM folder."""
    save_model(new(MaskedLM), CONFIG, tmp_path / "model")
    return tmp_path / "model"


def same(first, second):
    """Bitwise: saving and loading computes nothing."""
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def ours(name):
    return next(cls for cls, architecture in ARCHITECTURES.items() if architecture == name)


def test_every_published_architecture_is_known():
    assert len(THEIRS) == 6


@pytest.mark.parametrize("cls", ARCHITECTURES)
def test_every_class_comes_back_as_it_was_saved(cls, tmp_path):
    model = new(cls)
    save_model(model, CONFIG, tmp_path / "model")
    loaded = load_model(cls, tmp_path / "model")
    assert same(model, loaded)
    assert not loaded.training and all(parameter.requires_grad for parameter in loaded.parameters())
    assert read_config(tmp_path / "model").rope(1).theta == 5_000.0


@pytest.mark.parametrize("max_shard_bytes", [5_000_000_000, 50_000])
@pytest.mark.parametrize("name", THEIRS)
def test_transformers_loads_what_we_save(name, max_shard_bytes, tmp_path):
    model = new(ours(name))
    save_model(model, CONFIG, tmp_path / "model", max_shard_bytes=max_shard_bytes)
    theirs, info = getattr(transformers, name).from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")), info
    state = theirs.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in model.state_dict().items())
    assert theirs.config.architectures == [name]


@pytest.mark.parametrize("shard", ["5GB", "50KB"])
@pytest.mark.parametrize("name", THEIRS)
def test_we_load_what_transformers_saves(name, shard, tmp_path):
    config = CONFIG.with_(num_labels=2) if name.endswith("QuestionAnswering") else CONFIG
    theirs = getattr(transformers, name)(transformers.ModernBertConfig(**config.to_json()))
    theirs.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors").exists() == (shard == "5GB")
    assert same(theirs, load_model(ours(name), tmp_path))
    assert same(theirs.base_model, load_model(Encoder, tmp_path))


def test_a_reloaded_model_says_the_same_as_transformers(saved):
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(saved).eval()
    with torch.no_grad():
        wanted = theirs(input_ids=torch.tensor([ROW])).logits[0]
        found = load_model(MaskedLM, saved)(pack([ROW]))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)  # float32 sums in another order


def test_the_decoder_is_tied_again(saved):
    model = load_model(MaskedLM, saved)
    assert model.decoder.weight is model.model.embeddings.tok_embeddings.weight
    assert "decoder.weight" not in read_weights(saved)


def test_a_stored_tied_decoder_is_accepted_unless_it_differs(saved):
    weights = load_file(saved / "model.safetensors")
    save_file(
        {**weights, "decoder.weight": weights["model.embeddings.tok_embeddings.weight"].clone()}, saved / "model.safetensors"
    )
    assert same(load_model(MaskedLM, saved), new(MaskedLM))
    save_file({**weights, "decoder.weight": torch.ones(96, 64)}, saved / "model.safetensors")
    with pytest.raises(CheckpointError, match="both are stored and differ; set tie_word_embeddings to false"):
        load_model(MaskedLM, saved)


def test_an_untied_decoder_is_kept(tmp_path):
    config = CONFIG.with_(tie_word_embeddings=False)
    model = new(MaskedLM, config)
    save_model(model, config, tmp_path / "model")
    assert same(model, load_model(MaskedLM, tmp_path / "model"))
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "model")
    assert torch.equal(theirs.decoder.weight, model.decoder.weight)


@pytest.mark.parametrize("cls", [Encoder, Embedder])
def test_an_encoder_comes_out_of_any_checkpoint(cls, saved):
    wanted = new(MaskedLM).model
    loaded = load_model(cls, saved)
    assert same(wanted, loaded if cls is Encoder else loaded.model)


def test_a_task_head_on_an_encoder_comes_only_on_request(tmp_path):
    save_model(new(Encoder), CONFIG, tmp_path / "bare")
    with pytest.raises(CheckpointError) as error:
        load_model(SequenceClassifier, tmp_path / "bare")
    assert "missing head.dense.weight (64, 64), head.norm.weight (64), classifier.weight (3, 64) and 1 more" in str(error.value)
    assert "pass fresh=('head', 'classifier')" in str(error.value)
    model = load_model(SequenceClassifier, tmp_path / "bare", fresh=("head", "classifier"))
    assert same(model.model, new(Encoder))
    assert model.head.norm.weight.eq(1).all() and model.classifier.bias.eq(0).all()
    assert 0.5 * 64**-0.5 < model.classifier.weight.std() < 64**-0.5
    assert same(model, load_model(SequenceClassifier, tmp_path / "bare", fresh=("head", "classifier")))
    assert not same(model, load_model(SequenceClassifier, tmp_path / "bare", fresh=("head", "classifier"), seed=1))


def test_fine_tuning_keeps_the_masked_lm_head_if_only_the_classifier_is_fresh(saved):
    config = CONFIG.with_(num_labels=7, classifier_dropout=0.2)
    model = load_model(SequenceClassifier, saved, config=config, fresh=("classifier",))
    assert same(model.head, new(MaskedLM).head)
    assert model.classifier.weight.shape == (7, 64) and model.drop.p == 0.2
    assert load_model(LateInteraction, saved, fresh=("linear",)).linear.weight.isfinite().all()


def test_a_classifier_with_other_classes_is_replaced_on_request(tmp_path):
    save_model(new(SequenceClassifier), CONFIG, tmp_path / "three")
    two = CONFIG.with_(num_labels=2)
    with pytest.raises(CheckpointError, match=r"misshapen classifier.weight: wanted \(2, 64\), found \(3, 64\)"):
        load_model(SequenceClassifier, tmp_path / "three", config=two)
    assert load_model(SequenceClassifier, tmp_path / "three", config=two, fresh=("classifier",)).classifier.bias.shape == (2,)


def test_missing_extra_and_misshapen_keys_are_named(saved):
    weights = load_file(saved / "model.safetensors")
    del weights["model.layers.2.mlp.Wo.weight"]
    weights["model.layers.0.attn_norm.weight"] = torch.ones(64)
    weights["model.final_norm.weight"] = torch.ones(63)
    weights["decoder.bias"] = torch.zeros(96, dtype=torch.int8)
    save_file(weights, saved / "model.safetensors")
    with pytest.raises(CheckpointError) as error:
        load_model(MaskedLM, saved)
    for part in (
        "do not fit MaskedLM",
        "missing model.layers.2.mlp.Wo.weight (64, 80)",
        "unexpected model.layers.0.attn_norm.weight (64)",
        "model.final_norm.weight: wanted (64), found (63)",
        "decoder.bias: wanted (96), found (96) int8",
        "fetch both again from one place",
    ):
        assert part in str(error.value)


def test_another_task_is_refused_without_a_request(tmp_path):
    save_model(new(MultipleChoice), CONFIG, tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"missing decoder.bias .* unexpected classifier.bias"):
        load_model(MaskedLM, tmp_path / "model")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_are_written_and_read_in_the_asked_dtype(dtype, tmp_path):
    save_model(new(MaskedLM), CONFIG, tmp_path / "half", dtype=dtype)
    assert {tensor.dtype for tensor in read_weights(tmp_path / "half").values()} == {dtype}
    assert {parameter.dtype for parameter in load_model(MaskedLM, tmp_path / "half").parameters()} == {dtype}
    assert {parameter.dtype for parameter in load_model(MaskedLM, tmp_path / "half", dtype=torch.float32).parameters()} == {
        torch.float32
    }
    written = json.loads((tmp_path / "half" / "config.json").read_text())
    assert written["dtype"] == written["torch_dtype"] == str(dtype).removeprefix("torch.")
    assert transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "half").dtype == dtype


def test_the_index_lists_every_tensor_and_the_shards_keep_to_the_limit(tmp_path):
    save_model(new(MaskedLM), CONFIG, tmp_path / "model", max_shard_bytes=70_000)
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 2 and shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    sizes = [sum(tensor.nbytes for tensor in load_file(tmp_path / "model" / shard).values()) for shard in shards]
    assert max(sizes) <= 70_000 and sum(sizes) == index["metadata"]["total_size"]
    assert index["weight_map"].keys() == read_weights(tmp_path / "model").keys()


def test_saving_again_leaves_no_stale_weights_and_keeps_other_files(saved):
    (saved / "README.md").write_text("a card")
    for max_shard_bytes in (50_000, 90_000, 5_000_000_000):
        model = new(MaskedLM, seed=max_shard_bytes)
        save_model(model, CONFIG, saved, max_shard_bytes=max_shard_bytes)
        assert same(model, load_model(MaskedLM, saved))
    assert sorted(os.listdir(saved)) == ["README.md", "config.json", "model.safetensors"]


def test_saving_over_the_folder_that_the_model_is_mapped_from_is_safe(saved):
    model = load_model(MaskedLM, saved)
    with torch.no_grad():
        model.decoder.bias.add_(1)
    save_model(model, CONFIG, saved)
    assert same(model, load_model(MaskedLM, saved))


def test_a_failed_save_leaves_the_folder_as_it_was(saved):
    class Tokenizer:
        def save(self, folder):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_model(new(MaskedLM, seed=1), CONFIG, saved, tokenizer=Tokenizer())
    with pytest.raises(OSError, match="disk full"):
        save_model(new(MaskedLM, seed=1), CONFIG, saved.parent / "other", tokenizer=Tokenizer())
    assert same(new(MaskedLM), load_model(MaskedLM, saved))
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_others_may_read_what_is_written(saved):
    (saved.parent / "plain").touch()
    plain = stat.S_IMODE((saved.parent / "plain").stat().st_mode)
    assert {stat.S_IMODE(file.stat().st_mode) for file in saved.iterdir()} == {plain}


def test_a_pickle_is_refused_with_a_way_out(saved):
    (saved / "model.safetensors").unlink()
    torch.save({"a": torch.ones(1)}, saved / "pytorch_model.bin")
    with pytest.raises(CheckpointError) as error:
        load_model(MaskedLM, saved)
    assert "pytorch_model.bin" in str(error.value) and "loading one runs code" in str(error.value)
    command = str(error.value).split('python -c "')[1].removesuffix('"')
    compile(command, "command", "exec")


def test_a_folder_without_weights_or_config_says_so(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(CheckpointError, match=r"no config.json in .* \(it holds: notes.txt\)"):
        load_model(MaskedLM, tmp_path)
    with pytest.raises(CheckpointError, match=r"no weights in .*; wanted model.safetensors, or shards with"):
        read_weights(tmp_path)
    (tmp_path / "onnx").mkdir()
    with pytest.raises(CheckpointError, match=r"holds ONNX files and no model.safetensors; fill-mask and embed run those"):
        read_weights(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", b"\xff\xfe\x00"])
def test_a_damaged_config_is_named(saved, content):
    (saved / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CheckpointError, match=r"config.json .*fetch or write it again"):
        read_config(saved)


def test_another_architecture_is_named_with_its_file(saved):
    (saved / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ConfigError, match=r"config.json: model_type is 'bert'"):
        read_config(saved)


@pytest.mark.parametrize("keep", [0, 4, 100, -10])
def test_a_cut_off_file_is_named(saved, keep):
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model.safetensors is damaged or cut short \(.*\); fetch or write it again"):
        read_weights(saved)


def test_missing_shards_and_foreign_indexes_are_named(saved):
    save_model(new(MaskedLM), CONFIG, saved, max_shard_bytes=50_000)
    index = json.loads((saved / "model.safetensors.index.json").read_text())
    first = min(index["weight_map"].values())
    (saved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {**index["weight_map"], "model.lost": first}}))
    with pytest.raises(CheckpointError, match=r"names model.lost, which its shards do not hold"):
        read_weights(saved)
    (saved / first).unlink()
    with pytest.raises(CheckpointError, match=rf"lacks {first} of its \d+ shards"):
        read_weights(saved)
    (saved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(CheckpointError, match="has no weight_map of keys to files beside it"):
        read_weights(saved)


def test_a_research_folder_loads_as_it_is(saved):
    weights = load_file(saved / "model.safetensors")
    research = {
        "model."
        + (f"bert.{name.removeprefix('model.').replace('layers.', 'encoder.layers.')}" if name.startswith("model.") else name): t
        for name, t in weights.items()
    }
    research["model.decoder.weight"] = weights["model.embeddings.tok_embeddings.weight"].clone()  # the research code stores it
    assert "model.bert.encoder.layers.0.attn.Wqkv.weight" in research and "model.head.dense.weight" in research
    save_file(research, saved / "model.safetensors")
    assert same(load_model(MaskedLM, saved), new(MaskedLM))


def test_embeddings_are_pooled_as_a_sentence_transformers_folder_says(saved):
    assert read_pooling(saved) == CONFIG.classifier_pooling == "cls"
    (saved / "1_Pooling").mkdir()
    modes = {"word_embedding_dimension": 64, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (saved / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    assert read_pooling(saved) == "mean"
    assert load_model(Embedder, saved).config.classifier_pooling == "mean"
    assert load_model(MaskedLM, saved).config.classifier_pooling == "cls"
    (saved / "1_Pooling" / "config.json").write_text(json.dumps({**modes, "pooling_mode_max_tokens": True}))
    with pytest.raises(CheckpointError, match="asks for pooling_mode_max_tokens, pooling_mode_mean_tokens; only"):
        read_pooling(saved)
    (saved / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": 64, "pooling_mode": "cls"}))
    assert read_pooling(saved) == "cls"
    (saved / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": 64, "pooling_mode": "lasttoken"}))
    with pytest.raises(CheckpointError, match="asks for pooling_mode=lasttoken; only"):
        read_pooling(saved)


def test_a_loaded_model_trains_without_touching_its_file(saved):
    copy = saved.parent / "copy"
    shutil.copytree(saved, copy)
    model = load_model(MaskedLM, saved).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(pack([ROW])).logsumexp(-1).sum().backward()
    optimizer.step()
    assert not same(model, new(MaskedLM))
    assert (saved / "model.safetensors").read_bytes() == (copy / "model.safetensors").read_bytes()
