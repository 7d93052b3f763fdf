"""Choose one token per row from hidden states.

Enters: hidden states, the head of a model, a grammar, settings. Leaves: token ids, and each row's state. The one
decision worth knowing: only the rows of the output matrix that may be chosen are ever multiplied, so the other modality
cannot come out, and a large text vocabulary costs nothing while speech is generated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from speechscale.decode.grammar import Grammar
from speechscale.decode.settings import Decoding
from speechscale.errors import DataError
from speechscale.model.anatomy import Head

VIEW_FROM = 0.9
"""Share of a range of rows that must be candidates for the range to be used as it is, without a copy."""

LARGEST = float(torch.finfo(torch.float32).max)
"""No penalty makes a logit larger: an infinite one has no probability."""


class Chooser:
    """Draws tokens; holds what a draw depends on beside the logits: each row's state and what it has said."""

    def __init__(
        self,
        head: Head,
        grammar: Grammar,
        settings: Decoding,
        prompts: Sequence[Int[np.ndarray, " tokens"]],
        states: Int[np.ndarray, " B"],
    ) -> None:
        device = head.weight.device
        ids, offered = _range_or_rows(grammar.ids)
        self.settings, self.ids = settings, torch.from_numpy(ids).to(device)
        self.head = _head_rows(head, ids, self.ids)
        self.top_k = None if settings.top_k is None or settings.top_k >= len(grammar.ids) else settings.top_k
        columns = np.flatnonzero(offered)
        allowed = np.zeros((1 if grammar.allowed is None else len(grammar.allowed), len(ids)), bool)
        allowed[:, columns] = True if grammar.allowed is None else grammar.allowed
        ends = np.zeros(len(ids), bool)
        ends[columns] = grammar.ends
        leads = np.zeros(len(ids), np.int64)
        if grammar.leads is not None:
            leads[columns] = grammar.leads
        self.ends = torch.from_numpy(ends).to(device)
        self.leads = torch.from_numpy(leads).to(device)
        self.refused = torch.from_numpy(~allowed).to(device)  # (states, candidates)
        self.all_allowed = bool(allowed.all())
        self.states = torch.from_numpy(states).to(device)
        self.said = self._said(prompts) if settings.repetition_penalty != 1 else None

    def _said(self, prompts: Sequence[Int[np.ndarray, " tokens"]]) -> Bool[torch.Tensor, "B candidates"]:
        ids = self.ids.cpu().numpy()
        said = np.stack([np.isin(ids, prompt) for prompt in prompts])
        return torch.from_numpy(said).to(self.ids.device)

    def keep(self, rows: Int[torch.Tensor, " kept"]) -> None:
        """Forget all other rows."""
        self.states = self.states[rows]
        if self.said is not None:
            self.said = self.said[rows]

    def __call__(
        self,
        hidden: Float[torch.Tensor, "B d"],
        noise: Float[torch.Tensor, " B"],
        step: int,
        prompts: Int[torch.Tensor, " B"],
    ) -> tuple[Int[torch.Tensor, " B"], Bool[torch.Tensor, " B"]]:
        """Token ids, and which of them end their row.

        Args:
            noise: one number in [0, 1) per row. step: tokens each row has already. prompts: their numbers, for a
                message.

        Raises:
            DataError: logits that are not finite.
        """
        logits = self.head.logits(hidden).float()  # (B, candidates)
        if not torch.isfinite(logits.sum()):
            _require_finite(logits, prompts)
        logits = self._shaped(logits, step)
        places = logits.argmax(dim=1) if self.settings.temperature == 0 else self._drawn(logits, noise)
        if self.said is not None:
            self.said.scatter_(1, places[:, None], True)
        self.states = self.leads[places]
        return self.ids[places], self.ends[places]

    def _shaped(self, logits: Float[torch.Tensor, "B V"], step: int) -> Float[torch.Tensor, "B V"]:
        """Lower what was said, then rule out what the grammar or the shortest length does."""
        penalty = self.settings.repetition_penalty
        if self.said is not None:
            lowered = torch.where(logits > 0, logits / penalty, logits * penalty).clamp(-LARGEST, LARGEST)
            logits = torch.where(self.said, lowered, logits)
        if not self.all_allowed:
            logits = logits.masked_fill(self.refused[self.states], -torch.inf)
        if step < self.settings.min_new_tokens:
            logits = logits.masked_fill(self.ends, -torch.inf)
        return logits

    def _drawn(self, logits: Float[torch.Tensor, "B V"], noise: Float[torch.Tensor, " B"]) -> Int[torch.Tensor, " B"]:
        logits = logits.double()
        logits = (logits - logits.amax(dim=1, keepdim=True)) / self.settings.temperature  # 0 at most: never inf - inf
        top_p, min_p = self.settings.top_p, self.settings.min_p
        if self.top_k is None and top_p is None and min_p is None:
            return _inverted(torch.softmax(logits, dim=1), noise)
        if self.top_k is None:
            ranked, order = torch.sort(logits, dim=1, descending=True, stable=True)
        else:
            ranked, order = torch.topk(logits, self.top_k, dim=1)
        weights = torch.softmax(ranked, dim=1)
        if top_p is not None:
            before = weights.cumsum(dim=1) - weights
            weights[:, 1:][before[:, 1:] >= top_p] = 0
        if min_p is not None:
            weights[weights < min_p * weights[:, :1]] = 0
        return order.gather(1, _inverted(weights, noise)[:, None])[:, 0]


def _require_finite(logits: Float[torch.Tensor, "B V"], prompts: Int[torch.Tensor, " B"]) -> None:
    finite = torch.isfinite(logits).all(dim=1)
    if not finite.all():
        raise DataError(
            f"prompt {int(prompts[~finite][0])}: the model gives logits that are not finite; its weights diverged; "
            "use an earlier checkpoint or a lower learning rate"
        )


def _range_or_rows(candidates: Int[np.ndarray, " candidates"]) -> tuple[np.ndarray, np.ndarray]:
    """Ids whose rows are multiplied, and which of them are candidates: a whole range where candidates fill it."""
    whole = np.arange(candidates[0], candidates[-1] + 1)
    if len(candidates) < VIEW_FROM * len(whole):
        return candidates, np.ones(len(candidates), bool)
    return whole, np.isin(whole, candidates)


def _head_rows(head: Head, ids: np.ndarray, rows: Int[torch.Tensor, " candidates"]) -> Head:
    """The head with these rows alone; a range is a view."""
    index = slice(int(ids[0]), int(ids[-1]) + 1) if len(ids) == ids[-1] - ids[0] + 1 else rows
    bias = None if head.bias is None else head.bias.detach()[index]
    return head._replace(weight=head.weight.detach()[index], bias=bias)


def _inverted(weights: Float[torch.Tensor, "B V"], noise: Float[torch.Tensor, " B"]) -> Int[torch.Tensor, " B"]:
    """Invert the cumulative sum at `noise`; an entry of weight 0 is never drawn."""
    cumulative = weights.cumsum(dim=1)
    total = cumulative[:, -1]
    below = torch.minimum(noise * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, below[:, None], right=True)[:, 0]
