"""Search systems and the report on them."""

import json

import numpy as np
import pytest
import torch

from modernbert.data.retrieval import RetrievalSet, RetrievalSource
from modernbert.engine.engine import load
from modernbert.errors import ConfigError, DataError
from modernbert.eval import suites
from modernbert.eval.lexical import Lexical, words_of
from modernbert.eval.named import systems_named
from modernbert.eval.retrieval import evaluate_retrieval, interval
from modernbert.eval.systems import Bm25, Ranking, Reranker, TokenVectors, Vectors, best, engine_system, max_sim
from modernbert.text.passages import passages_of

pytest.importorskip("bm25s")


def small_set(**changes):
    parts = {
        "name": "small",
        "metric": "ndcg@10",
        "documents": ["ants dig holes", "bees fly far", "cats sleep long", "dogs dig too"],
        "document_ids": ["a", "b", "c", "d"],
        "queries": ["who can dig", "who can fly"],
        "query_ids": ["q1", "q2"],
        "grades": [{0: 1, 3: 1}, {1: 1}],
        "missing": [[], []],
    }
    return RetrievalSet(**(parts | changes))


def test_bm25_is_the_formula():
    """Robertson's sum with Lucene's idf, ln(1 + (N − n + ½) ÷ (n + ½)), written out; float32 of the library: 1e-5."""
    documents = ["the cat sat", "the dog sat on the cat", "a bird"]
    words = [words_of(document) for document in documents]
    mean = np.mean([len(w) for w in words])

    def expected(query, w, k1=1.2, b=0.75):
        total = 0.0
        for word in query:
            n = sum(word in other for other in words)
            if n:
                f = w.count(word)
                total += np.log(1 + (3 - n + 0.5) / (n + 0.5)) * f / (f + k1 * (1 - b + b * len(w) / mean))
        return total

    scores = Lexical(documents).scores("The cat, unknown")
    assert scores == pytest.approx([expected(["the", "cat"], w) for w in words], abs=1e-5)
    assert Lexical(documents).scores("unheard").tolist() == [0, 0, 0]


def test_bm25_finds_what_shares_words_and_nothing_else():
    first, second = Bm25().rank(small_set())
    assert sorted(first.places.tolist()) == [0, 3] and second.places.tolist() == [1]


@pytest.mark.parametrize("depth", [1, 5, 100])
def test_the_best_are_those_of_a_full_sort_ties_by_falling_id(depth):
    rng = np.random.default_rng(0)
    ids = [f"{i:04d}" for i in rng.permutation(1000)]
    scores = rng.integers(0, 40, 1000) / 40
    data = small_set(documents=[""] * 1000, document_ids=ids, query_ids=[ids[7], "q"])
    kept = [i for i in range(1000) if i != 7]  # a query's own document does not compete
    expected = sorted(kept, key=lambda i: (scores[i], ids[i]), reverse=True)[:depth]
    assert best(scores, data, 0, depth).places.tolist() == expected


def test_max_sim_is_the_sum_of_the_greatest_products():
    rng = np.random.default_rng(1)
    query, documents = rng.normal(size=(5, 8)), [rng.normal(size=(n, 8)) for n in (3, 1, 9, 4)]
    expected = [(query @ document.T).max(1).sum() for document in documents]
    lengths = torch.tensor([len(document) for document in documents])
    for at_once in (1, 4, 100):  # however the documents are cut
        found = max_sim(torch.tensor(query), torch.tensor(np.concatenate(documents)), lengths, at_once)
        assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_vectors_and_tokens_rank_by_similarity():
    table = {
        "who can dig": [1, 0],
        "who can fly": [0, 1],
        "ants dig holes": [1, 0.1],
        "bees fly far": [0, 3],
        "dogs dig too": [2, 1],
    }

    def embed(texts, is_query):
        return np.array([table.get(text, [-1, -1]) for text in texts], dtype=np.float32)

    data = small_set()
    assert [ranking.places.tolist() for ranking in Vectors("v", embed).rank(data)] == [[0, 3, 1, 2], [1, 3, 0, 2]]
    tokens = TokenVectors("t", lambda texts, is_query: [vector[None] for vector in embed(texts, is_query)])
    assert tokens.rank(data)[1].places.tolist() == [1, 3, 0, 2]


