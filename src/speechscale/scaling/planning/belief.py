"""Which law to believe for a budget, and how far beyond its runs that goes.

Enters: a `Candidate`, the budget, the units and modality planned for. Leaves: `Belief`.
The one decision worth knowing: a plain order, stated in words: own fit inside its range, then a published law of the
same units inside its range, then whatever extrapolates, own before published, and laws of other units last.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from speechscale.scaling.intervals import Estimate
from speechscale.scaling.planning.candidates import Candidate
from speechscale.scaling.published_laws import SPEECH_UNITS, Modality

WARN = 10.0
"""Times the highest measured C, beyond which a warning is due."""
FAR = 100.0
"""Beyond which only an interval is honest."""
WIDEST = 10.0
"""Upper over lower end of N_opt, beyond which no point estimate is given far out."""
_VERIFIED = ("own", "read", "measured", "secondary")


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """How much a law counts for one budget.

    Args:
        rank: 5 own fit inside its range; 4 published, same units, inside; 3 own and 2 published, extrapolating;
            1 other units or modality, or further out than FAR; 0 refused.
        extrapolation: C over the highest measured C; below 1 inside, None where the range is unknown.
        sentences: why. refused: why no point is given, "" where one is.
    """

    rank: int
    extrapolation: float | None
    sentences: tuple[str, ...]
    refused: str
    order: tuple[float, ...]


def believe(candidate: Candidate, C: float, params_opt: Estimate, *, units: str | None, modality: Modality) -> Belief:
    """Judge a law for a budget of C FLOPs.

    Args:
        params_opt: its N_opt at C. units, modality: what the plan is for; units None: own fits count as of these units.
    """
    said: list[str] = []
    alike = _alike(candidate, units or SPEECH_UNITS, units is not None, modality, said)
    factor = _range(candidate, C, said)
    refused = _refusal(params_opt, factor) if factor is not None and factor > FAR else ""
    below = candidate.range_flops is not None and candidate.range_flops[0] > C
    inside = factor is not None and factor <= 1 and not below
    if refused:
        rank = 0
    elif not alike or (factor is not None and factor > FAR):
        rank = 1
    elif candidate.own:
        rank = 5 if inside else 3
    else:
        rank = 4 if inside else 2
    order = (-rank, not alike, max(factor, 1.0) if factor is not None else inf, _VERIFIED.index(candidate.verified))
    return Belief(rank=rank, extrapolation=factor, sentences=tuple(said), refused=refused, order=order)


def _alike(candidate: Candidate, units: str, named: bool, modality: Modality, said: list[str]) -> bool:
    if candidate.own and not candidate.units:
        said.append("own fit; it does not name its units, so they are taken to be those planned for")
        return True
    if candidate.own and not named:
        said.append(f"own fit, on {candidate.units}; published laws of speech count {units}, alike or not")
        return True
    if candidate.units != units:
        said.append(f"counts other tokens ({candidate.units}): its losses and token numbers are not those of {units}")
        return False
    if candidate.modality is not None and candidate.modality != modality:
        said.append(
            f"of {candidate.modality} alone; the mixture is {modality}, and its text counts as if it were units"
        )
        return False
    said.append("own fit on the same units" if candidate.own else f"published for the same units ({candidate.units})")
    return True


def _range(candidate: Candidate, C: float, said: list[str]) -> float | None:
    if candidate.range_flops is None:
        said.append("the compute range of its runs is not known, so it may extrapolate by any factor")
        return None
    low, high = candidate.range_flops
    factor = C / high
    span = f"its runs span {low:.2g} to {high:.2g} FLOPs"
    if low > C:
        said.append(f"{span}; this budget lies below them by a factor of {low / C:.3g}")
    elif factor <= 1:
        said.append(f"{span}; this budget lies inside")
    else:
        warning = (
            "" if factor <= WARN else "; WARNING: far outside" if factor <= FAR else "; WARNING: out of all proportion"
        )
        said.append(f"{span}; this budget is {factor:.3g} times the highest{warning}")
    return factor


def _refusal(params_opt: Estimate, factor: float) -> str:
    if params_opt.low is None or params_opt.high is None:
        return f"no point estimate at {factor:.3g} times its highest compute: no uncertainty was measured"
    width = params_opt.high / params_opt.low if params_opt.low > 0 else inf
    if width > WIDEST:
        return (
            f"no point estimate at {factor:.3g} times its highest compute: the interval of N_opt spans a factor of "
            f"{width:.3g}, above {WIDEST:g}"
        )
    return ""
