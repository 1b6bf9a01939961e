import json

from click.testing import CliRunner

from modernbert.checkpoint.names import PACKAGED
from modernbert.cli import main
from modernbert.data.shards import TokenShards
from modernbert.text.tokenizer import Tokenizer


def run(*arguments):
    return CliRunner().invoke(main, ["prepare", *map(str, arguments)])


def test_text_becomes_a_tokenizer_and_shards_that_give_the_text_back(tmp_path):
    texts = ["The owl and the pussy-cat went to sea.", "They sailed away, for a year and a day."]
    (tmp_path / "owl.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    made = run("tokenizer", tmp_path / "owl.jsonl", "--vocab-size", 320, "-o", tmp_path / "tokenizer")
    assert made.stdout == f"{tmp_path / 'tokenizer'}: 320 tokens\n"
    done = run("tokens", tmp_path / "owl.jsonl", "--tokenizer", tmp_path / "tokenizer", "-o", tmp_path / "shards")
    shards, tokenizer = TokenShards.open(tmp_path / "shards"), Tokenizer.load(tmp_path / "shards" / "tokenizer")
    assert [tokenizer.decode(shards.document(i).tolist()) for i in range(len(shards))] == texts
    tokens = sum(len(shards.document(i)) for i in range(len(shards)))
    assert done.stdout == f"{tmp_path / 'shards'}: {tokens} tokens in 2 documents\n  {tokens:>15}  owl\n"


def test_the_source_of_installed_packages_becomes_documents(tmp_path):
    done = run("python", "click", "-o", tmp_path / "new" / "code.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "new" / "code.jsonl").read_text().splitlines()]
    assert done.stdout == f"{tmp_path / 'new' / 'code.jsonl'}: {len(rows)} documents\n"
    assert any("def echo(" in row["text"] for row in rows)


def test_a_package_that_is_not_installed_leaves_no_file(tmp_path):
    done = run("python", "no-such-package", "-o", tmp_path / "code.jsonl")
    assert done.exit_code == 2
    assert done.stderr.startswith("modernbert: package 'no-such-package' is not installed")
    assert not (tmp_path / "code.jsonl").exists()


def test_files_without_text_are_refused_and_whole_shards_are_verified(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "a.jsonl").write_text('{"body": "The owl and the pussy-cat."}\n')
    run("tokenizer", tmp_path / "a.jsonl", "--column", "body", "--vocab-size", 320, "-o", tmp_path / "tokenizer")
    refused = run("tokens", tmp_path / "empty.jsonl", "--tokenizer", tmp_path / "tokenizer", "-o", tmp_path / "none")
    assert (refused.exit_code, refused.stderr) == (
        2,
        f"modernbert: {tmp_path / 'empty.jsonl'}: no text in 0 documents; give files that hold some\n",
    )
    run("tokens", tmp_path / "a.jsonl", "--column", "body", "--tokenizer", tmp_path / "tokenizer", "-o", tmp_path / "shards")
    tokens = TokenShards.open(tmp_path / "shards").manifest.tokens
    assert run("verify", tmp_path / "shards").stdout == f"{tmp_path / 'shards'}: 3 files are whole, {tokens} tokens\n"
    path = tmp_path / "shards" / "tokens-00000.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    broken = run("verify", tmp_path / "shards")
    assert broken.exit_code == 2 and "tokens-00000.npy is damaged: wanted sha256" in broken.stderr


def test_shards_for_a_packaged_model_have_its_tokenizer(tmp_path):
    (tmp_path / "owl.jsonl").write_text('{"text": "The owl and the pussy-cat went to sea."}\n')
    run("tokens", tmp_path / "owl.jsonl", "--tokenizer", "tiny", "-o", tmp_path / "shards")
    ids = TokenShards.open(tmp_path / "shards").document(0).tolist()
    assert Tokenizer.load(PACKAGED / "tiny").decode(ids) == "The owl and the pussy-cat went to sea."
