"""Fitted laws as a JSON file, for plans, power analyses and comparisons made later.

Enters: `Fitted`s. Leaves: a dict for `write_json`. The one decision worth knowing: replicates of the constants are
saved with the law, so that a plan made from the file has the intervals that a plan made from the runs would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from speechscale.scaling.as_json import to_json
from speechscale.scaling.fitted import Fitted

FORMAT = "speechscale laws"
FORMAT_VERSION = 1


def laws_record(fitted: Sequence[Fitted]) -> dict[str, Any]:
    """Everything of each arm but its runs.

    Example: write_json(Path("laws.json"), laws_record(fit_runs(table)))
    """
    return {"format": FORMAT, "format_version": FORMAT_VERSION, "laws": [_law(one) for one in fitted]}


def _law(one: Fitted) -> dict[str, Any]:
    law = one.law
    return {
        **to_json(one),
        "law": None if law is None else {n: float(getattr(law, n)) for n in ("E", "A", "B", "alpha", "beta")},
        "replicates": {name: [float(f"{x:.9g}") for x in np.ravel(v)] for name, v in one.replicates.items()},
        "fit": _point(one),
        "skipped": [to_json(row) for row in one.table.skipped],
        "rows_read": one.table.rows_read,
        "echoes": list(one.table.echoes),
    }


def _point(one: Fitted) -> dict[str, Any] | None:
    fit = one.fit
    if fit is None:
        return None
    return {
        "objective": fit.objective,
        "minimized": to_json(fit.minimized),
        "summed_over_runs": fit.runs,
        "starts_agree": fit.starts_agree,
        "converged": fit.converged,
        "at_bounds": list(fit.at_bounds),
        "flatness": fit.flatness,
        "notes": list(fit.notes),
        "residual_sd": fit.residual_sd,
    }
