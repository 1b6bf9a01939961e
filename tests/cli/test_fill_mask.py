import json

import pytest
from click.testing import CliRunner

import modernbert
from modernbert.cli import main
from modernbert.errors import TextError


class FakeEngine:
    """Answers as the engine does: words for each mask; a list of lists where there are several."""

    def fill_mask(self, text, top_k=5):
        masks = text.count("[MASK]")
        if not masks:
            raise TextError("no [MASK] in the text")
        words = [
            {"score": 0.5 / (i + 1), "token": i, "token_str": f" word{i}", "sequence": text.replace("[MASK]", f"word{i}", 1)}
            for i in range(top_k)
        ]
        return words if masks == 1 else [words] * masks


@pytest.fixture(autouse=True)
def fake_engine(monkeypatch):
    loaded = []
    monkeypatch.setitem(vars(modernbert), "load", lambda name=None, dtype=None: loaded.append(name) or FakeEngine())
    monkeypatch.setattr("modernbert.cli.inputs._has_graph", lambda name: False)  # the packaged model has one, and needs no engine
    return loaded


def run(*arguments, stdin=None):
    return CliRunner().invoke(main, ["fill-mask", *arguments], input=stdin)


def test_people_get_probability_word_and_sentence():
    assert run("a [MASK].", "--top-k", "2").stdout == "a [MASK].\n   50.0%  word0  a word0.\n   25.0%  word1  a word1.\n\n"


def test_a_line_break_or_a_space_as_a_word_keeps_the_table_s_lines(monkeypatch):
    words = [{"score": 0.5, "token_str": t, "sequence": f"a{t}b"} for t in (" ", "\n\t")]
    monkeypatch.setattr(FakeEngine, "fill_mask", lambda self, text, top_k: words)
    assert run("a[MASK]b").stdout == "a[MASK]b\n   50.0%  ''    a b\n   50.0%  \\n\\t  a\\n\\tb\n\n"


def test_each_of_several_masks_gets_its_own_block():
    out = run("[MASK] b [MASK]").stdout
    assert "mask 1 of 2\n" in out and "mask 2 of 2\n" in out


def test_programs_get_what_the_pipeline_returns_one_line_a_text():
    lines = run("a [MASK].", "[MASK] é [MASK]", "--json", "--top-k", "1").stdout.splitlines()
    assert json.loads(lines[0]) == FakeEngine().fill_mask("a [MASK].", top_k=1)
    assert json.loads(lines[1]) == FakeEngine().fill_mask("[MASK] é [MASK]", top_k=1)
    assert len(lines) == 2


def test_a_dash_reads_standard_input_a_text_a_line():
    assert run("-", "--json", stdin="a [MASK]\r\nb [MASK]\n").stdout.count("\n") == 2


def test_the_model_is_loaded_once_by_the_given_name(fake_engine):
    run("a [MASK]", "b [MASK]", "--model", "some/folder")
    assert fake_engine == ["some/folder"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["a"], None, "text 1: no [MASK] in the text"),
        (["-"], b"a [MASK]\nb\n", "line 2 of standard input: no [MASK] in the text"),
        (["-"], b"a [MASK]\nb \xff[MASK]\n", "line 2 of standard input is not UTF-8: byte 0xff at position 2; convert it first"),
        (["a [MASK]", "\udcff"], None, "text 2 is not UTF-8: byte 0xff at position 0"),
    ],
)
def test_a_bad_text_is_named_in_one_line(arguments, stdin, message):
    done = run(*arguments, stdin=stdin)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"modernbert: {message}")
    assert done.stderr.count("\n") == 1
