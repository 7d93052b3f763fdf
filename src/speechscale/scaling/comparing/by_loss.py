"""The part of a comparison that losses decide: laws, exponents, their test, compute multipliers.

Enters: two `RunTable`s with losses. Leaves: a `Comparison` with these parts filled in.
The one decision worth knowing: laws are resampled by run AND by budget (or size), and the wider interval is quoted:
runs of one budget share its errors (a schedule, a stretch of data), which resampling single runs does not see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from speechscale.errors import DataError
from speechscale.scaling.analysis.multiplier import Multiplier, compute_multiplier
from speechscale.scaling.comparing.comparison import Comparison, Difference
from speechscale.scaling.comparing.law_multiplier import Arm, law_multiplier
from speechscale.scaling.comparing.reach import Charge, TextLMCharge, kappa, make_charge, text_lm_flops
from speechscale.scaling.comparing.resampling import By, Ways, checkpoints, fit_notes, resamplings, unlike_inventories
from speechscale.scaling.comparing.sentences import methods_disagree
from speechscale.scaling.comparing.shared_exponents import equal_exponents
from speechscale.scaling.fitting.bootstrap import LawBootstrap, bootstrap_law, unsettled
from speechscale.scaling.fitting.fit import Fit, fit_loss_law, strange_losses
from speechscale.scaling.fitting.newton import Kind
from speechscale.scaling.intervals import estimate
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.optima.envelope import Sweep, make_sweep
from speechscale.scaling.tables.budgets import budgets_of
from speechscale.scaling.tables.run_table import RunTable

EXPONENTS: dict[str, Callable[[LossLaw], Any]] = {
    "exp_params": lambda law: law.exp_params,
    "exp_tokens": lambda law: law.exp_tokens,
    "alpha": lambda law: law.alpha,
    "beta": lambda law: law.beta,
    "kappa": kappa,
}
"""What is compared: a and b of N_opt and D_opt, alpha, beta, and kappa of the reducible loss."""


@dataclass(frozen=True, slots=True)
class Options:
    replicates: int
    seeds: list[int]
    by: By
    charge_text_lm: bool | None
    unlike_units: bool | None
    test_replicates: int
    objective: Kind
    delta: float


Boots = dict[str, LawBootstrap]


def compare_losses(found: Comparison, a: RunTable, b: RunTable, options: Options) -> Comparison:
    """Add what the losses say; tables too small for a law still have their measured envelopes."""
    for table in (a, b):
        if strange := strange_losses(np.asarray(table.loss)):
            return replace(found, refused=(*found.refused, f"laws and loss multipliers: {table.name}: {strange}"))
    found, fits, boots = _laws(found, a, b, options)
    unlike = (
        unlike_inventories(a, b) if options.unlike_units is None else "they were declared unlike" * options.unlike_units
    )
    if unlike:
        reason = f"loss multipliers: {unlike}; nats per token of different inventories are not one scale"
        return replace(found, refused=(*found.refused, reason))
    charges = _charges(a, b, options.charge_text_lm)
    charged = any(charge is not None for charge in charges)
    plain, full = _envelopes(a, b, options, charged)
    found = replace(found, envelope=plain, envelope_charged=full)
    if not fits:
        return found
    unlike_tokens = [f"TextLM charged: {charge.trouble}" for charge in charges if charge is not None and charge.trouble]
    one, two = (_arm(*parts) for parts in zip((a, b), fits, boots, charges, strict=True))
    found = replace(
        found,
        multiplier=law_multiplier(one, two),
        charged=law_multiplier(one, two, charged=True) if charged and not unlike_tokens else None,
        refused=(*found.refused, *unlike_tokens),
    )
    return replace(found, notes=(*found.notes, *methods_disagree(found)))


def _laws(found: Comparison, a: RunTable, b: RunTable, options: Options) -> tuple[Comparison, list[Fit], list[Boots]]:
    """Add both laws; neither where one is not identified, with the reasons of both."""
    fits, boots, reasons = [], [], []
    for table in (a, b):
        try:
            fits.append(_fitted(table, options))
        except DataError as error:
            reasons.append(str(error))
    if not reasons:
        ways = resamplings(a, b, options.by)
        boots = _boots(fits, ways, options)
        # as `fit` rules: by the first way, which is that of single runs where they are resampled
        shares = [next(iter(of.values())).converged for of in boots]
        reasons = [f"{t.name}: {why}" for t, x in zip((a, b), shares, strict=True) if (why := unsettled(x))]
    if reasons:
        return replace(found, no_law="; ".join(reasons)), [], []
    return _add_laws(found, a, b, fits, boots, ways, options), fits, boots


def _fitted(table: RunTable, options: Options) -> Fit:
    """Raises DataError naming the table if it holds too little for a law, or its runs do not determine one."""
    try:
        fit = fit_loss_law(
            table.params, table.tokens, np.asarray(table.loss), objective=options.objective, delta=options.delta
        )
    except DataError as error:
        raise DataError(f"{table.name}: {error}") from error
    if fit.trouble:
        raise DataError(f"{table.name}: {fit.trouble}, so its constants were not measured")
    return fit


def _boots(fits: list[Fit], ways: Ways, options: Options) -> list[Boots]:
    """Resample each law in every way."""
    return [
        {
            way: bootstrap_law(
                fit,
                replicates=options.replicates,
                seed=options.seeds[2 * i + j],
                by="auto" if labels is None else "clusters",
                clusters=None if labels is None else list(labels[j]),
            )
            for i, (way, labels) in enumerate(ways.items())
        }
        for j, fit in enumerate(fits)
    ]


def _add_laws(
    found: Comparison, a: RunTable, b: RunTable, fits: list[Fit], boots: list[Boots], ways: Ways, options: Options
) -> Comparison:
    """Compare both laws, and test their exponents."""
    test = options.test_replicates
    return replace(
        found,
        fits=(fits[0], fits[1]),
        equal=equal_exponents(*fits, replicates=test, seed=options.seeds[4], clusters=checkpoints(a, b))
        if test
        else None,
        exponents=_exponents(fits, boots),
        notes=(*found.notes, *fit_notes(a, b, fits, boots, ways, options.by)),
    )


def _arm(table: RunTable, fit: Fit, boots: Boots, charge: Charge | None) -> Arm:
    return Arm(
        name=table.name,
        fit=fit,
        boots=boots,
        flops_range=(float(table.flops.min()), float(table.flops.max())),
        lowest_loss=float(np.min(np.asarray(table.loss))),
        charge=charge,
    )


def _exponents(fits: list[Fit], boots: list[Boots]) -> tuple[Difference, ...]:
    rows = []
    for name, quantity in EXPONENTS.items():
        value = float(quantity(fits[1].law) - quantity(fits[0].law))
        by, sides = {}, {}
        for way in boots[0]:
            one, two = (boot[way] for boot in boots)
            method = f"{len(one.law.E)} independent bootstrap replicates of each by {way}, percentiles"
            by[way] = estimate(value, np.asarray(quantity(two.law) - quantity(one.law)), method=method)
            sides[way] = one.of(quantity), two.of(quantity)
        wide = max(by, key=lambda way: (by[way].high or 0.0) - (by[way].low or 0.0))
        rows.append(Difference(name=name, a=sides[wide][0], b=sides[wide][1], difference=by[wide], by=by))
    return tuple(rows)


def _charges(a: RunTable, b: RunTable, wanted: bool | None) -> list[TextLMCharge | None]:
    if wanted is False:
        return [None, None]
    charges = [make_charge(table) for table in (a, b)]
    if wanted and not any(charge is not None for charge in charges):
        raise DataError(f"{a.name}, {b.name}: no text_lm_flops and no text_lm_tokens, so no TextLM can be charged")
    return charges


def _envelopes(
    a: RunTable, b: RunTable, options: Options, charged: bool
) -> tuple[Multiplier | None, Multiplier | None]:
    """Measure the multiplier without a law, and with the TextLM charged, where both tables come in budgets."""
    budgets_a, budgets_b = budgets_of(a), budgets_of(b)
    if budgets_a is None or budgets_b is None:
        return None, None
    plain, full = (
        compute_multiplier(
            _sweep(a, budgets_a, charge),
            _sweep(b, budgets_b, charge),
            replicates=options.replicates,
            seed=options.seeds[5],
        )
        if charge <= charged
        else None
        for charge in (False, True)
    )
    return plain, full


def _sweep(table: RunTable, budgets: np.ndarray, charged: bool) -> Sweep:
    added = text_lm_flops(table) if charged else None
    errors = table.numbers("loss_se")
    return make_sweep(
        table.name,
        table.params,
        budgets,
        table.loss,  # type: ignore[arg-type]
        loss_se=errors if np.all(np.isfinite(errors)) else None,
        compute_flops=table.flops if added is None else table.flops + added,
    )
