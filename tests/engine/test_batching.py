import random

import numpy as np
import pytest
import torch

from modernbert.batch import pack, unpack
from modernbert.engine.batching import CPU_TOKENS, each_group, group_by_tokens
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
