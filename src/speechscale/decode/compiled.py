"""A compiled step, for long work on one model: the same reading as `lean`, its operations fused.

Enters: a model that `lean.is_lean` knows. Leaves: steppers whose `advance` is one compiled call. The one decision worth
knowing: compiling costs tens of seconds for every new number of rows or size of the cache, so sizes are rounded up and
rows that ended stay in the batch; it pays from some thousand steps on, and is off unless asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from speechscale.decode.lean import LeanStepper, is_lean
from speechscale.errors import DataError

CAPACITY_STEP = 256
"""Tokens; caches are multiples of it, so that few sizes are compiled."""


class CompiledSteps:
    """Compiled steps of one model, kept over calls; the weights are those it has now.

    Example: steps = CompiledSteps(model); continuations(..., compiled=steps)

    Raises:
        DataError: a kind of model that has no lean reading.
    """

    def __init__(self, model: Any) -> None:
        if not is_lean(model):
            raise DataError(
                f"models of the kind '{model.config.model_type}' cannot be compiled here; decode without it"
            )
        self.model = model
        self.most = int(model.config.max_position_embeddings)
        self.made: dict[int, CompiledStepper] = {}

    def stepper(self, capacity: int) -> CompiledStepper:
        """A stepper whose rows hold at least so many tokens."""
        rounded = min(self.most, -(-capacity // CAPACITY_STEP) * CAPACITY_STEP)
        if rounded not in self.made:
            self.made[rounded] = CompiledStepper(self.model, rounded)
        return self.made[rounded]


class CompiledStepper(LeanStepper):
    """`LeanStepper` with one compiled call per step; see `steppers.Stepper`."""

    shrinks = False

    def __init__(self, model: Any, capacity: int) -> None:
        super().__init__(model, capacity)
        self.rooms: dict[int, list[tuple[Tensor, Tensor]]] = {}
        # On a GPU whole steps become graphs, which want their caches to stay where they are.
        mode = "reduce-overhead" if self.embedding.is_cuda else None
        self.step = torch.compile(self._step, mode=mode, dynamic=False)

    def prefill(self, prompts: Sequence[Int[np.ndarray, " tokens"]]) -> Float[Tensor, "B d"]:
        hidden = super().prefill(prompts)
        self._settle()
        return hidden

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        super().keep(rows)
        self._settle()

    def _settle(self) -> None:
        """Move the caches to where those of so many rows always lie."""
        rows = len(self.lengths)
        if rows not in self.rooms:
            self.rooms[rows] = [(keys.clone(), values.clone()) for keys, values in self.cache]
            for pair in self.rooms[rows]:
                for table in pair:
                    torch._dynamo.mark_static_address(table)
        for here, there in zip(self.rooms[rows], self.cache, strict=True):
            for table, now in zip(here, there, strict=True):
                table.copy_(now)
        self.cache = self.rooms[rows]

    def advance(self, tokens: Int[Tensor, " B"]) -> Float[Tensor, "B d"]:
        hidden: Tensor = self.step(tokens, self.lengths, self.rows, self.cache)
        self.lengths = self.lengths + 1
        self.longest += 1
        return hidden.clone()

    def _step(
        self,
        tokens: Int[Tensor, " B"],
        lengths: Int[Tensor, " B"],
        rows: Int[Tensor, " B"],
        cache: list[tuple[Tensor, Tensor]],
    ) -> Float[Tensor, "B d"]:
        s, batch = self.shape, tokens.shape[0]
        x = functional.embedding(tokens, self.embedding)
        cos, sin = self.cos[lengths, None], self.sin[lengths, None]
        mask = (torch.arange(s.capacity, device=x.device) <= lengths[:, None])[:, None, None]
        for block, (keys, values) in zip(self.blocks, cache, strict=True):
            q, k, v = block.projected(x, s, cos, sin)
            keys[rows, :, lengths], values[rows, :, lengths] = k, v
            heard = functional.scaled_dot_product_attention(
                q.view(batch, s.kv_heads, -1, s.head), keys, values, mask, scale=s.scale
            )
            x = block.closed(x, heard.reshape(batch, s.heads * s.head), self.act, s)
        return functional.rms_norm(x, (s.width,), self.norm, s.eps)
