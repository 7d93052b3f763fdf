"""What training must know about a transformers causal LM: its body, its blocks, its output head, its limits.

Enters: a model of one of `FAMILIES`, plain or wrapped by peft. Leaves: its parts.
The one decision worth knowing: how hidden states become logits differs by family and is silent when missed (Gemma2
caps them, Granite divides them), so a family is either listed here, and tested, or refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from speechscale.errors import DataError

FAMILIES = ("llama", "qwen2", "qwen3", "gpt_neox", "opt", "gemma", "gemma2", "gemma3_text", "phi", "granite")
"""`model_type` of the architectures that are tested; others are refused."""

DROPOUTS = ("dropout", "attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "layerdrop")
"""What configs call their dropout."""


class Head(NamedTuple):
    """How last hidden states become logits: cap(scale (hidden weight^T + bias))."""

    weight: Float[Tensor, "V d"]
    bias: Float[Tensor, " V"] | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Float[Tensor, "... d"]) -> Float[Tensor, "... V"]:
        """The logits of hidden states, as the model itself computes them."""
        logits = nn.functional.linear(hidden, self.weight, self.bias)
        if self.scale != 1:
            logits = logits * self.scale
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap


class ContextLimit(NamedTuple):
    """Positions of a model. `hard`: there are no others, because they are learned (OPT); otherwise they are rotary, and
    `tokens` only says how far it was trained."""

    tokens: int
    hard: bool


def require_known(model_type: str) -> None:
    """Raise DataError for an architecture outside FAMILIES."""
    if model_type not in FAMILIES:
        raise DataError(f"models of the kind '{model_type}' are not known here; tested: {', '.join(FAMILIES)}")


def causal_lm(model: Any) -> Any:
    """The transformers model inside: the model itself, or what a peft model wraps.

    Raises:
        DataError: an architecture outside FAMILIES, or a prompt-tuning adapter, whose extra tokens lie outside it.
    """
    if hasattr(model, "get_base_model"):  # a PeftModel; peft itself need not be installed
        if getattr(model.active_peft_config, "is_prompt_learning", False):
            raise DataError("adapters that put tokens in front of a row cannot be trained packed; use LoRA")
        model = model.get_base_model()
    require_known(model.config.model_type)
    return model


def body_of(model: Any) -> Any:
    """The model without its head: called with ids, mask and positions, it returns `last_hidden_state` for `head_of`."""
    return causal_lm(model).base_model


def blocks_of(model: Any) -> nn.ModuleList:
    """The transformer blocks, first to last: the pieces to shard and to checkpoint."""
    body = body_of(model)
    blocks: nn.ModuleList = getattr(body, "decoder", body).layers
    return blocks


def _plain(layer: Any) -> Any:
    """The layer that is in use; peft keeps a full copy of one that it trains as a whole."""
    return layer.modules_to_save[layer.active_adapters[0]] if hasattr(layer, "modules_to_save") else layer


def close_hidden(model: Any, hidden: Float[Tensor, "... d"]) -> Float[Tensor, "... h"]:
    """What the body does to the output of its last block before the head: the final norm, and OPT-350m's projection.

    Example: the output of any block, closed so and given to `head_of(model).logits`, is its logit lens.
    """
    body = body_of(model)
    body = getattr(body, "decoder", body)
    for name in ("norm", "final_layer_norm", "final_layernorm", "project_out"):
        step = getattr(body, name, None)
        hidden = hidden if step is None else step(hidden)
    return hidden


def embedding_of(model: Any) -> nn.Embedding:
    """The embedding of token ids."""
    embedding = _plain(causal_lm(model).get_input_embeddings())
    if not isinstance(embedding, nn.Embedding):
        raise DataError(
            f"the embedding is wrapped by {type(embedding).__name__}; list it under modules_to_save instead, "
            "so that its rows are trained as a whole"
        )
    return embedding


def output_layer_of(model: Any) -> nn.Linear:
    """The linear layer of the head."""
    layer = _plain(causal_lm(model).get_output_embeddings())
    if not isinstance(layer, nn.Linear):
        raise DataError(
            f"the output head is wrapped by {type(layer).__name__}, so its rows alone do not give the logits; "
            "leave it out of the adapter, or list it under modules_to_save"
        )
    return layer


def head_of(model: Any) -> Head:
    """How this model turns hidden states into logits.

    Raises:
        DataError: an architecture outside FAMILIES, or a head that an adapter changes.
    """
    layer, config = output_layer_of(model), causal_lm(model).config
    return Head(
        weight=layer.weight,
        bias=layer.bias,
        scale=1 / getattr(config, "logits_scaling", 1),  # Granite divides; by powers of two as released
        softcap=getattr(config, "final_logit_softcapping", None),
    )


def rows_of(model: Any) -> int:
    """Rows of the embedding, padding included."""
    return embedding_of(model).weight.shape[0]


def is_tied(model: Any) -> bool:
    """Whether the head shares the rows of the embedding."""
    return output_layer_of(model).weight is embedding_of(model).weight


def context_limit(model: Any) -> ContextLimit:
    """How many positions a model has. Example: OPT -> ContextLimit(2048, hard=True)"""
    config = causal_lm(model).config
    return ContextLimit(config.max_position_embeddings, hard=config.model_type == "opt")


def window_of(model: Any) -> int | None:
    """How many tokens some layers see at most, the one they stand at included; None where all look back without end.

    A 4-D mask is taken as it is by every layer, so rows beyond the window would be read as the model never does.
    """
    config = causal_lm(model).config
    sliding = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    return int(config.sliding_window) if sliding else None


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Switch dropout off inside the block, then restore the mode."""
    training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(training)
