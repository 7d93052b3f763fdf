"""Checkpoints of other tools with random weights, written from their public descriptions and not by our own code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from speechscale.model.shape import Size
from speechscale.model.slm import new_model

SHARD = "model-{:05}-of-{:05}.safetensors"
INDEX = "model.safetensors.index.json"


def small(rows: int, family: str = "llama", tied: bool = True, seed: int = 0, context: int = 64) -> Any:
    """A small random model of a real transformers class."""
    size = Size(
        name="t",
        layers=2,
        dim=32,
        heads=4,
        kv_heads=4,
        ffn=64,
        family=family,  # type: ignore[arg-type]
        tied=tied,
        positions=context if family == "opt" else 0,
    )
    return new_model(size, rows, context, seed=seed).eval()


def state_of(model: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    """Weights as `save_pretrained` names them: a tied head is left out, that of GPT-NeoX is called embed_out."""
    tied = set(model._tied_weights_keys or ()) if model.config.tie_word_embeddings else set()
    state = {name: weight.clone() for name, weight in model.state_dict().items() if name not in tied}
    if model.config.model_type == "gpt_neox":
        state["embed_out.weight"] = state.pop("lm_head.weight")
    return {prefix + name: weight for name, weight in state.items()}


def write_shards(folder: Path, state: dict[str, torch.Tensor], shards: int) -> None:
    """One file, or shards with their index."""
    if shards == 1:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return
    table = {}
    for index in range(shards):
        name = SHARD.format(index + 1, shards)
        part = {key: state[key] for key in list(state)[index::shards]}
        save_file(part, folder / name, metadata={"format": "pt"})
        table |= dict.fromkeys(part, name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": table}))


def slamkit(model: Any, folder: Path, shards: int = 2, **outer: Any) -> Path:
    """A checkpoint of type `speech_language_model`: inner weights under `lm.`, the base model's own vocabulary size."""
    folder.mkdir()
    base = model.config.to_dict() | {"vocab_size": 999}
    values = {
        "model_type": "speech_language_model",
        "base_model_name": "x/y",
        "base_config": base,
        "vocab_size": model.config.vocab_size,
    }
    (folder / "config.json").write_text(json.dumps(values | outer))
    write_shards(folder, state_of(model, "lm."), shards)
    return folder


def stock(model: Any, folder: Path, shards: int = 1, **config: Any) -> Path:
    """A stock folder without tokenizer."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(model.config.to_dict() | config))
    write_shards(folder, state_of(model), shards)
    return folder
