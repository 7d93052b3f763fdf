"""Catches a parameter count that differs from the model that is trained, and shapes that are not the published ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM, Qwen2ForCausalLM

from speechscale.errors import DataError
from speechscale.model.sizes import SIZES, Size, get_size, params, size_by_rule
from speechscale.model.slm import model_config

CUERVO_TOTALS = {
    "20M": 20_710_912,
    "85M": 85_339_392,
    "155M": 154_680_320,
    "309M": 308_845_568,
    "823M": 823_179_264,
}
QWEN_TOTALS = {"qwen2.5-0.5B": 0.494, "qwen2.5-1.5B": 1.544, "qwen2.5-3B": 3.086, "qwen2.5-7B": 7.616}


def on_meta(size: Size, vocab: int) -> Any:
    kind = Qwen2ForCausalLM if size.family == "qwen2" else LlamaForCausalLM
    with torch.device("meta"):
        return kind(model_config(size, vocab, context=256))


@pytest.mark.parametrize("name", list(SIZES))
def test_formula_equals_transformers(name: str) -> None:
    size = SIZES[name]
    vocab = size.text_vocab or 502
    model = on_meta(size, vocab)
    tables = {id(p): p.numel() for p in (model.get_input_embeddings().weight, model.lm_head.weight)}
    total = sum(p.numel() for p in model.parameters())
    count = params(size, vocab)
    assert (count.total, count.embedding) == (total, sum(tables.values()))
    assert count.non_embedding == total - count.embedding
    projections = [m.weight.numel() for m in model.model.modules() if isinstance(m, torch.nn.Linear)]
    assert size.matmul_params == sum(projections)


@pytest.mark.parametrize("name", list(CUERVO_TOTALS))
def test_cuervo_shapes_have_the_published_totals(name: str) -> None:
    assert params(SIZES[name], 502).total == CUERVO_TOTALS[name]


@pytest.mark.parametrize("name", list(QWEN_TOTALS))
def test_qwen_shapes_have_the_published_totals(name: str) -> None:
    size = SIZES[name]
    assert round(params(size, size.text_vocab).total / 1e9, 3) == QWEN_TOTALS[name]


@pytest.mark.parametrize("name", ["0.02M", "0.05M", "0.1M", "0.2M", "0.5M", "1M", "3M"])
def test_miniatures_are_named_by_their_parameters(name: str) -> None:
    size = SIZES[name]
    assert params(size, 450).non_embedding == pytest.approx(float(name[:-1]) * 1e6, rel=0.035)
    assert size.head_dim >= 16


@settings(deadline=None, max_examples=50)
@given(st.floats(4.31, 11))
def test_rule_meets_the_count(exponent: float) -> None:
    wanted = round(10**exponent)
    size = size_by_rule("new", wanted)
    assert params(size, 450).non_embedding == pytest.approx(wanted, rel=0.04)
    assert size.head_dim >= 16
    assert 1.5 <= size.ffn / size.dim <= 4


def test_names_outside_the_table() -> None:
    assert get_size("0.3M").name == "0.3M"
    assert get_size("20M") is SIZES["20M"]
    with pytest.raises(DataError, match=r"did you mean 'qwen2.5-0.5B'"):
        get_size("qwen2.5-0.5")
    with pytest.raises(DataError, match="any number of parameters"):
        get_size("0.001M")


def test_heads_must_fit() -> None:
    with pytest.raises(DataError, match="do not fit dim 64"):
        Size(name="x", layers=1, dim=64, heads=3, kv_heads=3, ffn=64)
