"""Compute C of a training run: the only place that turns sizes and tokens into FLOPs.

Enters: a `Size`, a vocabulary, a context. Leaves: FLOPs per training token under each convention, and tokens that a
budget buys. The one decision worth knowing: the exact count charges the output head and causal attention (half of the
square), which a miniature cannot neglect: at 0.02M parameters and 450 ids the head alone costs 0.7 of the body.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from speechscale.errors import DataError
from speechscale.model.sizes import Size, params

Convention = Literal["exact", "6nd_total", "6nd_non_embedding", "6nd_head", "6nd_attention"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """FLOPs of one training token (forward and backward) under each convention.

    Args:
        flops_6nd_total: 6 N with embeddings (SIMS). flops_6nd_non_embedding: 6 N without (Cuervo, Kaplan).
        flops_6nd_head: 6 (N without embeddings + V r): the body and the output head of V rows, r wide; the input
            look-up multiplies nothing. Equal to 6nd_total where one table is both, unless positions are learned.
        flops_6nd_attention: 6 N with embeddings + 12 L q T: scores and sums of attention over the full T x T square of
            every layer, windows or not; q = heads x head width (Cuervo's released formula of utilization).
        flops_exact: matrix products that are really needed; see `flops_per_token`.

    Source: Porian et al. 2024 (head); Kaplan et al. 2020, Table 1, times 3 (attention).
    """

    flops_6nd_total: float
    flops_6nd_non_embedding: float
    flops_6nd_head: float
    flops_6nd_attention: float
    flops_exact: float

    def of(self, convention: Convention) -> float:
        """The figure of one convention."""
        figure: float = getattr(self, f"flops_{convention}")
        return figure

    def times(self, tokens: float) -> Flops:
        """The cost of `tokens` tokens."""
        return Flops(**{field.name: getattr(self, field.name) * tokens for field in fields(self)})


def flops_per_token(
    size: Size,
    vocab: int,
    context: int,
    *,
    attention: Literal["causal", "full"] = "causal",
    frozen_body: bool = False,
    adapter_params: int = 0,
) -> Flops:
    """Count the FLOPs of one training token: 2 forward + 4 backward per weight that multiplies it.

    exact = 6 (M + V r) + 12 L q T/2, where M counts the weights of attention, feed-forward and projections (no norms,
    biases or embedding look-up), V r the output head with rows of width r, and the last term attention scores and sums
    (q = heads x head width) over half of a row of T tokens; a layer with a window w < T sees w - w^2 / 2T of them.
    A row of packed documents is charged like one document of length T, so masked-out pairs are in the price.
    Softmax, norms, rotary positions and the optimizer are left out.

    Args:
        vocab: rows of the output head. context: T, tokens per row.
        attention: "full" charges the whole T x T square in every layer, as FLOP counters do.
        frozen_body: the body's weights are not trained, only the rows and adapters: its weights cost 4 instead of 6,
            because gradients pass through them but none is made for them. Conventions of 6 N stay as they are.
        adapter_params: weights of adapters (LoRA), 6 each.

    Source: Kaplan et al. 2020, Table 1, times 3 for training; it leaves out the head, which is added here.
    """
    count = params(size, vocab)
    if attention == "full":
        seen = size.layers * float(context)
    else:
        window = min(size.window or context, context)
        seen = (size.layers - size.windowed_layers) * context / 2
        seen += size.windowed_layers * (window - window**2 / (2 * context))
    body = (4 if frozen_body else 6) * size.matmul_params + 6 * adapter_params
    return Flops(
        flops_6nd_total=6.0 * count.total,
        flops_6nd_non_embedding=6.0 * count.non_embedding,
        flops_6nd_head=6.0 * (count.non_embedding + vocab * size.row_dim),
        flops_6nd_attention=6.0 * count.total + 12.0 * size.layers * size.q_dim * context,
        flops_exact=body + 6.0 * vocab * size.row_dim + 12 * size.q_dim * seen,
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
