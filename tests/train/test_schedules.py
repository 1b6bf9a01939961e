"""Learning-rate shapes against their closed forms."""

import itertools
import math

import pytest

from modernbert.recipes.pretrain import base
from modernbert.train.schedules import cosine_inverse_sqrt, micro_batches_after, wsd
from modernbert.train.settings import Phase


@pytest.mark.parametrize("tokens", [0, 1, 500, 999])
def test_warmup_is_linear_from_zero(tokens):
    assert wsd(tokens, warmup_tokens=1000, decay_tokens=0, total_tokens=5000) == tokens / 1000


def test_without_decay_the_rate_stays_flat_to_the_end():
    assert wsd(5000, warmup_tokens=1000, decay_tokens=0, total_tokens=5000) == 1.0


@pytest.mark.parametrize(("shape", "form"), [("linear", lambda x: 1 - x), ("one_minus_sqrt", lambda x: 1 - math.sqrt(x))])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0, 1.3])
def test_decay_follows_its_closed_form_down_to_the_floor(shape, form, share):
    got = wsd(600 + 400 * share, warmup_tokens=0, decay_tokens=400, total_tokens=1000, decay_shape=shape, floor=0.1)
    assert got == pytest.approx(0.1 + 0.9 * form(min(share, 1.0)), abs=1e-12)


def test_a_phase_scales_its_shape_by_its_peak():
    phase = Phase(tokens=1000, warmup_tokens=100, decay_tokens=0, peak=0.5)
    assert phase.rate(50) == 0.25
    assert phase.rate(500) == 0.5


@pytest.mark.parametrize(("largest", "warmup"), [(6, 50e9), (11, 10e9), (2, 100), (1, 0)])
def test_batch_warmup_takes_equally_many_steps_at_each_size(largest, warmup):
    """Closed form of facts §2.3; a step of s micro-batches of one token each takes s tokens, so steps can be counted."""
    unit = warmup / max(1, largest * (largest - 1) / 2) / 200  # tokens of a micro-batch that make 200 steps a size
    tokens, steps = 0.0, dict.fromkeys(range(1, largest + 1), 0)
    while tokens < warmup:
        size = micro_batches_after(tokens, warmup_tokens=warmup, largest=largest)
        steps[size] += 1
        tokens += size * unit
    assert all(abs(steps[size] - 200) <= 1 for size in range(1, largest))
    assert micro_batches_after(warmup, warmup_tokens=warmup, largest=largest) == largest


def test_the_base_recipe_is_the_published_one():
    """facts §2.1 and §2.3: 4,608 rows of 1,024 a step on 8 GPUs, batch sizes that change at 3.33, 10, 20, 33.3 and 50 B tokens."""
    config = base()
    assert 8 * config.micro_batches * config.micro_batch_tokens == 4608 * 1024 == 576 * 8192
    sizes = [
        micro_batches_after(t * 1e9, warmup_tokens=config.phases[0].batch_warmup_tokens, largest=6)
        for t in (3.32, 3.34, 9.9, 10.1, 19.9, 20.1, 33.3, 33.4, 49.9, 50)
    ]
    assert sizes == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    assert [phase.rate(phase.tokens / 2) * config.optimizer.lr for phase in config.phases[:2]] == pytest.approx([8e-4, 3e-4])


@pytest.mark.parametrize("low", [0.1, 0.5])
@pytest.mark.parametrize("tokens", [0, 30, 100, 101, 5000])
def test_cosine_then_inverse_square_root_follows_the_closed_form_of_the_reference(tokens, low):
    """facts §2.2: half-cosine over t_c, then γ / √(t + δ)."""
    delta = 100 * (1 + low - math.pi * (1 - low)) / (math.pi * (1 - low))
    gamma = (1 + low) / 2 * math.sqrt(100 + delta)
    cosine = low + (1 - low) / 2 * (1 + math.cos(math.pi / 2 * tokens / 100))
    wanted = cosine if tokens <= 100 else gamma / math.sqrt(tokens + delta)
    assert cosine_inverse_sqrt(tokens, 100, low) == pytest.approx(wanted, rel=1e-12)


def test_cosine_and_inverse_square_root_meet_in_value_and_slope():
    before, at, after = (cosine_inverse_sqrt(t, 1000) for t in (999.0, 1000.0, 1001.0))
    assert at == pytest.approx(0.55)
    assert (after - at) == pytest.approx(at - before, rel=2e-3)  # the second derivative is 1e-3 of the first there


def test_a_phase_warms_up_falls_and_decays_without_a_jump():
    phase = Phase(tokens=1000, warmup_tokens=100, cosine_tokens=200, decay_tokens=300, decay_shape="linear")
    rates = [phase.rate(t) for t in range(1001)]
    assert rates[100] == 1.0 and rates[300] == pytest.approx(0.55) and rates[1000] == 0.0
    assert max(abs(b - a) for a, b in itertools.pairwise(rates)) <= 0.0101
    assert rates[850] == pytest.approx(rates[700] / 2)
