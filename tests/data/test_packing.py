from itertools import pairwise

import numpy as np
import pytest

from modernbert.data import packing
from modernbert.data.packing import SPECIALS, EpochPlan, Rows, best_fit, cut, generator
from modernbert.errors import DataError


def free_of_naive_best_fit(sizes, capacity):
    """One piece at a time, searching all bins: the definition."""
    free = []
    for size in sorted(sizes, reverse=True):
        fitting = [space for space in free if space >= size]
        if fitting:
            free.remove(min(fitting))
            free.append(min(fitting) - size)
        else:
            free.append(capacity - size)
    return sorted(free)


@pytest.mark.parametrize("seed", range(30))
def test_best_fit_fills_bins_as_one_piece_at_a_time_would(seed):
    rng = np.random.default_rng(seed)
    capacity = int(rng.integers(1, 80))
    sizes = rng.integers(1, capacity + 1, rng.integers(1, 300))
    order, edges = best_fit(sizes, capacity)
    assert sorted(order) == list(range(len(sizes)))
    free = [capacity - int(sizes[order[a:b]].sum()) for a, b in pairwise(edges)]
    assert sorted(free) == free_of_naive_best_fit(sizes.tolist(), capacity)


def test_nothing_packs_into_no_bins():
    order, edges = best_fit(np.array([], np.int64), 10)
    assert (order.tolist(), edges.tolist()) == ([], [0])


def test_cuts_cover_every_document_and_move_with_the_seed():
    lengths = np.random.default_rng(0).integers(0, 500, 200)
    firsts = set()
    for seed in range(5):
        pieces = cut(lengths, 100, generator(seed))
        assert pieces.length.min() > 0 and pieces.length.max() <= 100
        for document, length in enumerate(lengths.tolist()):
            mine = pieces.document == document
            assert pieces.start[mine].tolist() == [0, *np.cumsum(pieces.length[mine])[:-1]][: mine.sum()]
            assert pieces.length[mine].sum() == length
            assert length > 100 or mine.sum() <= 1  # a short document stays whole
        firsts.add(pieces.length[pieces.document == int(lengths.argmax())][0])
    assert len(firsts) > 2


def tokens_of(rows):
    pieces = rows.pieces
    return sorted(
        (document, token)
        for document, start, length in zip(pieces.document.tolist(), pieces.start.tolist(), pieces.length.tolist(), strict=True)
        for token in range(start, start + length)
    )


@pytest.mark.parametrize("blocks", [1, 4])
@pytest.mark.parametrize("length", [3, 64, 1024])
def test_every_token_of_every_document_appears_exactly_once_an_epoch(monkeypatch, length, blocks):
    lengths = np.random.default_rng(1).integers(0, 300, 100)
    monkeypatch.setattr(packing, "BLOCK_TOKENS", lengths.sum() / blocks)
    for epoch in range(2):
        plan = EpochPlan(lengths, length, seed=5, epoch=epoch)
        assert plan.blocks == blocks
        rows = Rows.join([plan.block(block) for block in range(blocks)])
        assert tokens_of(rows) == [(document, token) for document, size in enumerate(lengths) for token in range(size)]
        assert sorted(set(rows.row.tolist())) == list(range(len(rows)))
        assert np.bincount(rows.row, rows.pieces.length + SPECIALS).max() <= length


@pytest.mark.parametrize("lengths", [[0, 900, 0, 5, 7], [900], [3, 900, 900, 0, 2]])
def test_a_document_larger_than_a_block_leaves_no_empty_block(lengths, monkeypatch):
    monkeypatch.setattr(packing, "BLOCK_TOKENS", 100)
    for seed in range(8):
        plan = EpochPlan(np.array(lengths), 32, seed, 0)
        blocks = [plan.block(block) for block in range(plan.blocks)]
        assert all(len(block) for block in blocks)
        assert tokens_of(Rows.join(blocks)) == [
            (document, token) for document, size in enumerate(lengths) for token in range(size)
        ]


def test_a_plan_depends_on_seed_and_epoch_and_nothing_else():
    lengths = np.random.default_rng(2).integers(1, 300, 200)

    def first_row(seed, epoch):
        return EpochPlan(lengths, 256, seed, epoch).block(0).slice(0, 3).pieces.document.tolist()

    assert first_row(1, 0) == first_row(1, 0)
    assert len({tuple(first_row(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize("length", [1024, 8192])
@pytest.mark.parametrize(("median", "spread", "documents"), [(25, 1.3, 60_000), (800, 1.2, 10_000)])
def test_rows_are_99_percent_full(length, median, spread, documents):
    # the shapes of the short texts (median 25, 99th percentile near 586) and of the corpus; bench data has the real ones
    lengths = np.random.default_rng(3).lognormal(np.log(median), spread, documents).astype(int) + 1
    rows = EpochPlan(lengths, length, 0, 0).block(0)
    assert (rows.pieces.length.sum() + SPECIALS * len(rows.pieces)) / (len(rows) * length) > 0.99


def test_slices_strides_and_joins_of_rows_keep_their_pieces():
    rows = EpochPlan(np.random.default_rng(4).integers(1, 99, 500), 128, 0, 0).block(0)
    parts = [rows.slice(0, 7), rows.slice(7, 7), rows.slice(7, len(rows))]
    assert tokens_of(Rows.join(parts)) == tokens_of(rows)
    assert np.array_equal(Rows.join(parts).row, rows.row)
    strided = [rows.every(3, start) for start in range(3)]
    assert sum(map(len, strided)) == len(rows)
    assert tokens_of(strided[1].slice(2, 3)) == tokens_of(rows.slice(7, 8))


def test_rows_without_room_and_documents_without_tokens_are_refused():
    with pytest.raises(DataError, match="rows of 2 tokens hold no text"):
        EpochPlan(np.array([3]), 2, 0, 0)
    with pytest.raises(DataError, match="2 documents without a token"):
        EpochPlan(np.array([0, 0]), 8, 0, 0)
