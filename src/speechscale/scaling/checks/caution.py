"""What a check says, and where the rule is from.

Enters: nothing. Leaves: `Caution`, and the reference of every check by name.
The one decision worth knowing: a caution never changes a number; "refuse" says that the number must not be quoted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["note", "warn", "refuse"]
REFERENCES: dict[str, str] = {
    "few-runs": "five constants need six runs; below 20 a resample often lacks a whole size",
    "one-size": "Hoffmann et al. 2022, L(N, D): sizes and tokens must both vary",
    "narrow-size-range": "rule of thumb: sizes of a sweep span a factor 8 or more",
    "few-sizes-per-budget": "Hoffmann et al. 2022, Approach 2: a parabola needs five sizes over a factor 8",
    "edge-optimum": "Porian et al. 2024: a minimum counts only between two larger losses",
    "collinear-n-d": "one ratio of tokens to parameters leaves alpha, beta and E inseparable",
    "duplicated-rows": "a run counted twice narrows every interval",
    "checkpoints-as-runs": "checkpoints of a run are one cluster; on the (Mis)Fitting runs they move a from .51 to .59",
    "cut-from-longer-schedule": "Hoffmann et al. 2022: a cosine schedule must end where the run ends",
    "mixed-schedules": "Haegele et al. 2024: constant and decayed rates end at different losses",
    "warmup-too-long": "Porian et al. 2024: correcting the warm-up moves a from .706 to .602",
    "learning-rates-pooled": "on the (Mis)Fitting runs (2025) all rates pooled give a = .76, one rate .51",
    "embeddings-counted": "Porian et al. 2024: counting the head moves a from .835 to .706; Pearce and Song 2024",
    "repeated-data": "Muennighoff et al. 2023: up to 4 epochs are almost as good as new data",
    "unlike-tokenizers": "a token of one inventory is not one of another: compare nats per second or per word",
    "early-stop": "Besiroglu et al. 2024: Hoffmann's printed constants are not an optimum of their objective",
    "constants-at-bounds": "a constant on the border of the search was not measured",
    "floor-near-zero": "pooled rates or narrow tables drive E towards 0, and the exponents with it",
    "floor-above-lowest": "E is below every loss that was reached, by its meaning",
    "flat-direction": "A and alpha, B and beta trade off (Besiroglu et al. 2024: wide, correlated intervals)",
    "second-basin": "Muennighoff et al. 2023: their printed constants are a local minimum of their objective",
    "outliers-removed-sensitivity": "Besiroglu et al. 2024 leave out 5 of 245 runs: a = .514; all of them give .565",
    "seed-noise-only-intervals": "resampling whole budgets widens intervals that hold noise alone",
    "ab-sum": "a + b = 1 under C = 6 N D; SODA prints .367 + .579",
    "approaches-disagree": "on real sweeps estimators differ by more than their intervals (Porian et al. 2024)",
    "held-out-missed": "a law is worth what it predicts: fit the small budgets, predict the largest",
    "extrapolation-beyond-10x": "rule of thumb: beyond 10x the interval counts, beyond 100x no single value does",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caution:
    """One warning.

    Args:
        name: a key of REFERENCES. message: what was found, with its numbers. reference: where the rule is from.
        rows: runs it is about, counted from 0 in the table; () = all of them. numbers: what was measured, by name.
    """

    name: str
    severity: Severity
    message: str
    reference: str
    rows: tuple[int, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)


def caution(
    name: str,
    severity: Severity,
    message: str,
    *,
    rows: tuple[int, ...] = (),
    numbers: Mapping[str, float] | None = None,
) -> Caution:
    """Make a caution with the reference of its name."""
    return Caution(
        name=name,
        severity=severity,
        message=message,
        reference=REFERENCES[name],
        rows=rows,
        numbers={key: float(value) for key, value in (numbers or {}).items()},
    )
