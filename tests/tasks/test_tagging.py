import numpy as np
import pytest

from modernbert.errors import ConfigError, DataError
from modernbert.model.losses import IGNORE
from modernbert.tasks.tagging import TaggingTask
from modernbert.text.tokenizer import Tokenizer


def row(words, tags, number=1):
    return f"t.jsonl, line {number}", {"tokens": words, "tags": tags}


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return Tokenizer.load(tiny_folder)


LONG = row(["Unbelievable", "Paris", "and", "Copenhagen-on-the-water", "are", "far"], ["O", "B-LOC", "O", "B-LOC", "O", "O"])


def test_both_tags_of_a_kind_are_classes_and_o_comes_first():
    task = TaggingTask().fit([row(["a", "b", "c"], ["I-PER", "O", "B-LOC"])])
    assert task.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


@pytest.mark.parametrize("max_length", [8, 16, 512])
def test_each_word_has_one_label_at_its_first_token_in_exactly_one_window(tokenizer, max_length):
    task = TaggingTask().fit([LONG])
    examples = task.encode([LONG], tokenizer, max_length).examples
    assert (len(examples) == 1) == (max_length == 512)
    assert all(example.tokens <= max_length for example in examples)
    assert [word for example in examples for word in example.places] == list(range(6))
    labelled = [label for example in examples for label in example.label if label != IGNORE]
    assert [task.labels[label] for label in labelled] == LONG[1]["tags"]
    (whole,) = tokenizer.encode_words([LONG[1]["tokens"]])
    assert [id for example in examples for id in example.rows[0][1:-1]] == whole.ids[1:-1]  # nothing is lost
    places = task.labels.index("B-LOC")
    begins = [tokenizer.decode(e.rows[0][i : i + 2]).strip()[0] for e in examples for i, x in enumerate(e.label) if x == places]
    assert begins == ["P", "C"]  # a label stands where its word begins


def test_perfect_answers_score_one_and_a_word_without_a_token_is_o(tokenizer):
    rows = [LONG, row(["Paris", "x"], ["B-LOC", "O"], 2)]
    task = TaggingTask().fit(rows)
    examples = task.encode(rows, tokenizer, 16).examples
    answers = [np.array([label for label in example.label if label != IGNORE]) for example in examples]
    assert set(task.score(rows, examples, answers).values()) == {1.0}
    assert task.score(rows, examples[:0], [])["accuracy"] == 5 / 8  # five words are O


def test_words_and_tags_may_be_text_with_spaces(tokenizer):
    as_text = row("Paris is", "B-LOC O")
    task = TaggingTask().fit([as_text])
    as_lists = row(["Paris", "is"], ["B-LOC", "O"])
    assert task.encode([as_text], tokenizer, 64) == task.encode([as_lists], tokenizer, 64)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(["a", "b"], ["O"], 7), r"^t.jsonl, line 7: 2 words in column 'tokens' and 1 tags in 'tags'; one each$"),
        (row(["a"], [None], 7), r"^t.jsonl, line 7: no tag for word 0 in column 'tags'"),
        (row([], [], 7), r"^t.jsonl, line 7: '\[\]' in column 'tokens'; wanted a list of words, at least one$"),
        (row(["a", 5], ["O", "O"], 7), r"in column 'tokens'; wanted a list of words"),
        (row(["a"], [1.5], 7), r"^t.jsonl, line 7: 1.5 in column 'tags'; wanted a class"),
        (row([" "], ["O"], 7), r"^t.jsonl, line 7: empty text in column 'tokens'"),
        (row(["a"], ["B-PERS"], 7), r"'B-PERS' in column 'tags' is no class of the training rows; did you mean 'B-PER'\?$"),
    ],
)
def test_rows_that_do_not_fit_are_named(tokenizer, bad, message):
    with pytest.raises(DataError, match=message):
        TaggingTask(labels=("O", "B-PER", "I-PER")).encode([bad], tokenizer, 64)


def test_tags_that_are_not_bio_need_another_metric():
    rows = [row(["a", "b"], ["NOUN", "VERB"])]
    with pytest.raises(ConfigError, match=r"^metric=f1 is of entities, and column 'tags' has no tag B-… \(it has NOUN, VERB\)"):
        TaggingTask().fit(rows)
    assert TaggingTask(metric="accuracy").fit(rows).labels == ("NOUN", "VERB")


def test_a_row_of_a_megabyte_and_a_word_of_300_kilobytes_are_read_through_windows(tokenizer):
    rows = [row(["Paris-" * 20] * 9_000, ["B-LOC"] * 9_000), row(["x" * 300_000, "Paris"], ["O", "B-LOC"], 2)]
    examples = TaggingTask().fit(rows).encode(rows, tokenizer, 512).examples
    assert max(example.tokens for example in examples) <= 512
    places = [[word for example in examples if example.row == i for word in example.places] for i in (0, 1)]
    assert places == [list(range(9_000)), [0, 1]]
