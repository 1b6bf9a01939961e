"""Labels of texts, against transformers' pipelines and sentence-transformers' CrossEncoder on the same random folders."""

from functools import cache

import numpy as np
import pytest
from transformers import pipeline

from modernbert.engine.engine import load
from modernbert.engine.rows import shares
from modernbert.errors import CheckpointError, ConfigError, TextError
from modernbert.model.heads import SequenceClassifier
from modernbert.text.rows import TruncationWarning

CLOSE = 1e-4
"""The project's promise for scores: float32 on both sides, summed in another order; 1e-6 is found."""

TEXTS = ["The capital of France is Paris.", "He walked to the café", "def add(a, b):\n    return a + b", "", "a " * 200]
PAIRS = [{"text": "The capital", "text_pair": "of France"}, {"text": "", "text_pair": "café é"}]
NAMES = {"0": "bad", "1": "fair", "2": "good"}

HEADS = {
    "classes": {"num_labels": 3, "extra": {"id2label": NAMES}},
    "two classes without names": {"num_labels": 2},
    "single_label_classification": {"num_labels": 2, "extra": {"problem_type": "single_label_classification"}},
    "several labels at once": {
        "num_labels": 3,
        "extra": {"problem_type": "multi_label_classification", "id2label": NAMES},
    },
    "regression": {"num_labels": 1, "extra": {"problem_type": "regression"}},
    "regression of two values": {"num_labels": 2, "extra": {"problem_type": "regression"}},
    "one label": {"num_labels": 1},
    "cls pooling": {"num_labels": 3, "classifier_pooling": "cls"},
}


@pytest.fixture(scope="module")
def folders(head_folder):
    return cache(lambda case: head_folder(SequenceClassifier, **HEADS[case]))


def assert_same_labels(found, wanted):
    if isinstance(wanted, list):
        assert isinstance(found, list) and len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same_labels(one, other)
    else:
        assert found == {**wanted, "score": pytest.approx(wanted["score"], abs=CLOSE)}


@pytest.mark.parametrize("case", HEADS)
def test_classify_returns_what_the_pipeline_returns(case, folders):
    engine, theirs = load(folders(case), device="cpu"), pipeline("text-classification", model=str(folders(case)), device="cpu")
    for texts in (TEXTS[0], TEXTS, TEXTS[:1], PAIRS[0], PAIRS):
        assert_same_labels(engine.classify(texts), theirs(texts))
        assert_same_labels(engine.classify(texts, top_k=None), theirs(texts, top_k=None))
        assert_same_labels(engine.classify(texts, top_k=2), theirs(texts, top_k=2))


def test_a_pair_is_a_tuple_too(folders):
    engine = load(folders("classes"), device="cpu")
    assert engine.classify([(pair["text"], pair["text_pair"]) for pair in PAIRS]) == engine.classify(PAIRS)
    assert engine.classify(("a", "b")) == engine.classify({"text": "a", "text_pair": "b"})


def test_no_text_has_no_label(folders):
    assert load(folders("classes"), device="cpu").classify([]) == []


@pytest.fixture(scope="module")
def nli(head_folder):
    names = {"0": "contradiction", "1": "neutral", "2": "Entailment"}
    folder = head_folder(
        SequenceClassifier,
        num_labels=3,
        extra={"id2label": names, "label2id": {name: int(number) for number, name in names.items()}},
    )
    return load(folder, device="cpu"), pipeline("zero-shot-classification", model=str(folder), device="cpu")


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("labels", [["France", "code", "days"], ["one"], "Italy, the store"])
@pytest.mark.parametrize("template", ["This example is {}.", "It walked to {}"])
def test_zero_shot_returns_what_the_pipeline_returns(nli, labels, template, multi_label):
    engine, theirs = nli
    texts = [text for text in TEXTS if text]
    for given in (texts[0], texts):
        found = engine.zero_shot(given, labels, template, multi_label=multi_label)
        wanted = theirs(given, candidate_labels=labels, hypothesis_template=template, multi_label=multi_label)
        for one, other in zip([found] if given is texts[0] else found, [wanted] if given is texts[0] else wanted, strict=True):
            assert (one["sequence"], one["labels"]) == (other["sequence"], other["labels"])
            np.testing.assert_allclose(one["scores"], other["scores"], atol=CLOSE)


QUERY = "Where is the capital?"
DOCUMENTS = ["Paris is in France.", "A week has seven days.", "", "café " * 50, "The capital of Italy is Rome."]


