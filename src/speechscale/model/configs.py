"""Between a `Size` and a transformers config, both ways.

Enters: a `Size`, or the config of any model of a tested architecture. Leaves: a stock config, or a `Size`.
The one decision worth knowing: what a config says is believed only if transformers, building it without memory, arrives
at the number of parameters that the formula gives; a config with an option that nobody foresaw is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from speechscale.errors import DataError
from speechscale.model.anatomy import causal_lm, require_known
from speechscale.model.families import TRAITS
from speechscale.model.shape import Size, params

INIT_STD = 0.02
CONFIGS: dict[str, type] = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "gpt_neox": GPTNeoXConfig,
    "opt": OPTConfig,
    "gemma": GemmaConfig,
    "gemma2": Gemma2Config,
    "gemma3": Gemma3TextConfig,
    "phi": PhiConfig,
}
FAMILY_OF_TYPE = {"gemma3_text": "gemma3", "granite": "llama"}
"""Families whose `model_type` is another word; Granite has the parameters of a Llama."""
ROTARY_SHARE = {"gpt_neox": 0.25, "phi": 0.5}
"""Share of each head that turns with the position, where it is not all."""


def model_config(size: Size, vocab_size: int, context: int) -> Any:
    """Describe a size to transformers; `<eos>` is id 0 and also opens a document.

    Args:
        context: longest row the model will see.

    Raises:
        DataError: more context than learned positions.
    """
    if size.positions and context > size.positions:
        raise DataError(
            f"size '{size.name}' has {size.positions} learned positions and none beyond; context {context} is too long"
        )
    options: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": size.dim,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "max_position_embeddings": size.positions or context,
        "tie_word_embeddings": size.tied,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": None,
        "attention_dropout": 0.0,
    }
    if size.family == "opt":
        return OPTConfig(
            **options,
            ffn_dim=size.ffn,
            word_embed_proj_dim=size.row_dim,
            do_layer_norm_before=not size.post_norm,
            dropout=0.0,
            init_std=INIT_STD,
        )
    options |= {"intermediate_size": size.ffn, "initializer_range": INIT_STD}
    if size.family not in ("gpt_neox", "phi"):
        options["num_key_value_heads"] = size.kv_heads
    if size.family in ("qwen3", "gemma", "gemma2", "gemma3") or size.own_head_dim:
        options["head_dim"] = size.head_dim
    if size.family != "gemma3":  # which has two bases, for windowed and other layers
        rope = {"rope_type": "default", "rope_theta": size.rope_theta}
        if size.family in ROTARY_SHARE:
            rope["partial_rotary_factor"] = ROTARY_SHARE[size.family]
        options["rope_parameters"] = rope
    if TRAITS[size.family].full_every > 1:
        options |= {"sliding_window": size.window, "query_pre_attn_scalar": size.head_dim}
    return CONFIGS[size.family](**options)


def size_of(source: Any, name: str = "loaded") -> Size:
    """The shape of a model or config, so that parameters, FLOPs and memory can be worked out for any TextLM.

    Args:
        source: a causal LM (plain or wrapped by peft) or its config. name: what to call the size.

    Raises:
        DataError: an architecture that is not known, or an option of it that changes the parameters.
    """
    config = source if hasattr(source, "model_type") else causal_lm(source).config
    require_known(config.model_type)
    family = FAMILY_OF_TYPE.get(config.model_type, config.model_type)
    own = {
        "own_head_dim": _unless(getattr(config, "head_dim", None), config.hidden_size // config.num_attention_heads),
        "own_row_dim": _unless(getattr(config, "word_embed_proj_dim", None), config.hidden_size),
        "window": getattr(config, "sliding_window", None) if TRAITS[family].full_every > 1 else None,
    }
    size = Size(
        name=name,
        layers=config.num_hidden_layers,
        dim=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        ffn=config.ffn_dim if family == "opt" else config.intermediate_size,
        family=family,
        tied=config.tie_word_embeddings,
        rope_theta=_rope_theta(config),
        text_vocab=config.vocab_size,
        positions=config.max_position_embeddings if TRAITS[family].learned_positions else 0,
        post_norm=not getattr(config, "do_layer_norm_before", True),
        **own,
    )
    _check(size, config)
    return size


def _unless(value: int | None, usual: int) -> int | None:
    return None if value == usual else value


def _rope_theta(config: Any) -> float:
    """The base of the rotary positions: of the layers without window where there are two; 10,000 without any."""
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    return float(rope.get("rope_theta", 10_000.0))


def _check(size: Size, config: Any) -> None:
    windowed = (getattr(config, "layer_types", None) or []).count("sliding_attention")
    if windowed != size.windowed_layers:
        raise DataError(
            f"{config.model_type} with {windowed} windowed layers of {size.layers}: this pattern is not known here, "
            f"its compute would be counted for {size.windowed_layers}"
        )
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config.to_dict()))
    counted, expected = sum(p.numel() for p in built.parameters()), params(size, config.vocab_size).total
    if counted != expected:
        raise DataError(
            f"{config.model_type}: {counted:,} parameters where its shape gives {expected:,}; the config has an option "
            "that is not known here (biases, say)"
        )
