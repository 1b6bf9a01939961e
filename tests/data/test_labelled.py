"""Published sets as rows of our tasks: every form, and what is not there."""

import gzip
import json
import random
import re

import pytest

from modernbert.data.labelled import (
    Source,
    candidates_to_choices,
    records_to_question,
    spans_to_tags,
    with_sentence,
    write_rows,
)
from modernbert.data.lookups import DEPTHS, lookups, lookups_of_all_lengths, pairs_of
from modernbert.data.tables import read_table
from modernbert.errors import DataError
from modernbert.text.tokenizer import Tokenizer


def put(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read(path):
    return [row for _, row in read_table(path)]


def test_columns_are_renamed_and_numbered_classes_get_their_names(tmp_path):
    rows = [{"text_a": "a", "text_b": "b\u2028c", "label": 1, "id": 7}]
    put(tmp_path / "nli" / "train.jsonl.gz", rows * 2)
    put(tmp_path / "nli" / "dev.jsonl.gz", rows)
    source = Source(
        train="nli/train*",
        dev="nli/dev*",
        columns={"text_a": "premise", "text_b": "hypothesis"},
        classes=("entailment", "neutral"),
    )
    train, dev = write_rows(source, tmp_path, tmp_path / "out")
    assert read(dev) == [{"premise": "a", "hypothesis": "b\u2028c", "label": "neutral", "id": 7}]
    assert read(train) == read(dev) * 2


def test_rows_with_an_empty_text_are_left_out_and_counted(tmp_path, capsys):
    put(tmp_path / "x" / "train.jsonl.gz", [{"text": " ", "label": 1}, {"text": "a", "label": 1}])
    put(tmp_path / "x" / "dev.jsonl.gz", [{"text": "a", "label": 1}])
    train, _ = write_rows(Source(train="x/train*", dev="x/dev*"), tmp_path, tmp_path / "out")
    assert read(train) == [{"text": "a", "label": 1}]
    assert capsys.readouterr().err.endswith("x/train*: 1 rows with an empty text are left out\n")


def test_rows_whose_form_has_an_empty_text_are_left_out_too(tmp_path, capsys):
    put(tmp_path / "x" / "train.jsonl.gz", [{"said": "a"}, {"said": "\n"}])
    put(tmp_path / "x" / "dev.jsonl.gz", [{"said": "a"}])
    source = Source(train="x/train*", dev="x/dev*", form=lambda row: {"text": row["said"]})
    assert read(write_rows(source, tmp_path, tmp_path / "out")[0]) == [{"text": "a"}]
    assert "1 rows with an empty text are left out" in capsys.readouterr().err


def test_questions_get_the_contexts_that_they_name(tmp_path):
    put(tmp_path / "qa" / "contexts.jsonl.gz", [{"context_id": "x", "context": "Paris is far."}])
    for split in ("train", "dev"):
        put(tmp_path / "qa" / f"{split}.jsonl.gz", [{"context_id": "x", "question": "?", "answers": []}])
    source = Source(train="qa/train*", dev="qa/dev*")
    assert read(write_rows(source, tmp_path, tmp_path / "out")[0])[0]["context"] == "Paris is far."


def test_a_set_is_there_when_all_its_files_are(tmp_path):
    put(tmp_path / "some" / "train.jsonl.gz", [])
    source = Source(train="some/train*", dev="some/dev*")
    assert not source.is_in(tmp_path)
    with pytest.raises(DataError, match=r"^no file .*some/dev\*; wanted a folder of data sets"):
        write_rows(source, tmp_path, tmp_path / "out")
    put(tmp_path / "some" / "dev.jsonl.gz", [])
    assert source.is_in(tmp_path)


def test_parts_come_after_a_set_s_own_rows_and_what_is_measured_later_is_left_out(tmp_path):
    put(tmp_path / "a" / "train.jsonl.gz", [{"text_a": "Ants dig in the sand.", "text_b": "They do.", "label": 0}])
    put(tmp_path / "a" / "dev.jsonl.gz", [{"text_a": "x", "text_b": "y", "label": 1}])
    pairs = [("Who came in the end?", "No."), ("Short", "A bee, it flies at noon!"), ("Short", "Bees fly.")]
    put(tmp_path / "b" / "train.jsonl.gz", [{"text_a": one, "text_b": other, "label": 1} for one, other in pairs])
    measured = [{"text_a": "short", "text_b": "WHO came, in the end"}, {"text_a": "a bee it flies at noon", "text_b": "y"}]
    put(tmp_path / "c" / "dev.jsonl.gz", measured)
    part = Source(train="b/train*", dev="", classes=("same", "other"))
    source = Source(train="a/train*", dev="a/dev*", classes=("yes", "no"), parts=(part,), unseen=("c/dev*",))
    train, dev = map(read, write_rows(source, tmp_path, tmp_path / "out"))
    assert [(row["text_b"], row["label"]) for row in train] == [("They do.", "yes"), ("Bees fly.", "other")]
    assert [row["label"] for row in dev] == ["no"]
    (tmp_path / "b" / "train.jsonl.gz").unlink()
    assert not source.is_in(tmp_path)


@pytest.mark.parametrize("answer", ["Ann", "The end", "again"])
def test_a_question_gets_the_sentence_of_its_answer_or_one_without_it(answer):
    context = "It rained again, Ann said. Nobody heard her.  The end was near! Or was it? \n"
    row = {"question": "?", "context": context, "answers": [{"text": answer, "start": context.index(answer)}]}
    right, wrong = (with_sentence(row, right=right) for right in (True, False))
    assert answer in right["text_b"] and answer not in wrong["text_b"]
    assert right["text_b"] in context and wrong["text_b"] in context
    assert (right["label"], wrong["label"]) == (0, 1)
    assert all(
        with_sentence({**row, "question": str(n)}, right=False)["text_b"] for n in range(20)
    )  # blank ends are no sentences
    assert with_sentence({**row, "answers": []}, right=True) is None
    assert with_sentence({**row, "context": answer, "answers": [{"text": answer, "start": 0}]}, right=False) is None


def test_a_set_without_files_is_made_and_its_dev_rows_are_not_its_training_rows(tmp_path):
    source = Source(train="", dev="", lookups=60, longest_lookup=4)
    train, dev = map(read, write_rows(source, tmp_path, tmp_path / "out"))
    assert source.is_in(tmp_path) and (len(train), len(dev)) == (60, 3)
    assert {len(json.loads(row["context"])) for row in train} == {2, 3, 4}
    assert not {row["question"] for row in train} & {row["question"] for row in dev}


@pytest.mark.parametrize("seed", range(20))
def test_the_words_of_an_entity_are_the_words_of_its_characters(seed):
    """Random texts and spans: the tagged words, joined, are what the characters hold."""
    generator = random.Random(seed)
    words = [generator.choice(["Ann", "x-y", "42", "née", "(", "Łódź", "a"]) for _ in range(20)]
    starts = [sum(len(word) + 1 for word in words[:i]) for i in range(20)]
    cuts = sorted(generator.sample(range(21), 6))
    spans = [[starts[a], starts[b - 1] + len(words[b - 1]), f"K{a}"] for a, b in zip(cuts[::2], cuts[1::2], strict=True)]
    text = " ".join(words)
    row = spans_to_tags({"text": text, "spans": spans})
    assert "".join(row["tokens"]) == text.replace(" ", "")
    for start, end, kind in spans:
        tagged = [word for word, tag in zip(row["tokens"], row["tags"], strict=True) if tag[2:] == kind]
        assert "".join(tagged) == text[start:end].replace(" ", "")
    assert sum(tag.startswith("B-") for tag in row["tags"]) == len(spans)


def test_choices_hold_one_right_answer_and_stay_where_they_are():
    wrong = [{"text": f"w{i}", "label": 0} for i in range(5)]
    row = {"query": "q", "candidates": [*wrong, {"text": "right", "label": 1}]}
    made = candidates_to_choices(row)
    assert made == candidates_to_choices(row)
    assert made["choices"][made["label"]] == "right" and len(set(made["choices"])) == 4
    places = {candidates_to_choices({**row, "query": str(i)})["label"] for i in range(40)}
    assert places == {0, 1, 2, 3}
    assert candidates_to_choices({**row, "candidates": wrong}) is None
    assert candidates_to_choices({**row, "candidates": row["candidates"][3:]}) is None


@pytest.mark.parametrize("pairs", [10, 75, 140])
def test_lookups_have_one_answer_at_each_depth_in_turn(pairs):
    rows = list(lookups(30, pairs=pairs, seed=3))
    assert rows == list(lookups(30, pairs=pairs, seed=3)) and rows != list(lookups(30, pairs=pairs, seed=4))
    for number, row in enumerate(rows):
        found = json.loads(row["context"])
        (answer,) = row["answers"]
        assert len(found) == pairs and found[row["question"]] == answer["text"]
        assert row["context"][answer["start"] :].startswith(answer["text"] + '"')
        assert row["depth"] == number % DEPTHS == list(found).index(row["question"]) * DEPTHS // pairs
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", answer["text"])


def test_lookups_to_learn_from_are_of_all_lengths_and_depths():
    rows = list(lookups_of_all_lengths(400, longest=138, seed=0))
    assert rows == list(lookups_of_all_lengths(400, longest=138, seed=0))
    pairs = [len(json.loads(row["context"])) for row in rows]
    assert min(pairs) == 2 and max(pairs) <= 138 and 0.3 < sum(n < 10 for n in pairs) / 400 < 0.5
    assert {row["depth"] for row in rows} == set(range(DEPTHS))
    for row in rows[:20]:
        assert json.loads(row["context"])[row["question"]] == row["answers"][0]["text"]


def test_the_published_form_becomes_the_same_kind_of_row():
    row = {"ordered_kv_records": [["k1", "v1"], ["k2", 'say "v2"']], "key": "k2", "value": 'say "v2"'}
    made = records_to_question({**row, "ordered_kv_records": [["k1", "v1"], ["k2", "v2"]]})
    assert json.loads(made["context"]) == {"k1": "v1", "k2": "v2"} and made["answers"][0]["text"] == "v2"


@pytest.mark.parametrize("tokens", [2_000, 8_000])
def test_a_lookup_has_about_as_many_tokens_as_asked(tiny_folder, tokens):
    tokenizer = Tokenizer.load(tiny_folder)
    (row,) = lookups(1, pairs=pairs_of(tokens, tokenizer), seed=5)
    assert len(tokenizer.encode([row["context"]])[0]) == pytest.approx(tokens, rel=0.06)  # a pair is 3 to 5 % of 2,000
