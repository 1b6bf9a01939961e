"""Pairs as numbers of texts."""

import numpy as np
import pytest
import torch

from modernbert.batch import pack
from modernbert.errors import DataError
from modernbert.tasks.contrastive import columns_of, part_of, right_documents
from modernbert.tasks.pairs import PairColumns, TokenRows, read_pairs


def by_letters(texts, is_query):
    return [[int(is_query), *map(ord, text)] for text in texts], sum(len(text) > 5 for text in texts)


def read(*rows):
    return read_pairs((("file", (f"pairs.jsonl, line {i}", row)) for i, row in enumerate(rows, 1)), PairColumns(), by_letters)


def test_packing_rows_by_number_is_packing_lists():
    rows = [[5, 6, 7], [1], [2, 3]]
    mine, whole = TokenRows.of(rows).pack([2, 0]), pack([rows[2], rows[0]])
    for name in ("ids_T", "pos_T", "cu_seqlens"):
        assert torch.equal(getattr(mine, name), getattr(whole, name)) and getattr(mine, name).dtype == getattr(whole, name).dtype
    assert mine.max_seqlen == whole.max_seqlen


def test_a_text_is_read_once_for_each_of_its_uses():
    pairs = read(
        {"query": "a", "document": "b", "negatives": ["c", "a"]},
        {"query": "a", "document": "c", "source": "mine", "group": "g"},
    )
    assert pairs.texts == ["a", "b", "c"] and pairs.sources == ["file", "mine"]
    assert [pairs.rows[i].tolist() for i in range(4)] == [[1, 97], [0, 98], [0, 99], [0, 97]]  # a as query and as document
    assert pairs.text_of_row.tolist() == [0, 1, 2, 0]
    assert (pairs.query_P.tolist(), pairs.document_P.tolist(), pairs.negatives) == ([0, 0], [1, 2], [(2, 3), ()])
    assert pairs.right == {0: {1, 2}} and pairs.group_P.tolist() == [-1, 0] and pairs.cut == 0


def test_documents_that_are_right_too_are_no_negatives():
    """Rows 0 and 1 ask the same, rows 2 and 3 are of one group, rows 4 and 5 share a document."""
    rows = [("x", "1", None), ("x", "2", None), ("y", "3", "g"), ("z", "4", "g"), ("v", "5", None), ("w", "5", None)]
    pairs = read(*({"query": q, "document": d} | ({"group": g} if g else {}) for q, d, g in rows))
    chosen = list(range(6))
    documents, candidates = columns_of(pairs, chosen, [()] * 6)
    positive_B = torch.tensor([places[0] for places in candidates])
    assert positive_B.tolist() == [0, 1, 2, 3, 4, 4] and len(documents) == 5
    right_BK = right_documents(pairs, chosen, documents, positive_B)
    part = part_of(right_BK, positive_B, torch.arange(6))
    assert part.barred_RK.nonzero().tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    assert part.barred_BR.nonzero().tolist() == [[0, 1], [1, 0], [2, 3], [3, 2], [4, 5], [5, 4]]


def test_a_given_negative_that_is_right_for_the_query_is_barred():
    pairs = read({"query": "x", "document": "1", "negatives": ["2"]}, {"query": "x", "document": "2"})
    documents, candidates = columns_of(pairs, [0], [pairs.negatives[0]])
    part = part_of(right_documents(pairs, [0], documents, torch.tensor([0])), torch.tensor([0]), torch.tensor([0]))
    assert candidates == [[0, 1]] and part.barred_RK.tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "a"}, "line 2: no column 'document'; .*there are"),
        ({"query": "a", "document": " "}, "line 2: empty text in column 'document'"),
        ({"query": "a", "document": "b", "negatives": "c"}, "line 2: 'c' in column 'negatives'; wanted a list of texts"),
        ({"query": "a", "document": "b", "negatives": [""]}, "line 2: empty text in column 'negatives'"),
        ({"query": "a", "document": "b"}, "line 2: lacks 'scores', unlike the rows before; all rows need it, or none"),
        ({"query": "a", "document": "b", "scores": [1, 2]}, r"line 2: \[1, 2\] in column 'scores'; wanted 1 finite numbers"),
        ({"query": "a", "document": "b", "scores": [float("nan")]}, r"line 2: \[nan\] in column 'scores'; wanted 1 finite"),
    ],
)
def test_what_is_wrong_with_a_row_is_said_with_its_place(row, message):
    with pytest.raises(DataError, match=message):
        read({"query": "x", "document": "y", "scores": [1.0]}, row)


def test_no_rows_are_an_error():
    with pytest.raises(DataError, match="0 rows; at least one is needed"):
        read()


def test_a_million_tokens_take_four_bytes_each():
    rows = TokenRows.of(np.zeros((1000, 1000), dtype=np.int64))
    assert rows.ids_T.nbytes == 4_000_000
