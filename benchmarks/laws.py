"""Measure the laws room: python benchmarks/laws.py [--only fit,bootstrap,compare,power,coverage,import]

fit        a point fit of L(N, D), ours beside scipy BFGS from Hoffmann's constants (Epoch's procedure), and beside
           the PyPI package chinchilla where --peer-python names an interpreter that has it
bootstrap  4,000 resamples, ours beside one scipy BFGS each (40 timed, extrapolated), and the share that converged
compare    two arms of 100 runs, 2,000 replicates by run and by budget
power      expected widths, coverage and seconds of nine planned grids, --sweeps sweeps x 300 replicates: one Markdown
           row per law, grid and noise
coverage   how often the printed 95 % interval holds the truth on the same nine, --sweeps simulated sweeps each
import     `import speechscale.scaling`, without torch

Times are processor seconds (run it with OMP_NUM_THREADS=1), medians of --repeats; load is printed. --table FILE takes
runs with columns N, D, loss (e.g. the 240 points of Epoch AI); without it 240 runs are simulated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from speechscale.scaling.comparing.compare_runs import compare_runs
from speechscale.scaling.fitting.bootstrap import bootstrap_law
from speechscale.scaling.fitting.fit import Fit, fit_loss_law, refit
from speechscale.scaling.intervals import run_weights
from speechscale.scaling.laws import FLOPS_PER_PARAM_TOKEN, LossLaw
from speechscale.scaling.planning.power import power
from speechscale.scaling.tables.run_table import run_table

Runs = tuple[np.ndarray, np.ndarray, np.ndarray]
TEXT = LossLaw(E=1.81722, A=477.826, B=2143.42, alpha=0.347310, beta=0.367172)
AUDIO = LossLaw(E=3.169, A=216e3, B=4750.0, alpha=0.684, beta=0.439)
TEXTLESS = LossLaw(E=1.73, A=13.9, B=39.8, alpha=0.25, beta=0.24)
LAWS = {"text (Epoch)": TEXT, "audio + text (SODA)": AUDIO, "textless speech (Cuervo)": TEXTLESS}
GRIDS = ((5, 8, 0.005), (9, 12, 0.005), (5, 8, 0.02))
"""Budgets between 1e18 and 1e20 FLOPs, sizes per budget, standard deviation of log loss."""
HOFFMANN = np.array([6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083])
"""log A, log B, log E, alpha, beta, unrounded."""


def timed(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Median processor seconds and the last result."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds), result


def simulated(law: LossLaw, budgets: int, sizes: int, noise: float, seed: int) -> Runs:
    C = np.repeat(np.geomspace(1e18, 1e20, budgets), sizes)
    N = law.optimum(C).params_opt * np.tile(np.geomspace(1 / 8, 8, sizes), budgets)
    D = C / FLOPS_PER_PARAM_TOKEN / N
    return N, D, law.predict(N, D) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(C)))


def epoch_bfgs(runs: Runs, weights: np.ndarray | None = None) -> Any:
    """One BFGS with finite differences from Hoffmann's constants: what Epoch's notebook does per resample."""
    n, d, y = (np.log(x) for x in runs)
    w = np.ones(len(y)) if weights is None else weights

    def objective(x: np.ndarray) -> float:
        law = np.logaddexp(np.logaddexp(x[0] - x[3] * n, x[1] - x[4] * d), x[2])
        size = np.abs(y - law)
        return float((w * np.where(size < 1e-3, size**2 / 2, 1e-3 * (size - 5e-4))).sum())

    return minimize(objective, HOFFMANN, method="BFGS")


def fit(runs: Runs, options: argparse.Namespace) -> Fit:
    ours, found = timed(lambda: fit_loss_law(*runs), max(15, options.repeats))
    peer, theirs = timed(lambda: epoch_bfgs(runs), options.repeats)
    agree = f"sum {found.objective:.13f}, {found.starts_agree} starts agree"
    print(f"fit, {len(runs[0])} runs: ours {1e3 * ours:.2f} ms ({agree})")
    print(f"  scipy BFGS, one start: {1e3 * peer:.1f} ms = {peer / ours:.1f} x ours (sum {theirs.fun:.13f})")
    if options.peer_python:
        _package(runs, ours, options.peer_python)
    return found


def _package(runs: Runs, ours: float, python: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.csv"
        pd.DataFrame(dict(zip(("N", "D", "loss"), runs, strict=True))).to_csv(path, index=False)
        script = Path(__file__).parent / "laws_peers/chinchilla_fit.py"
        done = subprocess.run([python, str(script), str(path)], capture_output=True, text=True, check=True)
    for name, row in json.loads(done.stdout).items():
        law = LossLaw(**{key: row[key] for key in ("E", "A", "B", "alpha", "beta")})
        residual = np.abs(np.log(runs[2] / law.predict(*runs[:2])))
        score = float(np.where(residual < 1e-3, residual**2 / 2, 1e-3 * (residual - 5e-4)).sum())
        text = f"alpha {law.alpha:.4f}, beta {law.beta:.4f}, log-Huber sum {score:.7f}"
        seconds = f"{row['seconds']:.1f} s wall = {row['seconds'] / ours:.0f} x ours"
        print(f"  chinchilla, {row['starts']} starts, {name}: {seconds}; {text}")


def bootstrap(runs: Runs, found: Fit, options: argparse.Namespace) -> None:
    count = 4000
    weights = run_weights(found.runs, count, options.seed).astype(float)
    ours, (law, converged) = timed(lambda: refit(found, weights=weights), options.repeats)
    tight, (best, _) = timed(lambda: refit(found, weights=weights, thorough=True), 1)
    sums = [_sums(laws, runs, weights) for laws in (law, best)]
    short = float(np.mean(sums[0] > sums[1] * (1 + 1e-6)))
    sample = 40
    peer, _ = timed(lambda: [epoch_bfgs(runs, row) for row in weights[:sample]], 1)
    peer *= count / sample
    good = f"{100 * converged.mean():.2f} % converged, {100 * (1 - short):.3f} % within 1e-6 of the best known"
    print(f"bootstrap, {count} resamples: ours {ours:.2f} s, thorough {tight:.2f} s; {good}")
    print(f"  scipy BFGS, one start each: {peer:.0f} s ({sample} timed) = {peer / ours:.0f} x ours")


def _sums(law: LossLaw, runs: Runs, weights: np.ndarray) -> np.ndarray:
    E, A, B, alpha, beta = (getattr(law, name)[:, None] for name in ("E", "A", "B", "alpha", "beta"))
    predicted = E + A / runs[0] ** alpha + B / runs[1] ** beta
    size = np.abs(np.log(runs[2]) - np.log(predicted))
    return np.asarray((weights * np.where(size < 1e-3, size**2 / 2, 1e-3 * (size - 5e-4))).sum(axis=1))


def compare(options: argparse.Namespace) -> None:
    a = run_table(*simulated(TEXTLESS, 10, 10, 0.005, 1), name="a")
    cheaper = LossLaw(E=1.73, A=13.9 * 0.5**0.25, B=39.8, alpha=0.25, beta=0.24)
    b = run_table(*simulated(cheaper, 10, 10, 0.005, 2), name="b")
    seconds, found = timed(lambda: compare_runs(a, b, replicates=2000, seed=options.seed), options.repeats)
    print(f"compare, two arms of 100 runs, 2,000 replicates: {seconds:.2f} s")
    print(f"  {found.sentence}")


def plan_power(options: argparse.Namespace) -> None:
    print(
        "| law | grid, noise | width of a | N_opt | coverage of a, N_opt, E, alpha, beta | not identified | seconds |"
    )
    print("|---|---|---|---|---|---|---|")
    for (name, law), (budgets, sizes, noise) in itertools.product(LAWS.items(), GRIDS):
        grid = {"budgets": (1e18, 1e20, budgets), "sizes": sizes, "noise": noise, "sweeps": options.sweeps}
        seconds, found = timed(lambda law=law, grid=grid: power(law, seed=options.seed, **grid), 1)
        get = found.expected
        held = ", ".join(f"{get[key].coverage:.2f}" for key in ("exp_params", "params_opt", "E", "alpha", "beta"))
        print(
            f"| {name} | {budgets} x {sizes}, {noise:.1%} | {get['exp_params'].width:.3f} | "
            f"x{get['params_opt'].width:.3g} | {held} | {found.unidentified:.0%} | {seconds:.1f} |",
            flush=True,
        )


def coverage(options: argparse.Namespace) -> None:
    """Of a, alpha and the loss at ten times the highest budget, by run."""
    for budgets, sizes, noise in GRIDS:
        for name, law in LAWS.items():
            held = np.zeros(3)
            for sweep in range(options.sweeps):
                found = fit_loss_law(*simulated(law, budgets, sizes, noise, options.seed + sweep))
                boot = bootstrap_law(found, replicates=300, seed=sweep)
                wanted = (lambda x: x.exp_params, lambda x: x.alpha, lambda x: x.loss_at(1e21))
                estimates = [boot.of(quantity) for quantity in wanted]
                truth = law.exp_params, law.alpha, law.loss_at(1e21)
                held += [float(e.low <= t <= e.high) for e, t in zip(estimates, truth, strict=True)]
            a, alpha, loss = held / options.sweeps
            error = np.sqrt(0.05 * 0.95 / options.sweeps)
            shown = f"a {a:.3f}, alpha {alpha:.3f}, L(1e21) {loss:.3f} (+- {error:.3f})"
            print(f"coverage, {name}, {budgets} x {sizes}, noise {noise}: {shown}")


def importing(options: argparse.Namespace) -> None:
    for what in ("import speechscale.scaling", "from speechscale.scaling import *"):
        code = f"{what}; import sys; assert 'torch' not in sys.modules"
        seconds = []
        for _ in range(max(5, options.repeats)):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            seconds.append(time.perf_counter() - start)
        print(f"{what}: {statistics.median(seconds):.2f} s wall, the interpreter included, no torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="fit,bootstrap,compare,power,coverage,import")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--peer-python")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sweeps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    parts = options.only.split(",")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, one thread")
    if options.table:
        table = pd.read_csv(options.table)
        runs = (table["N"].to_numpy(float), table["D"].to_numpy(float), table["loss"].to_numpy(float))
    else:
        runs = simulated(TEXT, 15, 16, 0.01, 0)
    found = fit(runs, options) if "fit" in parts or "bootstrap" in parts else None
    if "bootstrap" in parts:
        assert found is not None
        bootstrap(runs, found, options)
    for name, part in {"compare": compare, "power": plan_power, "coverage": coverage, "import": importing}.items():
        if name in parts:
            part(options)


if __name__ == "__main__":
    main()
