import subprocess
import sys
from importlib.metadata import version

import pytest

import modernbert
from modernbert.checkpoint.names import PACKAGED, packaged_names


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
