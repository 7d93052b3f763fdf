"""Run a model token by token, with what it has seen kept.

Enters: a transformers causal language model, prompts. Leaves: hidden states of the newest tokens. The one decision
worth knowing: every row has its own length and place in the cache, so a row does not depend on its neighbors' lengths,
and one row can forget its past while the others go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from transformers import DynamicCache

from speechscale.decode.lean import LeanStepper, is_lean
from speechscale.errors import DataError
from speechscale.model.anatomy import body_of

Prompts = Sequence[Int[np.ndarray, " tokens"]]


class Stepper(Protocol):
    """What decoding needs of a model. Rows are numbered 0 .. B - 1. shrinks: fewer rows are less work."""

    shrinks: bool

    def prefill(self, prompts: Prompts) -> Float[torch.Tensor, "B d"]:
        """Read prompts, one per row; the hidden state of each one's last token."""

    def advance(self, tokens: Int[torch.Tensor, " B"]) -> Float[torch.Tensor, "B d"]:
        """Read one more token per row."""

    def keep(self, rows: Int[torch.Tensor, " kept"]) -> None:
        """Go on with these rows alone, in this order; a row may come several times."""

    def refill(self, row: int, ids: Int[np.ndarray, " tokens"]) -> None:
        """Forget what a row has seen, and read these tokens instead."""


def stepper_of(model: Any, capacity: int) -> Stepper:
    """The fastest stepper that a model allows.

    Args:
        capacity: tokens that a row may hold.
    """
    return LeanStepper(model, capacity) if is_lean(model) else StockStepper(model)


class StockStepper:
    """Runs the transformers body with its own cache; prompts are padded on the left."""

    shrinks = True

    def __init__(self, model: Any) -> None:
        self.model, self.body = model, body_of(model)
        self._clear(0)

    def _clear(self, rows: int) -> None:
        self.cache = DynamicCache(config=self.model.config)
        self.padding = torch.zeros(rows, dtype=torch.long, device=self.model.device)
        self.ragged, self.seen = False, 0

    def prefill(self, prompts: Prompts) -> Float[torch.Tensor, "B d"]:
        self._clear(len(prompts))
        lengths = np.array([len(prompt) for prompt in prompts])
        width = int(lengths.max())
        ids = np.zeros((len(prompts), width), np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = prompt
        self.padding = torch.from_numpy(width - lengths).to(self.model.device)
        self.ragged = bool((lengths != width).any())
        return self._run(torch.from_numpy(ids).to(self.model.device))

    def advance(self, tokens: Int[torch.Tensor, " B"]) -> Float[torch.Tensor, "B d"]:
        return self._run(tokens[:, None])

    def keep(self, rows: Int[torch.Tensor, " kept"]) -> None:
        self.cache.batch_select_indices(rows)
        self.padding = self.padding[rows]

    def refill(self, row: int, ids: Int[np.ndarray, " tokens"]) -> None:
        if len(self.padding) != 1:
            raise DataError(
                f"models of the kind '{self.model.config.model_type}' forget their past one prompt at a time; give "
                "prompts singly"
            )
        self.prefill([ids])

    def _run(self, ids: Int[torch.Tensor, "B T"]) -> Float[torch.Tensor, "B d"]:
        before, self.seen = self.seen, self.seen + ids.shape[1]
        extra: dict[str, torch.Tensor] = {}
        if self.ragged:
            columns = torch.arange(self.seen, device=ids.device)
            extra["attention_mask"] = (columns >= self.padding[:, None]).long()
            extra["position_ids"] = (columns[before:] - self.padding[:, None]).clamp(min=0)
        output = self.body(input_ids=ids, past_key_values=self.cache, use_cache=True, **extra)
        hidden: torch.Tensor = output.last_hidden_state[:, -1]
        return hidden
