"""What TEI and vLLM read of a folder, key by key: neither runs here, so the types that their code asks for are written down.

Source: text-embeddings-inference, `router/src/lib.rs` and `backends/candle/src/models/modernbert.rs` (read November 2026), and
facts for serving §2.2, §6.4.
"""

import json

import pytest
from safetensors import safe_open

import modernbert.hf
from modernbert.checkpoint.folder import load_model
from modernbert.checkpoint.modules import Modules, save_cross_encoder, save_sentence_transformer
from modernbert.checkpoint.settings import read_config, read_json
from modernbert.model.heads import Embedder, SequenceClassifier
from modernbert.text.tokenizer import Tokenizer

WHOLE = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"]
WHOLE += [f"{token}_token_id" for token in ("pad", "eos", "bos", "cls", "sep")]
WHOLE += ["global_attn_every_n_layers", "local_attention", "num_labels"]
REAL = [
    "initializer_range",
    "initializer_cutoff_factor",
    "norm_eps",
    "global_rope_theta",
    "local_rope_theta",
    "attention_dropout",
]
BOOL = ["norm_bias", "attention_bias"]
LAYER = ["attn.Wqkv", "attn.Wo", "mlp_norm", "mlp.Wi", "mlp.Wo"]


def tei_reads_config(folder):
    """Every key that TEI's struct has no default for, in its type; JSON's null is refused."""
    said = read_json(folder / "config.json")
    assert {key: said.get(key) for key in WHOLE if type(said.get(key)) is not int} == {}
    assert {key: said.get(key) for key in REAL if type(said.get(key)) not in (int, float)} == {}
    assert {key: said.get(key) for key in BOOL if type(said.get(key)) is not bool} == {}
    assert said["hidden_activation"] == said["classifier_activation"] == "gelu"
    assert said["classifier_pooling"] in ("cls", "mean") and said["model_type"] == "modernbert"
    assert (folder / "tokenizer.json").exists()
    return said


def tensors(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


@pytest.fixture(params=["ours", "transformers with our classes"])
def writer(request):
    """Who writes the folder last: our own writer, or `save_pretrained`, also after a Trainer has emptied bos and eos."""

    def rewrite(folder, name):
        if request.param == "ours":
            return folder
        model = getattr(modernbert.hf, name).from_pretrained(folder)
        model.config.bos_token_id = model.config.eos_token_id = None
        model.save_pretrained(folder)
        return folder

    return rewrite


def test_an_embedding_folder_has_what_the_servers_read(writer, tiny_folder, tmp_path):
    model = load_model(Embedder, tiny_folder)
    save_sentence_transformer(model, model.config, tmp_path, Modules(max_seq_length=512), tokenizer=Tokenizer.load(tiny_folder))
    said = tei_reads_config(writer(tmp_path, "ModernBertModel"))
    assert said["architectures"] == ["ModernBertModel"]
    pooling = read_json(tmp_path / "1_Pooling" / "config.json")
    flags = {f"pooling_mode_{name}" for name in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")}
    assert flags <= pooling.keys() and all(type(pooling[flag]) is bool for flag in flags)
    assert read_json(tmp_path / "sentence_bert_config.json")["max_seq_length"] == 512
    kinds = [entry["type"] for entry in json.loads((tmp_path / "modules.json").read_text())]
    assert kinds == ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"]  # vLLM looks for these
    assert {"embeddings.tok_embeddings.weight", "embeddings.norm.weight", "final_norm.weight"} <= tensors(tmp_path)
    assert {f"layers.1.{part}.weight" for part in [*LAYER, "attn_norm"]} <= tensors(tmp_path)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_a_classifier_folder_has_what_the_servers_read(classes, writer, tiny_folder, tmp_path):
    """Two classes are transformers' default, which it leaves out; TEI then finds no names and does not start."""
    config = read_config(tiny_folder).with_(num_labels=classes)
    model = load_model(SequenceClassifier, tiny_folder, config=config, fresh=("head", "classifier"))
    save_cross_encoder(model, config, tmp_path, tokenizer=Tokenizer.load(tiny_folder))
    said = tei_reads_config(writer(tmp_path, "ModernBertForSequenceClassification"))
    assert said["architectures"] == [
        "ModernBertForSequenceClassification"
    ]  # by its ending a classifier, or a reranker of one class
    assert said["num_labels"] == classes
    assert said["id2label"] == {str(i): f"LABEL_{i}" for i in range(classes)}
    assert said["label2id"] == {f"LABEL_{i}": i for i in range(classes)}
    assert said["sentence_transformers"]["activation_fn"] == "torch.nn.modules.activation.Sigmoid"
    heads = {"head.dense.weight", "head.norm.weight", "classifier.weight", "classifier.bias"}
    assert heads | {f"model.layers.1.{part}.weight" for part in [*LAYER, "attn_norm"]} <= tensors(tmp_path)
    assert read_config(tmp_path).num_labels == classes
