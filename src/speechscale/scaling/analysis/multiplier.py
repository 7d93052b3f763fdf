"""Compare two arms: how many times the compute of the baseline does the other arm need for the same loss?

Enters: two `Sweep`s. Leaves: `Multiplier`, whatever the answer is.
The one decision worth knowing: only losses that BOTH envelopes reached are compared (nothing is extrapolated); where
the ranges do not meet, the answer is a bound ("less than x", "more than x"), not a number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from speechscale.scaling.intervals import LEVEL, Estimate, estimate
from speechscale.scaling.optima.envelope import Envelope, Sweep, envelope

LEVELS = 24  # matched losses inside the common range
_POINTS = 12  # per segment of the smooth envelope: a tenth of a budget step


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Difference of the lowest losses at one budget, arm minus baseline (below 0: the arm is better)."""

    budget_flops: float
    difference: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Multiplier:
    """How many times the baseline's compute the arm needs (below 1: the arm is cheaper).

    Args:
        value: geometric mean over the matched losses; None unless status is "supported".
        at_high_loss, at_low_loss: the same at the cheap and at the costly end of the matched losses.
        bound, bound_value: for "no_overlap": "less than" or "more than" this many times.
        loss_range: (highest, lowest) matched loss, nats. baseline_flops, arm_flops: compute of each arm over it.
        lowest_losses: lowest loss (baseline, arm) reached anywhere, at lowest_at_flops.
        open_low, open_high: in more than 2.5 % of the replicates the ranges did not meet, so that end is only a bound.
        gaps: difference at each common budget. noise: what the replicates perturb; noise_measured: whether anything
            measured it in both arms (else no intervals); spread_measured: whether run-to-run spread is part of it.
    """

    arm: str
    baseline: str
    status: Literal["supported", "no_overlap", "too_few_points"]
    message: str
    value: Estimate | None = None
    at_high_loss: Estimate | None = None
    at_low_loss: Estimate | None = None
    bound: Literal["less than", "more than"] | None = None
    bound_value: float | None = None
    loss_range: tuple[float, float] | None = None
    baseline_flops: tuple[float, float] | None = None
    arm_flops: tuple[float, float] | None = None
    lowest_losses: tuple[float, float] | None = None
    lowest_at_flops: tuple[float, float] | None = None
    open_low: bool = False
    open_high: bool = False
    gaps: tuple[Gap, ...] = ()
    noise: str = ""
    noise_measured: bool = False
    spread_measured: bool = False


def compute_multiplier(baseline: Sweep, arm: Sweep, *, replicates: int = 1000, seed: int = 0) -> Multiplier:
    """Measure the compute multiplier of an arm against a baseline at matched loss.

    Per replicate every run's loss is perturbed within its noise (`Sweep.noise`), the envelopes are picked anew and the
    ratio is taken over the losses both reach, between budgets on a monotone cubic in (log C, log loss). The errors of
    two arms are taken as independent although they share a test set: the interval is rather too wide than too narrow.

    Example: an arm whose losses equal the baseline's at three times the compute -> value 3
    """
    low_a, low_b = (
        envelope(baseline, replicates=replicates, seed=seed),
        envelope(arm, replicates=replicates, seed=seed + 1),
    )
    base = Multiplier(
        arm=arm.arm,
        baseline=baseline.arm,
        status="too_few_points",
        message=f"{arm.arm} has {len(low_b.loss)} budget(s), {baseline.arm} {len(low_a.loss)}: each needs at least 2",
        lowest_losses=(float(low_a.loss.min()), float(low_b.loss.min())),
        lowest_at_flops=tuple(float(e.compute_flops[e.loss.argmin()]) for e in (low_a, low_b)),  # type: ignore[arg-type]
        gaps=_gaps(low_a, low_b),
        noise=_noise(baseline, arm),
        noise_measured=baseline.loss_sd is not None and arm.loss_sd is not None,
        spread_measured=baseline.spread_measured and arm.spread_measured,
    )
    if min(len(low_a.loss), len(low_b.loss)) < 2:
        return base
    measured = _ratios(low_a.compute_flops[None], low_a.loss[None], low_b.compute_flops[None], low_b.loss[None])
    drawn = None
    if low_a.replicate_loss is not None and low_b.replicate_loss is not None:
        assert low_a.replicate_compute is not None
        assert low_b.replicate_compute is not None
        drawn = _ratios(low_a.replicate_compute, low_a.replicate_loss, low_b.replicate_compute, low_b.replicate_loss)
    if measured.side[0] != 0:
        return _bounded(base, measured, drawn)
    return _supported(base, measured, drawn)