def test_a_document_scores_as_the_mean_of_its_three_best_passages():
    """Against every passage scored on its own; the whole documents would rank the other way round."""

    def embed(texts, is_query):
        return np.array([[text.count("dig") + 1e-3, len(text.split())] for text in texts], dtype=np.float32)

    long = "sleep dig sleep " + "dig " * 7 + "sleep " * 13
    data = small_set(documents=[long, "dig now", "fly", "swim dig dig"], grades=[{0: 1}, {1: 1}])
    whole, cut = (Vectors("v", embed, passages=cut).rank(data)[0] for cut in (None, lambda text: passages_of(text, 3, 3)))
    passages = [[long.split()[i : i + 3] for i in range(0, 23, 3)], [["dig", "now"]], [["fly"]], [["swim", "dig", "dig"]]]
    query = embed(data.queries[:1], True)[0]

    def cosine(words):
        vector = embed([" ".join(words)], False)[0]
        return query @ vector / np.linalg.norm(query) / np.linalg.norm(vector)

    expected = [np.mean(sorted(map(cosine, some))[-3:]) for some in passages]
    assert cut.places.tolist() == np.argsort(expected)[::-1].tolist()
    assert cut.scores.tolist() == pytest.approx(sorted(expected, reverse=True), abs=1e-6)
    assert whole.places.tolist() != cut.places.tolist()


def test_a_reranker_reorders_what_the_first_system_found_or_the_candidates():
    def score(query, documents):
        return np.array([len(document) for document in documents], dtype=np.float32)

    data = small_set()
    assert Reranker("r", score, Bm25()).rank(data)[0].places.tolist() == [0, 3]
    listed = small_set(candidates=[[2, 1], [3]], grades=[{2: 1, 1: 0}, {3: 1}])
    assert [ranking.places.tolist() for ranking in Reranker("r", score, Bm25()).rank(listed)] == [[2, 1], [3]]
    assert [len(ranking.places) for ranking in Bm25().rank(listed)] == [2, 1]  # all candidates are ranked, words in common or not


def test_a_model_of_ours_searches_with_the_vectors_it_embeds(tiny_folder):
    engine, data = load(tiny_folder, device="cpu"), small_set()
    rankings = engine_system("ours", engine).rank(data)
    cosine = engine.embed(data.queries, normalize=True) @ engine.embed(data.documents, normalize=True).T
    assert [ranking.places.tolist() for ranking in rankings] == np.argsort(-cosine, axis=1).tolist()


def test_what_is_held_out_are_all_queries_and_some_documents(tmp_path, monkeypatch):
    code = "def add(first, second): return first plus second"
    texts = {
        "cosqa": (code, "Sum of two?"),
        "medquad": ("an aspirin a day keeps the doctor far away from you", "What is aspirin?"),
    }
    for name, (document, query) in texts.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"query": query, "document": document}) + "\n")
    monkeypatch.setattr(suites, "_DEVELOPMENT", [RetrievalSource(path=f"{name}.jsonl", name=name) for name in texts])
    found = suites.held_out(tmp_path)
    assert found.asks("sum of two") and found.asks("what is ASPIRIN") and not found.asks("what is it?")
    assert found.near.has(code) and not found.near.has(texts["medquad"][0])


def test_suites_are_looked_for_on_this_machine_alone(tmp_path, monkeypatch):
    with pytest.raises(
        DataError, match=r"^no folder nosets; wanted the one that holds a folder for each set, such as nosets/scifact$"
    ):
        suites.training_sets("nosets")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sets").mkdir()
    with pytest.raises(DataError, match=r"^no file or folder .*sets/scifact; check the path$"):  # no name on the hub
        suites.held_out("sets")


class Fixed:
    def __init__(self, name, places):
        self.name, self.places = name, places

    def rank(self, data, depth=100):
        return [Ranking(np.array(places), np.arange(len(places), 0.0, -1)) for places in self.places]


def test_the_report_has_seeds_intervals_differences_and_where_it_comes_from():
    good, bad = [[0, 3], [1]], [[2, 3], [2, 1]]
    report = evaluate_retrieval([Fixed("base", bad), Fixed("ours", good), Fixed("ours", bad)], [small_set()], resamples=50)
    ours, base = report.score("ours", "small"), report.score("base", "small")
    assert ours.values[0] == 1.0 and ours.values[1] == base.mean < 1
    assert ours.difference[0] == pytest.approx(ours.mean - base.mean)
    assert base.difference is None and base.interval[0] <= base.mean <= base.interval[1]
    page = report.to_markdown()
    assert page.splitlines()[2].startswith("| small | 2 | ndcg@10 | ") and " ± " in page and "| **mean** |" in page
    said = json.loads(json.dumps(report.to_json()))
    assert said["sets"]["small"]["documents"] == 4 and {"torch", "commit", "device"} <= said["environment"].keys()


