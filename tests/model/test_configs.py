"""Catches a loaded TextLM whose compute and memory would be worked out for another shape."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from transformers import Gemma3TextConfig, GPT2Config, GraniteConfig, LlamaConfig, OPTConfig, PhiConfig

from speechscale.errors import DataError
from speechscale.model.configs import model_config, size_of
from speechscale.model.families import TRAITS
from speechscale.model.shape import params
from speechscale.model.sizes import SIZES, get_size
from speechscale.model.slm import new_model


@pytest.mark.parametrize("name", [*SIZES, *(f"{family}:0.05M" for family in TRAITS)])
def test_shape_survives_the_way_there_and_back(name: str) -> None:
    size, vocab = get_size(name), get_size(name).text_vocab or 502
    back = size_of(model_config(size, vocab, context=256), name)
    if size.family in ("gemma3", "opt"):  # whose rotary base is not ours to choose
        back = dataclasses.replace(back, rope_theta=size.rope_theta)
    assert back == dataclasses.replace(size, text_vocab=vocab)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft asks by the old name
def test_of_a_model_and_under_an_adapter() -> None:
    peft = pytest.importorskip("peft")
    model = new_model(get_size("opt:0.02M"), 90, 64, seed=0)
    plain = size_of(model)
    assert params(plain, 90).total == sum(p.numel() for p in model.parameters())
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    assert size_of(peft.get_peft_model(model, config)) == plain


def test_granite_has_the_parameters_of_a_llama() -> None:
    size = size_of(GraniteConfig(vocab_size=90, hidden_size=32, num_hidden_layers=2, num_attention_heads=4))
    assert (size.family, size.layers, size.dim) == ("llama", 2, 32)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LlamaConfig(vocab_size=90, hidden_size=32, num_attention_heads=2, attention_bias=True), "an option that is"),
        (OPTConfig(vocab_size=90, hidden_size=32, num_attention_heads=2, enable_bias=False), "an option that is"),
        (PhiConfig(vocab_size=90, hidden_size=32, num_attention_heads=2, qk_layernorm=True), "an option that is"),
        (
            Gemma3TextConfig(
                vocab_size=90, hidden_size=32, num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"]
            ),
            "gemma3_text with 1 windowed layers of 2",
        ),
        (GPT2Config(), "'gpt2' are not known here"),
    ],
)
def test_what_the_formula_does_not_know_is_refused(config: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        size_of(config)
