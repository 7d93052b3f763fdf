"""The smallest grid whose intervals are as narrow as wanted.

Enters: an assumed law, wanted widths, the noise of a run. Leaves: `Smallest`: the grid, its price, what its neighbors
would give; or the answer that nothing within reach is enough.
The one decision worth knowing: the asymptotic width of the robust fit only orders the candidates; a grid is named only
after simulation confirmed it, and each simulation corrects the asymptotic widths of the rest. Grids below 20 runs are
not offered: intervals of such tables come from residuals, which hold the truth too seldom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import erf, exp, pi, sqrt
from typing import Any

import numpy as np

from speechscale.errors import DataError
from speechscale.progress import Watch
from speechscale.scaling.fitting.bootstrap import SMALL_TABLE
from speechscale.scaling.fitting.newton import Objective
from speechscale.scaling.fitting.solve import log_terms, make_frame
from speechscale.scaling.intervals import LEVEL
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.planning.power import (
    EXTRAPOLATION,
    FACTORS,
    NOISE,
    QUANTITIES,
    Expected,
    Power,
    power,
    quantities,
)
from speechscale.scaling.planning.simulate import SPREAD, Grid, spread_grid

MIN_SIZES = 5
"""Sizes per budget below which an optimum is not bracketed well (`checks` warns of it)."""
_NORMAL_95 = 1.959964  # standard deviations of a normal interval
_MARGIN = 0.9  # simulate a candidate whose corrected width is at most 1 / this times what is wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A grid of the search.

    Args:
        budgets, sizes: how many. widths: expected, by wanted quantity (factors: high / low). errors: standard errors
            of these. coverage: of their intervals. Both None where not simulated.
        reaches: all are narrow enough by more than their errors, and hold the truth about as often as they say.
        simulated: by how many sweeps; 0: asymptotic widths, corrected by the simulations of other grids.
    """

    budgets: int
    sizes: int
    cost_flops: float
    widths: dict[str, float]
    errors: dict[str, float] | None
    coverage: dict[str, float] | None
    reaches: bool
    simulated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Smallest:
    """The answer of a search.

    Args:
        grid: the cheapest that reaches the widths; None: none within max_budgets x max_sizes does.
        power: the simulation of that grid, or, if none reaches, of the largest one tried.
        neighbors: one budget or size fewer or more. largest: the most that was allowed.
        tried: grids that were simulated.
    """

    wanted: dict[str, float]
    grid: Candidate | None
    power: Power
    neighbors: tuple[Candidate, ...]
    largest: Candidate
    tried: int
    max_budgets: int
    max_sizes: int


def smallest_grid(
    law: LossLaw,
    *,
    wanted: Mapping[str, float],
    between: tuple[float, float] = (1e18, 1e20),
    spread: float = SPREAD,
    noise: float = NOISE,
    max_budgets: int = 16,
    max_sizes: int = 16,
    sweeps: int = 100,
    replicates: int = 300,
    target_flops: float | None = None,
    seed: int = 0,
    watch: Watch | None = None,
) -> Smallest:
    """Search budgets x sizes for the cheapest grid with intervals as narrow as wanted.

    Example: smallest_grid(law, wanted={"exp_params": 0.1}).grid -> Candidate(budgets=..., sizes=...)

    Args:
        wanted: width by quantity of `power.QUANTITIES`; of "params_opt" and "tokens_opt" the factor high / low.
        between: lowest and highest budget, FLOPs. max_budgets, max_sizes: how far the search may go.
        sweeps, replicates, target_flops, seed, watch: see `power`.

    Raises:
        DataError: an unknown quantity, a width that no grid could have, or a search without grids.
    """
    _check(wanted, max_budgets, max_sizes)
    search = _Search(
        law=law,
        wanted=dict(wanted),
        between=between,
        spread=spread,
        settings={
            "noise": noise,
            "sweeps": sweeps,
            "replicates": replicates,
            "target_flops": EXTRAPOLATION * between[1] if target_flops is None else target_flops,
            "seed": seed,
            "watch": watch,
        },
    )
    cells = [(b, s) for b in range(2, max_budgets + 1) for s in range(MIN_SIZES, max_sizes + 1) if b * s >= SMALL_TABLE]
    cells.sort(key=search.cost)
    found = next((cell for cell in cells if search.promises(cell) and search.simulated(cell).reaches), None)
    if found is None:
        search.simulated(cells[-1])
        near: list[tuple[int, int]] = []
    else:
        near = search.neighbors(found, cells)
        while cheaper := [c for c in near if search.cost(c) < search.cost(found) and search.simulated(c).reaches]:
            found = min(cheaper, key=search.cost)
            near = search.neighbors(found, cells)
    return Smallest(
        wanted=dict(wanted),
        grid=None if found is None else search.simulated(found),
        power=search.done[found or cells[-1]],
        neighbors=tuple(search.simulated(cell) for cell in near),
        largest=search.simulated(cells[-1]) if cells[-1] in search.done else search.guessed(cells[-1]),
        tried=len(search.done),
        max_budgets=max_budgets,
        max_sizes=max_sizes,
    )


Cell = tuple[int, int]


