"""A lean reading of Llama, Qwen2 and Qwen3: the same numbers as transformers, a third of the operations.

Enters: a transformers model of one of these kinds. Leaves: hidden states, token by token. The one decision worth
knowing: small models spend their time on the number of operations, not on arithmetic: projections that read the same
input are one product, keys and values stand in a cache made once, and a step makes no mask where rows are equally long.

Source: Touvron et al. 2023 (Llama), Qwen team 2024 and 2025; a test holds the numbers against transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers.activations import ACT2FN

from speechscale.model.anatomy import window_of

KINDS = ("llama", "qwen2", "qwen3")
ROPES = ("default", "linear", "llama3", "yarn")
"""Rotations that do not depend on how long a text has become."""
JOIN_BELOW = 100_000_000
"""Parameters up to which projections are joined, which copies them; above, an operation costs nothing beside them."""


def is_lean(model: Any) -> bool:
    """Whether `LeanStepper` reads this model as transformers does."""
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in KINDS
        and not hasattr(model, "peft_config")
        and rope.get("rope_type", "default") in ROPES
        and window_of(model) is None
        and getattr(config, "pretraining_tp", 1) == 1
    )


class LeanStepper:
    """Reads prompts and then one token per row and step; see `steppers.Stepper`."""

    shrinks = True

    def __init__(self, model: Any, capacity: int) -> None:
        self.shape = _Shape.of(model, capacity)
        body, join = model.base_model, sum(p.numel() for p in model.parameters()) < JOIN_BELOW
        self.embedding = body.embed_tokens.weight.detach()
        self.blocks = [_Block.of(layer, join) for layer in body.layers]
        self.norm, self.act = body.norm.weight.detach(), ACT2FN[model.config.hidden_act]
        self.cos, self.sin = _rotation(body.rotary_emb, self.embedding, capacity)
        self.cache: list[tuple[Tensor, Tensor]] = []  # per block keys, values (B, K, capacity, h)
        self.lengths = torch.zeros(0, dtype=torch.long)
        self.equal = True

    def prefill(self, prompts: Sequence[Int[np.ndarray, " tokens"]]) -> Float[Tensor, "B d"]:
        """Padding stands behind each prompt, where causal attention does not see it and new tokens overwrite it."""
        device, s = self.embedding.device, self.shape
        lengths = np.array([len(prompt) for prompt in prompts])
        ids = np.zeros((len(prompts), int(lengths.max())), np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = prompt
        table = (len(prompts), s.kv_heads, s.capacity, s.head)
        self.cache = [(self.embedding.new_zeros(table), self.embedding.new_zeros(table)) for _ in self.blocks]
        self._measure(lengths)
        return self._read(torch.from_numpy(ids).to(device), slice(None))

    def refill(self, row: int, ids: Int[np.ndarray, " tokens"]) -> None:
        lengths = self.lengths.cpu().numpy().copy()
        lengths[row] = len(ids)
        self._measure(lengths)
        self._read(torch.from_numpy(np.asarray(ids, np.int64))[None].to(self.embedding.device), slice(row, row + 1))

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        self.cache = [(keys[rows], values[rows]) for keys, values in self.cache]
        self._measure(self.lengths[rows].cpu().numpy())

    def _measure(self, lengths: Int[np.ndarray, " B"]) -> None:
        self.lengths = torch.from_numpy(lengths.astype(np.int64)).to(self.embedding.device)
        self.longest, self.equal = int(lengths.max()), bool((lengths == lengths[0]).all())
        self.rows = torch.arange(len(lengths), device=self.embedding.device)

    def _read(self, ids: Int[Tensor, "B T"], rows: slice) -> Float[Tensor, "B d"]:
        """Read whole rows from their start; the hidden state of each one's last token."""
        s, (batch, tokens) = self.shape, ids.shape
        x = functional.embedding(ids, self.embedding)
        cos, sin = self.cos[:tokens, None], self.sin[:tokens, None]  # (T, 1, h)
        for block, (keys, values) in zip(self.blocks, self.cache, strict=True):
            q, k, v = block.projected(x, s, cos, sin)  # (B, T, heads, h)
            keys[rows, :, :tokens], values[rows, :, :tokens] = k.transpose(1, 2), v.transpose(1, 2)
            heard = functional.scaled_dot_product_attention(
                q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True, scale=s.scale, enable_gqa=True
            )
            x = block.closed(x, heard.transpose(1, 2).reshape(batch, tokens, s.heads * s.head), self.act, s)
        last = x[torch.arange(batch, device=x.device), self.lengths[rows] - 1]
        return functional.rms_norm(last, (s.width,), self.norm, s.eps)

    def advance(self, tokens: Int[Tensor, " B"]) -> Float[Tensor, "B d"]:
        s, batch, stop = self.shape, len(tokens), self.longest + 1
        x = functional.embedding(tokens, self.embedding)  # (B, d)
        mask = None
        if self.equal:
            cos, sin = self.cos[self.longest], self.sin[self.longest]  # (h)
        else:
            cos, sin = self.cos[self.lengths, None], self.sin[self.lengths, None]  # (B, 1, h)
            mask = (torch.arange(stop, device=x.device) <= self.lengths[:, None])[:, None, None]
        for block, (keys, values) in zip(self.blocks, self.cache, strict=True):
            q, k, v = block.projected(x, s, cos, sin)  # (B, heads, h)
            if self.equal:
                keys[:, :, self.longest], values[:, :, self.longest] = k, v
            else:
                keys[self.rows, :, self.lengths], values[self.rows, :, self.lengths] = k, v
            heard = functional.scaled_dot_product_attention(  # heads that share keys are rows of one query
                q.view(batch, s.kv_heads, -1, s.head), keys[:, :, :stop], values[:, :, :stop], mask, scale=s.scale
            )
            x = block.closed(x, heard.reshape(batch, s.heads * s.head), self.act, s)
        self.lengths += 1
        self.longest += 1
        return functional.rms_norm(x, (s.width,), self.norm, s.eps)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    width: int
    heads: int
    kv_heads: int
    head: int
    scale: float
    eps: float
    capacity: int

    @classmethod
    def of(cls, model: Any, capacity: int) -> _Shape:
        config, attention = model.config, model.base_model.layers[0].self_attn
        return cls(
            width=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head=attention.head_dim,
            scale=attention.scaling,
            eps=config.rms_norm_eps,
            capacity=capacity,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """The weights of one block. q_norm, k_norm: of Qwen3's heads."""

    norm: Tensor
    qkv: Callable[[Tensor], Tensor]
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: tuple[Tensor, Tensor | None]
    ffn_norm: Tensor
    gate_up: Callable[[Tensor], Tensor]
    down: tuple[Tensor, Tensor | None]

    @classmethod
    def of(cls, layer: Any, join: bool) -> _Block:
        attention, mlp = layer.self_attn, layer.mlp
        norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        return cls(
            norm=layer.input_layernorm.weight.detach(),
            qkv=_product([attention.q_proj, attention.k_proj, attention.v_proj], join),
            q_norm=None if norms[0] is None else norms[0].weight.detach(),
            k_norm=None if norms[1] is None else norms[1].weight.detach(),
            out=_transposed(attention.o_proj, join),
            ffn_norm=layer.post_attention_layernorm.weight.detach(),
            gate_up=_product([mlp.gate_proj, mlp.up_proj], join),
            down=_transposed(mlp.down_proj, join),
        )

    def projected(self, x: Tensor, s: _Shape, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values: (..., heads, h)."""
        mixed = self.qkv(functional.rms_norm(x, (s.width,), self.norm, s.eps))
        parts = mixed.view(*x.shape[:-1], s.heads + 2 * s.kv_heads, s.head)
        both, values = parts[..., : s.heads + s.kv_heads, :], parts[..., s.heads + s.kv_heads :, :]
        if self.q_norm is not None:
            queries = functional.rms_norm(both[..., : s.heads, :], (s.head,), self.q_norm, s.eps)
            keys = functional.rms_norm(both[..., s.heads :, :], (s.head,), self.k_norm, s.eps)
            both = torch.cat([queries, keys], dim=-2)
        both = torch.addcmul(both * cos, both.roll(s.head // 2, -1), sin)
        return both[..., : s.heads, :], both[..., s.heads :, :], values

    def closed(self, x: Tensor, heard: Tensor, act: Callable[[Tensor], Tensor], s: _Shape) -> Tensor:
        """What the block adds: attention's output, then the feed-forward layer's."""
        x = _added(x, heard, self.out)
        gate, up = self.gate_up(functional.rms_norm(x, (s.width,), self.ffn_norm, s.eps)).chunk(2, dim=-1)
        return _added(x, act(gate) * up, self.down)


def _product(layers: Sequence[Any], join: bool) -> Callable[[Tensor], Tensor]:
    """Outputs of linear layers side by side."""
    weights = [layer.weight.detach() for layer in layers]
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    assert len(biases) in (0, len(weights)), "these kinds have all biases or none"
    if join:
        weight, bias = torch.cat(weights).T.contiguous(), torch.cat(biases) if biases else None
        return lambda x: _linear(x, weight, bias)
    pairs = list(zip(weights, biases or [None] * len(weights), strict=True))
    return lambda x: torch.cat([functional.linear(x, weight, bias) for weight, bias in pairs], dim=-1)


def _linear(x: Tensor, weight: Float[Tensor, "d n"], bias: Tensor | None) -> Tensor:
    """A product with a transposed weight; standing so in memory, few rows are multiplied 1.4 times faster."""
    flat = x.reshape(-1, x.shape[-1])
    made = torch.mm(flat, weight) if bias is None else torch.addmm(bias, flat, weight)
    return made.view(*x.shape[:-1], -1)


def _transposed(layer: Any, join: bool) -> tuple[Tensor, Tensor | None]:
    weight = layer.weight.detach().T
    return weight.contiguous() if join else weight, None if layer.bias is None else layer.bias.detach()


def _added(x: Tensor, inputs: Tensor, layer: tuple[Tensor, Tensor | None]) -> Tensor:
    """x + a linear layer of inputs."""
    weight, bias = layer
    flat = torch.addmm(x.reshape(-1, x.shape[-1]), inputs.reshape(-1, inputs.shape[-1]), weight)
    return (flat if bias is None else flat + bias).view(x.shape)


def _rotation(rotary: Any, like: Tensor, capacity: int) -> tuple[Float[Tensor, "T h"], Float[Tensor, "T h"]]:
    """Cosines, and sines with the sign of the half that they multiply."""
    positions = torch.arange(capacity, device=like.device)[None]
    cos, sin = (part[0].to(like.dtype) for part in rotary(like, positions))
    half = sin.shape[1] // 2
    return cos, torch.cat([-sin[:, :half], sin[:, half:]], dim=1)
