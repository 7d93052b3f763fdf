"""L(N, D) = E + A/N^alpha + B/D^beta as a model to be solved: a global start, exact derivatives.

Enters: N, D and losses of a table. Leaves: a `Frame` (centred logarithms), starts, a `SumModel` for `newton`.
The one decision worth knowing: all sums over runs are matrix products over the batch, so a thousand replicates cost
about as much as a hundred single fits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from speechscale.scaling.fitting.newton import huber
from speechscale.scaling.laws import LossLaw

EXPONENTS = (0.01, 3.0)
"""Allowed range of alpha and beta; a fit that ends on it is reported in `Fit.at_bounds`."""
GRID = np.geomspace(0.04, 1.6, 30)
"""Exponents at which the linear start is solved, for alpha and beta alike."""
_VANISHED = 14.0  # exp(-14): a term this far below the lowest loss is zero for every purpose


@dataclass(frozen=True, slots=True)
class Frame:
    """Centred logarithms of one table and the box its parameters live in.

    theta = (log A', alpha, log B', beta, log E) with A' = A / mean_N^alpha: centring removes the degeneracy between
    a prefactor and its exponent.
    """

    log_params: Float[np.ndarray, " runs"]
    log_tokens: Float[np.ndarray, " runs"]
    mean_log_params: float
    mean_log_tokens: float
    low: Float[np.ndarray, " 5"]
    high: Float[np.ndarray, " 5"]

    def law(self, theta: Float[np.ndarray, "*replicates 5"]) -> LossLaw:
        a, alpha, b, beta, e = np.moveaxis(theta, -1, 0)
        A, B = np.exp(a + alpha * self.mean_log_params), np.exp(b + beta * self.mean_log_tokens)
        if theta.ndim == 1:
            return LossLaw(E=float(np.exp(e)), A=float(A), B=float(B), alpha=float(alpha), beta=float(beta))
        return LossLaw(E=np.exp(e), A=A, B=B, alpha=alpha, beta=beta)

    def theta(self, law: LossLaw) -> Float[np.ndarray, "*replicates 5"]:
        """Parameters of a law in this frame; the inverse of `law`."""
        a, b = np.log(law.A), np.log(law.B)
        columns = (a - law.alpha * self.mean_log_params, law.alpha, b - law.beta * self.mean_log_tokens, law.beta)
        return np.stack(np.broadcast_arrays(*columns, np.log(law.E)), axis=-1)

    def at_bounds(self, theta: Float[np.ndarray, " 5"]) -> tuple[str, ...]:
        """Names of the constants that lie on the border of the box."""
        near = np.minimum(theta - self.low, self.high - theta) < 1e-6
        return tuple(name for name, on_border in zip(("A", "alpha", "B", "beta", "E"), near, strict=True) if on_border)


def log_terms(theta: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return log L and the shares of the three terms (A, B, E), each (replicates, runs)."""
    a, alpha, b, beta, e = theta.T[:, :, None]
    term_a = np.exp(a - alpha * frame.log_params)
    term_b = np.exp(b - beta * frame.log_tokens)
    term_e = np.exp(e)
    total = term_a + term_b + term_e
    return np.log(total), term_a / total, term_b / total, term_e / total


