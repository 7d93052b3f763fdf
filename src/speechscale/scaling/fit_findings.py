"""What stands beside a fitted law: its exponents by budget, predictions, fits of fewer runs, the published laws.

Enters: a `Fit`, its table, its bootstrap. Leaves: the parts of a `Fitted` that `fit_table` puts together.
The one decision worth knowing: all of them use the objective of the fit, so that they can be set beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from speechscale.errors import DataError
from speechscale.scaling.fitted import At, Dropped, Scored
from speechscale.scaling.fitting.bootstrap import LawBootstrap, bootstrap_law
from speechscale.scaling.fitting.fit import Fit, fit_loss_law
from speechscale.scaling.intervals import Estimate
from speechscale.scaling.published import LAWS
from speechscale.scaling.tables.budgets import budgets_of
from speechscale.scaling.tables.run_table import RunTable

MIN_CLUSTERS = 5
"""Fewer budgets resampled as wholes say nothing of the exponents."""
EXPONENTS = ("exp_params", "exp_tokens", "alpha", "beta")
_DROPPED_SHARES = (0.0, 0.01, 0.02, 0.04)


def by_budget(fit: Fit, table: RunTable, replicates: int, seed: int) -> dict[str, Estimate]:
    """The exponents with whole budgets resampled, where there are enough of them."""
    labels = budgets_of(table)
    if labels is None or len(set(labels)) < MIN_CLUSTERS:
        return {}
    boot = bootstrap_law(fit, replicates=replicates, seed=seed, by="clusters", clusters=list(labels))
    return {name: boot.of(lambda law, name=name: getattr(law, name)) for name in EXPONENTS}  # type: ignore[misc]


def predictions(boot: LawBootstrap, table: RunTable, targets: Sequence[float]) -> tuple[At, ...]:
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


def drops(fit: Fit, table: RunTable) -> tuple[Dropped, ...]:
    """Fits without the highest losses: the rule of outliers can move the answer more than its interval says."""
    assert table.loss is not None
    order, found = np.argsort(-table.loss, kind="stable"), []
    for left_out in sorted({round(share * len(table)) for share in _DROPPED_SHARES} | {1}):
        keep = np.ones(len(table), bool)
        keep[order[:left_out]] = False
        try:
            left = table.params[keep], table.tokens[keep], table.loss[keep]
            law = fit_loss_law(*left, objective=fit.minimized.kind, delta=fit.minimized.delta).law
        except DataError:
            continue
        found.append(Dropped(left_out=left_out, law=law, exp_params=float(law.exp_params)))
    return tuple(found)


def scored(fit: Fit, table: RunTable) -> tuple[Scored, ...]:
    """Every published law of this table's kind of loss under this fit's objective, nearest first."""
    assert table.loss is not None
    found = []
    for published in LAWS.values():
        value = fit.minimized.score(published.law.predict(table.params, table.tokens), table.loss)
        found.append(Scored(name=published.name, objective=value, ratio=value / max(fit.objective, 1e-300)))
    return tuple(sorted(found, key=lambda scored: scored.objective))
