"""How much compute a law needs for a loss, along its own optimum, in closed form.

Enters: a `LossLaw` (its fields may be replicates) and losses. Leaves: log C.
The one decision worth knowing: along the optimum both terms fall as C^-kappa, so L - E = K C^-kappa exactly, and
C(L) = (K / (L - E))^(1 / kappa); a loss at or below E costs infinite compute, which is an answer, not an error.

Source: Hoffmann et al. 2022, equation 4, put into equation 2: with N = G (C/6)^a, D = (C/6)^b / G and
alpha a = beta b = alpha beta / (alpha + beta) = kappa, K = 6^kappa (A G^-alpha + B G^beta).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.scaling.laws import FLOPS_PER_PARAM_TOKEN, LossLaw
from speechscale.scaling.tables.run_table import RunTable

Charge = Callable[[np.ndarray], np.ndarray]
"""From log N to log of the TextLM's training FLOPs, -inf where nothing is charged."""


def kappa(law: LossLaw) -> Any:
    """Exponent of the reducible loss along the optimum: L - E ~ C^-kappa. Example: alpha .25, beta .24 -> .1224"""
    return law.alpha * law.beta / (law.alpha + law.beta)


def log_prefactor(law: LossLaw) -> Any:
    """Return log K of L - E = K C^-kappa (logarithms, because A of a replicate may be huge or vanish)."""
    log_a, log_b = np.log(law.A), np.log(law.B)
    log_g = (np.log(law.alpha) - np.log(law.beta) + log_a - log_b) / (law.alpha + law.beta)
    terms = np.logaddexp(log_a - law.alpha * log_g, log_b + law.beta * log_g)
    return terms + kappa(law) * np.log(FLOPS_PER_PARAM_TOKEN)


def log_compute(law: LossLaw, loss: Any) -> Any:
    """Return log C that the law needs for a loss at its own optimum; inf at or below E.

    Example: exp(log_compute(law, law.loss_at(1e20))) -> 1e20

    Args:
        loss: broadcasts against the law's fields.
    """
    above = np.asarray(loss) - law.E
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = (log_prefactor(law) - np.log(np.maximum(above, 0.0))) / kappa(law)
    return np.where(above > 0, needed, np.inf)


def log_params(law: LossLaw, log_flops: Any) -> Any:
    """Return log N_opt of a log compute; inf where the compute is."""
    log_g = (np.log(law.alpha) - np.log(law.beta) + np.log(law.A) - np.log(law.B)) / (law.alpha + law.beta)
    return log_g + law.exp_params * (np.asarray(log_flops) - np.log(FLOPS_PER_PARAM_TOKEN))


def log_charged(law: LossLaw, loss: Any, charge: Charge | None) -> Any:
    """As `log_compute`, with the TextLM that a warm start came from added at the N of the optimum.

    The split of the adaptation budget stays the uncharged optimum: the TextLM existed before it was chosen.
    """
    needed = log_compute(law, loss)
    if charge is None:
        return needed
    return np.where(np.isfinite(needed), np.logaddexp(needed, charge(log_params(law, needed))), np.inf)


SCATTER = 1.5
"""Factor between the TextLM's tokens of runs of one size beyond which size does not decide them."""
_ZIGZAG = (8, 4.0)
"""Sizes, and how many times their whole range the tokens may go up and down along them."""


@dataclass(frozen=True, slots=True)
class TextLMCharge:
    """Training tokens of the TextLM by size, interpolated in log N and held beyond the measured sizes.

    Args:
        trouble: why size does not decide these tokens, so that no law may be charged with them; "" if it does.
    """

    log_params: Float[np.ndarray, " sizes"]
    log_tokens: Float[np.ndarray, " sizes"]
    trouble: str = ""

    def __call__(self, log_n: np.ndarray) -> np.ndarray:
        flat = np.where(np.isfinite(log_n), log_n, self.log_params[-1])
        tokens = np.interp(flat, self.log_params, self.log_tokens)
        return np.log(FLOPS_PER_PARAM_TOKEN) + log_n + tokens


def text_lm_flops(table: RunTable) -> Float[np.ndarray, " runs"] | None:
    """Training FLOPs of each run's TextLM: `text_lm_flops`, else 6 N T of `text_lm_tokens`; 0 for cold runs.

    None where the table names neither, or names them for no run.

    Raises:
        DataError: a run is marked warm but nobody knows its TextLM's compute.
    """
    flops = table.numbers("text_lm_flops")
    from_tokens = FLOPS_PER_PARAM_TOKEN * table.params * table.numbers("text_lm_tokens")
    known = np.where(np.isfinite(flops), flops, from_tokens)
    if not np.any(known > 0):
        return None
    missing = np.flatnonzero(~np.isfinite(known) & (table.numbers("warm") == 1))
    if len(missing):
        raise DataError(
            f"table {table.name}: run {missing[0]} is warm, but neither text_lm_flops nor text_lm_tokens is given for "
            f"it ({len(missing)} such runs); fill the column, or compare without charging the TextLM"
        )
    return np.where(np.isfinite(known), known, 0.0)


def make_charge(table: RunTable) -> TextLMCharge | None:
    """Make the charge of an arm from its runs, None where nothing is to be charged.

    Raises:
        DataError: some runs of the arm come from a TextLM and others do not.
    """
    flops = text_lm_flops(table)
    if flops is None:
        return None
    if np.any(flops == 0):
        raise DataError(
            f"table {table.name}: {int(np.sum(flops == 0))} of {len(table)} runs have no TextLM to charge; "
            "make warm and cold runs two arms"
        )
    logs = np.log(flops / (FLOPS_PER_PARAM_TOKEN * table.params))
    sizes, index = np.unique(table.params, return_inverse=True)
    mean = np.bincount(index, logs) / np.bincount(index)
    return TextLMCharge(np.log(sizes), mean, _unlike_tokens(table.name, logs - mean[index], mean))


def _unlike_tokens(name: str, within: np.ndarray, mean: np.ndarray) -> str:
    """Say that the tokens differ within a size, or jump up and down along the sizes; "" if neither."""
    spread = float(np.exp(2 * np.abs(within).max()))
    least, times = _ZIGZAG
    jumps = len(mean) >= least and np.abs(np.diff(mean)).sum() > times * np.ptp(mean) and np.ptp(mean) > np.log(SCATTER)
    if spread <= SCATTER and not jumps:
        return ""
    how = "runs of one size have several" if spread > SCATTER else "they jump between neighbors"
    return f"{name}: the tokens of its TextLMs do not follow size ({how}), so no optimum of a law is charged with them"
