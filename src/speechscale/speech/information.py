"""Information between two labelings, and intervals of figures by resampling utterances.

Enters: tables of counts; a figure's value and bootstrap replicates. Leaves: bits; `Estimate`. The one decision worth
knowing: intervals are centered on the plug-in value and take only their width from the bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Z95 = 1.96
"""Standard errors to each side of a 95 % interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval (other utterances of the same speakers) and its value by chance."""

    value: float
    low: float
    high: float
    chance: float | None = None

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mutual_information(joint: Float[np.ndarray, "rows columns"]) -> tuple[float, float, float]:
    """I(row; column), H(row), H(column) in bits of a table of counts."""
    p = joint / joint.sum()
    rows, columns = entropy(p.sum(axis=1)), entropy(p.sum(axis=0))
    return max(0.0, rows + columns - entropy(p.ravel())), rows, columns


def entropy(p: Float[np.ndarray, " classes"]) -> float:
    """Entropy in bits of shares (or counts, which are normalized)."""
    p = p[p > 0] / p.sum()
    return float(-(p * np.log2(p)).sum())


def interval(value: float, replicates: Sequence[float], *, top: float = 1.0) -> tuple[float, float]:
    """95 % interval around `value` by the spread of bootstrap replicates, within [0, top].

    Not their percentiles: resampling lowers the number of distinct frames and so raises every plug-in information.
    """
    spread = Z95 * float(np.std(replicates, ddof=1)) if len(replicates) > 1 else 0.0
    return max(0.0, value - spread), min(top, value + spread)


def resample(utterances: int, resamples: int, seed: int) -> Float[np.ndarray, "resamples utterances"]:
    """How often each utterance occurs in each bootstrap resample."""
    rng = np.random.default_rng([seed, utterances])
    return rng.multinomial(utterances, np.full(utterances, 1 / utterances), size=resamples).astype(np.float64)
