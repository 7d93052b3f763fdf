"""Power of nine planned sweeps: expected widths, coverage, seconds. Usage: python benchmarks/power.py [SWEEPS]

Prints one Markdown row per law, grid and noise.
"""

from __future__ import annotations

import sys
import time

from speechscale.scaling.laws import LossLaw
from speechscale.scaling.planning.power import power

LAWS = {
    "Epoch text": LossLaw(E=1.81722, A=477.826, B=2143.42, alpha=0.347310, beta=0.367172),
    "SODA": LossLaw(E=3.169, A=216e3, B=4750, alpha=0.684, beta=0.439),
    "textless": LossLaw(E=1.73, A=13.9, B=39.8, alpha=0.25, beta=0.24),
}
GRIDS = ((5, 8, 0.005), (9, 12, 0.005), (5, 8, 0.02))


def main() -> None:
    sweeps = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print(
        "| law | grid, noise | width of a | N_opt | coverage of a, N_opt, E, alpha, beta | not identified | seconds |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, law in LAWS.items():
        for budgets, sizes, noise in GRIDS:
            began = time.perf_counter()
            found = power(law, budgets=(1e18, 1e20, budgets), sizes=sizes, noise=noise, sweeps=sweeps)
            seconds = time.perf_counter() - began
            get = found.expected
            held = ", ".join(f"{get[key].coverage:.2f}" for key in ("exp_params", "params_opt", "E", "alpha", "beta"))
            print(
                f"| {name} | {budgets} x {sizes}, {noise:.1%} | {get['exp_params'].width:.3f} | "
                f"x{get['params_opt'].width:.3g} | {held} | {found.unidentified:.0%} | {seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