@dataclass(frozen=True, slots=True)
class _Ratios:
    """Log multipliers (replicates, LEVELS) at matched losses; side -1 / +1 where only a bound below / above exists."""

    logs: Float[np.ndarray, "replicates levels"]
    side: Float[np.ndarray, " replicates"]
    levels: Float[np.ndarray, "replicates levels"]
    log_a: Float[np.ndarray, "replicates levels"]
    log_b: Float[np.ndarray, "replicates levels"]


def _ratios(compute_a: np.ndarray, loss_a: np.ndarray, compute_b: np.ndarray, loss_b: np.ndarray) -> _Ratios:
    """Take log(C_b / C_a) at matched losses, row by row; rows that do not meet get the bound at every level."""
    x_a, y_a = smooth_envelope(compute_a, loss_a)
    x_b, y_b = smooth_envelope(compute_b, loss_b)
    top, bottom = np.minimum(y_a[:, 0], y_b[:, 0]), np.maximum(y_a[:, -1], y_b[:, -1])
    meet = top > bottom
    # Levels sit inside the range: exactly at its ends one arm's compute is that of a single noisy run.
    share = (np.arange(LEVELS) + 0.5) / LEVELS
    levels = top[:, None] + (bottom - top)[:, None] * share
    log_a, log_b = np.empty_like(levels), np.empty_like(levels)
    for row in np.flatnonzero(meet):
        log_a[row] = np.interp(levels[row], y_a[row, ::-1], x_a[row, ::-1])
        log_b[row] = np.interp(levels[row], y_b[row, ::-1], x_b[row, ::-1])
    # Rows that do not meet: all losses of b lie below those of a (b needs less than its cheapest against a's dearest),
    # or above them (the other way round).
    b_below = ~meet & (y_b[:, 0] <= y_a[:, -1])
    b_above = ~meet & ~b_below
    log_b[b_below], log_a[b_below] = x_b[b_below, :1], _first_lowest(x_a, y_a)[b_below, None]
    log_b[b_above], log_a[b_above] = _first_lowest(x_b, y_b)[b_above, None], x_a[b_above, :1]
    return _Ratios(log_b - log_a, b_above.astype(float) - b_below, np.exp(levels), log_a, log_b)


def smooth_envelope(
    compute: Float[np.ndarray, "rows budgets"], loss: Float[np.ndarray, "rows budgets"]
) -> tuple[Float[np.ndarray, "rows points"], Float[np.ndarray, "rows points"]]:
    """Return (log C, log loss) of the lowest loss reached with up to C, on a fine grid between the budgets.

    The curve is the monotone cubic through the running minimum (Fritsch & Butland 1984 slopes), one per row.
    """
    order = np.argsort(compute, axis=1, kind="stable")
    x = np.log(np.take_along_axis(compute, order, axis=1))
    x = np.maximum.accumulate(x + 1e-9 * np.arange(x.shape[1]), axis=1)  # equal computes must not divide by zero
    y = np.minimum.accumulate(np.log(np.take_along_axis(loss, order, axis=1)), axis=1)
    width = np.diff(x, axis=1)
    secant = np.diff(y, axis=1) / width
    slope = np.empty_like(x)
    slope[:, 0], slope[:, -1] = secant[:, 0], secant[:, -1]
    if x.shape[1] > 2:
        h0, h1, d0, d1 = width[:, :-1], width[:, 1:], secant[:, :-1], secant[:, 1:]
        w0, w1 = 2 * h1 + h0, h1 + 2 * h0
        product = d0 * d1
        mean = (w0 + w1) * product / np.where(product > 0, w0 * d1 + w1 * d0, -1.0)
        slope[:, 1:-1] = np.where(product > 0, mean, 0.0)
        for end, h, h_next, d, d_next in (
            (0, h0[:, 0], h1[:, 0], d0[:, 0], d1[:, 0]),
            (-1, h1[:, -1], h0[:, -1], d1[:, -1], d0[:, -1]),
        ):
            guess = ((2 * h + h_next) * d - h * d_next) / (h + h_next)
            slope[:, end] = np.clip(guess, 3 * d, 0.0)  # d <= 0: keeps the end segment falling
    t = np.arange(_POINTS) / _POINTS
    h, y0, y1 = width[:, :, None], y[:, :-1, None], y[:, 1:, None]
    cubic = (
        (2 * t**3 - 3 * t**2 + 1) * y0
        + (t**3 - 2 * t**2 + t) * h * slope[:, :-1, None]
        + (3 * t**2 - 2 * t**3) * y1
        + (t**3 - t**2) * h * slope[:, 1:, None]
    )
    fine_x = np.concatenate([(x[:, :-1, None] + h * t).reshape(len(x), -1), x[:, -1:]], axis=1)
    fine_y = np.concatenate([cubic.reshape(len(x), -1), y[:, -1:]], axis=1)
    return fine_x, np.minimum.accumulate(fine_y, axis=1)


