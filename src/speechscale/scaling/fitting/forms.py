"""Forms of law that add constants to the five: repeated data, what a TextLM brings, mixtures.

Enters: columns of runs by name and a parameter vector theta. Leaves: log losses, constants, starts.
The one decision worth knowing: a form is one class with one prediction; derivatives are taken numerically by `general`,
so that adding a law means writing its formula once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.scaling.fitting.columns import MOST_STARTS, Columns, Theta
from speechscale.scaling.fitting.plain_forms import Kaplan, Overtraining
from speechscale.scaling.fitting.solve import make_frame, projection_starts
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.repeat import RepeatLaw


@dataclass(frozen=True)
class Extra:
    """A constant beside the five: its name, box, grid of starts, and whether theta holds its logarithm."""

    name: str
    low: float
    high: float
    grid: tuple[float, ...]
    log: bool = True

    def inner(self, value: Any) -> Any:
        return np.log(value) if self.log else value

    def outer(self, value: Any) -> Any:
        return np.exp(value) if self.log else value


class WithExtras(ABC):
    """L = E + A/N'^alpha + B/D'^beta, where N' and D' depend on further columns through further constants.

    theta = (log A', alpha, log B', beta, log E, extras ...), A' and B' centered at the table's mean log N and log D.
    """

    base = 5
    extras: tuple[Extra, ...] = ()
    columns: tuple[str, ...] = ("N", "D")

    def __init__(self, x: Columns, loss: np.ndarray) -> None:
        self.frame = make_frame(x["N"], x["D"], loss)
        self.names = ("A", "alpha", "B", "beta", "E", *(extra.name for extra in self.extras))
        self.low = np.append(self.frame.low, [e.inner(e.low) for e in self.extras])
        self.high = np.append(self.frame.high, [e.inner(e.high) for e in self.extras])

    @abstractmethod
    def predict(self, law: LossLaw, extras: Mapping[str, Any], x: Columns) -> Any:
        """Losses; one row per replicate."""

    def split(self, theta: Theta, shape: tuple[int, ...]) -> tuple[LossLaw, dict[str, Any]]:
        """The five-term law and the extras, each (replicates, 1) or (replicates,)."""
        columns = [column.reshape(shape) for column in theta.T]
        a, alpha, b, beta, e = columns[:5]
        law = LossLaw(
            E=np.exp(e),
            A=np.exp(a + alpha * self.frame.mean_log_params),
            B=np.exp(b + beta * self.frame.mean_log_tokens),
            alpha=alpha,
            beta=beta,
        )
        return law, {extra.name: extra.outer(c) for extra, c in zip(self.extras, columns[5:], strict=True)}

    def log_law(self, theta: Theta, x: Columns) -> Float[np.ndarray, "replicates runs"]:
        law, extras = self.split(theta, (-1, 1))
        return np.log(self.predict(law, extras, x))

    def constants(self, theta: Theta) -> dict[str, Float[np.ndarray, " replicates"]]:
        law, extras = self.split(theta, (-1,))
        return {name: getattr(law, name) for name in ("E", "A", "B", "alpha", "beta")} | extras

    def theta_of(self, law: LossLaw, extras: Mapping[str, float]) -> Float[np.ndarray, " parameters"]:
        """The parameter vector of given constants."""
        five = [
            np.log(law.A) - law.alpha * self.frame.mean_log_params,
            law.alpha,
            np.log(law.B) - law.beta * self.frame.mean_log_tokens,
            law.beta,
            np.log(law.E),
        ]
        return np.clip(np.append(five, [e.inner(extras[e.name]) for e in self.extras]), self.low, self.high)

    @abstractmethod
    def effective(self, law: LossLaw | None, extras: Mapping[str, float], x: Columns) -> tuple[np.ndarray, np.ndarray]:
        """N' and D' for given extras; `law` is None before anything is known of it."""

    def starts(self, x: Columns, loss: np.ndarray, w: np.ndarray) -> Theta:
        """For each node of the extras' grid the five-term law of (N', D') by projection; the best nodes."""
        first: LossLaw | None = None
        for _ in range(2):  # N' may depend on the law itself: once without it, once with the best one
            found = [row for extras in self._grid() for row in self._from_node(first, extras, x, loss, w)]
            thetas = np.array(found)
            misfit = (w * (np.log(loss) - self.log_law(thetas, x)) ** 2).sum(axis=1)
            order = np.argsort(misfit)
            first = self.split(thetas[order[:1]], ())[0]
        return thetas[order[:MOST_STARTS]]

    def _grid(self) -> list[dict[str, float]]:
        nodes = np.meshgrid(*(e.grid for e in self.extras), indexing="ij")
        return [
            dict(zip([e.name for e in self.extras], row, strict=True))
            for row in np.stack(nodes, -1).reshape(-1, len(nodes))
        ]

    def _from_node(
        self, law: LossLaw | None, extras: dict[str, float], x: Columns, loss: np.ndarray, w: np.ndarray
    ) -> list[Float[np.ndarray, " parameters"]]:
        params, tokens = self.effective(law, extras, x)
        frame = make_frame(params, tokens, loss)
        return [self.theta_of(frame.law(row), extras) for row in projection_starts(frame, loss, w)[:1]]


