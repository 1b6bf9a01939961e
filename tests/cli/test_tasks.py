"""The verbs that run a model, on a fake engine that answers in the engine's shapes."""

import csv
import json
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import modernbert
from modernbert.cli import main
from modernbert.errors import TextError
from modernbert.text.rows import TruncationWarning


class FakeEngine:
    """Remembers what it was asked, and knows that a text "long" is too long."""

    def __init__(self):
        self.asked = []

    def _check(self, texts, truncate):
        for number, text in enumerate(texts):
            if "long" in text and not truncate:
                raise TextError(
                    f"text {number} has 9 tokens and the model reads at most 8; cut or split it, or pass truncate=True"
                )
            if "long" in text:
                warnings.warn(f"cut to 8 tokens: text {number} lost 1", TruncationWarning, stacklevel=2)

    def classify(self, texts, top_k, truncate):
        self.asked.append(texts)
        self._check(texts, truncate)
        labels = [{"label": "good", "score": 0.75}, {"label": "bad", "score": 0.25}][:top_k]
        return [labels[0] if top_k == 1 else labels for _ in texts]

    def zero_shot(self, texts, labels, truncate):
        names = labels.split(",")
        return [{"sequence": text, "labels": names, "scores": [1 / len(names)] * len(names)} for text in texts]

    def tag(self, texts, aggregation):
        self.asked.append(aggregation)
        return [[{"entity_group": "PER", "score": 0.5, "word": " Ada", "start": 0, "end": 3}] if text else [] for text in texts]

    def answer(self, questions, contexts, top_k, max_answer_len, handle_impossible_answer):
        self.asked.append((questions, contexts))
        if "" in contexts:
            raise TextError(f"context {contexts.index('')} holds no word to answer with")
        found = [{"score": 0.5, "start": 0, "end": 3, "answer": "Ada"}, {"score": 0.25, "start": 0, "end": 0, "answer": ""}]
        return [found[0] if top_k == 1 else found[:top_k] for _ in questions]

    def rerank(self, query, documents, top_k, truncate):
        order = list(range(len(documents)))[::-1][:top_k]
        return [{"corpus_id": i, "score": 0.5, "text": documents[i]} for i in order]

    def embed(self, texts, precision, truncate, **how):
        self.asked.append(how)
        return np.arange(len(texts) * 6, dtype="float32" if precision == "float32" else "int8").reshape(len(texts), 6)


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    fake = FakeEngine()
    monkeypatch.setitem(vars(modernbert), "load", lambda name=None, dtype=None: fake)
    monkeypatch.setattr("modernbert.cli.inputs._has_graph", lambda name: False)  # the packaged model has one, and needs no engine
    return fake


@pytest.fixture
def table(tmp_path):
    """Writes rows as .csv, .jsonl or .parquet."""

    def write(kind, rows):
        path = tmp_path / f"rows.{kind}"
        if kind == "csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0].keys())
                writer.writeheader()
                writer.writerows(rows)
        elif kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            import pyarrow as pa

            pq.write_table(pa.Table.from_pylist(rows), path)
        return str(path)

    return write


def run(*arguments, stdin=None):
    return CliRunner().invoke(main, arguments, input=stdin)


