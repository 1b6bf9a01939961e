"""Objectives against other libraries' and against their formulas."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from modernbert.tasks.contrastive import CandidateScores, InBatch, Part, TeacherVectors, TokenVectors, Vectors, max_sim

ROWS, COLUMNS, WIDTH = 5, 9, 16


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    vectors = Vectors(
        query_BD=torch.randn(ROWS, WIDTH, generator=generator), document_KD=torch.randn(COLUMNS, WIDTH, generator=generator)
    )
    part = Part(
        rows_R=torch.arange(ROWS),
        positive_R=torch.arange(ROWS),
        barred_RK=torch.zeros(ROWS, COLUMNS, dtype=torch.bool),
        barred_BR=torch.zeros(ROWS, ROWS, dtype=torch.bool),
    )
    return vectors, part


def similar(vectors, part):
    return vectors.similarities(part.rows_R, slice(None))


@pytest.mark.parametrize("symmetric", [False, True])
def test_in_batch_negatives_are_sentence_transformers_loss(batch, symmetric):
    """MultipleNegativesRankingLoss over the same vectors, hard negatives included; float32: 1e-5."""
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    vectors, part = batch
    similar_BR = vectors.similarities(slice(None), part.positive_R)
    negatives = torch.cat([vectors.document_KD[ROWS:], vectors.document_KD[ROWS : ROWS + 1]])  # theirs wants one for each row
    if symmetric:
        vectors = Vectors(query_BD=vectors.query_BD, document_KD=vectors.document_KD[:ROWS])  # theirs takes no negatives here
        part = Part(**{**vars(part), "barred_RK": part.barred_RK[:, :ROWS]})
        mine = InBatch(scale=20, symmetric=True).loss(similar(vectors, part), similar_BR, part) / ROWS
        both = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
        loss = losses.MultipleNegativesRankingLoss(nn.Identity(), scale=20.0, **both)
        theirs = loss.compute_loss_from_embeddings([vectors.query_BD, vectors.document_KD], None)
    else:
        again = torch.cat([similar(vectors, part), similar(vectors, part)[:, ROWS : ROWS + 1]], dim=1)
        wider = Part(**{**vars(part), "barred_RK": torch.zeros(ROWS, COLUMNS + 1, dtype=torch.bool)})
        mine = InBatch(scale=20).loss(again, None, wider) / ROWS
        loss = losses.MultipleNegativesRankingLoss(nn.Identity(), scale=20.0)
        theirs = loss.compute_loss_from_embeddings([vectors.query_BD, vectors.document_KD[:ROWS], negatives], None)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_barred_documents_are_as_good_as_absent(batch):
    vectors, part = batch
    barred_RK = part.barred_RK.clone()
    barred_RK[:, ROWS:] = True
    short = Vectors(query_BD=vectors.query_BD, document_KD=vectors.document_KD[:ROWS])
    with_barred = InBatch().loss(similar(vectors, part), None, Part(**{**vars(part), "barred_RK": barred_RK}))
    without = InBatch().loss(similar(short, part), None, Part(**{**vars(part), "barred_RK": part.barred_RK[:, :ROWS]}))
    torch.testing.assert_close(with_barred, without)


def with_candidates(part, scores):
    candidates = torch.tensor([[row, ROWS, ROWS + 1] for row in range(ROWS)])
    candidates[0, 2] = -1  # one row has a negative less
    return Part(**{**vars(part), "candidates_RC": candidates, "scores_RC": scores})


def test_margin_mse_and_kl_are_their_formulas_row_by_row(batch):
    vectors, part = batch
    scores_RC = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(1))
    judged, similar_RK = with_candidates(part, scores_RC), similar(vectors, part)
    margin, kl = 0.0, 0.0
    for row in range(ROWS):
        columns = [column for column in judged.candidates_RC[row].tolist() if column >= 0]
        student, teacher = similar_RK[row, columns], scores_RC[row, : len(columns)]
        margin += F.mse_loss(student[0] - student[1:], teacher[0] - teacher[1:]).item()
        p = teacher.softmax(-1)
        kl += (p * (p.log() - (5 * student).log_softmax(-1))).sum().item()
    assert CandidateScores(weight=1, kind="margin_mse").loss(similar_RK, judged).item() == pytest.approx(margin, rel=1e-5)
    assert CandidateScores(weight=1, kind="kl", scale=5).loss(similar_RK, judged).item() == pytest.approx(kl, rel=1e-5)


def test_scores_that_are_the_teachers_cost_nothing(batch):
    vectors, part = batch
    similar_RK = similar(vectors, part)
    judged = with_candidates(part, torch.zeros(ROWS, 3))
    same = Part(**{**vars(judged), "scores_RC": 3 * similar_RK.gather(1, judged.candidates_RC.clamp(min=0)) + 1})
    assert CandidateScores(weight=1, scale=3).loss(similar_RK, same).abs() < 1e-5  # softmax does not see the shift
    assert CandidateScores(weight=1, min_max=True).loss(similar_RK, same).abs() < 1e-5  # nor the spread the scale
    assert CandidateScores(weight=1, kind="margin_mse", scale=3).loss(similar_RK, same).abs() < 1e-5


def test_min_max_kl_is_pylates_distillation(batch):
    """PyLate 1.6, losses.Distillation: both sides spread over 0 … 1 by row, KL of log-softmaxes; written from facts §3.2."""
    vectors, part = batch
    scores_RC = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(2))
    candidates_RC = torch.tensor([[row, ROWS, ROWS + 1] for row in range(ROWS)])
    judged = Part(**{**vars(part), "candidates_RC": candidates_RC, "scores_RC": scores_RC})
    student_RC = similar(vectors, part).gather(1, candidates_RC)

    def spread(x):
        low, high = x.min(1, keepdim=True).values, x.max(1, keepdim=True).values
        return (x - low) / (high - low)

    theirs = nn.KLDivLoss(reduction="batchmean", log_target=True)(
        spread(student_RC).log_softmax(-1), spread(scores_RC).log_softmax(-1)
    )
    mine = CandidateScores(weight=1, min_max=True).loss(similar(vectors, part), judged) / ROWS
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["cosine", "mse", "similarities"])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(batch, kind):
    vectors, part = batch
    teacher = Part(**{**vars(part), "teacher_query_BS": vectors.query_BD, "teacher_document_KS": vectors.document_KD})
    objective = TeacherVectors(weight=1, kind=kind)
    projection = objective.projection(WIDTH, WIDTH)
    assert isinstance(projection, nn.Identity)
    assert objective.loss(vectors, projection, similar(vectors, teacher), teacher).abs() < 1e-5
    away = Vectors(query_BD=-vectors.query_BD, document_KD=vectors.document_KD)
    assert objective.loss(away, projection, similar(away, teacher), teacher) > 0.1


def test_widths_that_differ_are_projected_or_cut(batch):
    vectors, part = batch
    wide_BS, wide_KS = (
        torch.randn(len(x), 24, generator=torch.Generator().manual_seed(3)) for x in (vectors.query_BD, vectors.document_KD)
    )
    teacher = Part(**{**vars(part), "teacher_query_BS": wide_BS, "teacher_document_KS": wide_KS})
    objective = TeacherVectors(weight=1)
    projection = objective.projection(WIDTH, 24)
    assert projection.weight.shape == (24, WIDTH)
    expected = sum(
        (1 - F.cosine_similarity(projection(x[:ROWS]), y[:ROWS])).sum() / 2
        for x, y in ((vectors.query_BD, wide_BS), (vectors.document_KD, wide_KS))
    )
    torch.testing.assert_close(objective.loss(vectors, projection, similar(vectors, teacher), teacher), expected)
    cut = TeacherVectors(weight=1, project=False)
    assert isinstance(cut.projection(WIDTH, 24), nn.Identity)
    narrow = Part(
        **{**vars(part), "teacher_query_BS": vectors.query_BD[:, :8], "teacher_document_KS": vectors.document_KD[:, :8]}
    )
    assert cut.loss(vectors, nn.Identity(), similar(vectors, part), narrow).abs() < 1e-5


def test_token_vectors_are_scored_as_search_scores_them():
    from modernbert.eval.systems import max_sim as search_max_sim

    rng = np.random.default_rng(0)
    queries, documents = ([torch.tensor(rng.normal(size=(n, 8))) for n in lengths] for lengths in ((4, 4, 2), (3, 9, 1, 5)))
    mine_BK = max_sim(queries, documents)
    for row, query in enumerate(queries):
        theirs_K = search_max_sim(query, torch.cat(documents), torch.tensor([3, 9, 1, 5]))
        torch.testing.assert_close(mine_BK[row], theirs_K)
    held = TokenVectors(queries=queries, documents=documents)
    torch.testing.assert_close(held.similarities(torch.tensor([2, 0]), slice(None)), mine_BK[[2, 0]])