class Repeat(WithExtras):
    """The data-constrained law: repeated tokens and parameters beyond need lose their worth.

    Source: Muennighoff et al. 2023, equations 5 and 6; Cuervo & Marxer 2024, equations 7 and 8.
    """

    columns = ("N", "D", "U")
    extras = (
        Extra("R_N", 0.01, 1e4, (0.3, 1.5, 6.0, 25.0, 200.0)),
        Extra("R_D", 0.01, 1e4, (1.0, 4.0, 15.0, 60.0, 400.0)),
    )

    def predict(self, law: LossLaw, extras: Mapping[str, Any], x: Columns) -> Any:
        return RepeatLaw(base=law, R_N=extras["R_N"], R_D=extras["R_D"]).predict(x["N"], x["D"], x["U"])

    def effective(self, law: LossLaw | None, extras: Mapping[str, float], x: Columns) -> tuple[np.ndarray, np.ndarray]:
        if law is None:
            return x["N"], np.minimum(x["D"], x["U"]) * np.maximum(1.0, np.sqrt(x["D"] / x["U"]))
        return RepeatLaw(base=law, R_N=extras["R_N"], R_D=extras["R_D"]).worth(x["N"], x["D"], x["U"])


def _need_both(warm: np.ndarray) -> None:
    """Raises DataError unless some runs start from a TextLM and some from scratch."""
    if len(np.unique(warm > 0)) < 2:
        have = "warm" if warm[0] > 0 else "from scratch"
        raise DataError(
            f"all {len(warm)} runs are {have}: what a TextLM brings is measured against the other kind; add such runs "
            "(column `warm` 0 and 1), or use --law chinchilla"
        )


class WarmData(WithExtras):
    """A TextLM start is worth D_T = k D^p N^q tokens more (`warm` is 1 with it, 0 from scratch).

    Source: Hernandez et al. 2021, equation 1 (p, q are their alpha, beta), put into the law of runs from scratch.
    """

    columns = ("N", "D", "warm")
    extras = (
        Extra("tokens_transferred", 1e-4, 1e4, (1e-3, 0.03, 0.3, 3.0, 30.0)),
        Extra("p", 0.0, 1.0, (0.1, 0.5, 0.9), log=False),
        Extra("q", -1.0, 2.0, (0.0, 0.4, 1.0), log=False),
    )

    def __init__(self, x: Columns, loss: np.ndarray) -> None:
        _need_both(x["warm"])
        super().__init__(x, loss)

    def _more(self, extras: Mapping[str, Any], x: Columns) -> Any:
        # "tokens_transferred" is D_T over D at the center of the table: k itself is hardly determined beside p and q
        f = self.frame
        relative = (np.log(x["D"]) - f.mean_log_tokens) * extras["p"] + (np.log(x["N"]) - f.mean_log_params) * extras[
            "q"
        ]
        return x["warm"] * extras["tokens_transferred"] * np.exp(f.mean_log_tokens + relative)

    def predict(self, law: LossLaw, extras: Mapping[str, Any], x: Columns) -> Any:
        return law.predict(x["N"], x["D"] + self._more(extras, x))

    def effective(self, law: LossLaw | None, extras: Mapping[str, float], x: Columns) -> tuple[np.ndarray, np.ndarray]:
        return x["N"], x["D"] + self._more(extras, x)

    def constants(self, theta: Theta) -> dict[str, Float[np.ndarray, " replicates"]]:
        found = super().constants(theta)
        f = self.frame
        logs = (1 - found["p"]) * f.mean_log_tokens - found["q"] * f.mean_log_params
        return {**found, "k": found["tokens_transferred"] * np.exp(logs)}