def test_a_metric_that_is_none_of_ours_is_named_before_anything_is_read():
    with pytest.raises(ConfigError, match=r"^no metric named 'ndgc@10'; there are ndcg@10, mrr@10, "):
        evaluate_retrieval([], [RetrievalSource(path="nowhere", metric="ndgc@10")])


def test_the_interval_covers_the_mean_as_often_as_it_says():
    """200 samples of 80 values from [0, 1]: the middle 95 % hold ½ in 95 % of them, ± 2.3 standard errors (3.5 points)."""
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        low, high = interval(rng.random(80), 200, seed)
        covered += low <= 0.5 <= high
    assert 0.915 <= covered / 200 <= 0.985


def test_two_sets_of_one_name_are_refused_as_their_figures_would_be_one():
    with pytest.raises(ConfigError, match="two sets are called 'small'; rename"):
        evaluate_retrieval([Fixed("base", [[0], [1]])], [small_set(), small_set()], resamples=10)


def test_a_picture_is_drawn(tmp_path):
    from modernbert.eval.bars import draw

    draw(evaluate_retrieval([Fixed("base", [[0], [1]])], [small_set()], resamples=10), tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_names_become_systems_and_folders_with_commas_seeds(tiny_folder):
    assert [system.name for system in systems_named("bm25")] == ["BM25"]
    both = systems_named(f"{tiny_folder},{tiny_folder}", "cpu")
    assert [system.name for system in both] == [f"{tiny_folder},{tiny_folder}"] * 2


def test_passages_of_a_model_are_a_system_by_name(tiny_folder):
    (system,) = systems_named(f"passages:{tiny_folder}", "cpu")
    assert (system.name, system.passages) == (f"{tiny_folder}, passages", passages_of)
    data = small_set()
    whole = systems_named(str(tiny_folder), "cpu")[0].rank(data)
    for one, other in zip(system.rank(data), whole, strict=True):  # short documents are one passage
        assert one.places.tolist() == other.places.tolist() and one.scores == pytest.approx(other.scores, abs=1e-6)
    with pytest.raises(ConfigError, match="passages:bm25: passages: is for models that give one vector a text"):
        systems_named("passages:bm25")


def test_the_first_numbers_of_a_model_s_vectors_are_a_system_by_name(tiny_folder):
    data, engine = small_set(), load(tiny_folder, device="cpu")
    (system,) = systems_named(f"dim8:{tiny_folder}", "cpu")
    assert system.name == f"{tiny_folder}, 8 dimensions"
    documents, queries = (engine.embed(texts, truncate_dim=8, normalize=True) for texts in (data.documents, data.queries))
    for ranking, scores in zip(system.rank(data), queries @ documents.T, strict=True):  # float32: 1e-6
        assert ranking.scores == pytest.approx(scores[ranking.places], abs=1e-6) and (np.diff(ranking.scores) <= 0).all()
    (both,) = systems_named(f"passages:dim8:{tiny_folder}", "cpu")
    assert (both.name, both.passages) == (f"{tiny_folder}, 8 dimensions, passages", passages_of)
    with pytest.raises(ConfigError, match="dim8:bm25: dim8: is for models that give one vector a text"):
        systems_named("dim8:bm25")
    with pytest.raises(ConfigError, match="truncate_dim=9999: wanted 1 to"):
        systems_named(f"dim9999:{tiny_folder}", "cpu")[0].rank(data)


def test_ours_run_in_int8_by_name(tiny_folder, monkeypatch):
    asked, engine = [], load(tiny_folder, device="cpu")
    monkeypatch.setattr("modernbert.eval.named.load", lambda folder, **wishes: asked.append((folder, wishes)) or engine)
    (system,) = systems_named(f"int8:{tiny_folder}", "cpu")
    assert system.name == f"int8:{tiny_folder}" and asked == [(str(tiny_folder), {"device": "cpu", "dtype": "int8"})]


def test_a_peer_runs_through_its_own_library(tiny_folder, monkeypatch):
    sentence_transformers = pytest.importorskip("sentence_transformers")

    class Model:
        def __init__(self, name, device=None):
            assert name == "some/model"

        def encode_query(self, texts, **kwargs):
            return np.ones((len(texts), 2))

        def encode_document(self, texts, **kwargs):
            return np.array([[1, -1]] * (len(texts) - 1) + [[1, 1]])

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", Model)
    (system,) = systems_named("st:some/model")
    assert (system.name, system.rank(small_set())[0].places[0]) == ("model", 3)
