"""The verbs that run suites and measure fine-tuned folders, from the command line."""

import gzip
import json

import pytest
from click.testing import CliRunner
from train.labelled import has_paris, sentences

from modernbert.cli import main


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.fixture
def sets(tmp_path):
    """CoLA in our layout: is Paris in the sentence?"""
    (tmp_path / "sets" / "glue_cola").mkdir(parents=True)
    for split, count in (("train", 60), ("dev", 20)):
        rows = [{"text": " ".join(words), "label": int("Paris" in words)} for words in sentences(count)]
        with gzip.open(tmp_path / "sets" / "glue_cola" / f"{split}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return tmp_path / "sets"


QUICK = ["device=cpu", "epochs=1", "seeds=0,1", "learning_rates=1e-3", "dropout=0"]


def test_a_suite_of_one_set_becomes_a_table_a_page_and_a_picture(tiny_folder, sets, tmp_path):
    out = tmp_path / "out"
    done = run("bench", "finetune", tiny_folder, *QUICK, "--data", sets, "--out", out, "--only", "cola")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "| set | figure | score | seeds | baseline | by | lr | minutes | note |"
    assert lines[2].startswith("| cola | matthews | ") and "| TF-IDF + logistic |" in lines[2]
    assert lines[-1] == f"{out}/suite.md; `modernbert report {out}` draws it"
    assert run("report", out).stdout == f"{out}/suite.md\n" and (out / "suite.png").exists()
    assert run("bench", "finetune", "none", "--data", sets, "--out", out, "--only", "cola").exit_code == 0

    scored = run(
        "eval", "task", out / "cola" / "model", out / "data" / "cola" / "dev.jsonl", "text=sentence", "--device", "cpu", "--json"
    )
    found = json.loads(scored.stdout)
    best = json.loads((out / "cola" / "result.json").read_text())["best"]["scores"]
    assert found["scores"] == pytest.approx(best, abs=1e-5) and found["rows"] == 20


def test_glue_shows_what_the_paper_has_beside(tiny_folder, sets, tmp_path):
    done = run("eval", "glue", tiny_folder, sets, *QUICK, "--out", tmp_path / "out", "--only", "cola", "--size", "large")
    assert done.exit_code == 0 and "| 71.4 |" in done.stdout.splitlines()[2]


def test_what_is_not_there_is_one_line(tiny_folder, sets, tmp_path):
    done = run("bench", "finetune", "none", "--data", sets, "--out", tmp_path / "out", "--only", "colo")
    assert done.exit_code == 2 and done.stderr.startswith("modernbert: no set named colo; there are mnli, cola, sst2, ")
    done = run("bench", "finetune", "none", "--data", sets, "--out", tmp_path / "out", "--only", "rte")
    assert (done.exit_code, done.stderr[:58]) == (2, "modernbert: none of the suite's sets is in " + str(sets)[:15])
    done = run("eval", "lookup", tiny_folder, "--tokens", "many")
    assert (done.exit_code, done.stderr) == (
        2,
        "modernbert: tokens=many is not tuple of int; wanted, for example, tokens=131_072\n",
    )
    (tmp_path / "rows.jsonl").write_text(json.dumps(has_paris(["Paris"])) + "\n")
    done = run("eval", "task", tiny_folder, tmp_path / "rows.jsonl")
    assert done.exit_code == 2 and "holds a MaskedLM; wanted a model that was fine-tuned" in done.stderr