class WarmTokens(WithExtras):
    """Each text token of the TextLM's training is worth `worth` tokens of this table: D' = D + worth x T."""

    columns = ("N", "D", "T")
    extras = (Extra("worth", 1e-6, 1e2, (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)),)

    def predict(self, law: LossLaw, extras: Mapping[str, Any], x: Columns) -> Any:
        return law.predict(x["N"], x["D"] + extras["worth"] * x["T"])

    def effective(self, law: LossLaw | None, extras: Mapping[str, float], x: Columns) -> tuple[np.ndarray, np.ndarray]:
        return x["N"], x["D"] + extras["worth"] * x["T"]


class WarmCompute(WithExtras):
    """A TextLM start multiplies the data (and at a given size the compute): D' = m D for warm runs."""

    columns = ("N", "D", "warm")
    extras = (Extra("multiplier", 1e-3, 1e4, (0.1, 0.5, 1.0, 2.0, 8.0, 50.0)),)

    def __init__(self, x: Columns, loss: np.ndarray) -> None:
        _need_both(x["warm"])
        super().__init__(x, loss)

    def _times(self, extras: Mapping[str, Any], x: Columns) -> Any:
        return np.where(x["warm"] > 0, extras["multiplier"], 1.0)

    def predict(self, law: LossLaw, extras: Mapping[str, Any], x: Columns) -> Any:
        return law.predict(x["N"], x["D"] * self._times(extras, x))

    def effective(self, law: LossLaw | None, extras: Mapping[str, float], x: Columns) -> tuple[np.ndarray, np.ndarray]:
        return x["N"], x["D"] * self._times(extras, x)


class Mixture(WithExtras):
    """The speech loss of mixed training: a text or interleaved token is worth so many speech tokens, none below 0.

    D' = D_speech + worth_text D_text + worth_interleaved D_interleaved.
    """

    columns = ("N", "D_speech", "D_text", "D_interleaved")
    extras = (
        Extra("worth_text", 1e-6, 1e2, (1e-4, 0.01, 0.1, 1.0)),
        Extra("worth_interleaved", 1e-6, 1e2, (0.01, 0.1, 0.5, 1.0, 3.0)),
    )

    def __init__(self, x: Columns, loss: np.ndarray) -> None:
        total = x["D_speech"] + x["D_text"] + x["D_interleaved"]
        super().__init__({"N": x["N"], "D": total}, loss)

    def _tokens(self, extras: Mapping[str, Any], x: Columns) -> Any:
        return x["D_speech"] + extras["worth_text"] * x["D_text"] + extras["worth_interleaved"] * x["D_interleaved"]

    def predict(self, law: LossLaw, extras: Mapping[str, Any], x: Columns) -> Any:
        return law.predict(x["N"], self._tokens(extras, x))

    def effective(self, law: LossLaw | None, extras: Mapping[str, float], x: Columns) -> tuple[np.ndarray, np.ndarray]:
        return x["N"], self._tokens(extras, x)


FORMS: dict[str, type[Any]] = {
    "repeat": Repeat,
    "warm-data": WarmData,
    "warm-tokens": WarmTokens,
    "warm-compute": WarmCompute,
    "mixture": Mixture,
    "kaplan": Kaplan,
    "overtraining": Overtraining,
}
"""Name -> form. The law of N and D itself, "chinchilla", has its own fast path in `fit`."""
