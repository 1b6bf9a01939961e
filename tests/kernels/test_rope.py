"""Rotation: the published angles to the bit, and what rotation must keep."""

import pytest
import torch
from transformers import ModernBertConfig
from transformers.models.modernbert.modeling_modernbert import ModernBertRotaryEmbedding

from modernbert.kernels.rope import kept_rotary_tables, rotary_tables, rotate


@pytest.mark.parametrize(("theta", "kind"), [(10_000.0, "sliding_attention"), (160_000.0, "full_attention")])
def test_the_tables_are_those_of_transformers_to_the_bit(theta, kind):
    """Exactly equal: another rounding of the frequencies moved logits at 8,192 tokens by 5e-4."""
    positions_1L = torch.arange(8192)[None]
    cos_1LH, sin_1LH = ModernBertRotaryEmbedding(ModernBertConfig())(torch.zeros(1), positions_1L, kind)
    cos_LK, sin_LK = rotary_tables(8192, 64, theta)
    assert torch.equal(torch.cat([cos_LK, cos_LK], -1), cos_1LH[0])
    assert torch.equal(torch.cat([sin_LK, sin_LK], -1), sin_1LH[0])


@pytest.mark.parametrize(("factor", "trained"), [(8.0, 1024), (2.0, 4096), (32.0, 128), (4.0, 8192)])
@pytest.mark.parametrize("theta", [10_000.0, 160_000.0])
def test_yarn_s_tables_are_those_of_transformers(factor, trained, theta):
    """Frequencies within an ulp, which position 8,191 makes 5e-4 rad of."""
    yarn = {"rope_type": "yarn", "rope_theta": theta, "factor": factor, "original_max_position_embeddings": trained}
    config = ModernBertConfig(
        rope_parameters={"full_attention": yarn, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
    )
    cos_1LH, sin_1LH = ModernBertRotaryEmbedding(config)(torch.zeros(1), torch.arange(8192)[None], "full_attention")
    cos_LK, sin_LK = rotary_tables(8192, 64, theta, None, factor, trained)
    torch.testing.assert_close(torch.cat([cos_LK, cos_LK], -1), cos_1LH[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cat([sin_LK, sin_LK], -1), sin_1LH[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(cos_LK[:100], cos_1LH[0, :100, :32], atol=2e-5, rtol=0)


def test_the_product_of_query_and_key_depends_on_their_distance_only():
    """Float32 angles at position 8,000 are exact to 5e-4 rad; the products here are about 8."""
    tables = rotary_tables(8192, 64, 10_000.0)
    q_1NH, k_1NH = torch.randn(2, 1, 2, 64)

    def product(i, j):
        q, k = (rotate(x, *tables, torch.tensor([at])) for x, at in ((q_1NH, i), (k_1NH, j)))
        return (q * k).sum(-1)

    torch.testing.assert_close(product(8000, 7950), product(50, 0), atol=2e-3, rtol=0)
    assert (product(50, 0) - product(50, 1)).abs().max() > 0.1


def test_rotation_keeps_lengths_and_leaves_position_zero_alone():
    tables = rotary_tables(100, 64, 10_000.0)
    x_TNH = torch.randn(100, 2, 64)
    turned_TNH = rotate(x_TNH, *tables, torch.arange(100))
    torch.testing.assert_close(turned_TNH.norm(dim=-1), x_TNH.norm(dim=-1))
    assert torch.equal(turned_TNH[0], x_TNH[0])
    assert rotate(x_TNH.bfloat16(), *tables, torch.arange(100)).dtype == torch.bfloat16


@pytest.mark.parametrize("rope", [(160_000.0,), (160_000.0, 8.0, 1024)])
def test_kept_tables_are_the_same_to_the_bit_and_made_once(rope):
    kept = kept_rotary_tables(700, 64, *rope)
    made = rotary_tables(700, 64, rope[0], None, *rope[1:])
    assert all(torch.equal(a_LK[:700], b_LK) for a_LK, b_LK in zip(kept, made, strict=True))
    assert kept_rotary_tables(900, 64, *rope)[0] is kept[0]
    assert len(kept_rotary_tables(1025, 64, *rope)[0]) >= 1025
