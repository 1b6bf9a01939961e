import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from modernbert.data import shards as shards_module
from modernbert.data.documents import Document
from modernbert.data.shard_writing import write_shards
from modernbert.data.shards import MANIFEST, TokenShards, compare_sums, read_manifest
from modernbert.errors import DataError
from modernbert.text.train import train_tokenizer


def texts_of(shards, tokenizer):
    return [tokenizer.decode(shards.document(index).tolist()) for index in range(len(shards))]


def test_shards_give_back_every_document_without_special_tokens(shards, documents, tokenizer):
    assert len(shards.tokens) > 3
    assert texts_of(shards, tokenizer) == [document.text for document in documents]
    assert shards.tokens[0].dtype == np.uint16
    assert not set(np.concatenate(shards.tokens).tolist()) & tokenizer.special_ids


def test_the_manifest_counts_documents_tokens_and_sources(shards, documents, tokenizer):
    manifest = shards.manifest
    lengths = [len(ids) for ids in tokenizer.encode([document.text for document in documents], special=False)]
    assert (manifest.documents, manifest.tokens) == (len(documents), sum(lengths))
    assert shards.lengths.tolist() == lengths
    assert [source["name"] for source in manifest.sources] == ["source-0", "source-1", "source-2"]
    assert [source["documents"] for source in manifest.sources] == [40, 40, 40]
    assert [source["tokens"] for source in manifest.sources] == [sum(lengths[first::3]) for first in range(3)]
    assert shards.source_of.tolist() == [number % 3 for number in range(len(documents))]
    assert manifest.special_ids == {name: getattr(tokenizer, f"{name}_id") for name in ("cls", "sep", "pad", "mask", "unk")}


class Killed(Exception):
    pass


def killed_after(documents, count):
    yield from documents[:count]
    raise Killed


@pytest.mark.parametrize("kills", [[0], [50], [20, 70, 71, 119]])
def test_a_killed_preparation_goes_on_without_losing_or_repeating_a_document(
    tmp_path, documents, tokenizer, shards, kills, monkeypatch
):
    monkeypatch.setattr("modernbert.data.shard_writing.BATCH_DOCUMENTS", 16)
    for kill in kills:
        with pytest.raises(Killed):
            write_shards(killed_after(documents, kill), tokenizer, tmp_path, tokens_per_shard=6_000)
    (tmp_path / "tokens-00099.npy.part").write_bytes(b"what a killed writer leaves")
    resumed = write_shards(documents, tokenizer, tmp_path, tokens_per_shard=6_000)
    assert resumed == shards.manifest  # the files too, by their checksums
    assert texts_of(TokenShards.open(tmp_path, verify=True), tokenizer) == [document.text for document in documents]


def test_a_full_disk_is_named_and_the_preparation_goes_on_afterwards(tmp_path, documents, tokenizer, shards):
    resource = pytest.importorskip("resource")
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, most))  # bytes of a file: what a full disk says, on any machine
    try:
        with pytest.raises(DataError, match=r"cannot write .*tokens-00000\.npy .*; make room, and give the same command again"):
            write_shards(documents, tokenizer, tmp_path, tokens_per_shard=6_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
    assert write_shards(documents, tokenizer, tmp_path, tokens_per_shard=6_000) == shards.manifest


def test_a_finished_folder_is_left_alone_and_grows_with_its_documents(tmp_path, documents, tokenizer):
    first = write_shards(documents[:60], tokenizer, tmp_path)
    assert write_shards(documents[:60], tokenizer, tmp_path) == first
    write_shards(documents, tokenizer, tmp_path)
    assert texts_of(TokenShards.open(tmp_path), tokenizer) == [document.text for document in documents]


def test_other_documents_or_another_tokenizer_are_refused(tmp_path, documents, tokenizer):
    write_shards(documents[:10], tokenizer, tmp_path)
    with pytest.raises(DataError, match="begun with other documents"):
        write_shards(documents[1:], tokenizer, tmp_path)
    with pytest.raises(DataError, match="begun with other documents"):
        write_shards(documents[:9], tokenizer, tmp_path)
    with pytest.raises(DataError, match="another tokenizer"):
        write_shards(documents, train_tokenizer(["abc abc"], 320), tmp_path)


def test_a_large_vocabulary_is_stored_in_four_bytes(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "vocab_size", (1 << 16) + 1)
    write_shards([Document(text="the of", source="")], tokenizer, tmp_path)
    assert TokenShards.open(tmp_path).tokens[0].dtype == np.uint32


@pytest.mark.parametrize("kind", ["tokens", "offsets", "sources"])
def test_a_corrupt_shard_is_named(tmp_path, documents, tokenizer, kind):
    write_shards(documents, tokenizer, tmp_path, tokens_per_shard=9_000)
    path = tmp_path / f"{kind}-00001.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    TokenShards.open(tmp_path)  # sizes alone cannot show it
    with pytest.raises(DataError, match=rf"{kind}-00001\.npy is damaged: wanted sha256"):
        TokenShards.open(tmp_path, verify=True)
    path.write_bytes(whole[:-2])
    with pytest.raises(DataError, match=rf"{kind}-00001\.npy is damaged: wanted {len(whole)} bytes, got {len(whole) - 2} bytes"):
        TokenShards.open(tmp_path)
    path.write_bytes(b"?" * len(whole))
    with pytest.raises(DataError, match=rf"{kind}-00001\.npy is damaged"):
        TokenShards.open(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=rf"{kind}-00001\.npy is damaged: .* got no such file"):
        TokenShards.open(tmp_path)


@pytest.mark.parametrize("kind", ["tokens", "offsets", "sources"])
def test_a_damaged_shard_is_written_anew_and_the_others_stay(tmp_path, documents, tokenizer, kind):
    manifest = write_shards(documents, tokenizer, tmp_path, tokens_per_shard=6_000)
    (tmp_path / f"{kind}-00001.npy").unlink()
    (tmp_path / "tokens-00000.npy").write_bytes(b"cut short")
    others = list(tmp_path.glob("*-0000[2-9].npy"))
    before = [path.stat().st_mtime_ns for path in others]
    assert others and write_shards(documents, tokenizer, tmp_path, tokens_per_shard=6_000) == manifest
    assert texts_of(TokenShards.open(tmp_path, verify=True), tokenizer) == [document.text for document in documents]
    assert [path.stat().st_mtime_ns for path in others] == before
    (tmp_path / f"{kind}-00001.npy").unlink()
    left = {path: path.read_bytes() for path in tmp_path.glob("**/*.npy")}
    for wrong in ([Document(text="?", source="new")] * len(documents), documents[:1]):
        with pytest.raises(DataError, match="begun with other documents"):
            write_shards(wrong, tokenizer, tmp_path, tokens_per_shard=6_000)
    assert {path: path.read_bytes() for path in tmp_path.glob("**/*.npy")} == left


def test_what_was_compared_is_not_read_again_until_it_changes(tmp_path, documents, tokenizer, monkeypatch):
    manifest = write_shards(documents, tokenizer, tmp_path, tokens_per_shard=9_000)
    files = 3 * len(manifest.shards)
    assert [compare_sums(tmp_path, manifest) for _ in range(2)] == [files, 0]
    assert compare_sums(tmp_path, manifest, again=True) == files
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path, copy, ignore=lambda *_: ["copy"])  # keeps times of modification, as most copies do
    assert compare_sums(copy, manifest) == files
    path = tmp_path / "tokens-00001.npy"
    path.write_bytes(path.read_bytes())
    assert compare_sums(tmp_path, manifest) == 1
    monkeypatch.setattr(shards_module, "write_json", lambda *_: os.open("/no/such/place", os.O_WRONLY))  # a folder read-only
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match=r"tokens-00001\.npy is damaged: wanted sha256"):
        TokenShards.open(tmp_path, verify=True)
    assert [compare_sums(copy, manifest, again=True) for _ in range(2)] == [files, files]