@dataclass(frozen=True, slots=True)
class SumModel:
    """The law on one table. raw: residuals are of the loss itself, in nats, not of its logarithm."""

    frame: Frame
    raw: bool = False

    @property
    def low(self) -> Float[np.ndarray, " 5"]:
        return self.frame.low

    @property
    def high(self) -> Float[np.ndarray, " 5"]:
        return self.frame.high

    def objective(self, theta: np.ndarray, y: np.ndarray, w: np.ndarray, delta: float) -> np.ndarray:
        """Weighted sum of Huber losses, one per replicate."""
        law = log_terms(theta, self.frame)[0]
        return (w * huber(y - (np.exp(law) if self.raw else law), delta)).sum(axis=1)

    def derivatives(
        self, theta: np.ndarray, y: np.ndarray, w: np.ndarray, delta: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gradient (R, 5), exact Hessian (R, 5, 5) and Huber majoriser (R, 5, 5) of the objective.

        log L is a log-sum-exp of terms linear in theta: its second derivative is sum_k p_k u_k u_k' - J J', that of L
        itself L sum_k p_k u_k u_k'.
        """
        frame = self.frame
        law, p_a, p_b, p_e = log_terms(theta, frame)
        scale = np.exp(law) if self.raw else 1.0
        residual = y - (scale if self.raw else law)
        size = np.abs(residual)
        slope = w * np.clip(residual, -delta, delta)
        inside = w * (size < delta) * scale**2
        curved = inside if self.raw else inside + slope
        slope = slope * scale
        n, d = frame.log_params, frame.log_tokens
        pa, pb, pe = slope * p_a, slope * p_b, slope * p_e
        grams_a = pa @ np.stack([np.ones_like(n), -n, n * n], axis=1)  # (R, 3)
        grams_b = pb @ np.stack([np.ones_like(d), -d, d * d], axis=1)
        sum_e = pe.sum(axis=1)
        gradient = -np.stack([grams_a[:, 0], grams_a[:, 1], grams_b[:, 0], grams_b[:, 1], sum_e], axis=1)
        hessian = _gram(curved, p_a, p_b, p_e, frame)
        hessian[:, 0, 0] -= grams_a[:, 0]
        hessian[:, 0, 1] -= grams_a[:, 1]
        hessian[:, 1, 0] -= grams_a[:, 1]
        hessian[:, 1, 1] -= grams_a[:, 2]
        hessian[:, 2, 2] -= grams_b[:, 0]
        hessian[:, 2, 3] -= grams_b[:, 1]
        hessian[:, 3, 2] -= grams_b[:, 1]
        hessian[:, 3, 3] -= grams_b[:, 2]
        hessian[:, 4, 4] -= sum_e
        weights = w * np.minimum(1.0, delta / np.maximum(size, 1e-300)) * scale**2
        return gradient, hessian, _gram(weights, p_a, p_b, p_e, frame)


def _gram(q: np.ndarray, p_a: np.ndarray, p_b: np.ndarray, p_e: np.ndarray, frame: Frame) -> np.ndarray:
    """Return sum over runs of q J J' for the Jacobian J = (p_a, -n p_a, p_b, -d p_b, p_e), as (R, 5, 5)."""
    n, d = frame.log_params, frame.log_tokens
    one = np.ones_like(n)
    qa, qb, qe = q * p_a, q * p_b, q * p_e
    aa = (qa * p_a) @ np.stack([one, -n, n * n], axis=1)
    bb = (qb * p_b) @ np.stack([one, -d, d * d], axis=1)
    ab = (qa * p_b) @ np.stack([one, -d, -n, n * d], axis=1)
    ae = (qa * p_e) @ np.stack([one, -n], axis=1)
    be = (qb * p_e) @ np.stack([one, -d], axis=1)
    ee = (qe * p_e).sum(axis=1)
    gram = np.empty((len(q), 5, 5))
    gram[:, 0, :] = np.stack([aa[:, 0], aa[:, 1], ab[:, 0], ab[:, 1], ae[:, 0]], axis=1)
    gram[:, 1, :] = np.stack([aa[:, 1], aa[:, 2], ab[:, 2], ab[:, 3], ae[:, 1]], axis=1)
    gram[:, 2, :] = np.stack([ab[:, 0], ab[:, 2], bb[:, 0], bb[:, 1], be[:, 0]], axis=1)
    gram[:, 3, :] = np.stack([ab[:, 1], ab[:, 3], bb[:, 1], bb[:, 2], be[:, 1]], axis=1)
    gram[:, 4, :] = np.stack([ae[:, 0], ae[:, 1], be[:, 0], be[:, 1], ee], axis=1)
    return gram


def projection_starts(frame: Frame, loss: np.ndarray, w: np.ndarray) -> Float[np.ndarray, "starts 5"]:
    """Solve the linear problem in (A, B, E) on a 30 x 30 grid of exponents; return the three best separate nodes."""
    grid = GRID
    x_a = np.exp(-np.outer(grid, frame.log_params))  # (grid, runs)
    x_b = np.exp(-np.outer(grid, frame.log_tokens))
    q = w / loss**2  # relative errors, so that the start minimises nearly what the refinement minimises
    size = len(grid)
    normal = np.empty((size, size, 3, 3))
    normal[..., 0, 0] = ((x_a * x_a) @ q)[:, None]
    normal[..., 1, 1] = ((x_b * x_b) @ q)[None, :]
    normal[..., 2, 2] = q.sum()
    normal[..., 0, 1] = normal[..., 1, 0] = (x_a * q) @ x_b.T
    normal[..., 0, 2] = normal[..., 2, 0] = (x_a @ q)[:, None]
    normal[..., 1, 2] = normal[..., 2, 1] = (x_b @ q)[None, :]
    right = np.empty((size, size, 3))
    right[..., 0], right[..., 1], right[..., 2] = (x_a @ (q * loss))[:, None], (x_b @ (q * loss))[None, :], q @ loss
    total = float(q @ loss**2)
    coefficients = np.full((size, size, 3), 1e-6 * loss.min())
    rss = np.full((size, size), np.inf)
    for keep in ((0, 1, 2), (0, 1), (0, 2), (1, 2)):
        # A node without a positive full solution still has one with a term left out.
        part = normal[..., keep, :][..., :, keep] + 1e-13 * normal[..., :1, :1] * np.eye(len(keep))
        solution = np.linalg.solve(part, right[..., keep, None])[..., 0]
        value = total - (solution * right[..., keep]).sum(axis=-1)
        better = (solution > 0).all(axis=-1) & (value < rss)
        rss[better] = value[better]
        coefficients[better] = 1e-6 * loss.min()
        for column, term in enumerate(keep):
            coefficients[better, term] = solution[better, column]
        if better.sum() >= 3 and keep == (0, 1, 2):
            break
    rows = _lowest_minima(rss, 3)
    logs = np.log(coefficients[rows])
    return np.stack([logs[:, 0], grid[rows[0]], logs[:, 1], grid[rows[1]], logs[:, 2]], axis=1)


def _lowest_minima(surface: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return grid indices of the lowest local minima, filled up with the lowest remaining nodes."""
    padded = np.pad(surface, 1, constant_values=np.inf)
    rows, columns = surface.shape
    around = np.stack(
        [padded[1 + i : 1 + i + rows, 1 + j : 1 + j + columns] for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    )
    minimum = np.isfinite(surface) & (surface <= around.min(axis=0))
    order = np.lexsort((surface.ravel(), ~minimum.ravel()))[:count]
    order = order[np.isfinite(surface.ravel()[order])]
    assert len(order), "a grid node with one positive term always exists for positive losses"
    return np.unravel_index(order, surface.shape)


def make_frame(N: np.ndarray, D: np.ndarray, loss: np.ndarray) -> Frame:
    log_n, log_d = np.log(N), np.log(D)
    lowest, highest = float(np.log(loss.min())), float(np.log(loss.max()))
    # A and B act at the centre of the table; at a run far from it the term may be far larger than any loss.
    low = np.array([lowest - _VANISHED, EXPONENTS[0], lowest - _VANISHED, EXPONENTS[0], lowest - _VANISHED])
    high = np.array([highest + 3.0, EXPONENTS[1], highest + 3.0, EXPONENTS[1], highest + 1.0])
    return Frame(log_n - log_n.mean(), log_d - log_d.mean(), float(log_n.mean()), float(log_d.mean()), low, high)


def flatness(theta: np.ndarray, frame: Frame, w: np.ndarray) -> float:
    """Return the smallest eigenvalue of J'J scaled to a unit diagonal (1 = no parameter is confused with another)."""
    _, p_a, p_b, p_e = log_terms(theta[None], frame)
    gram = _gram(w[None], p_a, p_b, p_e, frame)[0]
    scale = np.sqrt(np.diag(gram))
    if np.any(scale <= 1e-9 * scale.max()):
        return 0.0
    return float(np.linalg.eigvalsh(gram / np.outer(scale, scale))[0])
