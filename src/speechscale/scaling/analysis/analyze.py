"""Analyze a table of runs: everything that `laws.json` holds.

Enters: `runs.csv` as a pandas table. Leaves: one JSON-able dict; `docs/scaling.md` lists its keys.
The one decision worth knowing: nothing is left out silently; a number that these runs cannot give is replaced by the
reason why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from speechscale.errors import DataError
from speechscale.scaling.analysis.multiplier import Multiplier, compute_multiplier
from speechscale.scaling.analysis.part_links import links_said, part_links
from speechscale.scaling.analysis.runs import LOSSES, Part, find_metrics, numbers, split_parts, sweep_of
from speechscale.scaling.analysis.transfer import transfer_table
from speechscale.scaling.analysis.verdict import (
    SINGLE_EPOCH_LIMIT,
    hours_of,
    limit_sentences,
    loss_sentences,
    size_sentences,
    small_data_sentence,
    transfer_sentences,
)
from speechscale.scaling.as_json import to_json
from speechscale.scaling.fitting.bootstrap import SMALL_TABLE, bootstrap_law
from speechscale.scaling.fitting.fit import MIN_RUNS, fit_loss_law
from speechscale.scaling.intervals import LEVEL
from speechscale.scaling.optima.envelope import Sweep, envelope
from speechscale.scaling.optima.isoflop import IsoFlop, isoflop
from speechscale.scaling.optima.slopes import fit_power_law, metric_slope

CONVENTIONS = {
    "params": "params_total, embeddings included",
    "compute": "budget_flops of the study; charged = plus the TextLM's compute, as its share of the run's exact FLOPs",
    "loss": "nats per unit (speech) or per text token (text) on the split test; final, or best checkpoint on select",
    "optimum": "C = 6 N D",
}


def analyze(
    runs: pd.DataFrame,
    *,
    replicates: int = 1000,
    seed: int = 0,
    baselines: Mapping[str, str] | None = None,
    probes: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Analyze a table of runs.

    Example: analyze(pd.read_csv("runs.csv"))["verdict"]["loss"] -> ["For the same speech loss ...", ...]

    Args:
        runs: one row per run; needs arm, params_total, budget_flops and a loss, uses whatever else is there.
        replicates: bootstrap replicates per interval. seed: equal seeds give equal results.
        baselines: part -> the arm the others are compared with, where it is not the default.
        probes: accuracies along the runs, see `part_links`.

    Returns:
        {"level", "conventions", "parts": {label: {...}}, "verdict": {"loss", "transfer", "sizes", "limits"}}

    Raises:
        DataError: no rows, no usable rows, or a required column is missing.
    """
    along = pd.DataFrame() if probes is None else probes
    parts = {part.label: _analyze_part(part, along, replicates, seed) for part in split_parts(runs, baselines)}
    verdict: dict[str, list[str]] = {"loss": [], "transfer": [], "sizes": [], "limits": []}
    for label, result in parts.items():
        for topic, sentences in verdict.items():
            prefix = f"{label}: " if len(parts) > 1 else ""
            sentences.extend(prefix + sentence for sentence in result["verdict"][topic])
    result = {"level": LEVEL, "replicates": replicates, "seed": seed, "conventions": CONVENTIONS, "parts": parts}
    record: dict[str, Any] = to_json({**result, "verdict": verdict}, name_infinity=False)
    return record