KILLED = """
import sys
from modernbert.data import shard_writing
from modernbert.data.shard_writing import Document, Tokenizer, write_shards
shard_writing.BATCH_DOCUMENTS = 8
texts = open(sys.argv[1], encoding="utf-8").read().split("\\0")
write_shards((Document(text=t, source="s") for t in texts), Tokenizer.load(sys.argv[2]), sys.argv[3], tokens_per_shard=12_000)
"""


def test_a_preparation_killed_with_sigkill_goes_on_and_its_files_are_bit_identical(tmp_path, documents, tokenizer):
    texts = [document.text for document in documents] * 12
    (tmp_path / "texts").write_text("\0".join(texts), encoding="utf-8")
    tokenizer.save(tmp_path / "tokenizer")
    given = [Document(text=text, source="s") for text in texts]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    write_shards(given, tokenizer, whole, tokens_per_shard=12_000)
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}){KILLED}"
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, (tmp_path / "texts", tmp_path / "tokenizer", killed))])
    while process.poll() is None and len(list(killed.glob("tokens-*.npy"))) < 3:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the preparation was over before it could be killed"
    assert not (killed / "tokenizer").exists()
    write_shards(given, tokenizer, killed, tokens_per_shard=12_000)
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(killed) for path in killed.rglob("*") if path.is_file() and path.suffix != ".part")
    assert all((whole / name).read_bytes() == (killed / name).read_bytes() for name in names)


def test_folders_without_shards_say_what_to_do(tmp_path, tokenizer):
    with pytest.raises(DataError, match=r"no manifest\.json in .*prepare tokens"):
        TokenShards.open(tmp_path)
    write_shards([], tokenizer, tmp_path)
    with pytest.raises(DataError, match="holds no tokens"):
        TokenShards.open(tmp_path)


def test_shards_know_their_tokenizer(tmp_path, documents, tokenizer):
    write_shards(documents, tokenizer, tmp_path)
    assert TokenShards.open(tmp_path).tokenizer().sha256 == tokenizer.sha256
    train_tokenizer(["abc abc"], 320).save(tmp_path / "tokenizer")
    with pytest.raises(DataError, match="is not the tokenizer of the shards beside it; delete it, and give the same"):
        TokenShards.open(tmp_path).tokenizer()


def test_a_preparation_that_was_killed_is_not_taken_for_a_finished_one(tmp_path, documents, tokenizer, monkeypatch):
    monkeypatch.setattr("modernbert.data.shard_writing.BATCH_DOCUMENTS", 16)
    with pytest.raises(Killed):
        write_shards(killed_after(documents, 100), tokenizer, tmp_path, tokens_per_shard=1_000)
    with pytest.raises(DataError, match="is not finished: its tokenizer is missing; give the same `prepare tokens` again"):
        TokenShards.open(tmp_path).tokenizer()


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps({"format": 99}), json.dumps({"format": 1, "mystery": 0})])
def test_a_manifest_that_is_damaged_or_of_another_format_is_refused(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(DataError, match=r"cannot read .*manifest\.json.*delete the folder and prepare the token shards again"):
        read_manifest(tmp_path)
