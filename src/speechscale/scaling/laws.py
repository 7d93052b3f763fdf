"""The laws themselves: loss against parameters and tokens, and plain power laws of compute.

Enters: constants, N (parameters), D (tokens), C (FLOPs). Leaves: losses, optima, exponents.
The one decision worth knowing: C = 6 N D everywhere in this module, with N and D counted as the law's own data counted
them; `published.py` states the counting rule beside each published set of constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError

FLOPS_PER_PARAM_TOKEN = 6.0
"""Training FLOPs per parameter and token, forward and backward."""

Numbers = float | Float[np.ndarray, "*points"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimum:
    """The best split of a budget: parameters, tokens and the loss they reach (nats per token)."""

    params_opt: Any
    tokens_opt: Any
    loss: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LossLaw:
    """L(N, D) = E + A / N^alpha + B / D^beta, in nats per token.

    The fields may be arrays of one shape (bootstrap replicates); every method then broadcasts.

    Example: LossLaw(E=1.73, A=13.9, B=39.8, alpha=.25, beta=.24).optimum(1e18).params_opt -> 3.459e7

    Source: Hoffmann et al. 2022, equations 2 and 4; Cuervo & Marxer 2024, equations 4 to 6.
    """

    E: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any

    def predict(self, N: Numbers, D: Numbers) -> Any:
        """Return the loss of N parameters trained on D tokens, each token seen once."""
        return self.E + self.A / np.power(N, self.alpha) + self.B / np.power(D, self.beta)

    @property
    def exp_params(self) -> Any:
        """a in N_opt ~ C^a; near 1 means: spend on size."""
        return self.beta / (self.alpha + self.beta)

    @property
    def exp_tokens(self) -> Any:
        """b in D_opt ~ C^b, with a + b = 1."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def G(self) -> Any:
        """(alpha A / beta B)^(1 / (alpha + beta)), the prefactor of N_opt."""
        return (self.alpha * self.A / (self.beta * self.B)) ** (1.0 / (self.alpha + self.beta))

    def optimum(self, C: Numbers) -> Optimum:
        """Split C FLOPs so that the loss is lowest under 6 N D = C.

        Raises:
            DataError: C is not positive, or A, B, alpha, beta are not (such a law has no optimum).
        """
        if not np.all(np.asarray(C) > 0):
            raise DataError(f"compute {C}: must be above 0 FLOPs")
        if not all(np.all(np.asarray(x) > 0) for x in (self.A, self.B, self.alpha, self.beta)):
            raise DataError(f"{self}: A, B, alpha, beta must all be above 0 for an optimum; refit on a wider grid")
        product = np.asarray(C) / FLOPS_PER_PARAM_TOKEN
        with np.errstate(over="ignore", divide="ignore"):  # a wild replicate's optimum may lie beyond the largest float
            params_opt = self.G * product**self.exp_params
            tokens_opt = product**self.exp_tokens / self.G
            return Optimum(params_opt=params_opt, tokens_opt=tokens_opt, loss=self.predict(params_opt, tokens_opt))

    def loss_at(self, C: Numbers) -> Any:
        """Return the lowest loss that C FLOPs can reach."""
        return self.optimum(C).loss


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLaw:
    """y = k C^gamma. Example: PowerLaw(k=.372, gamma=.0181).predict(6.86e20) -> 0.886"""

    k: Any
    gamma: Any

    def predict(self, C: Numbers) -> Any:
        return self.k * np.power(C, self.gamma)
