"""One row of a plan: a size, its tokens, hours, epochs and loss under one law.

Enters: a law, a budget, data. Leaves: `Cell`s. The one decision worth knowing: what a choice costs is the compute that
the law's unconstrained optimum would need for the same loss, since percents of loss mean little near the floor E.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from speechscale.errors import DataError
from speechscale.scaling.intervals import Estimate
from speechscale.scaling.laws import FLOPS_PER_PARAM_TOKEN, LossLaw
from speechscale.scaling.planning.candidates import Candidate, Law, base_of, loss_of
from speechscale.scaling.planning.inventory import Inventory, Mixture
from speechscale.scaling.planning.sizes import Available
from speechscale.scaling.repeat import RepeatLaw


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A choice of N and D that spends the budget.

    Args:
        params, tokens: N and D as the law counts them. hours: of speech that the run hears, repeats included; None
            where the law's tokens are not units of speech. epochs: per stream, empty without an inventory.
        loss: nats per token of this law. loss_excess: share above the unconstrained optimum's.
        compute_share: of the budget, with which the unconstrained optimum reaches this loss (1 is the best).
        allowed: within the epoch limit.
    """

    name: str
    params: Estimate
    tokens: Estimate
    hours: float | None
    epochs: dict[str, float]
    loss: Estimate
    loss_excess: Estimate
    compute_share: Estimate
    allowed: bool = True
    warm: bool = False

    @property
    def most_epochs(self) -> float | None:
        return max(self.epochs.values()) if self.epochs else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What all rows of one law share. unique: tokens of the mixture until its first stream repeats, None unknown."""

    candidate: Candidate
    flops: float
    mixture: Mixture
    inventory: Inventory | None
    unique: float | None
    max_epochs: float
    units_per_second: float

    def split(self, law: Law, limited: bool) -> tuple[Any, Any]:
        """N and D of the law's optimum, with the data there is if `limited`."""
        if not limited or self.unique is None:
            best = base_of(law).optimum(self.flops)
            return best.params_opt, best.tokens_opt
        if isinstance(law, RepeatLaw):
            best = law.optimum(self.flops, self.unique, self.max_epochs)
            return best.params_opt, best.tokens_opt
        product = self.flops / FLOPS_PER_PARAM_TOKEN
        size = np.maximum(law.optimum(self.flops).params_opt, product / (self.unique * self.max_epochs))
        return size, product / size


def optimum_cell(at: Situation, *, limited: bool) -> Cell:
    """The law's own choice; `limited` by the data and epochs there are."""
    name = "optimum with this data" if limited else "optimum, data unlimited"
    unique = at.unique if limited else None

    def loss(law: Law) -> Any:
        return loss_of(law, *at.split(law, limited), unique)

    params = at.candidate.of(lambda law: at.split(law, limited)[0])
    tokens = at.candidate.of(lambda law: at.split(law, limited)[1])
    if params.low is not None and params.low == params.high:  # every replicate ends on the epoch limit
        set_by = {"low": None, "high": None, "method": "set by the epoch limit, whatever the constants"}
        params, tokens = (replace(found, **set_by) for found in (params, tokens))  # type: ignore[arg-type]
    return _cell(at, name, params, tokens, loss)


def size_cell(at: Situation, size: Available) -> Cell:
    """One available model trained with the whole budget, repeats priced where the law can."""
    D = at.flops / FLOPS_PER_PARAM_TOKEN / size.params
    fixed = {"low": None, "high": None, "method": "chosen"}
    return _cell(
        at,
        size.name,
        Estimate(value=size.params, **fixed),  # type: ignore[arg-type]
        Estimate(value=D, **fixed),  # type: ignore[arg-type]
        lambda law: loss_of(law, size.params, D, at.unique),
        warm=size.warm,
    )


def _cell(
    at: Situation, name: str, params: Estimate, tokens: Estimate, loss: Callable[[Law], Any], warm: bool = False
) -> Cell:
    D = tokens.value
    rate = at.candidate.tokens_per_unit
    epochs = at.inventory.epochs(D, at.mixture, rate or 1.0) if at.inventory is not None and at.unique else {}
    hours = None if rate is None else D * at.mixture.share("speech") / rate / at.units_per_second / 3600
    return Cell(
        name=name,
        params=params,
        tokens=tokens,
        hours=hours,
        epochs=epochs,
        loss=at.candidate.of(loss),
        loss_excess=at.candidate.of(lambda law: loss(law) / base_of(law).loss_at(at.flops) - 1),
        compute_share=at.candidate.of(lambda law: _compute_share(base_of(law), at.flops, loss(law))),
        allowed=not epochs or max(epochs.values()) <= at.max_epochs * (1 + 1e-9),
        warm=warm,
    )


def _compute_share(law: LossLaw, C: float, loss: Any) -> Any:
    """C' / C with loss_at(C') = loss. Both terms of the optimum fall with C^-g, g = alpha beta / (alpha + beta)."""
    exponent = law.alpha * law.beta / (law.alpha + law.beta)
    excess = (law.loss_at(C) - law.E) / (loss - law.E)
    return np.minimum(excess, 1.0) ** (1 / exponent)


def best_size(cells: tuple[Cell, ...]) -> Cell | None:
    """The size with the lowest loss among those within the epoch limit, None where none is."""
    allowed = [cell for cell in cells if cell.allowed]
    return min(allowed, key=lambda cell: cell.loss.value) if allowed else None


def checked_epochs(max_epochs: float) -> float:
    """Raises DataError where the limit is below one pass."""
    if not (np.isfinite(max_epochs) and max_epochs >= 1):
        raise DataError(f"epochs at most {max_epochs}: must be a number of at least 1")
    return float(max_epochs)
