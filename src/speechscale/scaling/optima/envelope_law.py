"""The lowest loss as a power of compute, with and without a floor.

Enters: a `RunTable`, the fit of its law (for the noise of its runs). Leaves: `EnvelopeLaw`.
The one decision worth knowing: both forms are always given. Without a floor the line falls for ever; over two or three
decades it fits as well, and beyond them the two part (Cuervo & Marxer: L = 4.83 C^-.02 against a floor of 1.73).

Source: Kaplan et al. 2020, equation 1.3 (L = (C0 / C)^gamma); Hoffmann et al. 2022, Approach 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from speechscale.scaling.fitting.columns import Columns, Theta
from speechscale.scaling.fitting.fit import Fit
from speechscale.scaling.fitting.form_fit import FormFit
from speechscale.scaling.fitting.general import fit_form
from speechscale.scaling.fitting.newton import refine
from speechscale.scaling.intervals import Estimate, estimate
from speechscale.scaling.model_choice import MARGIN, aicc
from speechscale.scaling.tables.budgets import budget_compute, budgets_of
from speechscale.scaling.tables.run_table import RunTable

MIN_POINTS = 4
"""Three constants and one to spare."""


class NoFloor:
    """L = k C^-gamma = (C0 / C)^gamma; theta = (log loss at the center, gamma)."""

    names: tuple[str, ...] = ("k", "gamma", "C0")
    columns = ("C",)
    base = 0

    def __init__(self, x: Columns, loss: np.ndarray) -> None:
        self.center = float(np.log(x["C"]).mean())
        low, high = float(np.log(loss.min())), float(np.log(loss.max()))
        self.low, self.high = np.array([low - 3.0, 1e-4]), np.array([high + 3.0, 2.0])

    def log_law(self, theta: Theta, x: Columns) -> Float[np.ndarray, "replicates runs"]:
        return np.asarray(theta[:, :1] - theta[:, 1:2] * (np.log(x["C"]) - self.center))

    def constants(self, theta: Theta) -> dict[str, Float[np.ndarray, " replicates"]]:
        with np.errstate(over="ignore"):
            scale = np.exp(self.center + theta[:, 0] / theta[:, 1])
        return {"k": np.exp(theta[:, 0] + theta[:, 1] * self.center), "gamma": theta[:, 1], "C0": scale}

    def starts(self, x: Columns, loss: np.ndarray, w: np.ndarray) -> Theta:
        slope, level = np.polyfit(np.log(x["C"]) - self.center, np.log(loss), 1)
        return np.clip(np.array([[level, -slope]]), self.low, self.high)


class WithFloor:
    """L = E + k C^-gamma; theta = (log of the reducible loss at the center, gamma, log E)."""

    names: tuple[str, ...] = ("E", "k", "gamma")
    columns = ("C",)
    base = 0

    def __init__(self, x: Columns, loss: np.ndarray) -> None:
        self.center = float(np.log(x["C"]).mean())
        low, high = float(np.log(loss.min())), float(np.log(loss.max()))
        self.low, self.high = np.array([low - 14.0, 1e-3, low - 14.0]), np.array([high + 1.0, 3.0, low])

    def log_law(self, theta: Theta, x: Columns) -> Float[np.ndarray, "replicates runs"]:
        falls = np.exp(theta[:, :1] - theta[:, 1:2] * (np.log(x["C"]) - self.center))
        return np.log(np.exp(theta[:, 2:3]) + falls)

    def constants(self, theta: Theta) -> dict[str, Float[np.ndarray, " replicates"]]:
        with np.errstate(over="ignore"):
            k = np.exp(theta[:, 0] + theta[:, 1] * self.center)
        return {"E": np.exp(theta[:, 2]), "k": k, "gamma": theta[:, 1]}

    def starts(self, x: Columns, loss: np.ndarray, w: np.ndarray) -> Theta:
        """For each exponent the loss is linear in floor and prefactor."""
        found, away = [], np.log(x["C"]) - self.center
        for gamma in np.geomspace(0.02, 1.5, 24):
            terms = np.stack([np.exp(-gamma * away), np.ones_like(loss)], axis=1)
            falls, floor = np.maximum(np.linalg.lstsq(terms, loss, rcond=None)[0], 1e-5)
            found.append([np.log(falls), gamma, np.log(floor)])
        thetas = np.clip(np.array(found), self.low, self.high)
        misfit = ((np.log(loss) - self.log_law(thetas, x)) ** 2).sum(axis=1)
        return thetas[np.argsort(misfit)[:8]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopeForm:
    """One of the two forms. reason: why its constants are not to be quoted, "" if they are."""

    name: str
    constants: Mapping[str, Estimate]
    aicc: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopeLaw:
    """The lowest losses and both forms through them.

    Args:
        reason: why there are none. flops, losses: the points, lowest loss of each budget or of all runs so far.
    """

    reason: str = ""
    flops: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    forms: tuple[EnvelopeForm, ...] = ()
    message: str = ""
    fits: Mapping[str, FormFit] = field(default_factory=dict, repr=False)


def envelope_law(table: RunTable, fit: Fit, *, replicates: int = 1000, seed: int = 0) -> EnvelopeLaw:
    """Fit the lowest losses of a table against compute.

    Every loss is redrawn within the scatter of the runs around the law and the lowest are picked anew.

    Example: envelope_law(table, fit).forms[0].constants["gamma"].value -> .0181
    """
    table = table.with_loss()
    assert table.loss is not None
    budgets = budgets_of(table)
    noise = fit.residual_sd * np.random.default_rng(seed).standard_normal((replicates, len(table)))
    flops, losses, drawn = _lowest(table.flops if budgets is None else budgets, table.loss, table.loss * np.exp(noise))
    if budgets is None:
        record = losses < np.concatenate([[np.inf], np.minimum.accumulate(losses)[:-1]])
        flops, losses, drawn = flops[record], losses[record], np.minimum.accumulate(drawn, axis=1)[:, record]
    else:
        flops = budget_compute(table.flops, budgets)
    if len(flops) < MIN_POINTS:
        return EnvelopeLaw(reason=f"{len(flops)} lowest losses: a floor needs at least {MIN_POINTS}")
    forms, fits = [], {}
    for name, form in (("no floor", NoFloor), ("floor", WithFloor)):
        fits[name] = found = fit_form(name, {"C": flops}, losses, objective="mse", form_type=form)
        forms.append(_form(name, found, drawn))
    return EnvelopeLaw(
        flops=tuple(map(float, flops)),
        losses=tuple(map(float, losses)),
        forms=tuple(forms),
        message=_message(forms),
        fits=fits,
    )


def _lowest(groups: np.ndarray, losses: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute, lowest loss and lowest drawn losses of every group, ascending."""
    names = np.unique(groups)
    rows = [np.flatnonzero(groups == name) for name in names]
    lowest = np.array([losses[r].min() for r in rows])
    return names, lowest, np.stack([drawn[:, r].min(axis=1) for r in rows], axis=1)


