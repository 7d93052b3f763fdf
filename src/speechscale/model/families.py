"""Families of decoders: what tells their parameters apart.

Enters: the name of a family. Leaves: its `Traits`. The one decision worth knowing: a family is a row of traits, so that
counting needs one formula; the tests hold it equal to the transformers class of every family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["llama", "qwen2", "qwen3", "gpt_neox", "opt", "gemma", "gemma2", "gemma3", "phi"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a family has.

    Args:
        gated: the feed-forward network multiplies by a gate (three matrices, not two).
        biases: of linear layers: on none, on queries, keys and values, or on all.
        norms: per block. norm_bias: they have a bias (LayerNorm). qk_norm: queries and keys have one of their own.
        head_bias: the output head has a bias. learned_positions: a table instead of rotary positions.
        full_every: every n-th layer looks back without end, the others through a window; 1: all do.
        tied: whether the released models share the rows of embedding and head.
    """

    gated: bool = True
    biases: Literal["none", "qkv", "all"] = "none"
    norms: int = 2
    norm_bias: bool = False
    qk_norm: bool = False
    head_bias: bool = False
    learned_positions: bool = False
    full_every: int = 1
    tied: bool = True


TRAITS: dict[str, Traits] = {
    "llama": Traits(),
    "qwen2": Traits(biases="qkv"),
    "qwen3": Traits(qk_norm=True),
    "gpt_neox": Traits(gated=False, biases="all", norm_bias=True, tied=False),
    "opt": Traits(gated=False, biases="all", norm_bias=True, learned_positions=True),
    "gemma": Traits(),
    "gemma2": Traits(norms=4, full_every=2),
    "gemma3": Traits(norms=4, qk_norm=True, full_every=6),
    "phi": Traits(gated=False, biases="all", norms=1, norm_bias=True, head_bias=True, tied=False),
}
"""SmolLM and Llama 3 are "llama", Qwen2.5 is "qwen2", Pythia is "gpt_neox"."""
