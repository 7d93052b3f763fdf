"""Plan a run: how large a model, on how much data, for a budget, under every law that has something to say.

Enters: a budget, perhaps an inventory, sizes, mixtures, own laws. Leaves: `Plan`.
The one decision worth knowing: laws stand side by side, each in its own tokens and losses, and are ranked by where
their evidence lies (`belief`); nothing is averaged over laws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from speechscale.errors import DataError
from speechscale.scaling.as_json import to_json
from speechscale.scaling.planning.belief import Belief, believe
from speechscale.scaling.planning.budgets import Budget
from speechscale.scaling.planning.candidates import Candidate, base_of, from_published
from speechscale.scaling.planning.cells import Cell, Situation, best_size, checked_epochs, optimum_cell, size_cell
from speechscale.scaling.planning.inventory import MAX_EPOCHS, SPEECH_ONLY, UNITS_PER_SECOND, Inventory, Mixture
from speechscale.scaling.planning.sizes import DEFAULT_SIZES, available
from speechscale.scaling.published import SIMS_AT_2E20, get_law
from speechscale.scaling.published_laws import LAWS, SPEECH_UNITS
from speechscale.scaling.repeat import RepeatLaw

SPEECH_LAWS = tuple(name for name, law in LAWS.items() if law.modality != "text")
SIMS_FLOPS = 2e20
DATA_BOUND = 0.5
"""Worth of the budget below which a plan says that data, not compute, is short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LawPlan:
    """A budget under one law and mixture.

    Args:
        unconstrained: with unlimited data. constrained: with the inventory, None without one.
        sizes: the available models, smallest first. best: the one of lowest loss within the epoch limit, None where
            the law gives no point or no size is within it.
        notes: what this law leaves out here.
    """

    candidate: Candidate
    mixture: Mixture
    belief: Belief
    unconstrained: Cell
    constrained: Cell | None
    sizes: tuple[Cell, ...]
    best: Cell | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """laws: of each mixture, the most believable first. verdict: sentences. evidence: runs without a law, sentences."""

    budget: Budget
    units: str
    inventory: Inventory | None
    max_epochs: float
    units_per_second: float
    laws: tuple[LawPlan, ...]
    verdict: tuple[str, ...]
    evidence: tuple[str, ...]


def plan(
    budget: Budget,
    *,
    laws: Sequence[str] = SPEECH_LAWS,
    fits: Sequence[Candidate] = (),
    inventory: Inventory | None = None,
    sizes: Sequence[str] = DEFAULT_SIZES,
    mixtures: Sequence[Mixture] = (SPEECH_ONLY,),
    max_epochs: float = MAX_EPOCHS,
    units: str | None = None,
) -> Plan:
    """Lay out a budget under published laws and own fits.

    Example: plan(from_devices("8xH100", 24)).laws[0].unconstrained.params.value -> 5.4e8

    Args:
        laws: names of published laws. fits: own laws (`candidates.own_laws`, `from_bootstrap`, `from_table`).
        sizes: names of models. units: the speech tokens planned for; None: those of the own fits, and of the
            published laws SPEECH_UNITS.

    Raises:
        DataError: no law, unknown names, or a mixture that needs data which the inventory lacks.
    """
    candidates = [*fits, *(from_published(get_law(name)) for name in dict.fromkeys(laws))]
    if not candidates:
        raise DataError("plan: no law; name published ones or give own fits")
    if not mixtures:
        raise DataError("plan: no mixture; name at least one")
    limit = checked_epochs(max_epochs)
    rate = UNITS_PER_SECOND if inventory is None else inventory.units_per_second
    found = []
    for mixture in mixtures:
        rows = [
            _law_plan(candidate, budget.flops, mixture, inventory, sizes, limit, rate, units)
            for candidate in candidates
        ]
        found += sorted(rows, key=lambda row: row.belief.order)
    verdict = [sentence for mixture in mixtures for sentence in _verdict([r for r in found if r.mixture is mixture])]
    return Plan(
        budget=budget,
        units=units or SPEECH_UNITS,
        inventory=inventory,
        max_epochs=limit,
        units_per_second=rate,
        laws=tuple(found),
        verdict=tuple(verdict),
        evidence=sims_evidence(),
    )


def _law_plan(
    candidate: Candidate,
    flops: float,
    mixture: Mixture,
    inventory: Inventory | None,
    sizes: Sequence[str],
    max_epochs: float,
    rate: float,
    units: str | None,
) -> LawPlan:
    unique, first, notes = _unique(candidate, mixture, inventory)
    at = Situation(
        candidate=candidate,
        flops=flops,
        mixture=mixture,
        inventory=inventory,
        unique=unique,
        max_epochs=max_epochs,
        units_per_second=rate,
    )
    unconstrained = optimum_cell(at, limited=False)
    belief = believe(
        candidate, flops, unconstrained.params, units=units, modality="mixed" if mixture.has_text else "speech"
    )
    cells = tuple(size_cell(at, size) for size in available(sizes, mixture, candidate.flops_name))
    if unique is not None:
        if len(mixture.shares) > 1:
            notes.append(f"the {first} stream repeats first and sets the unique tokens of the mixture")
        if not isinstance(candidate.law, RepeatLaw):
            notes.append("a single-epoch law: repeats up to the limit cost nothing in its losses, which flatters them")
    constrained = optimum_cell(at, limited=True) if unique is not None else None
    if constrained is not None and isinstance(candidate.law, RepeatLaw):
        notes += _beyond_limit(at, constrained)
    if any(cell.warm for cell in cells):
        notes.append("sizes with a TextLM are priced as if trained from scratch: the law knows no warm start")
    return LawPlan(
        candidate=candidate,
        mixture=mixture,
        belief=belief,
        unconstrained=unconstrained,
        constrained=constrained,
        sizes=cells,
        best=None if belief.refused else best_size(cells),
        notes=tuple(notes),
    )


