"""Compare two arms: their laws, what compute each needs, their metrics, and one sentence that says it.

Enters: two `RunTable`s. Leaves: `Comparison`.
The one decision worth knowing: laws are resampled by run AND by budget (or size), and the wider interval is quoted:
runs of one budget share its errors (a schedule, a stretch of data), which resampling single runs does not see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np

from speechscale.errors import DataError
from speechscale.scaling.analysis.multiplier import Multiplier, compute_multiplier
from speechscale.scaling.comparing.law_multiplier import Arm, LawMultiplier, law_multiplier
from speechscale.scaling.comparing.metric_comparison import MetricComparison, compare_metric
from speechscale.scaling.comparing.metric_slopes import budgets_of, metric_exponent
from speechscale.scaling.comparing.reach import kappa, make_charge, text_lm_flops
from speechscale.scaling.comparing.records import to_json
from speechscale.scaling.comparing.resampling import By, fit_notes, resamplings, table_notes, unlike_inventories
from speechscale.scaling.comparing.sentences import answer, methods_disagree
from speechscale.scaling.comparing.shared_exponents import EqualExponents, equal_exponents
from speechscale.scaling.fitting.bootstrap import LawBootstrap, bootstrap_law
from speechscale.scaling.fitting.fit import Fit, fit_loss_law
from speechscale.scaling.fitting.newton import Kind
from speechscale.scaling.intervals import Estimate, estimate
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.optima.envelope import Sweep, make_sweep
from speechscale.scaling.tables.run_table import RunTable

EXPONENTS: dict[str, Callable[[LossLaw], Any]] = {
    "exp_params": lambda law: law.exp_params,
    "exp_tokens": lambda law: law.exp_tokens,
    "alpha": lambda law: law.alpha,
    "beta": lambda law: law.beta,
    "kappa": kappa,
}
"""What is compared: a and b of N_opt and D_opt, alpha, beta, and kappa of the reducible loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One exponent in both arms; difference = B minus A, the widest of the resamplings in `by`."""

    name: str
    a: Estimate
    b: Estimate
    difference: Estimate
    by: dict[str, Estimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two arms against each other.

    Args:
        a, b: names; multipliers are compute of B over compute of A. runs: how many of each.
        exponents: see `Difference`. equal: test of common alpha and beta. fits: point fits of both.
        multiplier, charged: by the laws, without and with the TextLM of a warm start.
        envelope, envelope_charged: by the envelopes of measured budgets, without a law.
        metrics: by each metric. sentence: the answer. refused: what is not compared, and why. notes: what weakens it.
    """

    a: str
    b: str
    runs: tuple[int, int]
    sentence: str
    exponents: tuple[Difference, ...] = ()
    equal: EqualExponents | None = None
    multiplier: LawMultiplier | None = None
    charged: LawMultiplier | None = None
    envelope: Multiplier | None = None
    envelope_charged: Multiplier | None = None
    metrics: tuple[MetricComparison, ...] = ()
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    fits: tuple[Fit, Fit] | None = field(default=None, repr=False)

    @property
    def laws(self) -> tuple[LossLaw, LossLaw] | None:
        """The fitted law of each arm."""
        return None if self.fits is None else (self.fits[0].law, self.fits[1].law)

    def record(self) -> dict[str, Any]:
        """Everything but replicates, for JSON; an infinite end is "inf"."""
        return {"format": "speechscale comparison", "format_version": 1, "laws": to_json(self.laws), **to_json(self)}


def compare_runs(
    a: RunTable,
    b: RunTable,
    *,
    replicates: int = 2000,
    seed: int = 0,
    by: By = "auto",
    metrics: Sequence[str] = (),
    charge_text_lm: bool | None = None,
    unlike_units: bool | None = None,
    test_replicates: int = 400,
    objective: Kind = "log-huber",
    delta: float = 1e-3,
) -> Comparison:
    """Compare arm B with the baseline A.

    Example: compare_runs(table.arm("textless"), table.arm("interleaved")).sentence

    Args:
        by: "auto" resamples runs and budgets (sizes where there are no budgets) and quotes the wider interval; "run",
            "budget" and "size" resample only these.
        metrics: to compare, () takes all that both tables have.
        charge_text_lm: also count the compute of the TextLM a warm arm came from; None does so where it is known.
        unlike_units: whether the losses count different units; None looks at the tables' `tokenizer`.
        test_replicates: of the test of equal exponents, 0 leaves it out.

    Raises:
        DataError: nothing can be compared, bad options, or a TextLM to charge of which nothing is known.
    """
    if by not in get_args(By):
        raise DataError(f"by='{by}': use {', '.join(get_args(By))}")
    if replicates < 100:
        raise DataError(f"{replicates} replicates: at least 100 are needed for a 95 % interval")
    a, b = _named_apart(a, b)
    found = Comparison(a=a.name, b=b.name, runs=(len(a), len(b)), sentence="", notes=table_notes(a, b))
    seeds = [int(x) for x in np.random.SeedSequence(seed).generate_state(8)]
    if a.loss is None or b.loss is None:
        missing = a.name if a.loss is None else b.name
        found = replace(found, refused=(f"laws and loss multipliers: {missing} has no losses",))
    else:
        found = _by_loss(
            found,
            a.with_loss(),
            b.with_loss(),
            _Options(replicates, seeds, by, charge_text_lm, unlike_units, test_replicates, objective, delta),
        )
    found = _by_metrics(found, a, b, metrics, replicates, seeds)
    if found.fits is None and not found.metrics:
        raise DataError(f"{a.name} and {b.name} cannot be compared: {'; '.join(found.refused)}")
    return replace(found, sentence=answer(found))


