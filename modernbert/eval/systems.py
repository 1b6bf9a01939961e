"""What can search: BM25, one vector a text, one a token, a cross-encoder over another's findings. All search is exact.

A system gets a whole set and gives each query's best documents. Q queries · N documents · P passages of documents · D width of a vector ·
L tokens of a query · T tokens of documents.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch

from modernbert.data.retrieval import RetrievalSet
from modernbert.engine.engine import Engine
from modernbert.eval.lexical import Lexical
from modernbert.model.heads import LateInteraction, SequenceClassifier
from modernbert.tasks.ranking import order_of
from modernbert.text.passages import BEST

DEPTH = 100
"""Documents of a ranking."""

_BLOCK = 1 << 26
"""Scores that are in memory at once: 256 MiB."""


class Ranking(NamedTuple):
    """A query's documents by their places in the set, best first, and their scores."""

    places: np.ndarray
    scores: np.ndarray


@runtime_checkable
class System(Protocol):
    """Whatever ranks a set's documents."""

    name: str

    def rank(self, data: RetrievalSet, depth: int = DEPTH) -> list[Ranking]:
        """The best `depth` documents of each query; of its candidates, where the set names them."""


class Bm25:
    """Words in common, weighted. Documents without any are not found."""

    name = "BM25"

    def rank(self, data: RetrievalSet, depth: int = DEPTH) -> list[Ranking]:
        index = Lexical(data.documents)
        return [
            best(index.scores(query), data, number, depth, least=None if data.candidates else 0.0)
            for number, query in enumerate(data.queries)
        ]


