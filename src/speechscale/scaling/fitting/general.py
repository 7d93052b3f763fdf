"""Fit any form of law: best starts of its grid, damped Gauss-Newton, every optimum they end in.

Enters: columns and losses of runs, the name of a form. Leaves: `FormFit`.
The one decision worth knowing: starts are followed twice, through easier problems and straight at the wanted threshold,
because a wide Huber loss smooths optima away that are worth knowing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.scaling.fitting.columns import Form, Theta
from speechscale.scaling.fitting.fit import LOSSES
from speechscale.scaling.fitting.form_fit import FormFit
from speechscale.scaling.fitting.form_model import FormModel
from speechscale.scaling.fitting.forms import FORMS
from speechscale.scaling.fitting.newton import Kind, Objective, descend, refine
from speechscale.scaling.laws import LossLaw
from speechscale.settings import nearest

_MOST_STEPS = 120
_UNFELT = 1e-9  # of the most felt constant: a derivative that is rounding only
_NEAR = 2.0  # a second optimum worth a word has less than twice the objective


def fit_form(
    name: str,
    columns: Mapping[str, Any],
    loss: Any,
    *,
    objective: Kind = "log-huber",
    delta: float = 1e-3,
    weights: Any = None,
    base: LossLaw | None = None,
    starts: int = 6,
    form_type: Any = None,
) -> FormFit:
    """Fit a form of law to runs, from the best of its starts.

    Example: fit_form("repeat", {"N": N, "D": D, "U": unique}, loss, base=law).constants["R_D"] -> 15.4

    Args:
        name: a key of FORMS. columns: what the form reads, one number per run each.
        base: the five-term law, held where it is (the two stages of Muennighoff and of Cuervo); else all is fitted.
        starts: how many of the grid's best, different nodes are followed to their end.
        form_type: a form that is not in FORMS; `name` is then only its name.

    Raises:
        DataError: unknown form, a missing column, numbers that cannot be, or fewer runs than constants + 1.
    """
    if form_type is None and name not in FORMS:
        raise DataError(f"law '{name}' is unknown{nearest(name, list(FORMS))}")
    made = form_type or FORMS[name]
    x, losses = _checked(name, made.columns, columns, loss)
    minimized = Objective(kind=objective, delta=delta)
    w = np.ones(len(losses)) if weights is None else np.asarray(weights, float)
    form: Form = made(x, losses)
    model = FormModel(form, x, minimized.raw)
    thetas = form.starts(x, losses, w)
    fixed = np.zeros(len(form.low), bool)
    if base is not None:
        if not form.base:
            raise DataError(f"law '{name}' has no five-term law inside, so no base can be given")
        fixed[: form.base] = True
        held = form.theta_of(base, dict.fromkeys(form.names[5:], 1.0))[: form.base]  # type: ignore[attr-defined]
        _check_held(name, base, form.constants(np.append(held, form.low[5:])[None]))
        thetas[:, : form.base] = held
    if len(losses) < (~fixed).sum() + 1:
        raise DataError(f"{len(losses)} runs: law '{name}' has {(~fixed).sum()} constants to fit; add runs")
    y = np.exp(np.log(losses)) if minimized.raw else np.log(losses)
    return _followed(name, model, _spread(thetas, model, y, w, starts), fixed, minimized, losses, y, w)


def _check_held(name: str, base: LossLaw, held: Mapping[str, Any]) -> None:
    """Raises DataError where the search on these runs cannot hold the base as it was given."""
    moved = [n for n in ("E", "A", "B", "alpha", "beta") if not np.isclose(held[n][0], getattr(base, n), rtol=1e-6)]
    if moved:
        raise DataError(
            f"law '{name}': {', '.join(moved)} of the base, {base}, lies outside the search on these runs; give the "
            "constants of a law that was fitted to such losses, N and D"
        )


def _spread(
    thetas: Theta, model: FormModel, y: np.ndarray, w: np.ndarray, count: int
) -> Float[np.ndarray, "starts parameters"]:
    """The best starts that differ from each other by more than a tenth of the grid's extent somewhere."""
    order = np.argsort(model.objective(thetas, y[None], w[None], 1e-2))
    extent = np.maximum(np.ptp(thetas, axis=0), 1e-12)
    chosen: list[int] = []
    for row in order:
        if all(np.max(np.abs(thetas[row] - thetas[other]) / extent) > 0.1 for other in chosen):
            chosen.append(int(row))
        if len(chosen) == count:
            break
    return thetas[chosen]


