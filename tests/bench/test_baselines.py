"""Plain methods: they learn what word counts can, and their scores are the task's own figures."""

import random

import pytest
from train.labelled import bio, has_paris, sentences

from modernbert.bench.baselines import by_bm25, linear, named_in_text, nearest_choice, plain_baseline
from modernbert.bench.crf import shape_of, tag_by_crf
from modernbert.bench.overlap import answer_by_overlap, best_window
from modernbert.data.lookups import lookups
from modernbert.recipes.suites import development
from modernbert.tasks.choice import ChoiceTask
from modernbert.tasks.reranking import RerankTask
from modernbert.tasks.sequence import SequenceTask
from modernbert.tasks.spans import SpanTask
from modernbert.tasks.tagging import TaggingTask


def rows(cells):
    return [(f"t.jsonl, line {number}", one) for number, one in enumerate(cells, start=1)]


WORDS = sentences(200)


def both(make):
    made = rows([make(words) for words in WORDS])
    return made[:150], made[150:]


def test_classes_that_hang_on_a_word_are_learned_by_word_counts():
    train, dev = both(has_paris)
    scores = linear(SequenceTask().fit(train), train, dev)
    assert scores["accuracy"] > 0.9 and scores.keys() >= {"f1_macro", "matthews"}


def test_labels_numbers_and_pairs_have_their_linear_models():
    train, dev = both(lambda words: {"text": " ".join(words), "labels": [w for w in ("Paris", "Rome", "café") if w in words]})
    task = SequenceTask(label="labels", problem_type="multi_label_classification", metric="f1_micro").fit(train)
    assert linear(task, train, dev)["f1_micro"] > 0.95
    train, dev = both(lambda words: {"text": " ".join(words), "score": ("Paris" in words) - ("Rome" in words)})
    task = SequenceTask(label="score", problem_type="regression", metric="spearman")
    assert linear(task, train, dev)["spearman"] > 0.8
    generator = random.Random(0)
    pairs = [(words, words if generator.random() < 0.5 else generator.choice(WORDS)) for words in sentences(300, 5)]
    made = rows([{"a": " ".join(one), "b": " ".join(two), "label": int(one == two)} for one, two in pairs])
    task = SequenceTask(text="a", text_pair="b").fit(made[:250])
    assert linear(task, made[:250], made[250:])["accuracy"] > 0.9  # by what they share, which neither text shows alone


def test_a_crf_learns_tags_from_words_and_their_neighbours():
    train, dev = both(bio)
    assert tag_by_crf(TaggingTask().fit(train), train, dev)["f1"] == 1
    assert shape_of("") == "" and shape_of("U.S.") == "A.A."


def test_bm25_orders_the_documents_of_each_query():
    listed = [
        {"text": "Rome is old", "label": 0},
        {"text": "Paris is the capital of France", "label": 1},
        {"text": "bread", "label": 0},
    ]
    made = rows(
        [{"query": "the capital of France", "candidates": listed}, {"query": "old Rome", "candidates": [*listed[1:], listed[0]]}]
    )
    assert by_bm25(RerankTask(), made)["map"] == pytest.approx((1 + 1 / 3) / 2, abs=0.2)
    assert by_bm25(RerankTask(), made[:1])["map"] == 1


def test_answers_stand_beside_the_words_of_the_question():
    assert best_window("Who wrote Faust?", "", 1, {}, 1.0) == ("", 0.0)
    context = "The river Rhine flows north. The capital of France is Paris, on the Seine. Bread is baked daily by the baker."
    made = [
        {"question": "capital of France?", "context": context, "answers": [{"text": "Paris", "start": context.index("Paris")}]}
    ]
    made += [{"question": "What do zebras eat?", "context": context, "answers": []}] * 2
    task = SpanTask().fit(rows(made))
    scores = answer_by_overlap(task, rows(made), rows(made))
    assert scores["exact_match"] >= 2 / 3  # the threshold leaves what shares no word unanswered
    keys = rows(lookups(10, pairs=20, seed=0))
    assert answer_by_overlap(SpanTask(), keys, keys)["exact_match"] == 1  # a key that stands in the text is found by itself


def test_the_nearest_choice_shares_most_words():
    made = rows([{"text": "store in Rome", "choices": ["week", "the store of Rome", "Paris"], "label": 1}] * 3)
    assert nearest_choice(ChoiceTask().fit(made), made, made) == {"accuracy": 1}


def test_a_class_is_guessed_by_its_name():
    dev = rows(
        [
            {"text": "a tech company", "label": "Sci/Tech"},
            {"text": "sports day", "label": "Sports"},
            {"text": "x", "label": "Sports"},
        ]
    )
    assert named_in_text(SequenceTask(), ["World", "Sports", "Sci/Tech"], dev)["accuracy"] == pytest.approx(2 / 3)


def test_every_member_of_the_suite_has_a_baseline_of_its_kind():
    kinds = {type(member.config.task).__name__ for member in development()}
    assert kinds == {"SequenceTask", "TaggingTask", "SpanTask", "ChoiceTask", "RerankTask"}
    (news,) = [member for member in development() if member.zero_shot]
    dev = rows([{"text": "world news", "label": "World"}])
    name, scores = plain_baseline(news, SequenceTask(labels=("World",)), [], dev)
    assert (name, scores) == ("name of the class in the text", {"accuracy": 1.0})
    train, dev = both(has_paris)
    (imdb,) = [member for member in development() if member.name == "imdb"]
    name, scores = plain_baseline(imdb, imdb.config.task.fit(train), train, dev)
    assert name == "TF-IDF + logistic" and scores["accuracy"] > 0.9