def test_people_get_a_line_a_text_and_programs_a_json_line():
    assert run("classify", "a\nfilm", "-", stdin="b\n").stdout == "good 0.750  a\\nfilm\ngood 0.750  b\n"
    assert run("classify", "a", "--top-k", "2").stdout == "good 0.750, bad 0.250  a\n"
    assert json.loads(run("classify", "a", "--json").stdout) == {"label": "good", "score": 0.75}
    assert run("classify", "--labels", "x,y", "a").stdout == "x 0.500  a\n"
    assert json.loads(run("classify", "--labels", "x,y", "a", "--json").stdout)["labels"] == ["x", "y"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_files_of_every_kind_are_read_by_column(kind, table, engine):
    file = table(kind, [{"review": "a", "other": "b", "n": "1"}, {"review": "c", "other": "d", "n": "2"}])
    assert run("classify", "--file", file, "--text-column", "review").exit_code == 0
    assert run("classify", "--file", file, "--text-column", "review", "--pair-column", "other").stdout.endswith("c | d\n")
    assert engine.asked == [["a", "c"], [("a", "b"), ("c", "d")]]


def test_tag_prints_the_entities_of_a_text_under_it(engine):
    assert run("tag", "Ada", "", "--aggregation", "first").stdout == "Ada\n  PER  0.500          0–3  Ada\n\n''\n\n"
    assert engine.asked == ["first"]
    assert json.loads(run("tag", "Ada", "--json").stdout)[0]["entity_group"] == "PER"


def test_tag_reads_rows_of_words_as_finetune_does(table):
    wanted = run("tag", "Ada lived").stdout
    assert run("tag", "--file", table("jsonl", [{"tokens": ["Ada", "lived"]}]), "--text-column", "tokens").stdout == wanted
    file = table("jsonl", [{"tokens": ["Ada", 5]}])
    assert f"{file}, line 1: 'tokens' holds ['Ada', 5]; wanted a text or a list of words" in (
        run("tag", "--file", file, "--text-column", "tokens").stderr
    )


def test_answer_takes_question_and_context_from_arguments_standard_input_or_a_file(table, engine):
    assert run("answer", "who?", "Ada").stdout == "  0.500  0–3  Ada\n"
    assert run("answer", "who?", "-", stdin="Ada\nB\n").exit_code == 0
    file = table("jsonl", [{"question": "who?", "context": "Ada"}, {"question": "why?", "context": "B"}])
    assert run("answer", "--file", file, "--top-k", "2").stdout.count("(no answer)") == 2
    assert json.loads(run("answer", "who?", "Ada", "--json").stdout)["answer"] == "Ada"
    assert engine.asked[:3] == [(["who?"], ["Ada"]), (["who?"], ["Ada\nB\n"]), (["who?", "why?"], ["Ada", "B"])]


def test_rerank_prints_the_best_first_with_their_places():
    assert run("rerank", "q", "a", "-", "--top-k", "2", stdin="b\n").stdout == (
        "  0.5000  line 1 of standard input  b\n  0.5000  text 1  a\n"
    )
    assert json.loads(run("rerank", "q", "a", "--json").stdout) == {"corpus_id": 0, "score": 0.5, "text": "a"}


def test_embed_prints_vectors_or_writes_them(tmp_path, engine):
    assert run("embed", "a", "b").stdout == "0.000 1.000 2.000 3.000 … 6 numbers  a\n6.000 7.000 8.000 9.000 … 6 numbers  b\n"
    assert json.loads(run("embed", "a", "--json").stdout) == [0, 1, 2, 3, 4, 5]
    for kind in ("npy", "parquet", "jsonl"):
        done = run("embed", "a", "b", "-o", str(tmp_path / f"out.{kind}"), "--prompt-name", "query", "--precision", "int8")
        assert (done.exit_code, done.stdout) == (0, "") and ": 2 × 6 int8" in done.stderr
    wanted = [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    array = np.load(tmp_path / "out.npy")
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert array.dtype == np.int8 and array.tolist() == wanted
    assert rows == lines == [{"text": text, "embedding": row} for text, row in zip("ab", wanted, strict=True)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.npy", "out.parquet"]
    assert engine.asked[-1]["prompt_name"] == "query"


def test_what_was_cut_is_said_by_its_place_on_standard_error(table):
    file = table("csv", [{"text": "fine"}, {"text": "too long"}])
    done = run("classify", "a", "--file", file, "--truncate")
    assert done.exit_code == 0 and done.stdout.count("\n") == 3
    assert done.stderr == f"modernbert: cut to 8 tokens: {file}, row 2 lost 1\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["classify"], "nothing to read: give a text, - for standard input, or --file FILE"),
        (["classify", "a", "too long"], "text 2 has 9 tokens and the model reads at most 8; cut or split it, or pass --truncate"),
        (["classify", "--file", "absent.csv"], "no file absent.csv; check the path"),
        (["answer"], "nothing to read"),
        (["answer", "who?", ""], "the text holds no word to answer with"),
        (["embed", "a", "-o", "out.txt"], "cannot write out.txt: wanted a name that ends in .npy, .parquet, .jsonl"),
        (["embed", "a", "-o", "absent/out.npy"], "cannot write absent/out.npy: there is no folder"),
    ],
)
def test_bad_input_gets_one_line(arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2 and done.stdout == ""
    assert done.stderr.startswith(f"modernbert: {message}") and done.stderr.count("\n") == 1


def test_a_row_without_the_column_or_without_text_in_it_is_named(table):
    file = table("jsonl", [{"text": "a"}, {"text": None}, {"review": "a"}])
    assert f"{file}, line 2: 'text' holds None; wanted a text" in run("classify", "--file", file).stderr
    assert f"{file}, line 1 has no column 'review'; its columns are text" in (
        run("classify", "--file", file, "--text-column", "review").stderr
    )


@pytest.mark.parametrize("arguments", [["answer", "who?"], ["classify", "a", "--pair-column", "b"]])
def test_arguments_that_do_not_go_together_are_refused(arguments):
    assert run(*arguments).exit_code == 2