def _followed(
    name: str,
    model: FormModel,
    thetas: Theta,
    fixed: np.ndarray,
    minimized: Objective,
    losses: np.ndarray,
    y: np.ndarray,
    w: np.ndarray,
) -> FormFit:
    shape = (len(thetas), len(losses))
    # The whole way at once; and straight at the wanted threshold, which keeps basins that a wide Huber smooths away.
    eased = descend(
        thetas, model, np.broadcast_to(y, shape), np.broadcast_to(w, shape), minimized, held=fixed, patient=True
    )
    direct = refine(
        thetas,
        model,
        np.broadcast_to(y, shape),
        np.broadcast_to(w, shape),
        minimized.stages[-1],
        held=fixed,
        steps=2 * _MOST_STEPS,
    )
    ends, values, done = (np.concatenate(pair) for pair in zip(eased, direct, strict=True))
    values = values / minimized.unit
    best = int(np.argmin(values))
    tolerance = 1e-6 * max(float(values[best]), 1e-12)
    form, theta = model.form, ends[best]
    distinct = _distinct(values, done)
    constants = _named(form, theta)
    bounds = tuple(
        form.names[i] for i in np.flatnonzero(~fixed) if min(theta[i] - form.low[i], form.high[i] - theta[i]) < 1e-6
    )
    gram = _gram(model, theta, fixed, w)
    felt = np.sqrt(np.diag(gram))
    fit = FormFit(
        name=name,
        constants=constants,
        held=tuple(form.names[i] for i in np.flatnonzero(fixed)),
        objective=float(values[best]),
        minimized=minimized,
        runs=len(losses),
        starts=len(values),
        starts_agree=int(np.sum(values - values[best] < tolerance)),
        basins=tuple((float(values[row]), _named(form, ends[row])) for row in distinct),
        converged=bool(done[best]),
        at_bounds=bounds,
        unmeasured=tuple(form.names[i] for i in np.flatnonzero(~fixed)[felt <= _UNFELT * felt.max()]),
        flatness=_flatness(gram),
        residuals=np.log(losses) - form.log_law(theta[None], model.x)[0],
        notes=(),
        model=model,
        theta=theta,
        fixed=fixed,
        ends=ends[distinct],
        log_loss=np.log(losses),
    )
    return replace(fit, notes=_notes(fit))


def _named(form: Form, theta: np.ndarray) -> dict[str, float]:
    return {key: float(value[0]) for key, value in form.constants(theta[None]).items()}


def _distinct(values: np.ndarray, done: np.ndarray) -> list[int]:
    """Rows of distinct ends, best first: converged, objectives apart by more than 1e-6; the best one in any case."""
    order = [int(row) for row in np.argsort(values)]
    found = order[:1]
    for row in order[1:]:
        if done[row] and values[row] - values[found[-1]] > 1e-6 * max(float(values[found[-1]]), 1e-12):
            found.append(row)
    return found


def _gram(model: FormModel, theta: np.ndarray, fixed: np.ndarray, w: np.ndarray) -> Float[np.ndarray, "free free"]:
    """J'J of the fitted parameters."""
    y = model.value(theta[None])
    return np.asarray(model.derivatives(theta[None], y, w[None], 1.0)[2][0][~fixed][:, ~fixed])


def _flatness(gram: Float[np.ndarray, "free free"]) -> float:
    scale = np.sqrt(np.diag(gram))
    if np.any(scale <= _UNFELT * scale.max()):
        return 0.0
    return float(np.linalg.eigvalsh(gram / np.outer(scale, scale))[0])


def _notes(fit: FormFit) -> tuple[str, ...]:
    notes = []
    if fit.at_bounds:
        notes.append(f"{', '.join(fit.at_bounds)} ended on the border of the search: not measured by these runs")
    if fit.unmeasured:
        notes.append(f"no run depends on {', '.join(fit.unmeasured)}: not measured by these runs")
    if len(fit.basins) > 1 and fit.basins[1][0] < _NEAR * fit.objective:
        value, constants = fit.basins[1]
        extras = [n for n in fit.constants if n not in fit.held]
        shown = ", ".join(f"{n} {constants[n]:.4g}" for n in extras)
        notes.append(f"a second optimum, {100 * (value / fit.objective - 1):.2g} % above: {shown}")
    if fit.flatness < 1e-3:
        notes.append(f"a flat valley (smallest scaled curvature {fit.flatness:.1e}): look at the profiles")
    return tuple(notes)


def _checked(
    name: str, wanted: Sequence[str], columns: Mapping[str, Any], loss: Any
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    missing = [c for c in wanted if c not in columns]
    if missing:
        raise DataError(f"law '{name}' reads {', '.join(wanted)}; missing: {', '.join(missing)}")
    losses = np.asarray(loss, float)
    x = {c: np.asarray(columns[c], float) for c in wanted}
    for column, values in {**x, "loss": losses}.items():
        may_be_zero = column not in ("N", "D", "U", "C", "L", "loss")
        if values.shape != losses.shape or losses.ndim != 1:
            raise DataError(f"law '{name}': column {column} has {values.shape} entries, the losses {losses.shape}")
        strange = (column == "loss") & ((values < LOSSES[0]) | (values > LOSSES[1]))
        bad = np.flatnonzero(~np.isfinite(values) | (values < 0) | ((values == 0) & (not may_be_zero)) | strange)
        if len(bad):
            allowed = "finite and 0 or more" if may_be_zero else "finite and above 0"
            if column == "loss":
                allowed = f"from {LOSSES[0]:g} to {LOSSES[1]:g}"
            raise DataError(f"law '{name}': {column} of run {bad[0]} is {values[bad[0]]}: must be {allowed}")
    return x, losses