def _first_lowest(x: np.ndarray, y: np.ndarray) -> Float[np.ndarray, " rows"]:
    """Return the smallest log C at which each row reaches its lowest loss."""
    return x[np.arange(len(x)), np.argmin(y, axis=1)]


def _supported(base: Multiplier, measured: _Ratios, drawn: _Ratios | None) -> Multiplier:
    open_low = open_high = False

    def interval(pick: slice) -> Estimate:
        value = float(np.exp(measured.logs[0, pick].mean()))
        if drawn is None:
            return Estimate(value=value, low=None, high=None, method=f"no interval: noise {base.noise}")
        return estimate(value, np.exp(drawn.logs[:, pick].mean(axis=1)), method=f"noise replicates: {base.noise}")

    if drawn is not None:
        tail = (1 - LEVEL) / 2
        open_low, open_high = bool(np.mean(drawn.side < 0) > tail), bool(np.mean(drawn.side > 0) > tail)
    value = interval(slice(None))
    third = LEVELS // 3
    shown = f"{value.value:.3g}{show_interval(value, open_low, open_high)}"
    text = f"{base.arm} needs {shown} times the compute of {base.baseline}"
    return replace(
        base,
        status="supported",
        message=text,
        value=value,
        at_high_loss=interval(slice(0, third)),
        at_low_loss=interval(slice(LEVELS - third, None)),
        loss_range=(float(measured.levels[0, 0]), float(measured.levels[0, -1])),
        baseline_flops=(float(np.exp(measured.log_a[0, 0])), float(np.exp(measured.log_a[0, -1]))),
        arm_flops=(float(np.exp(measured.log_b[0, 0])), float(np.exp(measured.log_b[0, -1]))),
        open_low=open_low,
        open_high=open_high,
    )


def _bounded(base: Multiplier, measured: _Ratios, drawn: _Ratios | None) -> Multiplier:
    """Give the bound that noise does not undo: the far end of the replicates, not the measured one."""
    cheaper = measured.side[0] < 0
    logs = measured.logs[:, 0] if drawn is None else drawn.logs.mean(axis=1)
    quantile = (1 + LEVEL) / 2 if cheaper else (1 - LEVEL) / 2
    bound = float(np.exp(np.quantile(logs, quantile)))
    word: Literal["less than", "more than"] = "less than" if cheaper else "more than"
    never = f"every {base.arm} loss is {'below' if cheaper else 'above'} every {base.baseline} loss"
    text = f"{base.arm} needs {word} {bound:.3g} times the compute of {base.baseline}: {never}"
    return replace(base, status="no_overlap", message=text, bound=word, bound_value=bound)


def show_interval(value: Estimate, open_low: bool = False, open_high: bool = False) -> str:
    """Word an interval. Example: " [0.31, 0.55]"; an open end reads "0.31 or less"."""
    if value.low is None or value.high is None:
        return " (interval not measured)"
    return f" [{value.low:.3g}{' or less' if open_low else ''}, {value.high:.3g}{' or more' if open_high else ''}]"


def _gaps(low_a: Envelope, low_b: Envelope) -> tuple[Gap, ...]:
    gaps = []
    for budget in np.intersect1d(low_a.budget_flops, low_b.budget_flops):
        i, j = int(np.searchsorted(low_a.budget_flops, budget)), int(np.searchsorted(low_b.budget_flops, budget))
        value = float(low_b.loss[j] - low_a.loss[i])
        if low_a.replicate_loss is None or low_b.replicate_loss is None:
            difference = Estimate(value=value, low=None, high=None, method="no interval: noise not measured")
        else:
            drawn = low_b.replicate_loss[:, j] - low_a.replicate_loss[:, i]
            difference = estimate(value, drawn, method="noise replicates")
        gaps.append(Gap(budget_flops=float(budget), difference=difference))
    return tuple(gaps)


def _noise(baseline: Sweep, arm: Sweep) -> str:
    return arm.noise if arm.noise == baseline.noise else f"{baseline.arm}: {baseline.noise}; {arm.arm}: {arm.noise}"
