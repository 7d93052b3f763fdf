"""Compare two arms: their laws, what compute each needs, their metrics, and one sentence that says it.

Enters: two `RunTable`s. Leaves: `Comparison`.
The one decision worth knowing: every part stands alone; what a table cannot answer is refused with a reason, and the
rest is still compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np

from speechscale.errors import DataError
from speechscale.scaling.comparing.by_loss import Options, compare_losses
from speechscale.scaling.comparing.comparison import Comparison
from speechscale.scaling.comparing.metric_comparison import compare_metric
from speechscale.scaling.comparing.resampling import By, table_notes
from speechscale.scaling.comparing.sentences import answer
from speechscale.scaling.fitting.newton import Kind
from speechscale.scaling.links.metric_slopes import metric_exponent
from speechscale.scaling.tables.run_table import RunTable


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
        found = compare_losses(
            found,
            a.with_loss(),
            b.with_loss(),
            Options(replicates, seeds, by, charge_text_lm, unlike_units, test_replicates, objective, delta),
        )
    found = _by_metrics(found, a, b, metrics, replicates, seeds)
    if found.fits is None and found.envelope is None and not found.metrics:
        reasons = [*([found.no_law] if found.no_law else []), *found.refused]
        raise DataError(f"{a.name} and {b.name} cannot be compared: {'; '.join(reasons)}")
    return replace(found, sentence=answer(found))


def _by_metrics(
    found: Comparison, a: RunTable, b: RunTable, wanted: Sequence[str], replicates: int, seeds: list[int]
) -> Comparison:
    """Add each metric; one that cannot be compared is refused with its reason."""
    rows, refused = [], []
    shared = [name for name in a.metrics if name in b.metrics]
    unscored = [name for name in shared if not all(np.isfinite(table.metrics[name]).any() for table in (a, b))]
    if unscored and not wanted:
        refused.append(f"no scores in both arms: {', '.join(unscored)}")
    for metric in wanted or [name for name in shared if name not in unscored]:
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