def _form(name: str, fit: FormFit, drawn: Float[np.ndarray, "replicates points"]) -> EnvelopeForm:
    w = np.ones_like(drawn)
    theta, _, _ = refine(np.tile(fit.theta, (len(drawn), 1)), fit.model, np.log(drawn), w, fit.minimized.stages[-1])
    replicates = fit.model.form.constants(theta)
    method = f"{len(drawn)} noise replicates, lowest losses picked anew, percentiles"
    constants = {n: estimate(value, replicates[n], method=method) for n, value in fit.constants.items()}
    bounds = ", ".join(fit.at_bounds)
    return EnvelopeForm(
        name=name,
        constants=constants,
        aicc=aicc(float(np.mean(fit.residuals**2)), fit.free, fit.runs),
        reason=f"{bounds} on the border of the search: not measured" if bounds else "",
    )


def _message(forms: list[EnvelopeForm]) -> str:
    plain, floor = forms
    gamma = plain.constants["gamma"]
    text = f"lowest loss ~ C^-{gamma.value:.3g} without a floor"
    if floor.reason:
        return f"{text}; a floor is not measured by these runs"
    e: Any = floor.constants["E"]
    text += f"; with one, {e.value:.3g} [{e.low:.3g}, {e.high:.3g}] + k C^-{floor.constants['gamma'].value:.3g}"
    if plain.aicc is None or floor.aicc is None:
        return f"{text}; too few budgets to tell which fits better"
    better = (
        "the floor"
        if floor.aicc < plain.aicc - MARGIN
        else "no floor"
        if plain.aicc < floor.aicc - MARGIN
        else "neither"
    )
    return f"{text}; {better} fits clearly better (AICc {floor.aicc:.1f} against {plain.aicc:.1f})"