class Vectors:
    """Cosine similarity of one vector a text, or of a document's best passages."""

    def __init__(
        self,
        name: str,
        embed: Callable[[Sequence[str], bool], np.ndarray],
        device: torch.device | str = "cpu",
        passages: Callable[[str], list[str]] | None = None,
    ) -> None:
        """Takes what makes vectors.

        Args:
            name: for tables.
            embed: from texts, and whether they are queries, to an array [texts, D]; of any length, it is normalised here.
            device: where the similarities are computed.
            passages: cuts a document into passages, whose best ones count; None takes documents whole.
        """
        self.name, self.embed, self.device, self.passages = name, embed, device, passages

    def rank(self, data: RetrievalSet, depth: int = DEPTH) -> list[Ranking]:
        parts = [[text] if self.passages is None else self.passages(text) for text in data.documents]
        query_QD, passage_PD = (
            torch.nn.functional.normalize(torch.as_tensor(self.embed(texts, is_query), device=self.device).float(), dim=-1)
            for texts, is_query in ((data.queries, True), (list(chain.from_iterable(parts)), False))
        )
        found: list[Ranking] = []
        for block_QD in query_QD.split(max(1, _BLOCK // len(passage_PD))):
            scores_NQ = of_passages(passage_PD @ block_QD.T, [len(part) for part in parts])
            for scores_N in scores_NQ.T.cpu().numpy():
                found.append(best(scores_N, data, len(found), depth))
        return found


class TokenVectors:
    """Late interaction: for each token of the query its most similar token of the document, summed (MaxSim).

    Source: Khattab and Zaharia 2020 (arXiv 2004.12832) §3.3.
    """

    def __init__(
        self,
        name: str,
        embed: Callable[[Sequence[str], bool], Sequence[np.ndarray] | np.ndarray],
        device: torch.device | str = "cpu",
    ) -> None:
        """As `Vectors`; `embed` gives an array [tokens, D] of unit vectors for each text."""
        self.name, self.embed, self.device = name, embed, device

    def rank(self, data: RetrievalSet, depth: int = DEPTH) -> list[Ranking]:
        documents = self.embed(data.documents, False)
        lengths_N = torch.tensor([len(vectors) for vectors in documents])
        tokens_TD = torch.as_tensor(np.concatenate(documents), device=self.device)
        found: list[Ranking] = []
        for query_LD in self.embed(data.queries, True):
            at_once = max(1, _BLOCK // len(query_LD))
            scores_N = max_sim(torch.as_tensor(query_LD, device=self.device), tokens_TD, lengths_N.to(self.device), at_once)
            found.append(best(scores_N.cpu().numpy(), data, len(found), depth))
        return found


class Reranker:
    """A cross-encoder over a set's candidates, or over the first documents of another system where there are none."""

    def __init__(self, name: str, score: Callable[[str, list[str]], np.ndarray], first: System) -> None:
        """Takes what scores.

        Args:
            name: for tables.
            score: from a query and documents to a score each.
            first: whose best documents are put into a new order.
        """
        self.name, self.score, self.first = f"{name} over {first.name}", score, first

    def rank(self, data: RetrievalSet, depth: int = DEPTH) -> list[Ranking]:
        if data.candidates is not None:
            chosen = [np.array(places) for places in data.candidates]
        else:
            chosen = [ranking.places for ranking in self.first.rank(data, depth)]
        found = []
        for query, places in zip(data.queries, chosen, strict=True):
            scores = self.score(query, [data.documents[place] for place in places])
            order = order_of(scores, [data.document_ids[place] for place in places])[:depth]
            found.append(Ranking(places[order], scores[order]))
        return found


def of_passages(scores_PQ: torch.Tensor, lengths: Sequence[int], count: int = BEST) -> torch.Tensor:
    """The scores [N, Q] of documents: the mean of the `count` best of their passages, or of all where they have fewer.

    Args:
        scores_PQ: the passages', one document after the other.
        lengths: passages of each document.

    >>> of_passages(torch.tensor([[0.1], [0.9], [0.5], [0.4]]), [3, 1], count=2).T
    tensor([[0.7000, 0.4000]])
    """
    if max(lengths, default=1) == 1:  # texts that are whole: many, and nothing to do
        return scores_PQ
    return torch.stack(
        [scores_LQ.topk(min(count, len(scores_LQ)), dim=0).values.mean(0) for scores_LQ in scores_PQ.split(list(lengths))]
    )


def max_sim(query_LD: torch.Tensor, tokens_TD: torch.Tensor, lengths_N: torch.Tensor, at_once: int = _BLOCK) -> torch.Tensor:
    """The score of each document: Σ over the query's tokens of the greatest product with one of the document's.

    Args:
        tokens_TD: the documents' tokens, one document after the other.
        lengths_N: tokens of each.
        at_once: tokens of documents whose products are in memory together.

    >>> query, tokens = torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 0.5], [0.5, 0.5]])
    >>> max_sim(query, tokens, torch.tensor([2, 1])).tolist()
    [1.5, 1.0]
    """
    ends_N = lengths_N.cumsum(0).tolist()
    found, first, begin = [], 0, 0
    for place, end in enumerate(ends_N):
        following = ends_N[place + 1] if place + 1 < len(ends_N) else None
        if following is not None and following - begin <= at_once:
            continue
        products_TL = tokens_TD[begin:end].to(query_LD) @ query_LD.T
        found.append(torch.segment_reduce(products_TL, "max", lengths=lengths_N[first : place + 1]).sum(-1))
        first, begin = place + 1, end
    return torch.cat(found)


def best(scores_N: np.ndarray, data: RetrievalSet, query: int, depth: int, least: float | None = None) -> Ranking:
    """The best documents of a query: of its candidates, or of all but itself; only those above `least`, where it is given."""
    if data.candidates is not None:
        places = np.array(data.candidates[query])
    else:
        places = np.arange(len(scores_N))
        if len(places) > 4 * depth:  # sort few; all that tie with the last stay in
            places = places[scores_N >= np.partition(scores_N, -depth - 1)[-depth - 1]]
        itself = data.query_ids[query]
        places = places[[data.document_ids[place] != itself for place in places]]
    if least is not None:
        places = places[scores_N[places] > least]
    order = order_of(scores_N[places], [data.document_ids[place] for place in places])[:depth]
    return Ranking(places[order], scores_N[places][order])


def engine_system(name: str, engine: Engine, first: System | None = None, *, batch_tokens: int | None = None) -> System:
    """The system that a model of ours is: token vectors, a cross-encoder, or one vector a text.

    Prompts named query and document (or passage), where the folder has them, are put before the texts. Texts that are longer than the
    model reads are cut, and a TruncationWarning says how many.

    Args:
        name: for tables.
        engine: of `modernbert.load`.
        first: what a cross-encoder reorders where a set has no candidates; None is BM25.
        batch_tokens: tokens that go through the model together.
    """
    prompts = engine.modules.prompts
    document_prompt = next((name for name in ("document", "passage") if name in prompts), None)
    prompt_names = {True: "query" if "query" in prompts else None, False: document_prompt}
    if engine.modules.late is not None or isinstance(engine.model, LateInteraction):
        return TokenVectors(
            name,
            lambda texts, is_query: engine.embed_tokens(texts, query=is_query, truncate=True, batch_tokens=batch_tokens),
            engine.device,
        )
    if isinstance(engine.model, SequenceClassifier):

        def score(query: str, documents: list[str]) -> np.ndarray:
            ranked = engine.rerank(query, documents, return_documents=False, truncate=True)
            scores = np.empty(len(documents), dtype=np.float32)
            for one in ranked:
                scores[one["corpus_id"]] = one["score"]
            return scores

        return Reranker(name, score, first or Bm25())
    return Vectors(
        name,
        lambda texts, is_query: engine.embed(
            texts, prompt_name=prompt_names[is_query], truncate=True, normalize=True, batch_tokens=batch_tokens
        ),
        engine.device,
    )
