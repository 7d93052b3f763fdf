"""Time the PyPI package chinchilla on a table: python chinchilla_fit.py TABLE.csv (columns N, D, loss); prints JSON.

Run it in an environment of its own (pip install chinchilla). The grid is a 3^5 one around Hoffmann's; log-Huber with
the paper's threshold, as the package documents it, and the same times the number of runs (a sum, not a mean).
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
import time

import numpy as np
import pandas as pd
from chinchilla import Chinchilla
from chinchilla._metrics import asymmetric_mae, log_huber


def log_huber_sum(observed: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return len(observed) * log_huber(observed, predicted, delta=1e-3)


def main() -> None:
    table = pd.read_csv(sys.argv[1])
    grid = {"E": (1.0, 1.5, 2.0), "A": (100.0, 500.0, 2000.0), "B": (100.0, 1000.0, 5000.0)}
    grid |= {"alpha": (0.2, 0.35, 0.5), "beta": (0.2, 0.35, 0.5)}
    losses = {
        "default": asymmetric_mae,
        "log-Huber as documented": functools.partial(log_huber, delta=1e-3),
        "log-Huber, summed": log_huber_sum,
    }
    found = {}
    for name, loss in losses.items():
        with tempfile.TemporaryDirectory() as folder:
            package = Chinchilla(folder, param_grid=grid, loss_fn=loss, log_level=40)
            for row in table.itertuples():
                package.database.append(C=6 * row.N * row.D, N=row.N, D=row.D, loss=row.loss)
            start = time.perf_counter()
            package.fit(parallel=True)
            seconds = time.perf_counter() - start
        constants = {key: float(getattr(package, key)) for key in ("E", "A", "B", "alpha", "beta")}
        found[name] = {"seconds": seconds, "starts": 3**5, **constants}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
