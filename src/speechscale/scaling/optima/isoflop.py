"""IsoFLOP: the best size at one compute budget, or the reason why these runs do not show it.

Enters: sizes and losses of the runs of one arm at one budget. Leaves: `IsoFlop`.
The one decision worth knowing: an optimum is quoted only when a size on either side of it was measured to be worse;
anything else ("edge_low", "edge_high", "maximum", "too_few_sizes") carries no optimum at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from speechscale.errors import DataError
from speechscale.scaling.intervals import LEVEL, Estimate, estimate
from speechscale.scaling.laws import FLOPS_PER_PARAM_TOKEN

Status = Literal["interior", "edge_low", "edge_high", "maximum", "too_few_sizes"]
INTERIOR, LOW, HIGH, MAXIMUM = range(4)
STATUS: tuple[Status, ...] = ("interior", "edge_low", "edge_high", "maximum")


@dataclass(frozen=True, slots=True, kw_only=True)
class IsoFlop:
    """The optimum at one budget.

    Args:
        sizes: measured parameters, ascending. losses: mean loss per size. losses_se: standard errors, None if unknown.
        params_opt, loss_opt: the vertex of the parabola with interval; None unless status is "interior".
        tokens_opt: C / (6 params_opt), None likewise.
        edge_share: share of noise replicates whose optimum was not bracketed.
        open_low, open_high: the interval reaches past the smallest or largest size, so its end there is only that size.
        message: one sentence to print.
    """

    budget_flops: float
    status: Status
    sizes: tuple[float, ...]
    losses: tuple[float, ...]
    losses_se: tuple[float, ...] | None
    message: str
    params_opt: Estimate | None = None
    tokens_opt: float | None = None
    loss_opt: Estimate | None = None
    edge_share: float | None = None
    open_low: bool = False
    open_high: bool = False


def isoflop(
    params: Float[np.ndarray, " runs"],
    loss: Float[np.ndarray, " runs"],
    *,
    budget_flops: float,
    loss_se: Float[np.ndarray, " runs"] | None = None,
    se_source: str = "standard errors",
    nearest: int = 5,
    replicates: int = 1000,
    seed: int = 0,
) -> IsoFlop:
    """Fit a parabola in log10 N through the `nearest` sizes around the lowest loss and read off its vertex.

    Example: losses 3.1, 3.0, 3.1 at 1e6, 1e7, 1e8 -> status "interior", params_opt 1e7

    Args:
        loss_se: standard error of each run's loss. Without it the spread between seeds is used, and without seeds the
            misfit of the parabola (if more than 3 sizes), else there is no interval and `params_opt.method` says so.
        se_source: what `loss_se` is made of, for the record.

    Raises:
        DataError: NaN, infinite or non-positive numbers, or arrays of different lengths.
    """
    sizes, losses, se, source = _by_size(params, loss, loss_se, se_source)
    x = np.log10(sizes)
    where = f"at {budget_flops:.3g} FLOPs"
    base = IsoFlop(
        budget_flops=float(budget_flops),
        status="too_few_sizes",
        sizes=tuple(map(float, sizes)),
        losses=tuple(map(float, losses)),
        losses_se=None if se is None else tuple(map(float, se)),
        message=f"{where} only {len(sizes)} size(s) were run: 3 are the least that can bracket an optimum",
    )
    if len(sizes) < 3:
        return base
    status, vertex, bottom = vertices(x, losses[None], nearest)
    name = STATUS[int(status[0])]
    if name != "interior":
        return replace(base, status=name, message=f"{where} {_refusal(name, sizes)}")
    if se is None:
        se, source = _misfit(x, losses, nearest), "misfit of the parabola"
    value, value_loss = float(10 ** vertex[0]), float(bottom[0])
    base = replace(base, status="interior", tokens_opt=budget_flops / FLOPS_PER_PARAM_TOKEN / value)
    if se is None:
        method = "no interval: no standard errors, no seeds, and 3 sizes fit a parabola exactly"
        return replace(
            base,
            message=f"{where} the best size is near {value:.3g} parameters (uncertainty not measured)",
            params_opt=Estimate(value=value, low=None, high=None, method=method),
            loss_opt=Estimate(value=value_loss, low=None, high=None, method=method),
        )
    rng = np.random.default_rng(seed)
    noisy = losses + se * rng.standard_normal((replicates, len(losses)))
    drawn, places, bottoms = vertices(x, noisy, nearest)
    # A replicate without a bracketed optimum says "at or beyond this edge"; one that bends down says nothing, so it
    # widens the interval on both sides in turn.
    bent = np.flatnonzero(drawn == MAXIMUM)
    places = np.where(drawn == LOW, x[0], np.where(drawn == HIGH, x[-1], places))
    places[bent] = np.where(np.arange(len(bent)) % 2, x[0], x[-1])
    method = f"{replicates} replicates of the losses within their {source}, percentiles"
    low, high = np.quantile(places, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    open_low, open_high = bool(low <= x[0]), bool(high >= x[-1])
    message = f"{where} the best size is {value:.3g} [{10**low:.3g}, {10**high:.3g}] parameters"
    if open_low or open_high:
        message += "; the interval reaches the edge of the measured sizes, so the optimum may lie outside"
    return replace(
        base,
        message=message,
        params_opt=estimate(value, 10**places, method=method),
        loss_opt=estimate(value_loss, bottoms, method=method),
        edge_share=float(np.mean(drawn != INTERIOR)),
        open_low=open_low,
        open_high=open_high,
    )


def _by_size(
    params: np.ndarray, loss: np.ndarray, loss_se: np.ndarray | None, se_source: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, str]:
    """Average the seeds of each size; return sizes, mean losses, their standard errors and what these come from."""
    params, loss = np.asarray(params, float), np.asarray(loss, float)
    given = None if loss_se is None else np.asarray(loss_se, float)
    if params.ndim != 1 or params.shape != loss.shape or (given is not None and given.shape != loss.shape):
        raise DataError("isoflop: params, loss and loss_se need one number per run each")
    bad = np.flatnonzero(~np.isfinite(loss) | (loss <= 0) | ~np.isfinite(params) | (params <= 0))
    if len(bad):
        i = bad[0]
        raise DataError(f"isoflop: run {i} has {params[i]} parameters and loss {loss[i]}: drop diverged runs first")
    if given is not None and not np.all(np.isfinite(given) & (given >= 0)):
        raise DataError("isoflop: loss_se must be finite and >= 0; leave it out when it is not known")
    sizes, index = np.unique(params, return_inverse=True)
    count = np.bincount(index)
    means = np.bincount(index, loss) / count
    freedom = len(loss) - len(sizes)
    spread = float(np.sqrt(np.sum((loss - means[index]) ** 2) / freedom)) if freedom else 0.0
    if given is None:
        return sizes, means, (spread / np.sqrt(count) if freedom else None), "seed-to-seed spread"
    # Seeds share one test set: its error does not shrink with more of them.
    sampling = np.sqrt(np.bincount(index, given**2) / count)
    source = f"{se_source} combined with the seed-to-seed spread" if freedom else se_source
    return sizes, means, np.sqrt(sampling**2 + spread**2 / count), source


def vertices(
    x: Float[np.ndarray, " sizes"], losses: Float[np.ndarray, "replicates sizes"], nearest: int
) -> tuple[Int[np.ndarray, " replicates"], Float[np.ndarray, " replicates"], Float[np.ndarray, " replicates"]]:
    """Judge each row of losses; return status code, vertex (log10 N) and loss there (lowest measured if no vertex)."""
    count, sizes = losses.shape
    width = min(max(3, nearest), sizes)
    lowest = losses.argmin(axis=1)
    status = np.where(lowest == 0, LOW, np.where(lowest == sizes - 1, HIGH, INTERIOR))
    vertex, bottom = x[lowest].astype(float), losses[np.arange(count), lowest].copy()
    # A hump: the best size is an end, yet all sizes together bend down around a worst one in the middle.
    bend, peak, _ = _parabola(x, losses)
    inside = (peak > x[0]) & (peak < x[-1])
    worst = losses.argmax(axis=1)
    status[(status != INTERIOR) & (bend < 0) & inside & (worst > 0) & (worst < sizes - 1)] = MAXIMUM
    for middle in np.unique(lowest[status == INTERIOR]):
        rows = np.flatnonzero((status == INTERIOR) & (lowest == middle))
        first = int(np.clip(middle - width // 2, 0, sizes - width))
        window = slice(first, first + width)
        bend, at, value = _parabola(x[window], losses[rows, window])
        vertex[rows], bottom[rows] = at, value
        status[rows[bend <= 0]] = MAXIMUM
        # A lopsided parabola can put its vertex outside although a bracketing size exists: then it is not the optimum.
        status[rows[(bend > 0) & (at <= x[0])]] = LOW
        status[rows[(bend > 0) & (at >= x[-1])]] = HIGH
    unread = status != INTERIOR
    vertex[unread], bottom[unread] = x[lowest[unread]], losses[np.flatnonzero(unread), lowest[unread]]
    return status, vertex, bottom


def _parabola(x: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return curvature, vertex and loss at the vertex of the least-squares parabola of each row."""
    center = x.mean()
    c2, c1, c0 = np.polynomial.polynomial.polyfit(x - center, losses.T, 2)[::-1]
    safe = np.where(c2 == 0, 1e-300, c2)
    with np.errstate(over="ignore", invalid="ignore"):  # a straight row has its vertex at infinity; the status says so
        return c2, center - c1 / (2 * safe), c0 - c1**2 / (4 * safe)


def _misfit(x: np.ndarray, losses: np.ndarray, nearest: int) -> np.ndarray | None:
    """Return the residual spread of the parabola around the best size, None when it has no degree of freedom."""
    width = min(max(3, nearest), len(x))
    if width < 4:
        return None
    first = int(np.clip(losses.argmin() - width // 2, 0, len(x) - width))
    window = slice(first, first + width)
    center = x[window].mean()
    fitted = np.polynomial.Polynomial.fit(x[window] - center, losses[window], 2)(x[window] - center)
    sd = float(np.sqrt(np.sum((losses[window] - fitted) ** 2) / (width - 3)))
    return np.full(len(losses), sd)


def _refusal(status: Status, sizes: np.ndarray) -> str:
    if status == "edge_low":
        return (
            f"the optimum is at the edge: the smallest size run, {sizes[0]:.3g} parameters, or below; add smaller sizes"
        )
    if status == "edge_high":
        return (
            f"the optimum is at the edge: the largest size run, {sizes[-1]:.3g} parameters, or above; add larger sizes"
        )
    return "the losses have a maximum between the sizes, not a minimum: no optimum is read off"
