import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest

import modernbert
from modernbert.checkpoint.names import EMBEDDER, PACKAGED, packaged_names


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_importing_the_package_does_not_import_torch():
    heavy = "{'torch', 'numpy', 'tokenizers', 'pyarrow', 'huggingface_hub', 'click'}"
    assert run_python(f"import sys, modernbert; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_the_installed_version_is_the_one_in_the_package():
    assert version("modernbert") == modernbert.__version__


def test_an_unknown_attribute_says_what_there_is():
    with pytest.raises(AttributeError, match="has no attribute 'lod'; it has __version__, load"):
        _ = modernbert.lod


def test_the_packaged_models_together_stay_under_40_mb():
    assert sum(file.stat().st_size for file in PACKAGED.rglob("*") if file.is_file()) < 40e6


@pytest.mark.parametrize("name", packaged_names())
def test_each_packaged_model_has_its_card_and_curves(name):
    """A card names data, licence, time, machine and commit; the front matter names the licence for the hub."""
    card = (PACKAGED / name / "README.md").read_text()
    assert card.startswith("---\nlicense: ")
    for part in ("licence", "commit", "minutes on", "![curves](curves.png)", "## Limits"):
        assert part in card, part
    assert (PACKAGED / name / "curves.png").stat().st_size


def test_without_a_name_the_packaged_model_knows_the_capital_of_france():
    words = [word["token_str"].strip() for word in modernbert.load().fill_mask("The capital of France is [MASK].")]
    assert len(words) == 5
    assert "Paris" in words


@pytest.mark.parametrize(
    ("query", "right", "wrong"),
    [
        ("where do ants live", "Colonies of ants dig nests under stones and in soil.", "Bees build combs of wax in hollow trees."),
        ("add up the numbers of a list", "def total(xs):\n    return sum(x for x in xs)", "def longest(xs):\n    return max(xs, key=len)"),
        ("how fast does a heart beat", "At rest the pulse is 60 to 100 a minute.", "The drummer kept a steady rhythm all night."),
    ],
)  # fmt: skip
def test_the_packaged_embedder_finds_prose_and_code(query, right, wrong):
    model = modernbert.load(EMBEDDER, dtype="float32")
    documents = model.embed([right, wrong], prompt_name="document") @ model.embed(query, prompt_name="query")
    assert documents[0] > documents[1] + 0.05


def test_sentence_transformers_reads_the_packaged_embedder_and_makes_its_vectors():
    """Within 1e-5 in float32: sums in another order differ by 3e-7 here."""
    theirs = pytest.importorskip("sentence_transformers").SentenceTransformer(str(PACKAGED / EMBEDDER), device="cpu").float()
    ours = modernbert.load(EMBEDDER, dtype="float32")
    texts = ["def add(a, b):\n    return a + b", "Ants dig nests in the soil.", "", "word " * 600]
    np.testing.assert_allclose(ours.embed(texts, prompt_name="document"), theirs.encode_document(texts), atol=1e-5)
    np.testing.assert_allclose(ours.embed(texts, prompt_name="query"), theirs.encode_query(texts), atol=1e-5)
