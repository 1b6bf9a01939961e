import json
import threading
from itertools import islice, pairwise

import numpy as np
import pytest
import torch

from modernbert.data import assembly, packing
from modernbert.data.assembly import attention_rows_bound
from modernbert.data.loader import Loader
from modernbert.data.packing import EpochPlan
from modernbert.errors import DataError

SETTINGS = {"length": 64, "rows_per_batch": 4, "mask_rate": 0.3, "seed": 7}


@pytest.fixture(autouse=True)
def several_blocks_an_epoch(monkeypatch):
    monkeypatch.setattr(packing, "BLOCK_TOKENS", 8_000)


def first(loader, count):
    batches = iter(loader)
    try:
        return list(islice(batches, count))
    finally:
        batches.close()


def tensors(item):
    training, _ = item
    batch = training.batch
    return [batch.ids_T, batch.pos_T, batch.cu_seqlens, training.masked_M, training.labels_M]


def same(items, others):
    return all(
        all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))
        and (one[0].tokens, one[1]) == (other[0].tokens, other[1])
        for one, other in zip(items, others, strict=True)
    )


def unmasked(training):
    ids_T = training.batch.ids_T.clone()
    real = training.labels_M >= 0
    ids_T[training.masked_M[real]] = training.labels_M[real].int()
    return ids_T


def rows_of(training):
    """Attention rows as lists of ids, masks undone, without the empty ones."""
    edges = training.batch.cu_seqlens.tolist()
    ids = unmasked(training).tolist()
    return [ids[a:b] for a, b in pairwise(edges) if b > a]


def batches_an_epoch(shards, rows_per_batch=4):
    plan = EpochPlan(shards.lengths, 64, 7, 0)
    return sum(len(plan.block(block)) for block in range(plan.blocks)) // rows_per_batch


def test_batches_hold_pieces_between_special_tokens_and_padding_on_its_own(shards):
    special = shards.manifest.special_ids
    wanted = {}
    for index in range(len(shards)):
        document = shards.document(index).tolist()
        for start in range(len(document)):
            wanted.setdefault(tuple(document[start : start + 4]), []).append(document)
    for training, _ in first(Loader(shards, **SETTINGS), 20):
        rows = rows_of(training)
        padding = [row for row in rows if special["pad"] in row]
        pieces = [row for row in rows if special["pad"] not in row]
        assert all(set(row) == {special["pad"]} for row in padding)
        assert sum(map(len, pieces)) == training.tokens
        for row in pieces:
            assert row[0] == special["cls"] and row[-1] == special["sep"]
            text = " ".join(map(str, row[1:-1]))
            assert any(text in " ".join(map(str, document)) for document in wanted[tuple(row[1:-1][:4])])


def test_positions_restart_in_each_row_and_no_row_crosses_a_border(shards):
    for training, _ in first(Loader(shards, **SETTINGS), 10):
        batch = training.batch
        lengths = batch.cu_seqlens.diff()
        assert batch.pos_T.tolist() == [position for length in lengths.tolist() for position in range(length)]
        assert set(range(0, 4 * 64, 64)) <= set(batch.cu_seqlens.tolist())
        assert lengths.max() <= batch.max_seqlen == 64


def test_every_token_of_every_document_appears_exactly_once_an_epoch(shards):
    special = set(shards.manifest.special_ids.values())
    loader = Loader(shards, **SETTINGS | {"rows_per_batch": 1})
    seen = np.concatenate([unmasked(training) for training, _ in first(loader, batches_an_epoch(shards, 1))])
    seen = seen[~np.isin(seen, list(special))]
    assert np.array_equal(np.bincount(seen), np.bincount(np.concatenate(shards.tokens)))


def test_shapes_never_change_and_labels_are_padded(shards):
    loader = Loader(shards, **SETTINGS)
    shapes = set()
    for training, _ in first(loader, 2 * batches_an_epoch(shards)):
        shapes.add((*(tuple(tensor.shape) for tensor in tensors((training, None))), training.batch.max_seqlen))
        real = training.labels_M >= 0
        assert (training.masked_M[~real] == 0).all() and (training.labels_M[~real] == -100).all()
        assert 0 < real.sum() < training.tokens
    assert shapes == {((256,), (256,), (loader.attention_rows + 1,), (loader.masked,), (loader.masked,), 64)}


def test_more_attention_rows_than_foreseen_take_the_next_multiple(shards):
    loader = Loader(shards, **SETTINGS)
    usual = first(loader, 1)[0]
    loader.attention_rows = 3
    more = first(loader, 1)[0]
    assert (len(more[0].batch.cu_seqlens) - 1) % 3 == 0
    assert rows_of(more[0]) == rows_of(usual[0])


def test_the_bound_on_attention_rows_holds_and_is_not_loose(monkeypatch):
    monkeypatch.undo()
    rng = np.random.default_rng(0)
    rows = EpochPlan(rng.lognormal(np.log(25), 1.3, 30_000).astype(int) + 1, 1024, 0, 0).block(0)
    counts = np.bincount(rows.row) + 1  # a row for the padding
    most = counts[rng.integers(0, len(rows), (2000, 64))].sum(1).max()
    assert most <= attention_rows_bound([(rows, 1.0)], 64) <= 2.5 * most


