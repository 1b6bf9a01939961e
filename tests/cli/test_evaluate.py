import json

import pytest
from click.testing import CliRunner

import modernbert
import modernbert.eval.cloze
import modernbert.eval.masked
from modernbert.cli import main


class FakeResult:
    def to_json(self):
        return {"total": 0.5}

    def to_markdown(self):
        return "| all | 0.5 |"


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    monkeypatch.setattr(modernbert.eval.masked, "evaluate_masked", lambda engine, files, length: FakeResult())
    monkeypatch.setattr(modernbert.eval.cloze, "evaluate_cloze", lambda engine, file: FakeResult())
    monkeypatch.setitem(vars(modernbert), "load", lambda name, dtype=None: object())


def test_a_picture_that_cannot_be_drawn_is_refused_before_the_work():
    done = CliRunner().invoke(main, ["eval", "retrieval", "bm25", "nowhere", "--plot", "bars.pdf"])
    assert done.exit_code == 2 and "bars.pdf; wanted a name that ends in .png" in done.stderr


@pytest.mark.parametrize("suite", ["masked", "cloze"])
def test_people_get_a_table_and_programs_json(suite):
    def run(*more):
        return CliRunner().invoke(main, ["eval", suite, "model", "texts.jsonl", *more]).stdout

    assert run() == "| all | 0.5 |\n"
    assert json.loads(run("--json")) == {"total": 0.5}
