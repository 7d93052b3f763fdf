"""Catches a parameter count that differs from the model that is trained, and shapes that are not the published ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from speechscale.errors import DataError
from speechscale.model.anatomy import body_of, is_tied
from speechscale.model.configs import model_config
from speechscale.model.families import TRAITS
from speechscale.model.shape import Size, params
from speechscale.model.sizes import SIZES, get_size, size_by_rule

CUERVO_TOTALS = {
    "20M": 20_710_912,
    "85M": 85_339_392,
    "155M": 154_680_320,
    "309M": 308_845_568,
    "823M": 823_179_264,
}
QWEN_TOTALS = {"qwen2.5-0.5B": 0.494, "qwen2.5-1.5B": 1.544, "qwen2.5-3B": 3.086, "qwen2.5-7B": 7.616}
RELEASED_TOTALS = {
    "qwen3-0.6B": 596_049_920,
    "qwen3-1.7B": 1_720_574_976,
    "qwen3-4B": 4_022_468_096,
    "qwen3-8B": 8_190_735_360,
    "smollm2-135M": 134_515_008,
    "smollm2-360M": 361_821_120,
    "smollm2-1.7B": 1_711_376_384,
    "llama-3.2-1B": 1_235_814_400,
    "llama-3.2-3B": 3_212_749_824,
    "gemma-2b": 2_506_172_416,
    "gemma-2-2b": 2_614_341_888,
    "gemma-3-270m": 268_098_176,
    "gemma-3-1b": 999_885_952,
    "opt-125m": 125_239_296,
    "opt-350m": 331_196_416,
    "opt-1.3b": 1_315_758_080,
    "phi-1.5": 1_418_270_720,
}
PYTHIA_NON_EMBEDDING = {
    "pythia-70m": 18_915_328,
    "pythia-160m": 85_056_000,
    "pythia-410m": 302_311_424,
    "pythia-1b": 805_736_448,
    "pythia-1.4b": 1_208_602_624,
    "pythia-2.8b": 2_517_652_480,
    "pythia-6.9b": 6_444_163_072,
    "pythia-12b": 11_327_027_200,
}


def on_meta(size: Size, vocab: int) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(model_config(size, vocab, context=256))


@pytest.mark.parametrize("name", [*SIZES, *(f"{family}:0.2M" for family in TRAITS)])
def test_formula_equals_transformers(name: str) -> None:
    size = get_size(name)
    vocab = size.text_vocab or 502
    model = on_meta(size, vocab)
    total = sum(p.numel() for p in model.parameters())
    tables = {id(p): p.numel() for p in model.get_input_embeddings().parameters()}
    tables |= {id(p): p.numel() for p in model.lm_head.parameters()}
    tables |= {id(p): p.numel() for n, p in model.named_parameters() if "embed_positions" in n}
    count = params(size, vocab)
    assert (count.total, count.embedding) == (total, sum(tables.values()))
    assert count.non_embedding == total - count.embedding
    projections = [m.weight.numel() for m in body_of(model).modules() if isinstance(m, torch.nn.Linear)]
    assert size.matmul_params == sum(projections)
    assert is_tied(model) == size.tied


@pytest.mark.parametrize("name", list(CUERVO_TOTALS))
def test_cuervo_shapes_have_the_published_totals(name: str) -> None:
    assert params(SIZES[name], 502).total == CUERVO_TOTALS[name]


@pytest.mark.parametrize("name", list(QWEN_TOTALS))
def test_qwen_shapes_have_the_published_totals(name: str) -> None:
    size = SIZES[name]
    assert round(params(size, size.text_vocab).total / 1e9, 3) == QWEN_TOTALS[name]


@pytest.mark.parametrize("name", list(RELEASED_TOTALS))
def test_released_shapes_have_the_published_totals(name: str) -> None:
    size = SIZES[name]
    assert params(size, size.text_vocab).total == RELEASED_TOTALS[name]


@pytest.mark.parametrize("name", list(PYTHIA_NON_EMBEDDING))
def test_pythia_shapes_have_the_published_counts(name: str) -> None:
    """Biderman et al. 2023, Table 1."""
    assert params(SIZES[name], SIZES[name].text_vocab).non_embedding == PYTHIA_NON_EMBEDDING[name]


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


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(list(TRAITS)), st.floats(0.021, 99_000))
def test_families_of_a_size_have_its_shape_and_count(family: str, millions: float) -> None:
    name = f"{millions:.3f}M"
    llama, other = get_size(name), get_size(f"{family}:{name}")
    assert (other.layers, other.dim, other.heads, other.family) == (llama.layers, llama.dim, llama.heads, family)
    assert params(other, 0).non_embedding == pytest.approx(millions * 1e6, rel=0.04)


@pytest.mark.parametrize("family", list(TRAITS))
@pytest.mark.parametrize("name", ["0.02M", "0.05M", "0.1M", "0.2M", "0.5M", "1M", "3M", "20M", "85M", "823M"])
def test_families_of_a_named_size_have_its_count(name: str, family: str) -> None:
    """Cuervo's 20M has 20.4M parameters without embeddings; so has its OPT."""
    other = get_size(f"{family}:{name}")
    assert params(other, 0).non_embedding == pytest.approx(params(SIZES[name], 0).non_embedding, rel=0.01)


def test_names_outside_the_table() -> None:
    assert get_size("0.3M").name == "0.3M"
    assert get_size("20M") is SIZES["20M"]
    assert (get_size("llama:20M").ffn, get_size("opt:20M").dim) == (SIZES["20M"].ffn, SIZES["20M"].dim)
    with pytest.raises(DataError, match=r"did you mean 'qwen2.5-0.5B'"):
        get_size("qwen2.5-0.5")
    for name in ("0.001M", "bert:1M", "opt:", "opt:pythia-14m"):
        with pytest.raises(DataError, match=r"any number of parameters .* in a family \(llama, qwen2"):
            get_size(name)


def test_shapes_that_cannot_be() -> None:
    with pytest.raises(DataError, match="do not fit dim 64"):
        Size(name="x", layers=1, dim=64, heads=3, kv_heads=3, ffn=64)
    with pytest.raises(DataError, match="learned positions belong to the family opt"):
        Size(name="x", layers=1, dim=64, heads=4, kv_heads=4, ffn=64, positions=2048)
    with pytest.raises(DataError, match="2048 learned positions and none beyond; context 2049"):
        model_config(get_size("opt:1M"), 100, context=2049)
