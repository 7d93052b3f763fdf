"""Shared by the tests of evals: a small joint vocabulary and small random transformers models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

KINDS: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
    "granite": (GraniteConfig, GraniteForCausalLM),
}


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    """<eos> <unk> and eight words (one is the full stop), ten units, markers: 22 ids."""
    return Vocabulary.joint(build_text_tokenizer(["tom ann ran he won lost rome ."]), 10)


@pytest.fixture(scope="session")
def make_model(vocabulary: Vocabulary) -> Callable[..., Any]:
    """Builds a random model whose next-token distributions are far from uniform."""

    def make(kind: str = "llama", *, vocab_size: int = vocabulary.size, attention: str = "sdpa", **more: Any) -> Any:
        config_class, model_class = KINDS[kind]
        config = config_class(
            vocab_size=vocab_size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=0.3,
            attn_implementation=attention,
            **more,
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return model_class(config).eval()

    return make
