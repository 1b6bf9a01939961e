import random

import numpy as np
import pytest
import torch

from modernbert.batch import pack, unpack
from modernbert.engine.batching import CPU_TOKENS, each_group, group_by_tokens, grouped_as_they_come
from modernbert.engine.engine import load


@pytest.mark.parametrize("budget", [1, 50, 1000, 10**6])
def test_every_row_is_in_exactly_one_group_and_no_group_of_several_exceeds_the_budget(budget):
    lengths = [random.choice([1, 7, 60, 400]) for _ in range(500)]
    groups = group_by_tokens(lengths, budget)
    assert sorted(row for group in groups for row in group) == list(range(500))
    assert all(len(group) == 1 or sum(lengths[row] for row in group) <= budget for group in groups)


def test_the_budget_is_used():
    lengths = [random.randint(2, 200) for _ in range(2000)]
    assert len(group_by_tokens(lengths, 4096)) <= 1.05 * sum(lengths) / 4096 + 1


def test_short_rows_and_long_ones_that_come_in_chunks_never_share_a_group_and_fill_their_own():
    chunks = [[[random.choice([1, 7, 60, 400])] * random.choice([3, 40, 90, 300]) for _ in range(50)] for _ in range(6)]
    groups = list(grouped_as_they_come(chunks, 300, 1000, "work", 90))
    assert sorted(i for numbers, _ in groups for i in numbers) == list(range(300))
    rows = [row for chunk in chunks for row in chunk]
    assert all(given == [rows[i] for i in numbers] for numbers, given in groups)
    assert {len({len(row) <= 90 for row in given}) for _, given in groups} == {1}
    for short in (True, False):
        sizes = [sum(map(len, given)) for _, given in groups if (len(given[0]) <= 90) == short]
        assert sum(size < 1000 - 300 for size in sizes) <= 1  # but for the last one, there is no room for another row


def test_no_rows_make_no_groups():
    assert group_by_tokens([], 8192) == []


def test_the_bar_is_quiet_where_no_one_watches(capsys):
    assert list(each_group([1, 2], 8192, "work")) == [[1, 0]]
    assert capsys.readouterr() == ("", "")


def test_a_cpu_takes_little_together_whatever_the_budget(tiny_folder):
    """Vectors of the same rows in one group and in the CPU's many; float32 rounding."""
    runner = load(tiny_folder, device="cpu")._runner
    rows = [[random.randrange(5, 500) for _ in range(random.choice([3, 90, 90, 300, 1500]))] for _ in range(20)]
    groups = list(runner.groups(rows, "work", 10**6))
    assert sorted(i for group in groups for i in group) == list(range(20))
    assert all(len(group) == 1 or sum(len(rows[i]) for i in group) <= CPU_TOKENS for group in groups)
    cut = runner.per_token(rows, runner.encoder, "work")
    with torch.inference_mode():
        whole = unpack(runner.encoder(batch := pack(rows)), batch.cu_seqlens)
    for one, other in zip(cut, whole, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
