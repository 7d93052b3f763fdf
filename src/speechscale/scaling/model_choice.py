"""Which of several curves to believe: AICc.

Enters: mean squared residuals. Leaves: a number, lower is better. The one decision worth knowing: n is the number of
RUNS, since checkpoints of one run add little.

Source: Burnham & Anderson 2002, section 2.4 (AICc); differences below 2 tell curves apart poorly (section 2.6).
"""

from __future__ import annotations

import numpy as np

MARGIN = 2.0
"""A curve with more constants must be lower by this much."""


def aicc(mean_square: float, constants: int, runs: int) -> float | None:
    """AICc of Gaussian errors of unknown size (one more constant); None where there are too few runs for it."""
    k = constants + 1
    if runs - k - 1 <= 0:
        return None
    return float(runs * np.log(max(mean_square, 1e-300)) + 2 * k + 2 * k * (k + 1) / (runs - k - 1))