@dataclass(frozen=True, slots=True)
class _Options:
    replicates: int
    seeds: list[int]
    by: By
    charge_text_lm: bool | None
    unlike_units: bool | None
    test_replicates: int
    objective: Kind
    delta: float


def _by_loss(found: Comparison, a: RunTable, b: RunTable, options: _Options) -> Comparison:
    """Add laws, exponents, their test, and multipliers where the losses count the same units."""
    fits = []
    for table in (a, b):
        try:
            fits.append(
                fit_loss_law(
                    table.params,
                    table.tokens,
                    np.asarray(table.loss),
                    objective=options.objective,
                    delta=options.delta,
                )
            )
        except DataError as error:
            raise DataError(f"{table.name}: {error}") from error
    ways = resamplings(a, b, options.by)
    boots = [
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
    tested = (
        equal_exponents(*fits, replicates=options.test_replicates, seed=options.seeds[4])
        if options.test_replicates
        else None
    )
    notes = [*found.notes, *fit_notes(a, b, fits, boots, ways, options.by)]
    found = replace(found, fits=(fits[0], fits[1]), equal=tested, exponents=_exponents(fits, boots))
    unlike = (
        unlike_inventories(a, b) if options.unlike_units is None else "they were declared unlike" * options.unlike_units
    )
    if unlike:
        reason = f"loss multipliers: {unlike}; nats per token of different inventories are not one scale"
        return replace(found, refused=(*found.refused, reason), notes=tuple(notes))
    charges = _charges(a, b, options.charge_text_lm)
    arms = [
        Arm(
            name=table.name,
            fit=fit,
            boots=boot,
            flops_range=(float(table.flops.min()), float(table.flops.max())),
            lowest_loss=float(np.min(table.loss)),  # type: ignore[arg-type]
            charge=charge,
        )
        for table, fit, boot, charge in zip((a, b), fits, boots, charges, strict=True)
    ]
    is_charged = any(charge is not None for charge in charges)
    plain, full = _envelopes(a, b, options, is_charged)
    found = replace(
        found,
        multiplier=law_multiplier(arms[0], arms[1]),
        charged=law_multiplier(arms[0], arms[1], charged=True) if is_charged else None,
        envelope=plain,
        envelope_charged=full,
    )
    return replace(found, notes=(*notes, *methods_disagree(found)))


def _exponents(fits: list[Fit], boots: list[dict[str, LawBootstrap]]) -> tuple[Difference, ...]:
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


def _charges(a: RunTable, b: RunTable, wanted: bool | None) -> list[Any]:
    if wanted is False:
        return [None, None]
    charges = [make_charge(table) for table in (a, b)]
    if wanted and not any(charge is not None for charge in charges):
        raise DataError(f"{a.name}, {b.name}: no text_lm_flops and no text_lm_tokens, so no TextLM can be charged")
    return charges


def _envelopes(
    a: RunTable, b: RunTable, options: _Options, charged: bool
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


def _by_metrics(
    found: Comparison, a: RunTable, b: RunTable, wanted: Sequence[str], replicates: int, seeds: list[int]
) -> Comparison:
    """Add each metric; one that cannot be compared is refused with its reason."""
    rows, refused = [], []
    for metric in wanted or [name for name in a.metrics if name in b.metrics]:
        try:
            pair = [
                metric_exponent(table, metric, replicates=replicates, seed=seed)
                for table, seed in zip((a, b), seeds[6:8], strict=True)
            ]
            rows.append(compare_metric(pair[0], pair[1]))
        except DataError as error:
            if metric in wanted and not (metric in a.metrics and metric in b.metrics):
                raise
            refused.append(f"{metric}: {error}")
    return replace(found, metrics=tuple(rows), refused=(*found.refused, *refused))


def _named_apart(a: RunTable, b: RunTable) -> tuple[RunTable, RunTable]:
    """Shorten "table: arm" to the arm where both are of one table; number equal names."""
    heads = [table.name.rpartition(": ") for table in (a, b)]
    if heads[0][0] == heads[1][0] and heads[0][2] != heads[1][2]:
        return replace(a, name=heads[0][2]), replace(b, name=heads[1][2])
    return (a, b) if a.name != b.name else (replace(a, name=f"{a.name} (1)"), replace(b, name=f"{b.name} (2)"))
