"""A teacher's vectors and scores, written for training."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from modernbert.cli import main
from modernbert.data.vectors import read_vectors
from modernbert.engine.engine import load
from modernbert.errors import DataError
from modernbert.text.passages import PASSAGE, passages_of
from modernbert.train.teacher import write_passages, write_scores, write_teacher

ROWS = [{"query": "ants", "document": "they dig", "negatives": ["they fly", "ants"]}, {"query": "bees", "document": "they fly"}]
TEXTS = ["ants", "they dig", "they fly", "bees"]


@pytest.fixture
def pairs(tmp_path):
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(tmp_path / "pairs.jsonl")


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_every_distinct_text_gets_its_unit_vector_once(tiny_folder, pairs, tmp_path, suffix):
    out = tmp_path / f"teacher{suffix}"
    assert write_teacher([pairs], str(tiny_folder), out, "cpu") == 4
    found = read_vectors(out, TEXTS)
    np.testing.assert_allclose(found, load(tiny_folder, device="cpu").embed(TEXTS, normalize=True), atol=1e-3)  # float16


def test_scores_stand_beside_their_documents(tiny_folder, pairs, tmp_path):
    assert write_scores([pairs], str(tiny_folder), tmp_path / "scored.jsonl", "cpu") == 2
    first, second = map(json.loads, (tmp_path / "scored.jsonl").read_text().splitlines())
    v = dict(zip(TEXTS, load(tiny_folder, device="cpu").embed(TEXTS, normalize=True), strict=True))
    np.testing.assert_allclose(first["scores"], [v["ants"] @ v[text] for text in ("they dig", "they fly", "ants")], atol=1e-5)
    assert len(second["scores"]) == 1 and first["negatives"] == ROWS[0]["negatives"]


def test_a_long_document_gives_the_passage_that_is_nearest_its_query(tiny_folder, tmp_path):
    """Against each passage embedded on its own; documents of one passage give no pair."""
    whole = " ".join(" ".join([name] * PASSAGE) for name in ("ants", "bees", "cats"))
    rows = [{"query": query, "document": document} for query, document in (("bees", whole), ("cats", whole), ("dogs", "short"))]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert write_passages([str(tmp_path / "long.jsonl")], str(tiny_folder), tmp_path / "out.jsonl", "cpu") == 2
    engine, passages = load(tiny_folder, device="cpu"), passages_of(whole)
    similar = engine.embed(["bees", "cats"], normalize=True) @ engine.embed(passages, normalize=True).T
    found = list(map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines()))
    assert [row["document"] for row in found] == [passages[place] for place in similar.argmax(1)] and len(passages) == 5
    assert {(row["source"], row["group"]) for row in found} == {("passages", "document 0")}
    (tmp_path / "short.jsonl").write_text(json.dumps(rows[2]) + "\n")
    with pytest.raises(DataError, match=r"no document in .*short\.jsonl has more than 100 words"):
        write_passages([str(tmp_path / "short.jsonl")], str(tiny_folder), tmp_path / "out.jsonl", "cpu")


def test_the_verbs_prepare_pairs_and_a_teacher(tiny_folder, tmp_path):
    body = "Ants dig holes in the ground. " * 8
    (tmp_path / "zoo.jsonl").write_text(json.dumps({"text": f"Ants\n\n{body}", "title": "Ants"}) + "\n")

    def run(*arguments):
        return CliRunner().invoke(main, ["prepare", *map(str, arguments)])

    done = run("pairs", tmp_path / "zoo.jsonl", "-o", tmp_path / "pairs")
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [["1", "sentence-zoo"], ["1", "title-zoo"]]
    done = run("teacher", tmp_path / "pairs", "--model", tiny_folder, "-o", tmp_path / "t.npy", "--device", "cpu")
    assert done.stdout == f"{tmp_path}/t.npy: 4 vectors\n"
    done = run("pairs", "-o", tmp_path / "none")
    assert (done.exit_code, "no pair in it; give files" in done.stderr) == (2, True)
