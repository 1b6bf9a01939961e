"""What vectors are trained for: to find the right document among a batch's, to score as a teacher scores, to lie where a teacher's lie.

Each objective is the sum of a term for each of some rows of a batch, so that processes can share the rows. A batch has B queries and K
distinct documents, of which `positive_B` says each query's own. R rows of them are this process's · C candidates · D width of a vector ·
S width of the teacher's · T tokens of documents · O width of a token's vector.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from modernbert.tasks.pairs import Pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class InBatch:
    """The right document against all others of the batch: cross-entropy over scale · similarity (InfoNCE)."""

    weight: float = 1.0
    scale: float = 20.0
    """1 ÷ temperature: of cosines 20 as in the paper's retrieval recipe, of MaxSim 1."""
    symmetric: bool = False
    """Whether each document also has to find its query among the batch's."""

    def loss(self, similar_RK: Tensor, similar_BR: Tensor | None, part: "Part") -> Tensor:
        """Summed over rows; `similar_BR`, all queries with the rows' documents, is needed where it is symmetric.

        Source: van den Oord et al. 2018 (arXiv 1807.03748) §2.3; both directions as CLIP (arXiv 2103.00020).
        """
        logits_RK = (self.scale * similar_RK).masked_fill(part.barred_RK, -torch.inf)
        loss = F.cross_entropy(logits_RK, part.positive_R, reduction="sum")
        if self.symmetric:
            assert similar_BR is not None
            logits_BR = (self.scale * similar_BR).masked_fill(part.barred_BR, -torch.inf)
            loss = (loss + F.cross_entropy(logits_BR.T, part.rows_R, reduction="sum")) / 2
        return loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class CandidateScores:
    """A teacher's scores of a query's document and given negatives."""

    weight: float = 0.0
    kind: Literal["kl", "margin_mse"] = "kl"
    """kl: the softmax over candidates shall be the teacher's; margin_mse: so shall differences from the document's score."""
    scale: float = 1.0
    """Of the student's similarities: 1 for MaxSim, 20 for cosines."""
    teacher_scale: float = 1.0
    """Of the teacher's scores."""
    min_max: bool = False
    """For kl: both sides' scores are spread over 0 … 1 for each query before they are scaled, as PyLate does."""

    def loss(self, similar_RK: Tensor, part: "Part") -> Tensor:
        """Summed over rows.

        Source: KL as ColBERTv2 (arXiv 2112.01488) §3.2; MarginMSE: Hofstätter et al. 2020 (arXiv 2010.02666) §3.
        """
        assert part.scores_RC is not None
        assert part.candidates_RC is not None
        present_RC = part.candidates_RC >= 0
        student_RC = similar_RK.gather(1, part.candidates_RC.clamp(min=0))
        teacher_RC = part.scores_RC
        if self.kind == "margin_mse":
            student_RC, teacher_RC = self.scale * student_RC, self.teacher_scale * teacher_RC
            wrong_RC = (student_RC[:, :1] - student_RC) - (teacher_RC[:, :1] - teacher_RC)
            others_RC = present_RC[:, 1:]
            return ((wrong_RC[:, 1:] ** 2 * others_RC).sum(1) / others_RC.sum(1).clamp(min=1)).sum()
        if self.min_max:
            student_RC, teacher_RC = (_spread(scores_RC, present_RC) for scores_RC in (student_RC, teacher_RC))
        student_RC = (self.scale * student_RC).masked_fill(~present_RC, -1e9).log_softmax(-1)
        teacher_RC = (self.teacher_scale * teacher_RC).masked_fill(~present_RC, -1e9).log_softmax(-1)
        return F.kl_div(student_RC, teacher_RC, reduction="sum", log_target=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherVectors:
    """A teacher's vectors of the same texts."""

    weight: float = 0.0
    kind: Literal["cosine", "mse", "similarities"] = "cosine"
    """cosine: the student's vector, projected to the teacher's width by a layer that is thrown away, shall point the same way; mse: be the
    same; similarities: a query's softmax over the batch's documents shall be the teacher's, which needs no projection."""
    project: bool = True
    """False compares the first dimensions, as many as the narrower of the two has."""
    scale: float = 20.0
    """For similarities: of both sides' cosines."""
    file: str = ""
    """The vectors, as `prepare teacher` writes them: .npy, a row for each distinct text of the pairs; or .parquet, text and embedding."""
    not_for: tuple[str, ...] = ()
    """Sources without this term: those where the student shall become better than its teacher."""

    def projection(self, width: int, teacher_width: int) -> nn.Module:
        """The layer between the two widths; nothing where none is needed."""
        needed = self.weight and self.kind != "similarities" and self.project and width != teacher_width
        return nn.Linear(width, teacher_width, bias=False) if needed else nn.Identity()

    def loss(self, vectors: "Vectors", projection: nn.Module, similar_RK: Tensor, part: "Part") -> Tensor:
        """Summed over rows.

        Source: Reimers and Gurevych 2020 (arXiv 2004.09813) for mse; Tian et al. 2020 (arXiv 1910.10699) for similarities' kind.
        """
        assert part.teacher_query_BS is not None
        assert part.teacher_document_KS is not None
        query_RS, document_KS = part.teacher_query_BS[part.rows_R], part.teacher_document_KS
        if self.kind == "similarities":
            teacher_RK = F.normalize(query_RS, dim=-1) @ F.normalize(document_KS, dim=-1).T
            student_RK = (self.scale * similar_RK).log_softmax(-1)
            return F.kl_div(student_RK, (self.scale * teacher_RK).log_softmax(-1), reduction="sum", log_target=True)
        total = similar_RK.new_zeros(())
        pairs = (
            (vectors.query_BD[part.rows_R], query_RS),
            (vectors.document_KD[part.positive_R], document_KS[part.positive_R]),
        )
        for student_RD, teacher_RS in pairs:
            student_RS = projection(student_RD)
            width = min(student_RS.shape[-1], teacher_RS.shape[-1])
            student_RS, teacher_RS = student_RS[:, :width], teacher_RS[:, :width]
            if self.kind == "cosine":
                total = total + (1 - F.cosine_similarity(student_RS, teacher_RS, dim=-1)).sum() / 2
            else:
                total = total + ((student_RS - teacher_RS) ** 2).mean(-1).sum() / 2
        return total


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """The rows of a batch that one process is to judge, and what it must know for it."""

    rows_R: Int[Tensor, "R"]
    """Numbers of this process's rows in the batch."""
    positive_R: Int[Tensor, "R"]
    """Place of each row's document."""
    barred_RK: Bool[Tensor, "R K"]
    """Documents that are no negatives of a row: right for its query too, or of its group."""
    barred_BR: Bool[Tensor, "B R"]
    """Queries that are no negatives of a row's document."""
    candidates_RC: Int[Tensor, "R C"] | None = None
    """Places of a row's document and given negatives; −1 fills up."""
    scores_RC: Float[Tensor, "R C"] | None = None
    teacher_query_BS: Float[Tensor, "B S"] | None = None
    teacher_document_KS: Float[Tensor, "K S"] | None = None

    def to(self, device: torch.device) -> "Part":
        """The same on another device."""
        held = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved: dict[str, Any] = {name: None if value is None else value.to(device) for name, value in held.items()}
        return Part(**moved)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Vectors:
    """One vector for each query and each document of a batch."""

    query_BD: Float[Tensor, "B D"]
    document_KD: Float[Tensor, "K D"]

    def cut(self, width: int | None) -> "Vectors":
        """The first dimensions."""
        return Vectors(query_BD=self.query_BD[:, :width], document_KD=self.document_KD[:, :width])

    def similarities(self, queries: Tensor | slice, documents: Tensor | slice) -> Tensor:
        """Cosines of some queries with some documents."""
        return F.normalize(self.query_BD[queries], dim=-1) @ F.normalize(self.document_KD[documents], dim=-1).T


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TokenVectors:
    """Unit vectors, one for each token of each query and document."""

    queries: Sequence[Tensor]
    """[tokens, O] each."""
    documents: Sequence[Tensor]

    def similarities(self, queries: Tensor | slice, documents: Tensor | slice) -> Tensor:
        """MaxSim of some queries with some documents."""
        return max_sim(_chosen(self.queries, queries), _chosen(self.documents, documents))


def max_sim(queries: Sequence[Tensor], documents: Sequence[Tensor]) -> Float[Tensor, "B K"]:
    """For each query and document: Σ over the query's tokens of the greatest product with one of the document's.

    Source: Khattab and Zaharia 2020 (arXiv 2004.12832) §3.3.

    >>> max_sim([torch.eye(2)], [torch.eye(2), torch.tensor([[0.5, 0.5]])]).tolist()
    [[2.0, 1.0]]
    """
    query_lengths = torch.tensor([len(query) for query in queries], device=queries[0].device)
    products_XT = torch.cat(list(queries)) @ torch.cat(list(documents)).T
    best_XK = torch.stack([part.amax(-1) for part in products_XT.split([len(document) for document in documents], dim=1)], dim=1)
    owner_X = torch.arange(len(queries), device=best_XK.device).repeat_interleave(query_lengths)
    return best_XK.new_zeros((len(queries), len(documents))).index_add(0, owner_X, best_XK)


def columns_of(pairs: Pairs, chosen: Sequence[int], negatives: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """The distinct documents of a batch, and for each pair the places of its document and negatives among them.

    Args:
        chosen: numbers of pairs.
        negatives: for each of them, numbers of token rows.
    """
    place_of: dict[int, int] = {}
    candidates = []
    for pair, wrong in zip(chosen, negatives, strict=True):
        candidates.append([place_of.setdefault(int(row), len(place_of)) for row in (pairs.document_P[pair], *wrong)])
    return list(place_of), candidates


def right_documents(pairs: Pairs, chosen: Sequence[int], documents: Sequence[int], positive_B: Tensor) -> Bool[Tensor, "B K"]:
    """Which documents are right for which query, and so no negatives: those that any pair gives it, and positives of its group."""
    right_BK = torch.zeros((len(chosen), len(documents)), dtype=torch.bool)
    place_of = {row: place for place, row in enumerate(documents)}
    for row, pair in enumerate(chosen):
        for document in pairs.right[int(pairs.query_P[pair])]:
            if document in place_of:
                right_BK[row, place_of[document]] = True
    group_B = torch.from_numpy(pairs.group_P[list(chosen)])
    rows, others = ((group_B[:, None] == group_B) & (group_B >= 0)).nonzero(as_tuple=True)
    right_BK[rows, positive_B[others]] = True
    return right_BK


def part_of(right_BK: Tensor, positive_B: Tensor, rows_R: Tensor, **more: Tensor | None) -> Part:
    """What some rows of a batch need; `more` as `Part` has it, already of these rows where it is of rows."""
    positive_R = positive_B[rows_R]
    barred_RK, barred_BR = right_BK[rows_R], right_BK[:, positive_R]
    barred_RK[torch.arange(len(rows_R)), positive_R] = False
    barred_BR[rows_R, torch.arange(len(rows_R))] = False
    return Part(rows_R=rows_R, positive_R=positive_R, barred_RK=barred_RK, barred_BR=barred_BR, **more)


def _chosen(texts: Sequence[Tensor], which: Tensor | slice) -> Sequence[Tensor]:
    return texts[which] if isinstance(which, slice) else [texts[place] for place in which.tolist()]


def _spread(scores_RC: Tensor, present_RC: Tensor) -> Tensor:
    """Least to 0, greatest to 1, in each row."""
    least_R1 = scores_RC.masked_fill(~present_RC, torch.inf).amin(-1, keepdim=True)
    most_R1 = scores_RC.masked_fill(~present_RC, -torch.inf).amax(-1, keepdim=True)
    return (scores_RC - least_R1) / (most_R1 - least_R1).clamp(min=1e-9)
