import subprocess
import sys
from fnmatch import fnmatch

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from modernbert.checkpoint import names
from modernbert.checkpoint.names import packaged_names, resolve
from modernbert.errors import CheckpointError


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """An installation with two packaged models, and a folder without one."""
    for name in ("tiny", "small"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    (tmp_path / "cards").mkdir()
    monkeypatch.setattr(names, "PACKAGED", tmp_path)
    return tmp_path


def test_nothing_means_the_default_model(packaged):
    assert resolve() == resolve(None) == resolve("tiny") == packaged / "tiny"
    assert packaged_names() == ["small", "tiny"]


def test_a_folder_is_itself(packaged, tmp_path, monkeypatch):
    folder = tmp_path / "org" / "model"
    folder.mkdir(parents=True)
    assert resolve(folder) == resolve(str(folder)) == folder
    monkeypatch.chdir(tmp_path)
    assert resolve("org/model").samefile(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert resolve("~/org/model") == folder


def test_a_folder_with_the_name_of_a_packaged_model_stays_itself_when_it_is_asked_for_again(packaged, tmp_path, monkeypatch):
    """Who loads a model asks for its folder several times, with what was found before; a `Path` drops the dot of ./tiny."""
    here = tmp_path / "here"
    (here / "tiny").mkdir(parents=True)
    monkeypatch.chdir(here)
    assert resolve(resolve("./tiny")) == resolve(str(resolve("./tiny"))) == here / "tiny"
    assert resolve("tiny") == packaged / "tiny"


def test_a_hub_name_brings_configuration_safetensors_and_tokenizer_only(packaged, tmp_path, monkeypatch):
    asked = {}

    def fetch(name, *, repo_type, allow_patterns):
        asked[name] = allow_patterns
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert resolve("answerdotai/ModernBERT-base") == tmp_path
    patterns = asked["answerdotai/ModernBERT-base"]
    assert {"config.json", "model*.safetensors", "tokenizer.json"} <= set(patterns)
    assert not any(pattern.endswith((".bin", ".pt", "*", ".py")) for pattern in patterns)
    for file in ("modules.json", "config_sentence_transformers.json", "1_Pooling/config.json", "2_Dense/model.safetensors"):
        assert any(fnmatch(file, pattern) for pattern in patterns), file
    assert not any(fnmatch("onnx/model.safetensors", pattern) for pattern in patterns)


@pytest.mark.parametrize("failure", [LocalEntryNotFoundError("offline"), ConnectionError("offline")])
def test_a_hub_that_cannot_be_reached_says_what_to_do(packaged, monkeypatch, failure):
    def fetch(name, **_):
        raise failure

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(CheckpointError) as error:
        resolve("answerdotai/ModernBERT-base")
    for part in (
        "cannot fetch answerdotai/ModernBERT-base",
        "no such folder here",
        "the hub cannot be reached",
        "check the path",
        "give the path",
        "(small, tiny)",
    ):
        assert part in str(error.value)


def test_offline_a_model_outside_the_cache_is_refused_without_a_try(packaged):
    with pytest.raises(CheckpointError, match="the model is not in the local cache"):
        resolve("nobody-of-this-name/no-model-of-this-name")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "../nowhere", "a/b/c"])
def test_a_path_that_is_not_there_is_called_a_path(packaged, name):
    with pytest.raises(CheckpointError, match=rf"no folder {name}; check the path, or name a packaged model \(small, tiny\)"):
        resolve(name)


def test_an_unknown_name_gets_the_nearest(packaged):
    with pytest.raises(
        CheckpointError, match=r"no model named 'tinny'; did you mean 'tiny'\? wanted a packaged model \(small, tiny\)"
    ):
        resolve("tinny")


def test_a_file_is_not_a_folder(packaged):
    with pytest.raises(CheckpointError, match=r"config.json is a file; give the folder that holds it"):
        resolve(packaged / "tiny" / "config.json")


def test_names_alone_load_neither_torch_nor_the_hub():
    code = "import sys, modernbert.checkpoint.names; assert not {'huggingface_hub', 'torch'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
