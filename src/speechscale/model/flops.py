"""Compute C of a training run: the only place that turns sizes and tokens into FLOPs.

Enters: a `Size`, a vocabulary, a context. Leaves: FLOPs per training token under each convention, and tokens that a
budget buys. The one decision worth knowing: the exact count charges the output head and causal attention (half of the
square), which a miniature cannot neglect: at 0.02M parameters and 450 ids the head alone costs 0.7 of the body.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from speechscale.errors import DataError
from speechscale.model.sizes import Size, params

Convention = Literal["6nd_total", "6nd_non_embedding", "exact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """FLOPs of one training token (forward and backward) under each convention.

    Args:
        flops_6nd_total: 6 N with embeddings (SIMS). flops_6nd_non_embedding: 6 N without (Cuervo, Kaplan).
        flops_exact: matrix products that are really needed; see `flops_per_token`.
    """

    flops_6nd_total: float
    flops_6nd_non_embedding: float
    flops_exact: float

    def of(self, convention: Convention) -> float:
        """The figure of one convention."""
        return {
            "6nd_total": self.flops_6nd_total,
            "6nd_non_embedding": self.flops_6nd_non_embedding,
            "exact": self.flops_exact,
        }[convention]

    def times(self, tokens: float) -> Flops:
        """The cost of `tokens` tokens."""
        return Flops(
            flops_6nd_total=self.flops_6nd_total * tokens,
            flops_6nd_non_embedding=self.flops_6nd_non_embedding * tokens,
            flops_exact=self.flops_exact * tokens,
        )


def flops_per_token(size: Size, vocab: int, context: int, *, attention: Literal["causal", "full"] = "causal") -> Flops:
    """Count the FLOPs of one training token: 2 forward + 4 backward per weight that multiplies it.

    exact = 6 (M + V d) + 6 L T d, where M counts the weights of the projections and feed-forward (no norms, biases or
    embedding look-up), V d the output head, and the last term attention scores and sums over half of a row of T tokens.
    A row of packed documents is charged like one document of length T, so masked-out pairs are in the price.
    Softmax, norms, rotary positions and the optimizer are left out.

    Args:
        vocab: rows of the output head. context: T, tokens per row.
        attention: "full" charges the whole T x T square, as FLOP counters do.

    Source: Kaplan et al. 2020, Table 1, times 3 for training; it leaves out the head, which is added here.
    """
    count = params(size, vocab)
    square = 12 * size.layers * context * size.dim
    return Flops(
        flops_6nd_total=6.0 * count.total,
        flops_6nd_non_embedding=6.0 * count.non_embedding,
        flops_exact=6.0 * (size.matmul_params + vocab * size.dim) + square / (2 if attention == "causal" else 1),
    )


def tokens_for_budget(budget_flops: float, per_token_flops: float) -> int:
    """Count the tokens that a budget buys, rounded down.

    Raises:
        DataError: the budget does not buy a single token.
    """
    tokens = int(budget_flops / per_token_flops)
    if tokens < 1:
        raise DataError(
            f"a budget of {budget_flops:.3g} FLOPs buys no token at {per_token_flops:.3g} FLOPs each; "
            "raise the budget or take a smaller size"
        )
    return tokens
