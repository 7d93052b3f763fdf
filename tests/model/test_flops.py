"""Catches a compute account that leaves out the head or attention, or counts one of them twice."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from speechscale.errors import DataError
from speechscale.model.flops import flops_per_token, tokens_for_budget
from speechscale.model.sizes import SIZES, get_size
from speechscale.model.slm import new_model


@pytest.mark.parametrize(("name", "context"), [("0.02M", 64), ("0.2M", 160), ("0.5M", 32)])
def test_exact_equals_a_counted_forward_and_backward(name: str, context: int) -> None:
    """Eager attention multiplies the whole square, so the counter sees attention="full"."""
    vocab, rows = 450, 2
    model = new_model(SIZES[name], vocab, context, seed=0)
    model.set_attn_implementation("eager")
    tokens = torch.zeros(rows, context, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(tokens, use_cache=False).logits.sum().backward()
    counted = counter.get_total_flops() / (rows * context)
    full = flops_per_token(SIZES[name], vocab, context, attention="full").flops_exact
    assert counted == pytest.approx(full, rel=0.005)
    causal = flops_per_token(SIZES[name], vocab, context).flops_exact
    assert full - causal == 6 * SIZES[name].layers * context * SIZES[name].dim


def test_published_ratios() -> None:
    """Qwen2.5-0.5B with 502 more ids at context 2,048 costs 1.382 / 1.505 times 6 N without embeddings."""
    size = SIZES["qwen2.5-0.5B"]
    flops = flops_per_token(size, size.text_vocab + 502, 2048)
    attention = 6 * size.layers * 2048 * size.dim
    assert (flops.flops_exact - attention) / flops.flops_6nd_non_embedding == pytest.approx(1.382, abs=0.001)
    assert flops.flops_exact / flops.flops_6nd_non_embedding == pytest.approx(1.505, abs=0.001)


def test_sims_compute_counts_embeddings() -> None:
    """7.6B x 15B x 6 = 6.86e20 (SIMS)."""
    size = SIZES["qwen2.5-7B"]
    assert flops_per_token(size, size.text_vocab, 2048).times(15e9).of("6nd_total") == pytest.approx(6.86e20, rel=0.003)


def test_head_of_the_smallest_size() -> None:
    size = SIZES["0.02M"]
    assert 450 * size.dim / size.matmul_params == pytest.approx(0.7, abs=0.01)


def test_budget_buys_whole_tokens() -> None:
    assert tokens_for_budget(1e11, 3e5) == 333_333
    with pytest.raises(DataError, match="buys no token"):
        tokens_for_budget(1e5, flops_per_token(get_size("0.2M"), 450, 256).flops_exact)