def _analyze_part(part: Part, probes: pd.DataFrame, replicates: int, seed: int) -> dict[str, Any]:
    sweeps = {
        (arm, loss): sweep
        for arm in part.arms
        for loss in LOSSES
        if (sweep := sweep_of(part, arm, loss)) is not None and (loss != "text" or not _has_speech(part, arm))
    }
    optima = [
        (arm, loss, budget, _isoflop(sweep, budget, replicates, seed))
        for (arm, loss), sweep in sweeps.items()
        for budget in sweep.budgets
    ]
    multipliers = _multipliers(part, replicates, seed)
    transfer = transfer_table(part)
    final = [m for (_, loss, charged), m in multipliers.items() if loss == "final" and not charged]
    too_little = small_data_sentence(part, transfer, final)
    first = [too_little] if too_little else []
    links = part_links(part, probes, replicates=replicates, seed=seed)
    loss_said = [s for arm in part.arms[1:] for s in _loss_said(part, arm, multipliers)]
    return {
        "part": part.name,
        "units": part.units,
        "oracle_units": part.oracle_units,
        "supervised_units": part.supervised_units,
        "baseline": part.baseline,
        "hours_unique": hours_of(part),
        "pipeline_only": bool(too_little),
        "arms": {arm: _arm_summary(part, arm) for arm in part.arms},
        "isoflop": [{"arm": arm, "loss": loss, **asdict(result)} for arm, loss, _, result in optima],
        "envelopes": [_envelope(sweep, arm, loss, replicates, seed) for (arm, loss), sweep in sweeps.items()],
        "laws": [_law(part, arm, loss, replicates, seed) for arm, loss in sweeps],
        "multipliers": [
            {"loss": loss, "compute": "charged" if charged else "uncharged", **asdict(m)}
            for (_, loss, charged), m in multipliers.items()
        ],
        "slopes": _slopes(part, replicates, seed),
        "links": links,
        "links_said": links_said(links),
        "transfer": [asdict(row) for row in transfer],
        "verdict": {
            "loss": first + loss_said,
            "transfer": first + transfer_sentences(part, transfer),
            "sizes": size_sentences([(arm, r) for arm, loss, _, r in optima if loss != "best"]),
            "limits": first + limit_sentences(part, transfer, final),
        },
    }


def _has_speech(part: Part, arm: str) -> bool:
    return bool(np.isfinite(numbers(part.runs(arm), LOSSES["final"])).any())


def _arm_summary(part: Part, arm: str) -> dict[str, Any]:
    frame = part.runs(arm)
    return {
        "runs": len(frame),
        "sizes": np.unique(numbers(frame, "params_total")),
        "budgets_flops": np.unique(numbers(frame, "budget_flops")),
        "seeds": int(frame["seed"].nunique()) if "seed" in frame else None,
        "speech_hours_unique": part.largest(arm, "speech_hours_unique"),
        "speech_epochs_most": part.largest(arm, "speech_epochs"),
    }


def _isoflop(sweep: Sweep, budget: float, replicates: int, seed: int) -> IsoFlop:
    at = sweep.budget_flops == budget
    sd = None if sweep.loss_sd is None else sweep.loss_sd[at]
    return isoflop(
        sweep.params[at],
        sweep.loss[at],
        budget_flops=budget,
        loss_se=sd,
        se_source=sweep.noise,
        replicates=replicates,
        seed=seed,
    )


