"""Fit a table of runs: the law of each arm with everything that could weaken it.

Enters: a `RunTable`. Leaves: one `Fitted` per arm; `speechscale fit` prints and saves them.
The one decision worth knowing: an arm that cannot be fitted is a `Fitted` with the reason, not an error: the other
arms are still wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from speechscale.errors import DataError
from speechscale.scaling.checks import check_fit, check_table
from speechscale.scaling.fitted import STORED, At, Dropped, Fitted, Scored
from speechscale.scaling.fitting.bootstrap import SMALL_TABLE, LawBootstrap, bootstrap_law
from speechscale.scaling.fitting.fit import Fit, fit_loss_law
from speechscale.scaling.fitting.form_bootstrap import FormBootstrap, bootstrap_form
from speechscale.scaling.fitting.forms import FORMS
from speechscale.scaling.fitting.general import fit_form
from speechscale.scaling.fitting.newton import Kind
from speechscale.scaling.fitting.profiles import profiles
from speechscale.scaling.intervals import Estimate
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.links.metric_links import metric_law
from speechscale.scaling.optima.approaches import approaches
from speechscale.scaling.optima.envelope_law import envelope_law
from speechscale.scaling.optima.held_out import held_out
from speechscale.scaling.published import LAWS
from speechscale.scaling.tables.budgets import budgets_of, runs_of
from speechscale.scaling.tables.columns import columns_of
from speechscale.scaling.tables.run_table import RunTable
from speechscale.settings import nearest

By = Literal["run", "budget", "size", "residual"]
BYS: dict[By, str] = {
    "run": "whole runs are resampled (checkpoints of one run together)",
    "budget": "whole budgets are resampled",
    "size": "whole model sizes are resampled",
    "residual": "losses are drawn around the law from its residuals",
}
MIN_CLUSTERS = 5
"""Fewer budgets resampled as wholes say nothing of the exponents."""
EXPONENTS = ("exp_params", "exp_tokens", "alpha", "beta")
_DROPPED_SHARES = (0.0, 0.01, 0.02, 0.04)
_MOST_REFITS = 4e6
"""Runs times replicates: a table of 100,000 runs gets 100 replicates, which is about half a minute."""


def fit_runs(
    table: RunTable,
    *,
    law: str = "chinchilla",
    objective: Kind = "log-huber",
    delta: float = 1e-3,
    by: By = "run",
    replicates: int = 1000,
    seed: int = 0,
    targets_flops: Sequence[float] = (),
    base: LossLaw | None = None,
    chance: float = 0.5,
    hold_out: bool = True,
) -> tuple[Fitted, ...]:
    """Fit every arm of a table.

    Example: fit_runs(read_runs("runs.csv"))[0].constants["exp_params"].value -> 0.49

    Args:
        law: "chinchilla" or a key of `fitting.forms.FORMS`. base: its five-term law, held (see `fit_form`).
        objective, delta: see `fitting.newton.Objective`. by: what is resampled, a key of BYS.
        targets_flops: computes to predict beside the measured budgets. chance: of every metric.
        hold_out: leave out the largest budget, predict it, compare.

    Raises:
        DataError: unknown names, a base without a form, a compute that is none, or a table without losses and metrics.
    """
    if law != "chinchilla" and law not in FORMS:
        raise DataError(f"law '{law}' is unknown{nearest(law, ['chinchilla', *FORMS])}")
    if by not in BYS:
        raise DataError(f"--by {by}: allowed are {', '.join(BYS)}")
    if base is not None and law == "chinchilla":
        raise DataError("a base is held inside another law, chinchilla is that law itself; give --law, or leave it out")
    strange = [flops for flops in targets_flops if not (np.isfinite(flops) and flops > 0)]
    if strange:
        raise DataError(f"compute {strange[0]:g} to predict at: must be finite and above 0 FLOPs")
    replicates = min(replicates, max(100, int(_MOST_REFITS / len(table))))
    found = []
    for name, arm in table.each_arm():
        plain = _start(arm, name, law)
        try:
            fitted = (
                _chinchilla(plain, arm.with_loss(), objective, delta, by, replicates, seed, targets_flops, hold_out)
                if law == "chinchilla"
                else _form(plain, arm.with_loss(), law, objective, delta, by, replicates, seed, base, hold_out)
            )
        except DataError as error:
            if arm.loss is None and not arm.metrics:
                raise
            fitted = replace(plain, status="not_fitted", reason=str(error), cautions=check_table(arm))
        links = tuple(
            metric_law(arm, metric, chance=chance, replicates=replicates, seed=seed) for metric in arm.metrics
        )
        found.append(replace(fitted, metrics=links))
    return tuple(found)


def cluster_labels(table: RunTable, by: By) -> list[Any] | None:
    """What is resampled together, one label per run; None where every run stands alone.

    Raises:
        DataError: --by budget, and the runs do not come in budgets.
    """
    if by == "size":
        return [f"{n:.6g}" for n in table.params]
    if by == "budget":
        budgets = budgets_of(table)
        if budgets is None:
            raise DataError(f"table {table.name}: its runs do not come in budgets; resample --by run or --by size")
        return list(budgets)
    return runs_of(table) if by == "run" else None


def _start(table: RunTable, name: str, law: str) -> Fitted:
    losses = None if table.loss is None or not np.isfinite(table.loss).any() else table.loss
    return Fitted(
        table=table,
        name=name or table.name,
        law_name=law,
        status="fitted",
        runs=len(table),
        convention=table.convention,
        flops_name=table.flops_name,
        tokenizer=", ".join(sorted({t for t in table.words("tokenizer") if t})),
        range_flops=(float(table.flops.min()), float(table.flops.max())),
        range_loss=None if losses is None else (float(np.nanmin(losses)), float(np.nanmax(losses))),
    )


def _chinchilla(
    plain: Fitted,
    table: RunTable,
    objective: Kind,
    delta: float,
    by: By,
    replicates: int,
    seed: int,
    targets: Sequence[float],
    hold_out: bool,
) -> Fitted:
    assert table.loss is not None
    fit = fit_loss_law(table.params, table.tokens, table.loss, objective=objective, delta=delta)
    labels = cluster_labels(table, by)
    small = by == "run" and labels is None and len(table) < SMALL_TABLE
    boot = bootstrap_law(
        fit,
        replicates=replicates,
        seed=seed,
        by="residuals" if by == "residual" or small else "clusters" if labels else "runs",
        clusters=labels,
    )
    every = approaches(table, replicates=replicates, seed=seed, fit=fit, boot=boot)
    held = held_out(table, replicates=replicates, seed=seed, objective=objective, delta=delta) if hold_out else None
    return replace(
        plain,
        status="not_identified" if fit.trouble else "fitted",
        reason="; ".join(fit.notes),
        fit=fit,
        runs=len(table),
        constants=boot.constants(),
        by_cluster=_by_budget(fit, table, replicates, seed) if by == "run" else {},
        interval_method=_method(boot, by, small, labels),
        replicates_converged=boot.converged,
        replicates={n: getattr(boot.law, n)[:STORED] for n in ("E", "A", "B", "alpha", "beta")},
        at=_predictions(boot, table, targets),
        profiles=profiles(fit),
        drops=_drops(table, objective, delta),
        published=_scored(fit, table),
        approaches=every,
        envelope=envelope_law(table, fit, replicates=replicates, seed=seed),
        held_out=held,
        cautions=(
            *check_table(table),
            *check_fit(table, fit, boot=boot, approaches=every, held_out=held, targets_flops=targets),
        ),
    )


def _form(
    plain: Fitted,
    table: RunTable,
    law: str,
    objective: Kind,
    delta: float,
    by: By,
    replicates: int,
    seed: int,
    base: LossLaw | None,
    hold_out: bool,
) -> Fitted:
    assert table.loss is not None
    if by == "residual":
        raise DataError(
            f"law '{law}': residuals are resampled for the law chinchilla only; use --by run, budget or size"
        )
    columns = columns_of(table, FORMS[law].columns)
    fit = fit_form(law, columns, table.loss, objective=objective, delta=delta, base=base)
    labels = cluster_labels(table, by)
    boot = bootstrap_form(fit, replicates=replicates, seed=seed, clusters=labels)
    return replace(
        plain,
        status="not_identified" if fit.trouble else "fitted",
        reason="; ".join(fit.notes),
        fit=fit,
        runs=len(table),
        constants=boot.estimates(),
        interval_method=f"{replicates} replicates: {BYS[by]}{_open_ends(boot)}",
        replicates_converged=boot.converged,
        replicates={name: values[:STORED] for name, values in boot.constants.items()},
        profiles=profiles(fit),
        held_out=held_out(table, replicates=replicates, seed=seed, objective=objective, delta=delta, law=law, base=base)
        if hold_out
        else None,
        cautions=tuple(c for c in check_table(table) if (law, c.name) != ("repeat", "repeated-data")),
    )


def _open_ends(boot: FormBootstrap) -> str:
    """Say which intervals end only because the search did. Example: "; open: R_D" """
    form = boot.fit.model.form
    share = np.mean((boot.theta <= form.low + 1e-6) | (boot.theta >= form.high - 1e-6), axis=0)
    names = [name for name, s, held in zip(form.names, share, boot.fit.fixed, strict=True) if s > 0.025 and not held]
    return f"; open, as replicates reach the border of the search: {', '.join(names)}" if names else ""


def _method(boot: LawBootstrap, by: By, small: bool, labels: list[Any] | None) -> str:
    count = len(boot.law.E)
    if small:
        return f"{count} replicates: {BYS['residual']} (fewer than {SMALL_TABLE} runs)"
    text = f"{count} replicates: {BYS[by]}"
    return f"{text}, {len(set(labels))} clusters" if labels else text


def _by_budget(fit: Fit, table: RunTable, replicates: int, seed: int) -> dict[str, Estimate]:
    """The exponents with whole budgets resampled, where there are enough of them."""
    labels = budgets_of(table)
    if labels is None or len(set(labels)) < MIN_CLUSTERS:
        return {}
    boot = bootstrap_law(fit, replicates=replicates, seed=seed, by="clusters", clusters=list(labels))
    return {name: boot.of(lambda law, name=name: getattr(law, name)) for name in EXPONENTS}  # type: ignore[misc]


def _predictions(boot: LawBootstrap, table: RunTable, targets: Sequence[float]) -> tuple[At, ...]:
    """The law at the lowest and highest measured compute, ten times beyond, and wherever asked."""
    low, high = float(table.flops.min()), float(table.flops.max())
    if boot.fit.at_bounds:
        return ()
    found = []
    for flops in sorted({low, high, 10 * high, *map(float, targets)}):
        params, tokens, loss = (
            boot.of(lambda law, key=key, flops=flops: getattr(law.optimum(flops), key))  # type: ignore[misc]
            for key in ("params_opt", "tokens_opt", "loss")
        )
        found.append(At(flops=flops, params_opt=params, tokens_opt=tokens, loss=loss, extrapolation=flops / high))
    return tuple(found)


def _drops(table: RunTable, objective: Kind, delta: float) -> tuple[Dropped, ...]:
    """Fits without the highest losses: the rule of outliers can move the answer more than its interval says."""
    assert table.loss is not None
    order, found = np.argsort(-table.loss, kind="stable"), []
    for left_out in sorted({round(share * len(table)) for share in _DROPPED_SHARES} | {1}):
        keep = np.ones(len(table), bool)
        keep[order[:left_out]] = False
        try:
            law = fit_loss_law(
                table.params[keep], table.tokens[keep], table.loss[keep], objective=objective, delta=delta
            ).law
        except DataError:
            continue
        found.append(Dropped(left_out=left_out, law=law, exp_params=float(law.exp_params)))
    return tuple(found)


def _scored(fit: Fit, table: RunTable) -> tuple[Scored, ...]:
    """Every published law of this table's kind of loss under this fit's objective, nearest first."""
    assert table.loss is not None
    found = []
    for published in LAWS.values():
        predicted = published.law.predict(table.params, table.tokens)
        residual = table.loss - predicted if fit.minimized.raw else np.log(table.loss / predicted)
        value = float(fit.minimized.of_residuals(residual).sum())
        found.append(Scored(name=published.name, objective=value, ratio=value / max(fit.objective, 1e-300)))
    return tuple(sorted(found, key=lambda scored: scored.objective))
