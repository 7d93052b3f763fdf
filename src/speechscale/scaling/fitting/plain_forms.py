"""Forms of law that stand alone: Kaplan's joint form, and the over-training form.

Enters: columns N and D. Leaves: what `forms.Form` asks for.
The one decision worth knowing: parameters are the losses of the terms at the center of the table, not the prefactors,
which are far outside it (Nc is near 1e14) and hardly determined.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from speechscale.scaling.fitting.columns import MOST_STARTS, Columns, Theta
from speechscale.scaling.fitting.solve import EXPONENTS
from speechscale.scaling.laws import FLOPS_PER_PARAM_TOKEN


class Kaplan:
    """L = [(Nc/N)^(aN/aD) + Dc/D]^aD, without a floor. Source: Kaplan et al. 2020, equation 1.5.

    theta = (a, aN, b, aD): a and b are the logarithms of the two terms' own losses at the center of the table.
    """

    names = ("Nc", "alpha_N", "Dc", "alpha_D")
    columns = ("N", "D")
    base = 0

    def __init__(self, x: Columns, loss: np.ndarray) -> None:
        self.center = float(np.log(x["N"]).mean()), float(np.log(x["D"]).mean())
        low, high = float(np.log(loss.min())), float(np.log(loss.max()))
        self.low = np.array([low - 8.0, EXPONENTS[0] / 4, low - 8.0, EXPONENTS[0] / 4])
        self.high = np.array([high + 3.0, EXPONENTS[1], high + 3.0, EXPONENTS[1]])

    def log_law(self, theta: Theta, x: Columns) -> Float[np.ndarray, "replicates runs"]:
        a, alpha_n, b, alpha_d = theta.T[:, :, None]
        of_params = (a - alpha_n * (np.log(x["N"]) - self.center[0])) / alpha_d
        of_tokens = b / alpha_d - (np.log(x["D"]) - self.center[1])
        return np.asarray(alpha_d * np.logaddexp(of_params, of_tokens))

    def constants(self, theta: Theta) -> dict[str, Float[np.ndarray, " replicates"]]:
        a, alpha_n, b, alpha_d = theta.T
        with np.errstate(over="ignore"):
            sizes, tokens = np.exp(self.center[0] + a / alpha_n), np.exp(self.center[1] + b / alpha_d)
        return {"Nc": sizes, "alpha_N": alpha_n, "Dc": tokens, "alpha_D": alpha_d}

    def starts(self, x: Columns, loss: np.ndarray, w: np.ndarray) -> Theta:
        """For each pair of exponents L^(1/aD) is linear in the two terms."""
        n, d = np.log(x["N"]) - self.center[0], np.log(x["D"]) - self.center[1]
        found = []
        for alpha_d in np.geomspace(0.02, 0.8, 16):
            target = np.exp(np.log(loss) / alpha_d - np.log(loss).mean() / alpha_d)
            q = w / target**2
            for alpha_n in np.geomspace(0.02, 0.8, 16):
                terms = np.stack([np.exp(-alpha_n / alpha_d * n), np.exp(-d)], axis=1)
                normal = (terms * q[:, None]).T @ terms + 1e-12 * np.eye(2)
                size, tokens = np.maximum(np.linalg.solve(normal, (terms * q[:, None]).T @ target), 1e-6)
                shift = np.log(loss).mean()
                found.append([alpha_d * np.log(size) + shift, alpha_n, alpha_d * np.log(tokens) + shift, alpha_d])
        thetas = np.clip(np.array(found), self.low, self.high)
        misfit = (w * (np.log(loss) - self.log_law(thetas, x)) ** 2).sum(axis=1)
        return thetas[np.argsort(misfit)[:MOST_STARTS]]


class Overtraining:
    """L = E + (a M^eta + b M^-eta) C^-eta with M = D / N: the law of N and D with equal exponents (alpha = 2 eta).

    Source: Gadre et al. 2024, equation 4.
    """

    names = ("E", "a", "b", "eta")
    columns = ("N", "D")
    base = 0

    def __init__(self, x: Columns, loss: np.ndarray) -> None:
        log_c = self._log_compute(x)
        self.center = float(log_c.mean())
        low, high = float(np.log(loss.min())), float(np.log(loss.max()))
        self.low = np.array([low - 14.0, low - 14.0, low - 14.0, EXPONENTS[0] / 2])
        self.high = np.array([high + 1.0, high + 3.0, high + 3.0, EXPONENTS[1] / 2])

    @staticmethod
    def _log_compute(x: Columns) -> np.ndarray:
        return np.log(FLOPS_PER_PARAM_TOKEN * x["N"] * x["D"])

    def log_law(self, theta: Theta, x: Columns) -> Float[np.ndarray, "replicates runs"]:
        e, a, b, eta = theta.T[:, :, None]
        compute, ratio = self._log_compute(x) - self.center, np.log(x["D"] / x["N"])
        grow = np.exp(a + eta * (ratio - compute)) + np.exp(b - eta * (ratio + compute))
        return np.asarray(np.log(np.exp(e) + grow))

    def constants(self, theta: Theta) -> dict[str, Float[np.ndarray, " replicates"]]:
        e, a, b, eta = theta.T
        return {
            "E": np.exp(e),
            "a": np.exp(a + eta * self.center),
            "b": np.exp(b + eta * self.center),
            "eta": eta,
        }

    def starts(self, x: Columns, loss: np.ndarray, w: np.ndarray) -> Theta:
        """At equal exponents the five-term law's projection, diagonal of its grid."""
        compute, ratio = self._log_compute(x) - self.center, np.log(x["D"] / x["N"])
        q, found = w / loss**2, []
        for eta in np.geomspace(0.02, 0.8, 40):
            terms = np.stack(
                [np.ones_like(loss), np.exp(eta * (ratio - compute)), np.exp(-eta * (ratio + compute))], axis=1
            )
            normal = (terms * q[:, None]).T @ terms
            normal += 1e-12 * np.trace(normal) * np.eye(3)
            solution = np.maximum(np.linalg.solve(normal, (terms * q[:, None]).T @ loss), 1e-6)
            found.append([*np.log(solution), eta])
        thetas = np.clip(np.array(found), self.low, self.high)
        misfit = (w * (np.log(loss) - self.log_law(thetas, x)) ** 2).sum(axis=1)
        return thetas[np.argsort(misfit)[:MOST_STARTS]]