@pytest.mark.parametrize("activation", [None, "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"])
def test_rerank_returns_what_crossencoder_rank_returns(head_folder, activation):
    from sentence_transformers import CrossEncoder

    extra = {"sentence_transformers": {"activation_fn": activation, "version": "5.0.0"}} if activation else {}
    folder = head_folder(SequenceClassifier, num_labels=1, extra=extra)
    engine, theirs = load(folder, device="cpu"), CrossEncoder(str(folder), device="cpu")
    for top_k in (None, 2):
        found, wanted = engine.rerank(QUERY, DOCUMENTS, top_k), theirs.rank(QUERY, DOCUMENTS, top_k, return_documents=True)
        assert [one["corpus_id"] for one in found] == [other["corpus_id"] for other in wanted]
        assert found == [{**other, "score": pytest.approx(other["score"], abs=CLOSE)} for other in wanted]
    assert engine.rerank(QUERY, DOCUMENTS, 1, return_documents=False)[0].keys() == {"corpus_id", "score"}
    assert engine.rerank(QUERY, []) == []


def test_the_query_is_tokenised_once(folders, monkeypatch):
    engine = load(folders("one label"), device="cpu")
    read = []
    encode = engine.tokenizer.encode
    monkeypatch.setattr(engine.tokenizer, "encode", lambda texts, **how: read.extend(texts) or encode(texts, **how))
    engine.rerank(QUERY, DOCUMENTS)
    assert read.count(QUERY) == 1


def test_a_text_that_is_too_long_is_an_error_or_is_cut_and_reported(head_folder):
    engine = load(head_folder(SequenceClassifier, num_labels=3, max_position_embeddings=64), device="cpu")
    texts = ["fine", " a" * 72, "fine", " a" * 1062]
    with pytest.raises(TextError, match=r"^text 1 has 74 tokens and the model reads at most 64; .* or pass truncate=True$"):
        engine.classify(texts)
    with pytest.warns(TruncationWarning, match=r"^cut to 64 tokens: text 1 lost 10, text 3 lost 1,000$"):
        found = engine.classify(texts, truncate=True)
    assert found[1] == engine.classify([" a" * 62, "x"])[0]
    with pytest.raises(TextError, match=r"^the text has 65 tokens"):
        engine.classify((" a" * 60, " b b"))


@pytest.mark.parametrize(("first", "second"), [(10, 100), (100, 10), (100, 90), (90, 100), (80, 80), (3, 4), (0, 99), (60, 1)])
@pytest.mark.parametrize("room", [50, 51, 57])
def test_pairs_are_cut_as_the_tokenizers_library_cuts_them(tiny_folder, first, second, room):
    import tokenizers

    theirs = tokenizers.Tokenizer.from_file(str(tiny_folder / "tokenizer.json"))
    theirs.enable_truncation(room + 3, strategy="longest_first")
    row = theirs.encode(" a" * first, " b" * second)
    kept = [row.sequence_ids.count(0), row.sequence_ids.count(1)]
    assert list(shares(first, second, room)) == kept


def test_zero_shot_counts_texts_and_not_pairs_in_messages(nli):
    engine, _ = nli
    engine._runner.limit, before = 64, engine._runner.limit
    with pytest.warns(TruncationWarning, match=r"^cut to 64 tokens: text 1 lost \d+$"):
        engine.zero_shot(["fine", " a" * 60], ["x", "y"], truncate=True)
    engine._runner.limit = before


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda e: e.classify("a", top_k=0), ConfigError, r"^top_k=0: wanted a number of labels from 1, or None for all"),
        (lambda e: e.classify([("a", "b"), "c"]), TextError, r"^text 1 is a single text among pairs"),
        (lambda e: e.classify({"text": "a"}), TextError, r"^\('a', None\) is no pair of texts"),
        (lambda e: e.classify([("a", "b"), ("c", "\udcff")]), TextError, r"^text 1 is not valid Unicode"),
        (lambda e: e.classify(5), TextError, r"^wanted a text or a list of texts, got int$"),
        (lambda e: e.zero_shot("a", []), ConfigError, r"^zero_shot needs at least one label"),
        (lambda e: e.zero_shot("a", ["b"], "no place"), ConfigError, r"has no place for the label; wanted \{\} in it$"),
        (lambda e: e.zero_shot("a", ["b"], "{x}"), ConfigError, r"cannot be filled \('x'\); wanted one \{\} for the label$"),
        (lambda e: e.zero_shot("a", ["b"]), ConfigError, r"^this model's classes are bad, fair, good; zero_shot needs one"),
        (lambda e: e.rerank("a", ["b"]), ConfigError, r"^this model has 3 labels; rerank needs one that gives one score"),
    ],
)
def test_what_cannot_be_done_is_said(folders, call, error, message):
    with pytest.raises(error, match=message):
        call(load(folders("classes"), device="cpu"))


@pytest.mark.parametrize("task", ["classify", "zero_shot", "rerank"])
def test_a_folder_without_the_head_says_what_it_is_and_what_to_do(tiny_folder, task):
    arguments = ("a",) if task == "classify" else ("a", ["b"])
    with pytest.raises(
        CheckpointError,
        match=rf"^this model is a ModernBertForMaskedLM and has no sequence-classification head, which {task} needs; "
        "load a ModernBertForSequenceClassification, or fine-tune this one into it$",
    ):
        getattr(load(tiny_folder, device="cpu"), task)(*arguments)
