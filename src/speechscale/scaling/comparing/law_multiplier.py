"""The compute multiplier of two laws: how many times the compute of A does B need for the same loss?

Enters: two arms (point fit, replicates, measured compute). Leaves: `LawMultiplier`.
The one decision worth knowing: the quoted number is the geometric mean over losses that BOTH arms' runs reached; a
replicate whose law never reaches a loss counts as an infinite factor, i.e. an open end of the interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from speechscale.scaling.comparing.reach import Charge, log_charged, log_compute
from speechscale.scaling.fitting.bootstrap import LawBootstrap
from speechscale.scaling.fitting.fit import Fit
from speechscale.scaling.intervals import LEVEL, Estimate
from speechscale.scaling.laws import LossLaw

LEVELS = 9
"""Matched losses inside the measured range, evenly spaced in the log compute of A."""
BEYOND = (0.1, 3.0, 10.0, 100.0)
"""Also shown: compute of A outside its part of the measured range, as factors of its nearer end."""
TURN_SEARCH = 1000.0
"""How far beyond the measured range a turning point is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One side. boots: its replicates by way of resampling. lowest_loss: of its runs. charge: see `reach`."""

    name: str
    fit: Fit
    boots: Mapping[str, LawBootstrap]
    flops_range: tuple[float, float]
    lowest_loss: float
    charge: Charge | None = None

    @property
    def loss_range(self) -> tuple[float, float]:
        """(highest, lowest) loss that the arm's compute covers; the lowest one no lower than any run came."""
        top, bottom = (float(self.fit.law.loss_at(c)) for c in self.flops_range)
        return top, max(bottom, self.lowest_loss)


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelRatio:
    """The multiplier at one loss.

    Args:
        flops_a, flops_b: what each arm needs, the TextLM included where it is charged.
        extrapolation: 1 inside the measured compute of both arms, else the larger factor by which an arm leaves it
            (inf: an arm never reaches this loss).
    """

    loss: float
    flops_a: float
    flops_b: float
    ratio: Estimate
    extrapolation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """A stretch of compute of A in which every interval leaves out 1, on one side. cheaper: B needs less."""

    flops_low: float
    flops_high: float
    cheaper: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LawMultiplier:
    """How many times the compute of A does B need (below 1: B is cheaper).

    Args:
        status: "measured", or "extrapolated" when no loss was reached by both (value: halfway between the two ranges).
        value: geometric mean over the measured losses with the wider interval; by: the interval of each resampling;
            quoted: which of them is the wider. curve: by loss, the extrapolated ones too.
        unreached: share of replicates (of the quoted resampling) in which one law never reaches some measured loss;
            such a replicate has the factor 0 or inf.
        supported: where the intervals of the single losses exclude 1. turns_at: compute of A at which the
            multiplier passes 1, turn_measured: whether inside the measured range, turns_share: share of replicates
            that pass 1 inside it.
        charged: whether the TextLM of a warm start is included.
    """

    a: str
    b: str
    status: Literal["measured", "extrapolated"]
    value: Estimate
    by: Mapping[str, Estimate]
    quoted: str
    loss_range: tuple[float, float]
    flops_a: tuple[float, float]
    curve: tuple[LevelRatio, ...]
    unreached: float
    supported: tuple[Support, ...]
    turns_at: float | None
    turn_measured: bool
    turns_share: float
    charged: bool
    extrapolation: float
    level_logs: Float[np.ndarray, "replicates levels"] = field(repr=False)

    @property
    def turn_supported(self) -> bool:
        """Whether the intervals show both sides of 1 inside the measured range: some above it, some below."""
        return len({stretch.cheaper for stretch in self.supported}) == 2


def law_multiplier(a: Arm, b: Arm, *, charged: bool = False) -> LawMultiplier:
    """Measure the multiplier of B against A at matched loss, along each arm's own optimum.

    Example: B drawn from A's law with its compute tripled -> value 3

    Args:
        a, b: with the same ways of resampling in `boots`. charged: add the TextLM of the arms that have one.
    """
    (top_a, bottom_a), (top_b, bottom_b) = a.loss_range, b.loss_range
    top, bottom = min(top_a, top_b), max(bottom_a, bottom_b)
    measured = top > bottom
    if measured:
        ends = log_compute(a.fit.law, np.array([top, bottom]))
        inside = np.linspace(ends[0], ends[1], LEVELS)
        outside = np.log(BEYOND) + np.where(np.array(BEYOND) < 1, ends[0], ends[1])
        losses = a.fit.law.loss_at(np.exp(np.concatenate([inside, outside])))
        losses[0], losses[LEVELS - 1] = top, bottom
        used = np.arange(LEVELS)
    else:
        losses, used = np.array([(top + bottom) / 2]), np.array([0])
    points = _Needs.of(a.fit.law, b.fit.law, losses, a, b, charged)
    logs = {
        way: _Needs.of(a.boots[way].law, b.boots[way].law, losses[:, None], a, b, charged).ratios.T for way in a.boots
    }
    means = {way: _mean(values[:, used]) for way, values in logs.items()}
    value = float(_mean(points.ratios[used]))
    by = {way: ratio_estimate(value, values, _method(a, b, way)) for way, values in means.items()}
    quoted = max(by, key=lambda way: width(by[way]))
    method = by[quoted].method
    curve = tuple(
        LevelRatio(
            loss=float(loss),
            flops_a=float(np.exp(points.log_a[i])),
            flops_b=float(np.exp(points.log_b[i])),
            ratio=ratio_estimate(points.ratios[i], logs[quoted][:, i], method),
            extrapolation=_extrapolation(a, b, float(loss)),
        )
        for i, loss in enumerate(losses)
    )
    inner = [curve[i] for i in used]
    turns_at, turn_measured = _turn(a, b, top, bottom, charged) if measured else (None, False)
    return LawMultiplier(
        a=a.name,
        b=b.name,
        status="measured" if measured else "extrapolated",
        value=by[quoted],
        by=by,
        quoted=quoted,
        loss_range=(top, bottom),
        flops_a=(inner[0].flops_a, inner[-1].flops_a),
        curve=tuple(sorted(curve, key=lambda level: -level.loss)),
        unreached=float(np.mean(~np.isfinite(means[quoted]))),
        supported=_supported(inner) if measured else (),
        turns_at=turns_at,
        turn_measured=turn_measured,
        turns_share=float(np.mean(_changes_sign(logs[quoted][:, used]))),
        charged=charged,
        extrapolation=max(level.extrapolation for level in inner),
        level_logs=logs[quoted][:, used],
    )


