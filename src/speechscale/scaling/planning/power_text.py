"""Power analyses in words.

Enters: `Power`, `Smallest`. Leaves: text for the terminal.
The one decision worth knowing: the first sentence is about the decision, not about a width: whether the sweep can
settle on which side of 0.5 the exponent of N_opt lies.
"""

from __future__ import annotations

from speechscale.scaling.planning.power import FACTORS, SETTLES, Expected, Power
from speechscale.scaling.planning.smallest import Candidate, Smallest

NAMES = {
    "exp_params": "a (N_opt ~ C^a)",
    "exp_tokens": "b (D_opt ~ C^b)",
    "alpha": "alpha",
    "beta": "beta",
    "E": "E",
    "loss_target": "loss at target",
    "params_opt": "N_opt at target",
    "tokens_opt": "D_opt at target",
}


def verdict(power: Power) -> str:
    """Say whether the sweep settles if N grows faster than D.

    Example: "A sweep of 40 runs cannot settle whether N_opt grows faster than D_opt: ..."
    """
    found = power.expected["exp_params"]
    width = f"the expected interval of a is {found.width:.2g} wide"
    share = f"in {power.side_settled:.0%} of the simulated sweeps"
    if power.side_settled >= SETTLES:
        side = "faster" if found.truth > 0.5 else "slower"
        return (
            f"A sweep of {power.runs} runs settles that N_opt grows {side} than D_opt, if this law is true: {width}, "
            f"and it excludes .5 {share}."
        )
    holds = " and contains .5" if found.low <= 0.5 <= found.high else ""
    return (
        f"A sweep of {power.runs} runs cannot settle whether N_opt grows faster than D_opt: {width}{holds}; it "
        f"excludes .5 on the true side (a = {found.truth:.3f}) only {share}."
    )


def power_text(power: Power, *, gpu_flops: float | None = None) -> str:
    """Lay out a power analysis, widths first."""
    lines = [
        verdict(power),
        "",
        f"grid: {power.what}; {power.runs} runs, {power.cost_flops:.3g} FLOPs{_hours(power, gpu_flops)}",
        f"law: E {power.law.E:g}, A {power.law.A:g}, B {power.law.B:g}, alpha {power.law.alpha:g}, "
        f"beta {power.law.beta:g}; noise {power.noise:.2%} of the loss; target {power.target_flops:.3g} FLOPs",
        f"{power.sweeps} simulated sweeps, each with {power.replicates} bootstrap replicates by {power.by}; seed "
        f"{power.seed}",
        "",
        f"{'quantity':17} {'truth':>10} {'95 % width':>11} {'typical interval':>25} {'spread':>9} {'bias':>9} "
        f"{'coverage':>13}",
        *(_row(found) for found in power.expected.values()),
        "",
        "width: median over the sweeps; x: high / low. spread: standard deviation of the estimates over the sweeps.",
        "coverage: share of intervals that hold the truth, with its binomial error; nominal 0.95.",
        *_warnings(power),
        "Noise is independent and every run is perfectly tuned here: real sweeps are wider, never narrower.",
    ]
    return "\n".join(lines) + "\n"


def smallest_text(found: Smallest, *, gpu_flops: float | None = None) -> str:
    """Say which grid is enough, and what its neighbors would give."""
    wish = ", ".join(f"{NAMES[name]} {_width(name in FACTORS, width)}" for name, width in found.wanted.items())
    if found.grid is None:
        head = (
            f"Wanted: {wish}. Cannot be reached within {found.max_budgets} budgets x {found.max_sizes} sizes of this "
            f"range: the largest gives {_widths(found.largest)}. Widen the range of compute, lower the noise (more "
            "seeds, larger test sets), or ask for less."
        )
    else:
        head = (
            f"Wanted: {wish}. Smallest grid: {found.grid.budgets} budgets x {found.grid.sizes} sizes, "
            f"{found.grid.cost_flops:.3g} FLOPs, expected {_widths(found.grid)}."
        )
    near = [
        f"  {one.budgets} x {one.sizes}: {one.cost_flops:.3g} FLOPs, {_widths(one)}, "
        f"{'enough' if one.reaches else 'not enough'}"
        for one in found.neighbors
    ]
    if near:
        near = [f"Its neighbors ({found.tried} grids were simulated):", *near]
    return "\n".join([head, *near, "", power_text(found.power, gpu_flops=gpu_flops)])


def _width(factor: bool, width: float) -> str:
    return f"x{width:.3g}" if factor else f"{width:.3g}"


def _widths(one: Candidate) -> str:
    errors = one.errors or {}
    return ", ".join(
        f"{NAMES[name]} {_width(name in FACTORS, width)}" + (f" {_error(name, errors[name])}" if errors else "")
        for name, width in one.widths.items()
    )


def _error(name: str, error: float) -> str:
    return f"(standard error x{error:.2f})" if name in FACTORS else f"(+- {error:.1g})"


def _row(found: Expected) -> str:
    interval = f"[{found.low:.4g}, {found.high:.4g}]"
    bias = f"x{found.bias:.3g}" if found.factor else f"{found.bias:+.2g}"
    return (
        f"{NAMES[found.name]:17} {found.truth:10.4g} {_width(found.factor, found.width):>11} {interval:>25} "
        f"{_width(found.factor, found.spread):>9} {bias:>9} {found.coverage:5.2f} +- {found.coverage_se:.2f}"
    )


def _warnings(power: Power) -> list[str]:
    lines = []
    if power.unidentified:
        lines.append(
            f"{power.unidentified:.0%} of the sweeps could not identify the law: a constant ended on a border, E "
            "vanished, or the fit did not converge."
        )
    if power.replicates_converged < 0.95:
        lines.append(f"only {power.replicates_converged:.0%} of the bootstrap replicates converged.")
    odd = [f for f in power.expected.values() if f.coverage + 2 * (0.95 * 0.05 / power.sweeps) ** 0.5 < 0.95]
    if odd:
        lines.append(f"intervals of {', '.join(NAMES[f.name] for f in odd)} hold the truth too seldom on this grid.")
    return lines


def _hours(power: Power, gpu_flops: float | None) -> str:
    return "" if gpu_flops is None else f" = {power.gpu_hours(gpu_flops):.3g} GPU-hours at {gpu_flops:.3g} FLOPs/s"
