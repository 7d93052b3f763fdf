"""Train a part of a model: low-rank adapters, or the rows of the vocabulary alone.

Enters: an SLM. Leaves: the same with some parameters frozen, or wrapped by peft; at the end a stock state dict again.
The one decision worth knowing: embedding and head are always trained in full. New rows start as noise, and an adapter
around untrained rows learns little; they also stay tied, which peft's own copies of a module would not.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from speechscale.errors import DataError, MissingExtra
from speechscale.model.anatomy import causal_lm, embedding_of, output_layer_of

Trains = Literal["all", "rows", "lora"]
PREFIX = "base_model.model."
"""What peft puts in front of the names of the model it wraps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    """Which parameters learn.

    Args:
        trains: "all"; "rows": embedding and head; "lora": those, and adapters of rank `rank` on every linear layer of
            the body, scaled by alpha / rank (Hu et al. 2021).

    Raises:
        DataError: a rank below 1.
    """

    trains: Trains = "all"
    rank: int = 16
    alpha: int = 32

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise DataError(f"adapt: rank = {self.rank}, alpha = {self.alpha}; give a rank of at least 1 and alpha > 0")


def adapt(model: Any, adaptation: Adaptation, seed: int) -> Any:
    """Freeze or wrap a model as asked; same seed, same adapters.

    Returns:
        The model itself, or a peft model around it.

    Raises:
        MissingExtra: LoRA without peft.
    """
    if adaptation.trains == "all":
        return model
    model.requires_grad_(False)
    if adaptation.trains == "lora":
        model = _with_adapters(model, adaptation, seed)
    for layer in (embedding_of(model), output_layer_of(model)):
        layer.requires_grad_(True)
    return model


def _with_adapters(model: Any, adaptation: Adaptation, seed: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtra("LoRA", "lora") from error
    head = next(name for name, layer in model.named_modules() if layer is output_layer_of(model))
    config = LoraConfig(
        r=adaptation.rank, lora_alpha=adaptation.alpha, target_modules="all-linear", exclude_modules=[head]
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by names of before 6
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def is_adapted(model: Any) -> bool:
    """Whether peft wraps the model."""
    return causal_lm(model) is not model


def stock_state(model: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under stock names, adapters added into the weights they adapt: W + alpha / rank B A.

    Args:
        state: of `model` as a whole (`parallel.full_state`).
    """
    if not is_adapted(model):
        return dict(state)
    config = model.active_peft_config
    merged: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".lora_" not in name:
            merged[name.removeprefix(PREFIX).replace(".base_layer.", ".")] = tensor
    for name, down in state.items():
        if ".lora_A." in name:
            up = state[name.replace(".lora_A.", ".lora_B.")]
            own = name.removeprefix(PREFIX).split(".lora_A.")[0] + ".weight"
            change = (up.float() @ down.float()) * (config.lora_alpha / config.r)
            merged[own] = (merged[own].float() + change).to(merged[own].dtype)
    return merged