@dataclass(kw_only=True)
class _Search:
    """What is known of the grids so far; `ratios` are simulated over asymptotic widths."""

    law: LossLaw
    wanted: dict[str, float]
    between: tuple[float, float]
    spread: float
    settings: dict[str, Any]
    done: dict[Cell, Power] = field(default_factory=dict)
    ratios: dict[str, list[float]] = field(default_factory=dict)

    def grid(self, cell: Cell) -> Grid:
        return spread_grid(self.law, (*self.between, cell[0]), cell[1], spread=self.spread)

    def cost(self, cell: Cell) -> tuple[float, Cell]:
        return cell[1] * float(np.geomspace(*self.between, cell[0]).sum()), cell

    def neighbors(self, cell: Cell, cells: Sequence[Cell]) -> list[Cell]:
        steps = ((-1, 0), (0, -1), (1, 0), (0, 1))
        return [near for step in steps if (near := (cell[0] + step[0], cell[1] + step[1])) in cells]

    def asymptotic(self, cell: Cell) -> dict[str, float]:
        return asymptotic_widths(
            self.law, self.grid(cell), noise=self.settings["noise"], target_flops=self.settings["target_flops"]
        )

    def guessed(self, cell: Cell) -> Candidate:
        widths = {name: _log(name, width) for name, width in self.asymptotic(cell).items() if name in self.wanted}
        scaled = {
            name: _unlog(name, width * float(np.median(self.ratios.get(name, [1.0])))) for name, width in widths.items()
        }
        return self._candidate(cell, scaled)

    def promises(self, cell: Cell) -> bool:
        widths = self.guessed(cell).widths
        return all(_log(name, widths[name]) * _MARGIN <= _log(name, limit) for name, limit in self.wanted.items())

    def simulated(self, cell: Cell) -> Candidate:
        if cell not in self.done:
            found = self.done[cell] = power(self.law, grid=self.grid(cell), **self.settings)
            for name, width in self.asymptotic(cell).items():
                ratio = _log(name, found.expected[name].width) / _log(name, width)
                if np.isfinite(ratio):
                    self.ratios.setdefault(name, []).append(ratio)
        expected = [self.done[cell].expected[name] for name in self.wanted]
        return self._candidate(cell, {one.name: one.width for one in expected}, expected)

    def _candidate(self, cell: Cell, widths: dict[str, float], expected: Sequence[Expected] = ()) -> Candidate:
        sweeps = self.settings["sweeps"] if expected else 0
        errors = {one.name: one.width_se for one in expected}
        spare = {name: _log(name, errors.get(name, 1.0 if name in FACTORS else 0.0)) for name in widths}
        narrow = all(_log(name, widths[name]) + spare[name] <= _log(name, w) for name, w in self.wanted.items())
        honest = all(one.coverage >= LEVEL - 2 * sqrt(LEVEL * (1 - LEVEL) / sweeps) for one in expected)
        return Candidate(
            budgets=cell[0],
            sizes=cell[1],
            cost_flops=self.cost(cell)[0],
            widths=widths,
            errors=errors or None,
            coverage={one.name: one.coverage for one in expected} or None,
            reaches=narrow and honest,
            simulated=sweeps,
        )


def asymptotic_widths(law: LossLaw, grid: Grid, *, noise: float, target_flops: float) -> dict[str, float]:
    """Width of each quantity's 95 % interval in the limit of many runs; inf where the grid cannot tell the constants.

    Covariance of theta = noise^2 v (J'J)^-1 with v = E psi^2 / (E psi')^2 of the Huber loss: nearly pi / 2, because
    the threshold of 1e-3 lies far below usual noise. Real intervals of small sweeps are wider.

    Source: Huber 1964 (v).
    """
    frame = make_frame(grid.params, grid.tokens, np.asarray(law.predict(grid.params, grid.tokens)))
    theta = frame.theta(law)
    _, p_a, p_b, p_e = (x[0] for x in log_terms(theta[None], frame))
    slopes = np.stack([p_a, -frame.log_params * p_a, p_b, -frame.log_tokens * p_b, p_e], axis=1)
    k = Objective().delta / noise
    inside, density = erf(k / sqrt(2)), exp(-k * k / 2) / sqrt(2 * pi)
    variance = noise**2 * (inside - 2 * k * density + k * k * (1 - inside)) / inside**2
    if np.linalg.matrix_rank(slopes) < len(theta):
        return dict.fromkeys(QUANTITIES, float("inf"))
    covariance = variance * np.linalg.inv(slopes.T @ slopes)
    steps = 1e-5 * np.eye(len(theta))
    up, down = (quantities(frame.law(theta + sign * steps), target_flops) for sign in (1, -1))
    gradient = (up - down) / 2e-5  # (quantities, 5)
    sd = np.sqrt(np.einsum("qi,ij,qj->q", gradient, covariance, gradient))
    return {name: _unlog(name, 2 * _NORMAL_95 * width) for name, width in zip(QUANTITIES, sd, strict=True)}


def _log(name: str, width: float) -> float:
    return float(np.log(width)) if name in FACTORS else width


def _unlog(name: str, width: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(width)) if name in FACTORS else float(width)


def _check(wanted: Mapping[str, float], max_budgets: int, max_sizes: int) -> None:
    if not wanted:
        raise DataError("no width is wanted; name one, e.g. exp_params=0.1")
    for name, width in wanted.items():
        if name not in QUANTITIES:
            raise DataError(f"wanted '{name}': allowed are {', '.join(QUANTITIES)}")
        least = 1.0 if name in FACTORS else 0.0
        if not (np.isfinite(width) and width > least):
            kind = "the factor high / low, above 1" if name in FACTORS else "high - low, above 0"
            raise DataError(f"wanted {name}={width:g}: a width of it is {kind}")
    if max_budgets < 2 or max_sizes < MIN_SIZES or max_budgets * max_sizes < SMALL_TABLE:
        raise DataError(
            f"at most {max_budgets} budgets x {max_sizes} sizes: allow 2 budgets, {MIN_SIZES} sizes, {SMALL_TABLE} runs"
        )
