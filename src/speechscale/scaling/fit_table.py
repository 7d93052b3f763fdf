"""Fit a table of runs: the law of each arm with everything that could weaken it.

Enters: a `RunTable`. Leaves: one `Fitted` per arm; `speechscale fit` prints and saves them.
The one decision worth knowing: an arm that cannot be fitted is a `Fitted` with the reason, not an error: the other
arms are still wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from speechscale.errors import DataError
from speechscale.scaling.checks import check_fit, check_table
from speechscale.scaling.fit_findings import by_budget, drops, predictions, scored
from speechscale.scaling.fitted import STORED, Fitted
from speechscale.scaling.fitting.bootstrap import SMALL_TABLE, LawBootstrap, bootstrap_law, unsettled
from speechscale.scaling.fitting.fit import Fit, fit_loss_law
from speechscale.scaling.fitting.form_bootstrap import FormBootstrap, bootstrap_form
from speechscale.scaling.fitting.form_fit import FormFit
from speechscale.scaling.fitting.forms import FORMS
from speechscale.scaling.fitting.general import fit_form
from speechscale.scaling.fitting.newton import Kind
from speechscale.scaling.fitting.profiles import profiles
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.links.metric_links import metric_law
from speechscale.scaling.optima.approaches import approaches
from speechscale.scaling.optima.envelope_law import envelope_law
from speechscale.scaling.optima.held_out import HeldOut, held_out
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
_MOST_REFITS = 4e6
"""Runs times replicates: a table of 100,000 runs gets 100 replicates, which is about half a minute."""


@dataclass(frozen=True, slots=True)
class _Options:
    law: str
    objective: Kind
    delta: float
    by: By
    replicates: int
    seed: int
    targets: tuple[float, ...]
    base: LossLaw | None
    hold_out: bool


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
    options = _Options(law, objective, delta, by, replicates, seed, tuple(targets_flops), base, hold_out)
    found = []
    for name, arm in table.each_arm():
        plain = _start(arm, name, law)
        try:
            fitted = (_chinchilla if law == "chinchilla" else _form)(plain, arm.with_loss(), options)
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


def _chinchilla(plain: Fitted, table: RunTable, options: _Options) -> Fitted:
    assert table.loss is not None
    replicates, seed, by = options.replicates, options.seed, options.by
    fit = fit_loss_law(table.params, table.tokens, table.loss, objective=options.objective, delta=options.delta)
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
    held = _held_out(table, options)
    return replace(
        _common(plain, table, fit, boot.converged),
        constants=boot.constants(),
        by_cluster=by_budget(fit, table, replicates, seed) if by == "run" else {},
        interval_method=_method(boot, by, small, labels),
        replicates={n: getattr(boot.law, n)[:STORED] for n in ("E", "A", "B", "alpha", "beta")},
        at=predictions(boot, table, options.targets),
        drops=drops(fit, table),
        published=scored(fit, table),
        approaches=every,
        envelope=envelope_law(table, fit, replicates=replicates, seed=seed),
        held_out=held,
        cautions=(
            *check_table(table),
            *check_fit(table, fit, boot=boot, approaches=every, held_out=held, targets_flops=options.targets),
        ),
    )


def _form(plain: Fitted, table: RunTable, options: _Options) -> Fitted:
    law = options.law
    if options.by == "residual":
        raise DataError(
            f"law '{law}': residuals are resampled for the law chinchilla only; use --by run, budget or size"
        )
    columns = columns_of(table, FORMS[law].columns)
    fit = fit_form(law, columns, table.loss, objective=options.objective, delta=options.delta, base=options.base)
    labels = cluster_labels(table, options.by)
    boot = bootstrap_form(fit, replicates=options.replicates, seed=options.seed, clusters=labels)
    return replace(
        _common(plain, table, fit, boot.converged),
        constants=boot.estimates(),
        interval_method=f"{options.replicates} replicates: {BYS[options.by]}{_open_ends(boot)}",
        replicates={name: values[:STORED] for name, values in boot.constants.items()},
        held_out=_held_out(table, options),
        cautions=tuple(c for c in check_table(table) if (law, c.name) != ("repeat", "repeated-data")),
    )


def _common(plain: Fitted, table: RunTable, fit: Fit | FormFit, converged: float) -> Fitted:
    """What every law says of its point fit, and whether its constants may be quoted."""
    trouble = fit.trouble or unsettled(converged)
    return replace(
        plain,
        status="not_identified" if trouble else "fitted",
        reason=trouble,
        fit=fit,
        runs=len(table),
        replicates_converged=converged,
        profiles=profiles(fit),
    )


def _held_out(table: RunTable, options: _Options) -> HeldOut | None:
    if not options.hold_out:
        return None
    return held_out(
        table,
        replicates=options.replicates,
        seed=options.seed,
        objective=options.objective,
        delta=options.delta,
        law=options.law,
        base=options.base,
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