def _envelope(sweep: Sweep, arm: str, loss: str, replicates: int, seed: int) -> dict[str, Any]:
    env = envelope(sweep, replicates=replicates, seed=seed)
    interval = np.full((2, len(env.loss)), np.nan)
    if env.replicate_loss is not None:
        interval = np.quantile(env.replicate_loss, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    try:
        power: dict[str, Any] = asdict(fit_power_law(env.budget_flops, env.loss, replicates=env.replicate_loss))
    except DataError as error:
        power = {"reason": str(error)}
    return {
        "arm": arm,
        "loss": loss,
        "budget_flops": env.budget_flops,
        "lowest": env.loss,
        "low": interval[0],
        "high": interval[1],
        "params": env.params,
        "noise": env.noise,
        "power_law": power,
    }


def _law(part: Part, arm: str, loss: str, replicates: int, seed: int) -> dict[str, Any]:
    frame = part.runs(arm)
    values = numbers(frame, LOSSES[loss])
    tokens = numbers(frame, "tokens_seen")
    ok = np.isfinite(values) & (values > 0) & np.isfinite(tokens) & (tokens > 0)
    base = {"arm": arm, "loss": loss, "runs": int(ok.sum())}
    budgets = len(np.unique(numbers(frame, "budget_flops")[ok]))
    if budgets < 2:
        return {**base, "status": "not_fitted", "reason": f"{budgets} budget(s): a law needs at least 2"}
    N, D = numbers(frame, "params_total")[ok], tokens[ok]
    cells, cell = np.unique(np.stack([N, D], axis=1), axis=0, return_inverse=True)
    if len(cells) < MIN_RUNS:
        reason = f"{len(cells)} different runs (seeds apart): a law of five constants needs at least {MIN_RUNS}"
        return {**base, "status": "not_fitted", "reason": reason}
    try:
        fit = fit_loss_law(N, D, values[ok])
    except DataError as error:
        return {**base, "status": "not_fitted", "reason": str(error)}
    # Seeds of one cell are drawn together: they say little about how the law would change with other cells.
    clusters = cell.reshape(-1).tolist() if SMALL_TABLE <= len(cells) < len(N) else None
    boot = bootstrap_law(fit, replicates=replicates, seed=seed, clusters=clusters)
    notes = list(fit.notes)
    epochs = part.largest(arm, "speech_epochs") if loss != "text" else part.largest(arm, "text_epochs")
    if epochs is not None and epochs > SINGLE_EPOCH_LIMIT:
        notes.append(f"a single-epoch law is fitted to data repeated up to {epochs:.3g} times")
    return {
        **base,
        "status": "not_identified" if fit.at_bounds else "fitted",
        "constants": {name: asdict(value) for name, value in boot.constants().items()},
        "objective": fit.objective,
        "delta": fit.minimized.delta,
        "residual_sd": fit.residual_sd,
        "starts_agree": f"{fit.starts_agree} of {len(fit.start_objectives)}",
        "second_basin": fit.second_basin,
        "converged": fit.converged,
        "replicates_converged": boot.converged,
        "at_bounds": fit.at_bounds,
        "flatness": fit.flatness,
        "notes": notes,
    }


def _multipliers(part: Part, replicates: int, seed: int) -> dict[tuple[str, str, bool], Multiplier]:
    """Compare each arm that has a speech loss with the baseline, both checkpoints and both accounts."""
    found = {}
    for loss in ("final", "best"):
        for charged in (False, True):
            baseline = sweep_of(part, part.baseline, loss, charged=charged)
            for arm in part.arms[1:]:
                sweep = sweep_of(part, arm, loss, charged=charged)
                if baseline is not None and sweep is not None:
                    found[arm, loss, charged] = compute_multiplier(baseline, sweep, replicates=replicates, seed=seed)
    return found


def _loss_said(part: Part, arm: str, found: dict[tuple[str, str, bool], Multiplier]) -> list[str]:
    if (arm, "final", False) not in found:
        return []
    return loss_sentences(
        part,
        found[arm, "final", False],
        found.get((arm, "best", False)),
        found[arm, "final", True],
        found.get((arm, "best", True)),
    )


def _slopes(part: Part, replicates: int, seed: int) -> list[dict[str, Any]]:
    """Fit accuracy against compute for each arm and metric that has at least three budgets; seeds are averaged."""
    slopes = []
    for metric in find_metrics(part.frame):
        for arm in part.arms:
            frame = part.runs(arm)
            frame = frame[np.isfinite(numbers(frame, metric.column))]
            if len(np.unique(numbers(frame, "budget_flops"))) < 3:
                continue
            means = _cell_means(frame, [metric.column, f"{metric.column}_se", f"{metric.column}_n"])
            share, se, items = means[metric.column], means[f"{metric.column}_se"], means[f"{metric.column}_n"]
            slope = metric_slope(
                means["budget_flops"],
                share,
                se=se if np.isfinite(se).all() else None,
                items=items if np.isfinite(items).all() else None,
                replicates=replicates,
                seed=seed,
            )
            slopes.append({"arm": arm, "metric": metric.column, **asdict(slope)})
    return slopes


def _cell_means(frame: pd.DataFrame, columns: Sequence[str]) -> dict[str, np.ndarray]:
    table = pd.DataFrame({c: numbers(frame, c) for c in ("params_total", "budget_flops", *columns)})
    means = table.groupby(["params_total", "budget_flops"], as_index=False).mean()
    return {c: means[c].to_numpy(float) for c in means.columns}
