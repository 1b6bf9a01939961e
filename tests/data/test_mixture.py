"""Several folders by weight, and long documents read more often: shares, exact resume, whole documents."""

import json
from collections import Counter, defaultdict
from itertools import islice, pairwise

import numpy as np
import pytest

from modernbert.data import mixture, packing
from modernbert.data.documents import Document
from modernbert.data.loader import Loader
from modernbert.data.packing import SPECIALS, EpochPlan, Rows, copies, generator
from modernbert.data.shard_writing import write_shards
from modernbert.data.shards import TokenShards
from modernbert.errors import DataError
from modernbert.text.train import train_tokenizer

SETTINGS = {"length": 32, "rows_per_batch": 8, "mask_rate": 0.2, "seed": 3}


@pytest.fixture(autouse=True)
def several_blocks_an_epoch(monkeypatch):
    monkeypatch.setattr(packing, "BLOCK_TOKENS", 2_000)
    monkeypatch.setattr(mixture, "DRAWS", 16)  # batches cross their borders


@pytest.fixture(scope="module")
def words():
    """Three alphabets, so that every token of a row says which folder it is from."""
    return [[f"{letter}{number:02d}" for number in range(40)] for letter in "abc"]


@pytest.fixture(scope="module")
def tokenizer(words):
    return train_tokenizer([" ".join(word for alphabet in words for word in alphabet for _ in range(3))], 512)


@pytest.fixture(scope="module")
def folders(words, tokenizer, tmp_path_factory):
    rng = np.random.default_rng(0)
    made = []
    for number, alphabet in enumerate(words):
        folder = tmp_path_factory.mktemp(f"folder-{number}")
        texts = [" ".join(rng.choice(alphabet, length)) for length in rng.integers(0, 60, 80 * (number + 1))]
        write_shards([Document(text=text, source="x") for text in texts], tokenizer, folder, tokens_per_shard=1_500)
        made.append(TokenShards.open(folder))
    return made


def first(loader, count):
    batches = iter(loader)
    try:
        return list(islice(batches, count))
    finally:
        batches.close()


def unmasked(training):
    ids_T = training.batch.ids_T.clone()
    real = training.labels_M >= 0
    ids_T[training.masked_M[real]] = training.labels_M[real].int()
    return ids_T.view(-1, 32)


def folders_of(rows, tokenizer):
    """The folder of each row, by its first letter; every letter of a row must be the same one."""
    found = []
    for row in rows.tolist():
        letters = {letter for letter in tokenizer.decode(row) if letter.isalpha()}
        assert len(letters) <= 1
        found.append(letters.pop() if letters else "")
    return found


def test_shares_are_the_weights_within_the_bounds_of_sampling(folders, tokenizer):
    weights = (6, 3, 1)
    items = first(Loader(folders, **SETTINGS, weights=weights), 250)
    found = Counter(letter for training, _ in items for letter in folders_of(unmasked(training), tokenizer))
    rows = 250 * 8
    for letter, weight in zip("abc", weights, strict=True):
        share = weight / 10
        assert abs(found[letter] - share * rows) < 4 * np.sqrt(rows * share * (1 - share))  # 4 σ of independent draws


def test_without_weights_all_folders_finish_their_epochs_together(folders):
    state = first(Loader(folders, **SETTINGS), 150)[-1][1]
    epochs = [place["epochs"] for place in state["places"]]
    assert min(epochs) > 1 and max(epochs) < 1.35 * min(epochs)  # some 200 rows an epoch: 3 σ of the draws are 20 %


def test_each_folder_goes_through_its_own_epochs_whole(folders, tokenizer):
    """Tokens of a folder's first epoch, found in the rows by their letters, are exactly those of its documents."""
    items = first(Loader(folders, **SETTINGS | {"rows_per_batch": 1}, weights=(5, 1, 0)), 400)
    special = list(tokenizer.special_ids)
    before, seen = 0, []
    for training, state in items:
        place = state["places"][0]
        if place["epochs"] != before and place["epoch"] == 0:
            seen.append(unmasked(training).flatten().numpy())
        before = place["epochs"]
    last = next(i for i, (_, state) in enumerate(items) if state["places"][0]["epoch"] == 1)
    assert items[-1][1]["places"][0]["epoch"] >= 1 > items[-1][1]["places"][1]["epoch"]
    assert items[-1][1]["places"][2] == mixture.BEGIN and last < 399
    ids = np.concatenate(seen)
    ids = ids[~np.isin(ids, special)]
    plan = EpochPlan(folders[0].lengths, 32, 3, 0, folder=0)
    rows = sum(len(plan.block(block)) for block in range(plan.blocks))
    assert len(seen) == rows  # the row that ends an epoch still counts to it
    assert np.array_equal(np.bincount(ids), np.bincount(np.concatenate(folders[0].tokens)))


def same(items, others):
    return len(items) == len(others) and all(
        np.array_equal(a.batch.ids_T, b.batch.ids_T) and np.array_equal(a.masked_M, b.masked_M) and (a.tokens, s) == (b.tokens, t)
        for (a, s), (b, t) in zip(items, others, strict=True)
    )


