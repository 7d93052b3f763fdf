"""Curves of accuracy against loss that bend: from chance at high loss to a ceiling at low loss.

Enters: `Points`. Leaves: the shape to draw and, where it bends, its constants.
The one decision worth knowing: a straight line is kept unless a sigmoid's AICc is lower by more than MARGIN; the n of
AICc is the number of runs, since checkpoints of one run add little.

Source: Burnham & Anderson 2002, section 2.6 (differences of AICc below 2 tell models apart poorly).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from scipy.optimize import least_squares
from scipy.special import expit

from speechscale.scaling.links.weighted_lines import Points
from speechscale.scaling.model_choice import MARGIN, aicc

Shape = Literal["linear", "sigmoid_to_1", "sigmoid_free"]
SHAPES: tuple[Shape, ...] = get_args(Shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sigmoid:
    """accuracy = chance + (ceiling - chance) / (1 + exp(steepness (loss - middle)))."""

    middle: float
    steepness: float
    ceiling: float
    chance: float

    def at(self, loss: Float[np.ndarray, "*points"]) -> Float[np.ndarray, "*points"]:
        """Accuracy at a loss. Example: at the middle it is half way from chance to the ceiling"""
        rise = np.asarray(expit(-self.steepness * (loss - self.middle)))
        return self.chance + (self.ceiling - self.chance) * rise


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The shape that is drawn. aic: AICc in the order of SHAPES. sigmoid: None for a line. said: for a message."""

    shape: Shape
    aic: tuple[float, ...]
    sigmoid: Sigmoid | None
    said: str
    points: Points

    def curves(
        self, counts: Float[np.ndarray, "replicates points"], grid: Float[np.ndarray, " grid"]
    ) -> Float[np.ndarray, "replicates grid"]:
        """The sigmoid fitted anew to each resample; `counts` says how often a point is in it."""
        assert self.sigmoid is not None
        free = self.shape == "sigmoid_free"
        drawn = (replace(self.points, weights=self.points.weights * own) for own in counts)
        fits = [fit_sigmoid(points, self.sigmoid, free=free) for points in drawn]
        return np.stack([fit.at(grid) for fit in fits])


def choose_shape(points: Points, chance: float) -> Chosen:
    """Compare a line with a sigmoid from chance to 1 and one with a free ceiling."""
    loss, accuracy, w = points.loss, points.accuracy, points.weights / points.weights.sum()
    slope, intercept = np.polyfit(loss, accuracy, 1, w=np.sqrt(w))
    top = float(min(1.0, accuracy.max() + 0.05))
    start = Sigmoid(
        middle=float(w @ loss),
        steepness=float(np.clip(-4 * slope / max(1e-3, top - chance), -50, 50)),
        ceiling=max(top, chance + 0.05),
        chance=chance,
    )
    to_one = fit_sigmoid(points, start, free=False)
    free = fit_sigmoid(points, start, free=True)
    fits = [intercept + slope * loss, to_one.at(loss), free.at(loss)]
    aic = tuple(
        _aicc(float(w @ (accuracy - fit) ** 2), constants, points.run_count)
        for fit, constants in zip(fits, (2, 2, 3), strict=True)
    )
    best = int(np.argmin(aic))
    if best == 0 or not aic[0] - aic[best] > MARGIN:
        return Chosen(shape="linear", aic=aic, sigmoid=None, said="", points=points)
    sigmoid = (to_one, free)[best - 1]
    said = (
        f"; it bends: a sigmoid from chance {chance:g} to {'a ceiling of ' if best == 2 else ''}"
        f"{sigmoid.ceiling:.3g} fits better (AICc {aic[best]:.1f}, the line {aic[0]:.1f})"
    )
    return Chosen(shape=SHAPES[best], aic=aic, sigmoid=sigmoid, said=said, points=points)


def fit_sigmoid(points: Points, start: Sigmoid, *, free: bool) -> Sigmoid:
    """Weighted least squares from a start.

    Args:
        free: the ceiling is fitted too, between just above chance and 1; otherwise it is 1.
    """
    loss, accuracy = points.loss, points.accuracy
    root = np.sqrt(points.weights / points.weights.sum())

    def curve(constants: np.ndarray) -> Sigmoid:
        ceiling = float(constants[2]) if free else 1.0
        return Sigmoid(middle=float(constants[0]), steepness=float(constants[1]), ceiling=ceiling, chance=start.chance)

    spread = max(float(np.ptp(loss)), 1e-9)
    low, high = [loss.min() - 20 * spread, -1e4], [loss.max() + 20 * spread, 1e4]
    x0 = [start.middle, start.steepness]
    if free:
        low, high, x0 = [*low, start.chance + 1e-3], [*high, 1.0], [*x0, min(start.ceiling, 1.0 - 1e-9)]
    found = least_squares(
        lambda constants: root * (accuracy - curve(constants).at(loss)),
        np.clip(x0, low, high),
        bounds=(low, high),
        x_scale=[spread, max(1.0, abs(start.steepness))] + [0.1] * free,
    )
    return curve(found.x)


def _aicc(mean_square: float, constants: int, runs: int) -> float:
    """Infinite where there are too few runs, so that the line is kept."""
    found = aicc(mean_square, constants, runs)
    return float("inf") if found is None else found
