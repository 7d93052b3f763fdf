"""Curves of a metric: over compute, and over loss.

Enters: columns C (FLOPs) or L (nats per token), a metric between 0 and 1. Leaves: what `fitting.columns.Form` asks for.
The one decision worth knowing: chance is known and never fitted, and points at or below chance stay in the fit: the
curve is fitted to the metric itself, not to the logarithm of what lies above chance.

Source: Cuervo & Marxer 2024, equation 7 (power); Gadre et al. 2024, equation 5 (exponential in loss).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from speechscale.scaling.fitting.columns import Columns, Theta

_LOWEST = 1e-9  # a metric below it has no logarithm


class _Curve(ABC):
    """A curve in x = log C or L, centered on the runs. theta: see `names`."""

    base = 0
    names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ("L",)

    def __init__(self, x: Columns, values: np.ndarray, *, chance: float) -> None:
        at = self.place(x)
        self.chance = chance
        self.center, self.spread = float(at.mean()), max(float(np.ptp(at)), 1e-9)
        self.low, self.high = self.box(values)

    def place(self, x: Columns) -> Float[np.ndarray, " runs"]:
        return np.log(x["C"]) if self.columns == ("C",) else x["L"]

    @abstractmethod
    def box(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where theta is looked for: lowest, highest."""

    @abstractmethod
    def curve(self, theta: Any, away: Any) -> Any:
        """The metric at a distance from the center, in spreads."""

    @abstractmethod
    def constants(self, theta: Theta) -> dict[str, Float[np.ndarray, " replicates"]]:
        """The constants of the formula, by name."""

    def log_law(self, theta: Theta, x: Columns) -> Float[np.ndarray, "replicates runs"]:
        away = (self.place(x) - self.center) / self.spread
        values = self.curve(theta.T[:, :, None], away)
        return np.log(np.maximum(values, _LOWEST))

    def starts(self, x: Columns, loss: np.ndarray, w: np.ndarray) -> Theta:
        """A grid over the box, best nodes first."""
        nodes = np.array(list(product(*self.grid(loss))))
        misfit = (w * (loss - np.exp(self.log_law(nodes, x))) ** 2).sum(axis=1)
        return nodes[np.argsort(misfit)[:24]]

    def grid(self, values: np.ndarray) -> list[np.ndarray]:
        return [np.linspace(low, high, 9) for low, high in zip(self.low, self.high, strict=True)]


class Power(_Curve):
    """Q = k C^gamma."""

    names = ("k", "gamma")
    columns = ("C",)

    def box(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        middle = float(np.log(values).mean())
        return np.array([middle - 2, -5.0]), np.array([middle + 2, 5.0])

    def curve(self, theta: Any, away: Any) -> Any:
        return np.exp(np.clip(theta[0] + theta[1] * away, -50, 50))

    def constants(self, theta: Theta) -> dict[str, Float[np.ndarray, " replicates"]]:
        gamma = theta[:, 1] / self.spread
        return {"k": np.exp(theta[:, 0] - gamma * self.center), "gamma": gamma}


class AboveChance(Power):
    """Q = chance + k C^gamma."""

    def box(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        middle = float(np.log(max(float(values.mean()) - self.chance, 1e-3)))
        return np.array([middle - 4, -8.0]), np.array([middle + 3, 8.0])

    def curve(self, theta: Any, away: Any) -> Any:
        return self.chance + super().curve(theta, away)


class Linear(_Curve):
    """Q = intercept + slope L: what a metric does before it saturates."""

    names = ("slope", "intercept")

    def box(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.array([-3.0, 0.0]), np.array([3.0, 1.0])

    def curve(self, theta: Any, away: Any) -> Any:
        return theta[1] + theta[0] * away

    def constants(self, theta: Theta) -> dict[str, Float[np.ndarray, " replicates"]]:
        slope = theta[:, 0] / self.spread
        return {"slope": slope, "intercept": theta[:, 1] - slope * self.center}


class Exponential(_Curve):
    """1 - Q = epsilon - k exp(-gamma L): an error that levels off at high loss."""

    names = ("epsilon", "k", "gamma")

    def box(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.array([1e-3, np.log(1e-4), 0.0]), np.array([1.0, np.log(2.0), 12.0])

    def curve(self, theta: Any, away: Any) -> Any:
        return 1 - theta[0] + np.exp(np.clip(theta[1] - theta[2] * away, -50, 50))

    def constants(self, theta: Theta) -> dict[str, Float[np.ndarray, " replicates"]]:
        gamma = theta[:, 2] / self.spread
        with np.errstate(over="ignore"):
            k = np.exp(theta[:, 1] + gamma * self.center)
        return {"epsilon": theta[:, 0], "k": k, "gamma": gamma}


class Sigmoid(_Curve):
    """Q = chance + (ceiling - chance) / (1 + exp(steepness (L - middle))), ceiling at most 1."""

    names = ("middle", "steepness", "ceiling")

    def box(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        top = min(1.0 - 1e-6, max(float(values.max()), self.chance + 1e-3))
        return np.array([-5.0, 0.0, top - 0.05 * (top - self.chance)]), np.array([5.0, 40.0, 1.0])

    def grid(self, values: np.ndarray) -> list[np.ndarray]:
        return [np.linspace(-2, 2, 13), np.geomspace(0.5, 30, 9), np.linspace(self.low[2], 1.0, 5)]

    def curve(self, theta: Any, away: Any) -> Any:
        return self.chance + (theta[2] - self.chance) * expit(-theta[1] * (away - theta[0]))

    def constants(self, theta: Theta) -> dict[str, Float[np.ndarray, " replicates"]]:
        middle = self.center + self.spread * theta[:, 0]
        return {"middle": middle, "steepness": theta[:, 1] / self.spread, "ceiling": theta[:, 2]}


OF_COMPUTE: dict[str, type[_Curve]] = {"power": Power, "above-chance": AboveChance}
OF_LOSS: dict[str, type[_Curve]] = {"linear": Linear, "exponential": Exponential, "sigmoid": Sigmoid}
