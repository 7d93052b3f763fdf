"""From a table of runs to laws, a comparison and a plan; the same functions that the commands call. Never torch.

    from speechscale.scaling import fit_runs, read_runs
    textless, interleaved = fit_runs(read_runs("runs/quick/runs.csv"))

Names are loaded when they are first used, so that importing one does not pay for all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speechscale.scaling.checks import check_fit, check_table
    from speechscale.scaling.comparing.compare_runs import compare_runs
    from speechscale.scaling.comparing.exponent_ratio import exponent_ratio
    from speechscale.scaling.fit_table import fit_runs
    from speechscale.scaling.fitting.bootstrap import bootstrap_law
    from speechscale.scaling.fitting.fit import fit_loss_law
    from speechscale.scaling.fitting.form_bootstrap import bootstrap_form
    from speechscale.scaling.fitting.general import fit_form
    from speechscale.scaling.fitting.profiles import profiles
    from speechscale.scaling.laws import LossLaw, PowerLaw
    from speechscale.scaling.links.metric_links import metric_law, through_loss
    from speechscale.scaling.optima.approaches import approaches
    from speechscale.scaling.optima.held_out import held_out
    from speechscale.scaling.planning.plan import plan
    from speechscale.scaling.planning.power import power
    from speechscale.scaling.planning.smallest import smallest_grid
    from speechscale.scaling.published import get_law
    from speechscale.scaling.repeat import RepeatLaw
    from speechscale.scaling.tables.reading import read_runs
    from speechscale.scaling.tables.run_table import RunTable, run_table

_HOMES = {
    "LossLaw": "laws",
    "PowerLaw": "laws",
    "RepeatLaw": "repeat",
    "RunTable": "tables.run_table",
    "approaches": "optima.approaches",
    "bootstrap_form": "fitting.form_bootstrap",
    "bootstrap_law": "fitting.bootstrap",
    "check_fit": "checks",
    "check_table": "checks",
    "compare_runs": "comparing.compare_runs",
    "exponent_ratio": "comparing.exponent_ratio",
    "fit_form": "fitting.general",
    "fit_loss_law": "fitting.fit",
    "fit_runs": "fit_table",
    "get_law": "published",
    "held_out": "optima.held_out",
    "metric_law": "links.metric_links",
    "plan": "planning.plan",
    "power": "planning.power",
    "profiles": "fitting.profiles",
    "read_runs": "tables.reading",
    "run_table": "tables.run_table",
    "smallest_grid": "planning.smallest",
    "through_loss": "links.metric_links",
}
__all__ = [
    "LossLaw",
    "PowerLaw",
    "RepeatLaw",
    "RunTable",
    "approaches",
    "bootstrap_form",
    "bootstrap_law",
    "check_fit",
    "check_table",
    "compare_runs",
    "exponent_ratio",
    "fit_form",
    "fit_loss_law",
    "fit_runs",
    "get_law",
    "held_out",
    "metric_law",
    "plan",
    "power",
    "profiles",
    "read_runs",
    "run_table",
    "smallest_grid",
    "through_loss",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
