"""From loss to choice accuracy: what a lower loss buys within one training mixture, and when that cannot be said.

Enters: losses, accuracies with standard errors, and for each point its mixture and its run. Leaves: a `Link` per
mixture, and `Pooled`, the test whether one line could serve all mixtures.
The one decision worth knowing: a line is drawn only where a slope of zero is rejected, and only within one mixture;
many checkpoints of one run are one observation of the slope.

Source: Cuervo & Marxer 2024, Figure 4 (linear in the test loss before saturation); SIMS (Maimon et al. 2025), Table 1
(at equal or higher loss another mixture has higher accuracy, so a line does not carry over).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.special import fdtrc

from speechscale.errors import DataError
from speechscale.scaling.intervals import LEVEL, Estimate, run_weights
from speechscale.scaling.links.saturation import SHAPES, Shape, Sigmoid, choose_shape
from speechscale.scaling.links.weighted_lines import Points, drawn_lines, line, points_of, slope_p, widened, widening

MIN_RUNS = 4
"""Below, no line: two degrees of freedom are the least that tell scatter from slope."""
SLOPE_P = 0.01
"""A slope of zero is rejected below this; stricter than .05 because a study looks at many sets and directions."""
NARROW_SHARE = 0.01
"""Losses within this share of their mean are one loss."""
NARROW_SES = 4.0
"""So are losses within this many of their own standard errors."""
GRID = 41
"""Losses at which a line and its band are given."""

Status = Literal["fitted", "no_slope", "at_chance", "narrow", "too_few_runs"]
VERDICTS: Mapping[Status, str] = {
    "fitted": "a slope",
    "no_slope": "no slope told from zero",
    "at_chance": "all at chance",
    "narrow": "losses too close together",
    "too_few_runs": "too few runs",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A fitted curve between the lowest and the highest loss, with its band; nothing is extrapolated."""

    loss: Float[np.ndarray, " grid"]
    accuracy: Float[np.ndarray, " grid"]
    low: Float[np.ndarray, " grid"]
    high: Float[np.ndarray, " grid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Loss and accuracy of one mixture. Slopes are in accuracy (a share) per nat; usually negative.

    Args:
        group: the mixture (arm). message: one sentence to print. notes: what weakens it.
        p_slope: of a slope of zero. r2: of the line, weighted. aic: AICc of each shape, the number of runs as n.
        shape: the curve's; "linear" unless a sigmoid fits better by more than `saturation.MARGIN`. sigmoid: then its
            constants. curve: None unless `status` is "fitted".
    """

    group: str
    status: Status
    points: int
    runs: int
    loss_low: float
    loss_high: float
    message: str
    notes: tuple[str, ...] = ()
    slope: Estimate | None = None
    intercept: Estimate | None = None
    r2: float | None = None
    p_slope: float | None = None
    shape: Shape | None = None
    aic: Mapping[str, float] = field(default_factory=dict)
    sigmoid: Sigmoid | None = None
    curve: Curve | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """One line through all mixtures, and whether they share it.

    Args:
        runs: of the mixtures with at least three. p_one_line: of equal slopes and intercepts. p_one_slope: of equal
            slopes, intercepts free. gap: largest difference between mixtures at the same loss, slopes taken as equal.
    """

    groups: tuple[str, ...]
    runs: int
    slope: float
    intercept: float
    r2: float
    p_one_line: float
    p_one_slope: float
    gap: float
    differ: bool
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """One `Link` per mixture, in the order of appearance. pooled: None below two mixtures that can be tested."""

    links: tuple[Link, ...]
    pooled: Pooled | None


def link(
    losses: Sequence[float] | Float[np.ndarray, " points"],
    metrics: Sequence[float] | Float[np.ndarray, " points"],
    ses: Sequence[float] | Float[np.ndarray, " points"] | None,
    groups: Sequence[str],
    *,
    runs: Sequence[str] | None = None,
    loss_ses: Sequence[float] | Float[np.ndarray, " points"] | None = None,
    chance: float = 0.5,
    replicates: int = 1000,
    seed: int = 0,
) -> Links:
    """Fit accuracy against loss, one mixture at a time, and test whether one line could serve all.

    The line is weighted by 1 / se^2 where standard errors are known. Its slope is tested first, with the largest of
    three standard errors (of the points, of the scatter, clustered by run) and Student's t with two degrees less than
    there are runs. Intervals and bands: bootstrap of whole runs, widened for few runs.

    Example: link([2.24, 2.19, ...], [.64, .655, ...], None, ["speech"] * 31).links[0].slope.value -> -.426

    Args:
        losses: nats. metrics: accuracies as shares. ses: of the accuracies; NaN or 0 where not known.
        groups: the training mixture of each point. runs: its run; None makes every point a run of its own.
        loss_ses: of the losses, to judge whether their range says anything.

    Raises:
        DataError: no points, numbers that are not finite, accuracies outside 0..1, or lists of different lengths.
    """
    loss, accuracy = np.asarray(losses, float), np.asarray(metrics, float)
    names = list(groups)
    of_run = [str(i) for i in range(len(names))] if runs is None else list(runs)
    se = np.full(len(loss), np.nan) if ses is None else np.asarray(ses, float)
    loss_se = np.full(len(loss), np.nan) if loss_ses is None else np.asarray(loss_ses, float)
    if len({len(x) for x in (loss, accuracy, se, loss_se, names, of_run)}) != 1 or not len(loss):
        raise DataError(f"link: {len(loss)} losses need as many accuracies, errors, groups and runs, at least one")
    if not (np.isfinite(loss).all() and np.all((accuracy >= 0) & (accuracy <= 1))):
        raise DataError("link: losses must be finite and accuracies in 0..1; drop failed runs, divide percent by 100")
    found, usable = [], {}
    for name in dict.fromkeys(names):
        rows = np.array([i for i, other in enumerate(names) if other == name])
        points, notes = points_of(loss[rows], accuracy[rows], se[rows], [of_run[i] for i in rows])
        spread = np.nanmedian(loss_se[rows]) if np.isfinite(loss_se[rows]).any() else 0.0
        found.append(_link(name, points, notes, float(spread), chance, replicates, seed))
        if found[-1].status not in ("too_few_runs", "narrow"):
            usable[name] = points.of_runs()
    above = any(entry.status == "fitted" for entry in found)
    return Links(links=tuple(found), pooled=_pooled(usable, above) if len(usable) > 1 else None)


def _link(
    group: str,
    points: Points,
    notes: tuple[str, ...],
    loss_se: float,
    chance: float,
    replicates: int,
    seed: int,
) -> Link:
    low, high = float(points.loss.min()), float(points.loss.max())
    base = Link(
        group=group,
        status="too_few_runs",
        points=len(points),
        runs=points.run_count,
        loss_low=low,
        loss_high=high,
        message=f"{points.run_count} run(s): a slope needs at least {MIN_RUNS}",
        notes=notes,
    )
    if points.run_count < MIN_RUNS:
        return base
    narrowest = max(NARROW_SHARE * float(np.abs(points.loss).mean()), NARROW_SES * loss_se)
    if high - low < narrowest:
        text = f"the losses span {high - low:.3g} nats, below {narrowest:.3g}: too little to see a slope in"
        return replace(base, status="narrow", message=text)
    slope, intercept, r2 = line(points)
    p = slope_p(points)
    drawn = drawn_lines(points, replicates, seed)
    base = replace(
        base,
        slope=widened(slope, drawn[:, 0], points.run_count),
        intercept=widened(intercept, drawn[:, 1], points.run_count),
        r2=r2,
        p_slope=p,
    )
    return _judged(base, points, drawn, chance, replicates, seed)


def _judged(base: Link, points: Points, drawn: np.ndarray, chance: float, replicates: int, seed: int) -> Link:
    """Refuse a fit of noise; else choose the curve and word it."""
    assert base.slope is not None
    assert base.intercept is not None
    assert base.p_slope is not None
    tested = f"{base.runs} runs, p = {base.p_slope:.2g}"
    if base.p_slope >= SLOPE_P:
        near = np.abs(points.accuracy - chance) < 2 / np.sqrt(points.weights) if points.known else np.zeros(1, bool)
        if near.all():
            text = f"every point lies within 2 standard errors of chance ({chance:g}): a line would be a fit of noise"
            return replace(base, status="at_chance", message=f"{text} ({tested})")
        text = f"a slope of zero is not rejected ({tested}): these runs do not say what a lower loss buys"
        return replace(base, status="no_slope", message=text)
    chosen = choose_shape(points, chance)
    grid = np.linspace(base.loss_low, base.loss_high, GRID)
    if chosen.sigmoid is None:
        values = base.intercept.value + base.slope.value * grid
        curves = drawn[:, 1:2] + drawn[:, :1] * grid
    else:
        weights = run_weights(base.runs, min(replicates, 200), seed, clusters=None)[:, points.runs]
        values, curves = chosen.sigmoid.at(grid), chosen.curves(weights, grid)
    shifts = widening(base.runs) * (curves - np.median(curves, axis=0))
    ends = np.quantile(shifts, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    text = (
        f"{-100 * base.slope.value:.3g} points of accuracy [{-100 * (base.slope.high or 0):.3g}, "
        f"{-100 * (base.slope.low or 0):.3g}] per nat of lower loss, R2 {base.r2:.2f} ({tested}), for losses from "
        f"{base.loss_low:.3g} to {base.loss_high:.3g}{chosen.said}"
    )
    if base.slope.value > 0:
        base = replace(base, notes=(*base.notes, "accuracy falls where the loss falls: look at the points first"))
    return replace(
        base,
        status="fitted",
        message=text,
        shape=chosen.shape,
        aic=dict(zip(SHAPES, chosen.aic, strict=True)),
        sigmoid=chosen.sigmoid,
        curve=Curve(loss=grid, accuracy=values, low=values + ends[0], high=values + ends[1]),
    )


def _pooled(mixtures: Mapping[str, Points], above: bool) -> Pooled | None:
    """One line for all, against a slope and an intercept for each; runs are points here, whatever their checkpoints."""
    named = {name: points for name, points in mixtures.items() if len(points) >= 3}
    runs, count = sum(map(len, named.values())), len(named)
    if count < 2 or runs - 2 * count < 1:
        return None
    x, y, w = (np.concatenate([getattr(p, key) for p in named.values()]) for key in ("loss", "accuracy", "weights"))
    of = np.repeat(np.arange(count), [len(points) for points in named.values()])
    own = (of[:, None] == np.arange(count)).astype(float)  # (runs, mixtures)
    designs = [np.stack([np.ones(runs), x], axis=1), np.column_stack([own, x]), np.hstack([own, own * x[:, None]])]
    (line_one, one), (shared, offsets), (_, free) = (_least_squares(design, y, w) for design in designs)
    p_line = _f_test(one, free, 2 * (count - 1), runs - 2 * count)
    p_slope = _f_test(offsets, free, count - 1, runs - 2 * count)
    mean = (w @ y) / w.sum()
    total = float(w @ (y - mean) ** 2)
    gap = float(np.ptp(shared[:count]))
    differ = p_line < SLOPE_P
    tested = f"F test of one line for all against a line for each, {runs} runs: p = {p_line:.2g}"
    if differ:
        text = (
            f"the arms do not share one line ({tested}); at the same loss their accuracies differ by up to "
            f"{100 * gap:.2g} points, so the loss of one arm does not tell the accuracy of another"
        )
    else:
        told = "which does not show that they share it" if above else "and no arm has a slope of its own"
        text = f"the arms are not told apart ({tested}), {told}"
    return Pooled(
        groups=tuple(named),
        runs=runs,
        slope=float(line_one[1]),
        intercept=float(line_one[0]),
        r2=1 - one / total if total > 0 else 0.0,
        p_one_line=p_line,
        p_one_slope=p_slope,
        gap=gap,
        differ=differ,
        message=text,
    )


def _least_squares(design: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, float]:
    root = np.sqrt(w)
    found = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0]
    return found, float(w @ (y - design @ found) ** 2)


def _f_test(small: float, large: float, more: int, freedom: int) -> float:
    """p of the smaller model, from the weighted squares both leave."""
    if large <= 1e-20 * max(small, 1e-300):
        return 0.0 if small > large else 1.0
    return float(fdtrc(more, freedom, max(0.0, small - large) / more / (large / freedom)))