def test_a_loader_resumed_anywhere_yields_bit_identical_batches(shards):
    epoch = batches_an_epoch(shards)
    whole = first(Loader(shards, **SETTINGS), epoch + 20)
    places = [state["places"][0] for _, state in whole]
    assert {place["epoch"] for place in places} == {0, 1} and {place["block"] for place in places} > {0, 1}
    cuts = np.random.default_rng(0).integers(1, epoch, 6).tolist()
    for cut in [1, *cuts, epoch - 1, epoch, epoch + 1, epoch + 5]:
        state = json.loads(json.dumps(whole[cut - 1][1]))
        assert same(first(Loader(shards, **SETTINGS, state=state), 10), whole[cut : cut + 10])


def test_two_runs_are_alike_and_another_seed_is_not(shards):
    one, two = (first(Loader(shards, **SETTINGS), 3) for _ in range(2))
    assert same(one, two)
    other = first(Loader(shards, **SETTINGS | {"seed": 8}), 3)
    assert not any(torch.equal(unmasked(a), unmasked(b)) for (a, _), (b, _) in zip(one, other, strict=True))


def test_epochs_differ_in_order_and_in_masks(shards):
    count = batches_an_epoch(shards)
    items = first(Loader(shards, **SETTINGS), 2 * count)
    assert not torch.equal(items[0][0].batch.ids_T, items[count][0].batch.ids_T)
    patterns = {tuple(training.masked_M.tolist()) for training, _ in items}
    assert len(patterns) == len(items)


def test_the_order_of_rows_is_the_same_for_any_number_of_ranks(shards):
    def rows(**shape):
        return [unmasked(training).view(-1, 64) for training, _ in first(Loader(shards, **SETTINGS | shape), 6)]

    alone = rows(rows_per_batch=4)
    ranks = [rows(rows_per_batch=2, rank=rank, world=2) for rank in range(2)]
    for whole, zero, one in zip(alone, *ranks, strict=True):
        assert torch.equal(whole[0::2], zero) and torch.equal(whole[1::2], one)


def test_masks_and_counted_tokens_do_not_depend_on_the_cut_into_batches_and_ranks(shards):
    def masked(**shape):
        return [
            (training.batch.ids_T.view(-1, 64), training.tokens) for training, _ in first(Loader(shards, **SETTINGS | shape), 2)
        ]

    (whole, tokens), _ = masked(rows_per_batch=4)
    (one, half), (two, other_half) = masked(rows_per_batch=2)
    assert torch.equal(whole, torch.cat([one, two])) and tokens == half + other_half
    for rank in range(2):
        (mine, of_all), _ = masked(rows_per_batch=2, rank=rank, world=2)
        assert torch.equal(whole[rank::2], mine) and of_all == tokens


def test_ranks_mask_different_positions(shards):
    zero, one = (first(Loader(shards, **SETTINGS, rank=rank, world=2), 1)[0][0] for rank in range(2))
    assert not torch.equal(zero.masked_M, one.masked_M)


def test_a_batch_larger_than_the_data_spans_epochs(shards):
    loader = Loader(shards, **SETTINGS | {"rows_per_batch": 3000})
    training, state = first(loader, 1)[0]
    assert state["places"][0]["epoch"] >= 2 and len(training.batch.ids_T) == 3000 * 64


@pytest.mark.parametrize(
    ("name", "value"), [("seed", 8), ("length", 32), ("data", ["0"]), ("weights", [1]), ("upsampling", [[9, 2.0]])]
)
def test_a_state_of_something_else_is_refused(shards, name, value):
    state = first(Loader(shards, **SETTINGS), 1)[0][1]
    with pytest.raises(DataError, match=f"cannot resume the data: the state is for {name}"):
        Loader(shards, **SETTINGS, state=state | {name: value})


def test_an_incomplete_state_is_refused(shards):
    with pytest.raises(DataError, match="state lacks data, length, places, seed, upsampling, weights"):
        Loader(shards, **SETTINGS, state={"rows_seen": 0})


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name == "loader"]


def test_an_error_in_the_thread_reaches_the_consumer(shards, monkeypatch):
    loader = Loader(shards, **SETTINGS)
    batches = iter(loader)
    next(batches)
    monkeypatch.setattr(assembly, "mask_tokens", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(islice(batches, 50))
    assert not loader_threads()


def test_an_id_beyond_the_vocabulary_names_the_shard(shards, monkeypatch):
    """What a disk breaks after the sums were compared."""
    broken = [tokens.copy() for tokens in shards.tokens]
    broken[1][5] = 60_000
    monkeypatch.setattr(shards, "tokens", broken)
    with pytest.raises(
        DataError, match=r"tokens-00001\.npy is damaged: it holds id 60000, and the vocabulary ends at 383; delete"
    ):
        first(Loader(shards, **SETTINGS), batches_an_epoch(shards) + 1)


def test_the_thread_ends_with_the_iterator(shards):
    batches = iter(Loader(shards, **SETTINGS))
    next(batches)
    assert loader_threads()
    del batches
    assert not loader_threads()


def test_batches_move_to_another_device(shards):
    training = first(Loader(shards, **SETTINGS), 1)[0][0].to("meta")
    assert {tensor.device.type for tensor in tensors((training, None))} == {"meta"}
