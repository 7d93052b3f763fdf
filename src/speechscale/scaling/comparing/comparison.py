"""What a comparison of two arms holds.

Enters: nothing. Leaves: `Comparison`, `Difference`.
The one decision worth knowing: what could not be compared is in `refused` with its reason; it is None, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from speechscale.scaling.analysis.multiplier import Multiplier
from speechscale.scaling.as_json import to_json
from speechscale.scaling.comparing.law_multiplier import LawMultiplier
from speechscale.scaling.comparing.metric_comparison import MetricComparison
from speechscale.scaling.comparing.shared_exponents import EqualExponents
from speechscale.scaling.fitting.fit import Fit
from speechscale.scaling.intervals import Estimate
from speechscale.scaling.laws import LossLaw


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
        no_law: why no law is quoted, of each arm that is why; "" where both are, or where there are no losses.
        metrics: by each metric. sentence: the answer. refused: what is not compared, and why. notes: what weakens it.
    """

    a: str
    b: str
    runs: tuple[int, int]
    sentence: str
    no_law: str = ""
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
