"""The loss law where tokens repeat: later epochs and parameters beyond what the unique tokens fill count for less.

Enters: a `LossLaw`, two decay constants, N, D and U (unique tokens there are). Leaves: losses and optima.
The one decision worth knowing: as long as D <= U and N <= U_N (the optimal size for U), this law is its base law.

Source: Muennighoff et al. 2023, equations 5 to 7 and appendix A (the clamps); Cuervo & Marxer 2024, equations 7 and 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from speechscale.errors import DataError
from speechscale.scaling.laws import FLOPS_PER_PARAM_TOKEN, LossLaw, Numbers, Optimum

_GRID = 361  # sizes per search: steps of 6 % over nine decades
_BELOW, _ABOVE = 1e3, 1e6  # decades searched around the optimum without repeats
_GOLDEN = (np.sqrt(5.0) - 1) / 2
_REFINEMENTS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatLaw:
    """L = E + A / N'^alpha + B / D'^beta, with N' and D' the worth of N parameters and of D tokens of which U differ.

    The fields, and those of `base`, may be arrays of one shape (bootstrap replicates).

    Example: RepeatLaw(base=LossLaw(E=1.73, A=13.9, B=39.8, alpha=.25, beta=.24), R_N=31, R_D=25)

    Args:
        R_N: excess parameters, in units of U_N, whose worth has fallen by 1 - 1/e. R_D: the same of repeats of U.
    """

    base: LossLaw
    R_N: Any
    R_D: Any

    def params_for(self, U: Numbers) -> Any:
        """U_N, the optimal size for U tokens seen once. Example: 10.89e9 units under Cuervo's speech law -> 7.57e7"""
        law = self.base
        return law.G * (U * law.G) ** (law.beta / law.alpha)

    def worth(self, N: Numbers, D: Numbers, U: Numbers) -> tuple[Any, Any]:
        """N' and D': the parameters, and the tokens seen once, that would do the same."""
        unique_params = np.minimum(self.params_for(U), N)
        unique_tokens = np.minimum(U, D)
        excess = np.maximum(N / unique_params - 1, 0)
        repeats = np.maximum(D / unique_tokens - 1, 0)
        params = unique_params * (1 - self.R_N * np.expm1(-excess / self.R_N))
        tokens = unique_tokens * (1 - self.R_D * np.expm1(-repeats / self.R_D))
        return params, tokens

    def predict(self, N: Numbers, D: Numbers, U: Numbers) -> Any:
        """Return the loss (nats per token) of N parameters trained on D tokens, U unique ones repeated as needed."""
        return self.base.predict(*self.worth(N, D, U))

    def optimum(self, C: Numbers, U: Numbers, max_epochs: float | None = None) -> Optimum:
        """Split C FLOPs where only U unique tokens exist, over sizes that need at most `max_epochs` epochs.

        The optimum has no closed form: a grid of sizes, then a golden section between the neighbors of the best.

        Raises:
            DataError: C, U, R_N or R_D is not above 0, `max_epochs` is not, or the base law has no optimum.
        """
        for name, values in (("C", C), ("U", U), ("R_N", self.R_N), ("R_D", self.R_D)):
            if not np.all(np.asarray(values, float) > 0):
                raise DataError(f"optimum with repeats: {name} is {values}; must be above 0")
        if max_epochs is not None and not max_epochs > 0:
            raise DataError(f"optimum with repeats: max_epochs is {max_epochs}; must be above 0")
        start = self.base.optimum(C).params_opt
        shape = np.broadcast_shapes(np.shape(start), np.shape(U), np.shape(self.R_N), np.shape(self.R_D))
        product = np.broadcast_to(np.asarray(C, float) / FLOPS_PER_PARAM_TOKEN, shape)
        smallest = np.zeros(shape) if max_epochs is None else product / (np.asarray(U) * max_epochs)
        low = np.log(np.maximum(start / _BELOW, smallest))
        high = np.log(np.maximum(start, smallest) * _ABOVE)

        def loss(log_params: np.ndarray) -> Any:
            params = np.exp(log_params)
            return self.predict(params, product / params, U)

        shares = np.linspace(0, 1, _GRID).reshape(-1, *(1,) * len(shape))
        grid = low + shares * (high - low)
        best = np.argmin(loss(grid), axis=0)
        step = (high - low) / (_GRID - 1)
        log_params = _golden(loss, low + np.maximum(best - 1, 0) * step, low + np.minimum(best + 1, _GRID - 1) * step)
        params = np.exp(log_params)
        if max_epochs is not None:
            params = np.maximum(params, smallest)
        tokens = product / params
        return Optimum(params_opt=params, tokens_opt=tokens, loss=self.predict(params, tokens, U))


def _golden(loss: Any, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The lowest point between low and high, each entry on its own; the ends are candidates, too."""
    left_end, right_end = low, high
    for _ in range(_REFINEMENTS):
        width = _GOLDEN * (high - low)
        left, right = high - width, low + width
        take_left = loss(left) < loss(right)
        low, high = np.where(take_left, low, left), np.where(take_left, right, high)
    found = (low + high) / 2
    for end in (left_end, right_end):
        found = np.where(loss(end) <= loss(found), end, found)
    return found
