"""Catches a compute account that leaves out the head or attention, or counts one of them twice."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from speechscale.errors import DataError
from speechscale.model.anatomy import body_of
from speechscale.model.families import TRAITS
from speechscale.model.flops import Convention, Flops, flops_per_token, tokens_for_budget
from speechscale.model.shape import Size
from speechscale.model.sizes import SIZES, get_size
from speechscale.model.slm import extend, new_model

VOCAB, ROWS = 450, 2
WIDE_HEADS = dataclasses.replace(get_size("qwen3:0.05M"), kv_heads=1, own_head_dim=32)
PROJECTED = dataclasses.replace(get_size("opt:0.05M"), own_row_dim=24, post_norm=True, positions=64)


def counted(model: Any, context: int) -> float:
    """FLOPs per token of a forward and backward pass; eager attention multiplies the whole square."""
    model.set_attn_implementation("eager")
    tokens = torch.zeros(ROWS, context, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(tokens, use_cache=False).logits.sum().backward()
    return counter.get_total_flops() / (ROWS * context)


@pytest.mark.parametrize(("name", "context"), [("0.02M", 64), ("0.2M", 160), ("0.5M", 32)])
def test_exact_equals_a_counted_forward_and_backward(name: str, context: int) -> None:
    """The counter sees attention="full"."""
    size = SIZES[name]
    full = flops_per_token(size, VOCAB, context, attention="full").flops_exact
    assert counted(new_model(size, VOCAB, context, seed=0), context) == pytest.approx(full, rel=0.005)
    causal = flops_per_token(size, VOCAB, context).flops_exact
    assert full - causal == 6 * size.layers * context * size.dim


@pytest.mark.parametrize(
    "size", [*(get_size(f"{f}:0.05M") for f in TRAITS), WIDE_HEADS, PROJECTED], ids=lambda s: s.name
)
def test_exact_in_every_family(size: Size) -> None:
    """Gated or not, heads wider than dim / heads, projected rows."""
    full = flops_per_token(size, VOCAB, 64, attention="full").flops_exact
    assert counted(new_model(size, VOCAB, 64, seed=0), 64) == pytest.approx(full, rel=0.005)


def test_a_frozen_body_costs_two_thirds() -> None:
    size = SIZES["0.2M"]
    model = new_model(size, VOCAB, 64, seed=0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("embed" in name)
    frozen = flops_per_token(size, VOCAB, 64, attention="full", frozen_body=True).flops_exact
    assert counted(model, 64) == pytest.approx(frozen, rel=0.005)


def test_adapters_cost_six_each() -> None:
    peft = pytest.importorskip("peft")
    size = dataclasses.replace(SIZES["0.2M"], tied=False)
    model = new_model(size, VOCAB, 64, seed=0)
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["q_proj", "up_proj"], r=8), model)
    model.get_input_embeddings().weight.requires_grad_(True)
    model.lm_head.weight.requires_grad_(True)
    adapters = sum(p.numel() for p in body_of(model).layers.parameters() if p.requires_grad)
    lora = flops_per_token(size, VOCAB, 64, attention="full", frozen_body=True, adapter_params=adapters).flops_exact
    assert counted(model, 64) == pytest.approx(lora, rel=0.005)


def test_windows_bound_the_price_of_long_rows() -> None:
    """Every pair that a windowed layer really scores, counted one by one."""
    size = dataclasses.replace(get_size("gemma3:0.2M"), layers=6, window=10)
    context = 50
    places = torch.arange(context)
    back = places[:, None] - places
    seen = ((back >= 0) & (back < 10)).sum().item() * 5 + (back >= 0).sum().item()
    body = 6 * (size.matmul_params + VOCAB * size.dim)
    attention = flops_per_token(size, VOCAB, context).flops_exact - body
    diagonal = (context + 5 * 10) / 2  # halves of squares leave out half of their diagonals
    assert attention == pytest.approx(12 * size.q_dim * (seen - diagonal) / context)
    unbounded = dataclasses.replace(size, window=None)
    assert flops_per_token(size, VOCAB, 8) == flops_per_token(unbounded, VOCAB, 8)


@pytest.mark.parametrize(
    ("name", "vocab", "ratios"),
    [
        ("20M", 502, (1.013, 1.013, 1.320, 1.628)),
        ("155M", 502, (1.003, 1.003, 1.167, 1.330)),
        ("823M", 502, (1.001, 1.001, 1.083, 1.165)),
        ("qwen2.5-0.5B", None, (1.382, 1.382, 1.505, 1.628)),
        ("qwen2.5-1.5B", None, (1.179, 1.179, 1.246, 1.313)),
        ("qwen2.5-7B", None, (1.168, 1.084, 1.115, 1.147)),
    ],
)
def test_conventions_against_6n_without_embeddings(
    name: str, vocab: int | None, ratios: tuple[float, float, float, float]
) -> None:
    """6 N with embeddings, with the head only, exact causal, exact full; context 2,048; a text vocabulary gains 501."""
    size = SIZES[name]
    vocab = vocab or size.text_vocab + 501
    causal, full = (flops_per_token(size, vocab, 2048, attention=seen) for seen in ("causal", "full"))
    figures = (causal.flops_6nd_total, causal.flops_6nd_head, causal.flops_exact, full.flops_exact)
    assert [figure / causal.flops_6nd_non_embedding for figure in figures] == pytest.approx(ratios, abs=0.001)


@pytest.mark.parametrize(
    "size", [SIZES["0.2M"], dataclasses.replace(SIZES["0.2M"], tied=False)], ids=["tied", "untied"]
)
@pytest.mark.parametrize("vocab", [450, 3_000, 3_000 + 502], ids=["units", "text", "text and units"])
def test_head_is_charged_once_however_its_rows_are_stored(size: Size, vocab: int) -> None:
    """What a counter sees beyond attention is 6nd_head, and with its full square 6nd_attention if the table is tied."""
    seen, said = counted(new_model(size, vocab, 64, seed=0), 64), flops_per_token(size, vocab, 64)
    square = 12 * size.layers * size.q_dim * 64
    assert seen - square == pytest.approx(said.flops_6nd_head, rel=0.005)
    assert said.flops_6nd_attention - square == said.flops_6nd_total
    assert said.flops_6nd_total - said.flops_6nd_head == (0 if size.tied else 6 * vocab * size.dim)


def test_an_extended_text_lm_costs_its_new_rows() -> None:
    text, units = 1_000, 502
    size = dataclasses.replace(SIZES["0.2M"], tied=False)
    model = extend(new_model(size, text, 64, seed=0), text, text + units, seed=1)
    full = flops_per_token(size, text + units, 64, attention="full")
    assert counted(model, 64) == pytest.approx(full.flops_exact, rel=0.005)
    new = full.flops_6nd_head - flops_per_token(size, text, 64).flops_6nd_head
    assert new == 6 * units * size.dim


def test_every_convention_has_a_figure_that_grows_with_tokens() -> None:
    per_token = flops_per_token(SIZES["0.5M"], VOCAB, 128)
    assert {f"flops_{name}" for name in get_args(Convention)} == {f.name for f in dataclasses.fields(Flops)}
    for name in get_args(Convention):
        assert per_token.times(1_000).of(name) == 1_000 * per_token.of(name) > 0


def test_sims_compute_counts_embeddings() -> None:
    """7.6B x 15B x 6 = 6.86e20 (SIMS)."""
    size = SIZES["qwen2.5-7B"]
    assert flops_per_token(size, size.text_vocab, 2048).times(15e9).of("6nd_total") == pytest.approx(6.86e20, rel=0.003)


def test_head_of_the_smallest_size() -> None:
    size = SIZES["0.02M"]
    assert VOCAB * size.dim / size.matmul_params == pytest.approx(0.7, abs=0.01)


def test_budget_buys_whole_tokens() -> None:
    assert tokens_for_budget(1e11, 3e5) == 333_333
    with pytest.raises(DataError, match="buys no token"):
        tokens_for_budget(1e5, flops_per_token(get_size("0.2M"), VOCAB, 256).flops_exact)