@dataclass(frozen=True, slots=True)
class _Needs:
    """log C of each arm at each loss; (levels,) or (levels, replicates)."""

    log_a: Any
    log_b: Any

    @classmethod
    def of(cls, law_a: LossLaw, law_b: LossLaw, loss: np.ndarray, a: Arm, b: Arm, charged: bool) -> _Needs:
        return cls(
            log_charged(law_a, loss, a.charge if charged else None),
            log_charged(law_b, loss, b.charge if charged else None),
        )

    @property
    def ratios(self) -> Any:
        """log(C_B / C_A): +inf where only A reaches the loss, -inf where only B does, NaN where neither does."""
        with np.errstate(invalid="ignore"):
            return self.log_b - self.log_a


def ratio_estimate(log_value: float, logs: Float[np.ndarray, " replicates"], method: str) -> Estimate:
    """Attach percentiles to a ratio; a replicate that knows nothing (NaN) widens both ends."""
    tail = (1 - LEVEL) / 2
    low = np.quantile(np.where(np.isnan(logs), -np.inf, logs), tail, method="inverted_cdf")
    high = np.quantile(np.where(np.isnan(logs), np.inf, logs), 1 - tail, method="inverted_cdf")
    with np.errstate(over="ignore"):
        value, low, high = (float(np.exp(x)) for x in (log_value, low, high))
    return Estimate(value=value, low=low, high=high, method=method)


def width(value: Estimate) -> float:
    """Length of a ratio's interval in logarithms, inf with an open end."""
    if value.low is None or value.high is None or value.low <= 0 or not np.isfinite(value.high):
        return np.inf
    return float(np.log(value.high / value.low))


def _mean(logs: np.ndarray) -> Any:
    with np.errstate(invalid="ignore"):  # inf - inf: this replicate says nothing
        return np.mean(logs, axis=-1)


def _method(a: Arm, b: Arm, way: str) -> str:
    boots = a.boots[way], b.boots[way]
    names = dict.fromkeys(boot.method for boot in boots)
    label = f"by {way}" if "residuals" not in names else f"by {' and '.join(names)}"
    return f"{len(boots[0].law.E)} bootstrap replicates {label}, percentiles"


def _extrapolation(a: Arm, b: Arm, loss: float) -> float:
    """Return the larger factor by which the arms leave their measured compute for this loss (uncharged)."""
    factors = [1.0]
    for arm in (a, b):
        needed = float(log_compute(arm.fit.law, loss))
        low, high = np.log(arm.flops_range)
        factors.append(float(np.exp(min(700.0, max(low - needed, needed - high)))) if np.isfinite(needed) else np.inf)
    factor = max(factors)
    return factor if factor > 1 + 1e-6 else 1.0


def _supported(levels: list[LevelRatio]) -> tuple[Support, ...]:
    """Join neighboring losses whose intervals leave out 1 on the same side."""
    stretches = []
    sides = [0 if not level.ratio.excludes(1.0) else 1 if level.ratio.value < 1 else -1 for level in levels]
    first = 0
    for i in range(1, len(levels) + 1):
        if i == len(levels) or sides[i] != sides[first]:
            if sides[first]:
                ends = levels[first].flops_a, levels[i - 1].flops_a
                stretches.append(Support(flops_low=ends[0], flops_high=ends[1], cheaper=sides[first] > 0))
            first = i
    return tuple(stretches)


def _turn(a: Arm, b: Arm, top: float, bottom: float, charged: bool) -> tuple[float | None, bool]:
    """Find where the multiplier passes 1: (compute of A, whether inside the measured range), nearest to that range."""
    first, last = log_compute(a.fit.law, np.array([top, bottom]))
    reach = np.log(TURN_SEARCH)
    grid = np.linspace(first - reach, last + reach, 801)
    needs = _Needs.of(a.fit.law, b.fit.law, a.fit.law.loss_at(np.exp(grid)), a, b, charged)
    ratios = np.clip(needs.ratios, -1e3, 1e3)
    at = np.flatnonzero(ratios[:-1] * ratios[1:] < 0)
    if not len(at):
        return None, False
    share = ratios[at] / (ratios[at] - ratios[at + 1])
    crossings = grid[at] + share * (grid[at + 1] - grid[at])
    distance = np.maximum(0.0, np.maximum(first - crossings, crossings - last))
    nearest = int(distance.argmin())
    log_a = np.asarray(needs.log_a)
    charged_flops = float(np.exp(np.interp(crossings[nearest], grid, log_a)))
    return charged_flops, bool(distance[nearest] == 0)


def _changes_sign(logs: Float[np.ndarray, "replicates levels"]) -> np.ndarray:
    return (np.nanmin(np.nan_to_num(logs, nan=0.0), axis=1) < 0) & (np.nanmax(np.nan_to_num(logs, nan=0.0), axis=1) > 0)
