"""What a metric does with compute and with loss, for any table of runs.

Enters: a `RunTable` with metrics. Leaves: `MetricLaw`: every curve, with intervals, and which of them to believe.
The one decision worth knowing: the exponents of the literature are of raw accuracy (Q ~ C^gamma), which depends on
chance and ceiling; it is given as they give it, and the curves above chance stand beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.scaling.fitting.bootstrap import LawBootstrap
from speechscale.scaling.fitting.form_bootstrap import FormBootstrap, bootstrap_form
from speechscale.scaling.fitting.general import fit_form
from speechscale.scaling.intervals import Estimate, estimate
from speechscale.scaling.links.metric_forms import OF_COMPUTE, OF_LOSS
from speechscale.scaling.links.metric_slopes import MetricExponent, metric_exponent
from speechscale.scaling.model_choice import MARGIN, aicc
from speechscale.scaling.tables.budgets import runs_of
from speechscale.scaling.tables.run_table import RunTable

MIN_RUNS = 6
_ZERO = 1e-6  # a score of 0 in a curve that is not drawn in logarithms


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFit:
    """One curve through all runs.

    Args:
        curve: a key of OF_COMPUTE or OF_LOSS. of: what it is drawn over. reason: why there are no constants.
        aicc: with the number of runs as n; comparable among curves of the same `of`.
    """

    curve: str
    of: Literal["compute", "loss"]
    reason: str = ""
    constants: Mapping[str, Estimate] = field(default_factory=dict)
    aicc: float | None = None
    r2: float | None = None
    residual_sd: float | None = None
    boot: FormBootstrap | None = field(default=None, repr=False)

    def at(self, x: float, *, further_run: bool = False) -> Estimate | None:
        """The curve at a compute (FLOPs) or a loss (nats), with its band; None without constants.

        Args:
            further_run: the interval of one more run, its scatter around the curve included.
        """
        if self.boot is None:
            return None
        columns = {"C" if self.of == "compute" else "L": np.array([x])}
        value, drawn = self.boot.fit.predict(columns), self.boot.predict(columns)
        found = drawn[:, 0]
        if further_run and self.residual_sd is not None:
            found = found + self.residual_sd * np.random.default_rng(0).standard_normal(len(found))
        return estimate(float(value[0]), found, method=self.boot.method)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricLaw:
    """One metric of one arm.

    Args:
        exponent: Q ~ C^gamma through the best runs, as the papers; None with `exponent_reason`.
        fits: every curve through all runs. chosen: the curve over loss to use, "" without one.
        at_chance: no run is above chance by more than the scatter.
    """

    metric: str
    chance: float
    runs: int
    exponent: MetricExponent | None
    exponent_reason: str
    fits: tuple[MetricFit, ...]
    chosen: str
    at_chance: bool
    message: str

    def of(self, curve: str) -> MetricFit:
        """One curve by name."""
        return next(fit for fit in self.fits if fit.curve == curve)


def metric_law(
    table: RunTable, metric: str, *, chance: float = 0.5, replicates: int = 1000, seed: int = 0
) -> MetricLaw:
    """Fit every curve of a metric: over compute, and over loss where the table has losses.

    Example: metric_law(cuervo, "tstorycloze").exponent.gamma.value -> .0243

    Raises:
        DataError: the table has no such metric, or chance is not in 0..1.
    """
    if metric not in table.metrics:
        raise DataError(f"table {table.name}: no metric '{metric}'; it has {', '.join(table.metrics) or 'none'}")
    if not 0 <= chance < 1:
        raise DataError(f"chance {chance} of {metric}: must be a share, 0 or more and below 1")
    scored = table.subset(np.isfinite(table.metrics[metric]))
    exponent, reason = None, ""
    try:
        exponent = metric_exponent(table, metric, replicates=replicates, seed=seed)
    except DataError as error:
        reason = str(error)
    values = scored.metrics[metric]
    fits = [_fit(name, "compute", scored, values, chance, replicates, seed) for name in OF_COMPUTE]
    if scored.loss is not None and np.isfinite(scored.loss).any():
        fits += [_fit(name, "loss", scored, values, chance, replicates, seed) for name in OF_LOSS]
    scatter = min((f.residual_sd for f in fits if f.residual_sd is not None), default=np.nan)
    at_chance = bool(len(values) and np.all(values - chance < 2 * scatter))
    chosen = _chosen(fits)
    return MetricLaw(
        metric=metric,
        chance=chance,
        runs=len(scored),
        exponent=exponent,
        exponent_reason=reason,
        fits=tuple(fits),
        chosen=chosen,
        at_chance=at_chance,
        message=_message(metric, chance, exponent, reason, fits, chosen, at_chance) + _zeros(values),
    )


def _fit(
    name: str,
    of: Literal["compute", "loss"],
    table: RunTable,
    values: np.ndarray,
    chance: float,
    replicates: int,
    seed: int,
) -> MetricFit:
    x = table.flops if of == "compute" else table.loss
    assert x is not None
    there = np.isfinite(x) & ((values > 0) | (name != "power"))
    if there.sum() < MIN_RUNS:
        return MetricFit(curve=name, of=of, reason=f"{int(there.sum())} runs: a curve needs {MIN_RUNS}")
    if np.ptp(np.log(x[there])) < 1e-3:
        return MetricFit(curve=name, of=of, reason=f"all runs have one {of}: nothing to draw a curve over")
    if name != "power" and np.all(values[there] <= chance):
        return MetricFit(curve=name, of=of, reason=f"no run is above chance ({chance:g})")
    kind = (OF_COMPUTE if of == "compute" else OF_LOSS)[name]
    form = partial(kind, chance=chance)
    form.columns = kind.columns  # type: ignore[attr-defined]
    columns, kept = {kind.columns[0]: x[there]}, np.maximum(values[there], _ZERO)
    objective: Any = "mse" if name == "power" else "raw-mse"  # the papers' line is drawn in logarithms
    fit = fit_form(name, columns, kept, objective=objective, form_type=form)
    clusters = runs_of(table.subset(there))
    boot = bootstrap_form(fit, replicates=replicates, seed=seed, clusters=clusters)
    runs = len(set(clusters)) if clusters else len(kept)
    missed = kept - fit.predict(columns)
    return MetricFit(
        curve=name,
        of=of,
        reason=f"{', '.join(fit.at_bounds)} not measured: on the border of the search" if fit.at_bounds else "",
        constants=boot.estimates(),
        aicc=aicc(float(np.mean(missed**2)), fit.free, runs),
        r2=fit.r2,
        residual_sd=float(np.sqrt(np.mean(missed**2) * runs / max(1, runs - fit.free))),  # rows may be checkpoints
        boot=boot,
    )


def _chosen(fits: list[MetricFit]) -> str:
    """The line, unless a bent curve is clearly better."""
    known = {f.curve: f.aicc for f in fits if f.of == "loss" and f.aicc is not None}
    if "linear" not in known:
        return ""
    best = min(known, key=lambda name: known[name])
    return best if known["linear"] - known[best] > MARGIN else "linear"


def _zeros(values: np.ndarray) -> str:
    zeros = int(np.sum(values <= 0))
    return f"; {zeros} run(s) at 0 are not in the power law, which is drawn in logarithms" if zeros else ""


def _message(
    metric: str,
    chance: float,
    exponent: MetricExponent | None,
    reason: str,
    fits: list[MetricFit],
    chosen: str,
    at_chance: bool,
) -> str:
    if at_chance:
        return f"{metric}: no run is told from chance ({chance:g}); its curves are of noise"
    if exponent is None:
        text = f"{metric}: {reason}"
    else:
        gamma = exponent.gamma
        ends = "" if gamma.low is None or gamma.high is None else f" [{gamma.low:.3g}, {gamma.high:.3g}]"
        text = f"{metric} ~ C^{gamma.value:.3g}{ends} ({exponent.selection})"
    by_name = {fit.curve: fit for fit in fits}
    if chosen and (r2 := by_name[chosen].r2) is not None:
        text += f"; of loss: {chosen}, R2 {r2:.2f}"
    return text


def through_loss(boot: LawBootstrap, link: MetricFit, flops: float) -> Estimate | None:
    """The metric at the law's own optimum for C: replicates of the law through replicates of the link.

    Its interval holds the uncertainty of both; None where either has no constants. Where both resampled the same runs
    with one seed their errors stay together; otherwise they are taken as independent.

    Raises:
        DataError: the link is not one over loss.
    """
    if link.of != "loss":
        raise DataError(f"link {link.curve} is over {link.of}; through the law goes only a link over loss")
    if link.boot is None or boot.fit.at_bounds:
        return None
    losses = np.asarray(boot.law.loss_at(flops))
    count = min(len(losses), len(link.boot.theta))
    form = link.boot.fit.model.form
    drawn = _pairwise(form, link.boot.theta[:count], losses[:count])
    value = link.boot.fit.predict({"L": np.array([boot.fit.law.loss_at(flops)])})
    method = f"{count} replicates of the law, each through one of the link"
    return estimate(float(value[0]), drawn, method=method)


def _pairwise(form: Any, theta: np.ndarray, losses: np.ndarray) -> Float[np.ndarray, " replicates"]:
    pairs = zip(theta, losses, strict=True)
    return np.array([float(np.exp(form.log_law(row[None], {"L": np.array([x])})[0, 0])) for row, x in pairs])
