"""Pairs out of prose, code and search sets."""

import json

import pytest

from modernbert.data.near import NearDuplicates
from modernbert.data.pair_sources import (
    READ,
    HeldOut,
    document_pairs,
    function_pairs,
    long_pairs,
    sentence_pairs,
    set_pairs,
    write_pairs,
)
from modernbert.data.retrieval import RetrievalSet
from modernbert.errors import DataError

BODY = "Ants dig holes in the ground and carry what they find. " * 4


def test_titles_find_texts_and_headings_their_sections():
    text = f"Ants\n\n{BODY}\n\nNests\n\n{BODY}\n\nMore of it.\n\nToo short\n\nlittle.\n\nFood\n\n{BODY}"
    found = [(kind, pair) for kind, pair in document_pairs(text, "Insects: Ants") if kind != "sentence"]
    assert [(kind, pair["query"], pair["group"]) for kind, pair in found] == [
        ("title", "Insects: Ants", "Insects: Ants"),
        ("heading", "Insects: Ants: Nests", "Insects: Ants"),
        ("heading", "Insects: Ants: Food", "Insects: Ants"),
    ]
    assert found[0][1]["document"] == BODY.strip() and found[1][1]["document"].endswith("More of it.")


def test_questions_and_definitions_are_pairs_of_their_own():
    found = list(document_pairs("Question: Who digs?\nAnswer: Ants.\n\nQuestion: Who flies?\nAnswer: Bees.", "Trivia"))
    assert [(kind, pair["query"], pair["document"]) for kind, pair in found] == [
        ("question", "Who digs?", "Ants."),
        ("question", "Who flies?", "Bees."),
    ]
    ((kind, pair),) = document_pairs("ant, pismire (noun): a small social insect.\n\nKinds of ant:", "ant")
    assert (kind, pair["query"], pair["document"]) == ("definition", "ant, pismire", "a small social insect.")


def test_a_function_loses_its_docstring_and_nothing_else():
    code = '''
class A:
    @property
    def size(self):
        """How many there are, as a whole number.

        More of it.
        """
        # counted
        return 1

    def bare(self):
        """Only this docstring, and nothing to find."""

def no_doc():
    return 2

def named_by_its_words(n):
    m = n + 1
    return m

def _hidden_by_its_name(n):
    m = n + 1
    return m
'''
    (named_kind, named), (kind, pair) = function_pairs(code)
    assert (named_kind, named["query"], kind) == ("name", "named by its words", "docstring")
    assert named["document"] == "def named_by_its_words(n):\n    m = n + 1\n    return m"
    assert pair["query"] == "How many there are, as a whole number."
    assert pair["document"] == "def size(self):\n    # counted\n    return 1"
    assert list(function_pairs("def broken(:")) == []


def test_a_sentence_finds_the_passage_that_it_was_taken_out_of():
    sentences = [f"Nest {number} has {number} thousand ants below the ground." for number in range(30)]
    found = list(sentence_pairs("Nests\n\n" + " ".join(sentences[:10]) + "\n\n" + " ".join(sentences[10:])))
    assert [pair["query"] for pair in found] == [sentences[2], sentences[14]]  # of passages 1 and 3: 0 to 4, 9 to 17
    first = ["Nests", *(sentence for number, sentence in enumerate(sentences[:5]) if number != 2)]
    assert found[0]["document"] == " ".join(first)
    assert not list(sentence_pairs("Too short. " * 100)) and not list(sentence_pairs("One sentence of fifty words, " * 10))


def test_candidates_that_are_wrong_become_negatives():
    parts = {"name": "s", "metric": "map", "document_ids": ["0", "1", "2"], "query_ids": ["q"], "missing": [[]]}
    data = RetrievalSet(documents=["a", "b", "c"], queries=["x"], grades=[{0: 0, 1: 1, 2: 0}], candidates=[[0, 1, 2]], **parts)
    assert list(set_pairs(data)) == [{"query": "x", "document": "b", "negatives": ["a", "c"]}]


def test_each_source_gets_a_file_and_each_pair_comes_once(tmp_path):
    row = {"text": f"Ants\n\n{BODY}", "title": "Ants", "source": "zoo"}
    for name in ("a-0001", "b", "validation"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({**row, "source": name if name == "validation" else "zoo"}) + "\n")
    counts = write_pairs(tmp_path / "out", [tmp_path])
    assert counts == {"title-zoo": 1, "sentence-zoo": 1}
    (line,) = (tmp_path / "out" / "title-zoo.jsonl").read_text().splitlines()
    assert json.loads(line) == {"query": "Ants", "document": BODY.strip(), "group": "Ants", "source": "title-zoo"}
    (tmp_path / "a-0001.jsonl").write_text("[1]\n")
    with pytest.raises(DataError, match=r"a-0001\.jsonl, line 1: wanted a row with a string 'text'"):
        write_pairs(tmp_path / "out", [tmp_path])


def test_a_long_document_is_found_by_its_title_and_two_headings():
    text = "\n\n".join(["Ants", *(part for name in "ABCDE" for part in (f"Part {name}", BODY * 40))])
    found = list(long_pairs(text, "Ants"))
    assert [pair["query"] for pair in found] == ["Ants", "Ants: Part A", "Ants: Part C"]
    assert {pair["document"] for pair in found} == {text[:READ]} and {pair["group"] for pair in found} == {"Ants"}
    assert not list(long_pairs(BODY, "Ants")) and not list(long_pairs(BODY * 2000, "Ants"))


def test_a_near_duplicate_shares_four_tenths_of_the_shorter_ones_runs():
    """Counted by hand: 20 words have 13 runs of 8, and 6 of 13 are more than 0.4, 5 are fewer."""
    words = [f"w{chr(97 + i)}" for i in range(20)]
    known = NearDuplicates([" ".join(words), ""])
    for kept, expected in ((13, True), (12, False)):
        other = [*words[:kept], *(f"x{chr(97 + i)}" for i in range(20))]
        assert known.has("_".join(other).upper()) is expected
    assert not known.has("") and not NearDuplicates([]).has("a b c")


def test_pairs_that_will_be_measured_are_left_out(tmp_path):
    """Questions of any source; documents of sets and packages alone, since prose is what it is."""
    body = "\n".join(f"    total = total * {i} + offset_{i} - scale_{i}" for i in range(9))
    code = {name: f"def {name}(total):\n{body.replace('total', name)}\n    return {name}" for name in ("ant", "bee", "cat")}
    parts = {"name": "set", "metric": "map", "missing": [[]] * 3, "query_ids": ["1", "2", "3"], "document_ids": ["1", "2", "3"]}
    grades = [{0: 1}, {1: 1}, {2: 1}]
    data = RetrievalSet(documents=list(code.values()), queries=["ants", "bees", "Count the CATS."], grades=grades, **parts)
    held_out = HeldOut(queries=frozenset(["count the cats", "who digs"]), near=NearDuplicates([code["ant"], BODY]))
    asked = "Question: Who digs?\nAnswer: Ants.\n\nQuestion: Who flies?\nAnswer: Bees."
    texts = [{"text": asked, "source": "zoo"}, {"text": f"Ants\n\n{BODY}", "title": "Ants", "source": "zoo"}]
    (tmp_path / "zoo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    counts = write_pairs(tmp_path / "out", [tmp_path / "zoo.jsonl"], sets=[data], held_out=held_out)
    assert counts == {"question-zoo": 1, "title-zoo": 1, "sentence-zoo": 1, "set": 1}
    assert json.loads((tmp_path / "out" / "set.jsonl").read_text())["query"] == "bees"