def _unique(candidate: Candidate, mixture: Mixture, inventory: Inventory | None) -> tuple[float | None, str, list[str]]:
    if inventory is None:
        return None, "", []
    if candidate.tokens_per_unit is None:
        return None, "", ["its tokens are not units of speech, so the inventory says nothing about its epochs"]
    unique, first = inventory.unique_of(mixture, candidate.tokens_per_unit)
    return unique, first, []


def _beyond_limit(at: Situation, constrained: Cell) -> list[str]:
    """What the law would do without the epoch limit, where that limit is what holds it."""
    assert at.unique is not None
    if constrained.tokens.value < at.unique * at.max_epochs * (1 - 1e-6):
        return []
    free = optimum_cell(replace(at, max_epochs=at.flops), limited=True)
    return [
        f"the limit of {at.max_epochs:g} epochs binds; the law itself would take N = {free.params.value:.3g} for "
        f"{free.most_epochs:.3g} epochs, loss {free.loss.value:.4f} instead of {constrained.loss.value:.4f}"
    ]


def _verdict(rows: Sequence[LawPlan]) -> list[str]:
    """Which law to believe for one mixture, why, and what it says."""
    best = rows[0]
    name, mixture = best.candidate.name, best.mixture.name
    if best.belief.refused:
        return [f"Mixture {mixture}: no law gives a point estimate for this budget. {name}: {best.belief.refused}."]
    why = "; ".join(best.belief.sentences)
    if best.belief.rank > 1:
        said = [f"Mixture {mixture}: believe {name} most: {why}."]
    else:
        said = [f"Mixture {mixture}: no law here describes this setting. The nearest is {name}: {why}."]
    cell = best.constrained or best.unconstrained
    said.append(
        f"It wants N = {cell.params.value:.3g} on D = {cell.tokens.value:.3g} tokens"
        + (f" ({cell.hours:,.0f} h of speech heard)" if cell.hours is not None else "")
        + (f", {cell.most_epochs:.2g} epochs" if cell.most_epochs else "")
        + f", loss {cell.loss.value:.4f}"
        + (f" [{cell.loss.low:.4f}, {cell.loss.high:.4f}]." if cell.loss.low is not None else ", no interval.")
    )
    if best.constrained is not None and best.constrained.compute_share.value < DATA_BOUND:
        worth = best.constrained.compute_share.value
        said.append(
            f"The data holds the loss back, not the compute: with unlimited data {100 * worth:.2g} % of this "
            "budget would do the same. Get more data or spend less."
        )
    if best.best is not None:
        said.append(
            f"Of the available sizes {best.best.name} comes closest, worth "
            f"{100 * best.best.compute_share.value:.0f} % of the compute at the unconstrained optimum."
        )
        if len(best.sizes) > 1 and best.best in (best.sizes[0], best.sizes[-1]):
            end = "smallest" if best.best is best.sizes[0] else "largest"
            said.append(f"It is the {end} that was considered: name others (--size) to see the optimum bracketed.")
    else:
        said.append("No available size stays within the epoch limit: take larger models, more data or less compute.")
    if best.belief.rank < 4:
        said.append("This is an extrapolation or another setting: run a small sweep and fit it before spending more.")
    return said


def sims_evidence() -> tuple[str, ...]:
    """What SIMS measured, which no law of the loss describes, against what the textless law would have chosen."""
    largest, *others = SIMS_AT_2E20
    textless = base_of(from_published(get_law("cuervo-speech")).law).optimum(SIMS_FLOPS)
    beaten = " and ".join(f"{N / 1e9:g}B on {D / 1e9:g}B" for N, D, *_ in others)
    return (
        f"SIMS published no loss law. At {SIMS_FLOPS:g} FLOPs its interleaved {largest[0] / 1e9:g}B model on "
        f"{largest[1] / 1e9:g}B tokens beats {beaten} on every speech metric; the largest size wins, so its optimum is "
        "not bracketed.",
        f"The textless law would take N = {textless.params_opt / 1e6:.0f}M and D = {textless.tokens_opt / 1e9:.0f}B "
        f"there: a {largest[0] / textless.params_opt:.0f} times smaller model on "
        f"{textless.tokens_opt / largest[1]:.0f} times more tokens. For warm-started interleaved models, do not take a "
        "textless law's split.",
    )


def plan_record(plan: Plan) -> dict[str, Any]:
    """A plan for a file: all but the replicates, which the fit's own file keeps."""
    content: dict[str, Any] = to_json(replace(plan, laws=()))
    content["laws"] = [to_json(replace(row, candidate=replace(row.candidate, replicates=None))) for row in plan.laws]
    return {"format": "speechscale plan", "format_version": 1, **content}