def test_a_mixture_resumed_anywhere_yields_bit_identical_batches(folders):
    settings = SETTINGS | {"weights": (6, 3, 1), "upsampling": ((40, 2.5),)}
    whole = first(Loader(folders, **settings), 160)
    assert {place["epoch"] for place in whole[-1][1]["places"]} >= {0, 1}
    for cut in [1, 2, 3, 37, 90, 150]:
        state = json.loads(json.dumps(whole[cut - 1][1]))
        assert same(first(Loader(folders, **settings, state=state), 8), whole[cut : cut + 8])


def test_the_order_of_a_mixture_s_rows_is_the_same_for_any_number_of_ranks(folders):
    settings = SETTINGS | {"weights": (2, 1, 1)}
    alone = [unmasked(training) for training, _ in first(Loader(folders, **settings), 9)]
    for world in (2, 4):
        ranks = [
            [
                unmasked(t)
                for t, _ in first(Loader(folders, **settings | {"rows_per_batch": 8 // world}, rank=rank, world=world), 9)
            ]
            for rank in range(world)
        ]
        for n, whole in enumerate(alone):
            assert all(np.array_equal(whole[rank::world], ranks[rank][n]) for rank in range(world))


def test_shapes_never_change_in_a_mixture(folders):
    loader = Loader(folders, **SETTINGS, weights=(1, 1, 3))
    shapes = {(len(t.batch.ids_T), len(t.batch.cu_seqlens), len(t.masked_M)) for t, _ in first(loader, 60)}
    assert shapes == {(256, loader.attention_rows + 1, loader.masked)}


@pytest.mark.parametrize("weights", [(1, 1), (1, 1, -1), (0, 0, 0)])
def test_weights_that_do_not_fit_are_refused(folders, weights):
    with pytest.raises(DataError, match="do not fit 3 folders of token shards; wanted one for each"):
        Loader(folders, **SETTINGS, weights=weights)


def test_folders_of_different_tokenizers_are_refused(folders, tmp_path):
    write_shards([Document(text="abc", source="x")], train_tokenizer(["abc abc"], 320), tmp_path)
    with pytest.raises(DataError, match="hold tokens of different tokenizers; prepare them again with one of the two"):
        Loader([folders[0], TokenShards.open(tmp_path)], **SETTINGS)
    with pytest.raises(DataError, match="no folder of token shards is named"):
        Loader([], **SETTINGS)


def test_long_documents_are_read_as_often_as_their_length_says():
    lengths = np.array([10] * 1000 + [100] * 1000 + [500] * 1000)
    times = copies(lengths, ((100, 2.5), (500, 0.25)), generator(0)).reshape(3, -1)
    assert set(times[0]) == {1} and set(times[1]) == {2, 3} and set(times[2]) == {0, 1}
    assert times[1].mean() == pytest.approx(2.5, abs=0.07) and times[2].mean() == pytest.approx(0.25, abs=0.06)  # 4 σ


@pytest.mark.parametrize("length", [16, 64, 1024])
def test_no_document_loses_its_tail_however_often_it_is_read(length):
    """The pieces of an epoch hold every token of a document exactly as often as the epoch reads the document."""
    lengths = np.random.default_rng(1).integers(0, 300, 80)
    plan = EpochPlan(lengths, length, seed=5, epoch=1, folder=2, upsampling=((100, 3.0), (250, 2.5)))
    rows = Rows.join([plan.block(block) for block in range(plan.blocks)])
    assert np.bincount(rows.row, rows.pieces.length + SPECIALS).max() <= length
    held = defaultdict(Counter)
    for document, start, size in zip(rows.pieces.document, rows.pieces.start, rows.pieces.length, strict=True):
        held[int(document)].update(range(start, start + size))
    for document, size in enumerate(lengths.tolist()):
        times = set(held[document].values())
        assert sorted(held[document]) == list(range(size)) and len(times) == (size > 0)
        assert times <= ({1} if size < 100 else {3} if size < 250 else {2, 3})
    assert plan.tokens == rows.pieces.length.sum()


def test_a_long_document_s_pieces_join_to_its_text(tokenizer, words, tmp_path):
    """From the loader's own batches: the pieces, in the order of the text, overlap nowhere and leave nothing out."""
    text = " ".join(word for _ in range(4) for alphabet in words for word in alphabet)
    write_shards([Document(text=text, source="x")], tokenizer, tmp_path)
    (ids,) = TokenShards.open(tmp_path).tokens
    state, pieces = {"places": [{"epoch": 0}]}, []
    batches = iter(Loader(TokenShards.open(tmp_path), **SETTINGS | {"rows_per_batch": 1}))
    while state["places"][0]["epoch"] == 0 and state["places"][0].get("epochs", 0) < 1:
        training, state = next(batches)
        row = unmasked(training).flatten().tolist()
        edges = training.batch.cu_seqlens.tolist()
        pieces += [row[a:b] for a, b in pairwise(edges) if b > a and tokenizer.pad_id not in row[a:b]]
    batches.close()
    assert all(piece[0] == tokenizer.cls_id and piece[-1] == tokenizer.sep_id for piece in pieces)
    assert sorted(map(len, pieces))[2:] == [32] * (len(pieces) - 2)  # the first and the last are shorter
    assert sum(len(piece) - SPECIALS for piece in pieces) == len(ids)
    assert np.array_equal(np.bincount(np.concatenate([piece[1:-1] for piece in pieces])), np.bincount(ids))
