"""What is known of the law of one arm: constants with intervals, and what weakens them.

Enters: nothing. Leaves: `Fitted` and its parts, made by `fit_runs`.
The one decision worth knowing: what could weaken the law stands in the same record (profiles, other approaches, a
held-out budget, fits without the highest losses, named cautions), so that no output can leave it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

from speechscale.scaling.checks import Caution
from speechscale.scaling.fitting.fit import Fit
from speechscale.scaling.fitting.form_fit import FormFit
from speechscale.scaling.fitting.profiles import Profile
from speechscale.scaling.intervals import Estimate
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.links.metric_links import MetricLaw
from speechscale.scaling.optima.approaches import Approaches
from speechscale.scaling.optima.envelope_law import EnvelopeLaw
from speechscale.scaling.optima.held_out import HeldOut
from speechscale.scaling.tables.run_table import RunTable

STORED = 500
"""Replicates that a saved law carries, for plans and comparisons made from the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    """The law at one compute. extrapolation: C over the highest measured C (1 or less: inside)."""

    flops: float
    params_opt: Estimate
    tokens_opt: Estimate
    loss: Estimate
    extrapolation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """The law without its highest losses. left_out: how many. exp_params: a."""

    left_out: int
    law: LossLaw
    exp_params: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A published law on this table. ratio: its objective over the fitted one's (1 is the best possible)."""

    name: str
    objective: float
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The law of one arm.

    Args:
        status: "not_identified": do not quote its constants. reason: why, "" of "fitted".
        constants: with intervals, E A B alpha beta exp_params exp_tokens or those of the form.
        by_cluster: the exponents again, whole budgets resampled; wider intervals are the ones to believe.
        replicates: constants of up to STORED replicates. fit: the point fit, None unless there is one.
        range_flops, range_loss: of the runs. flops_name, convention: how N and C count.
    """

    table: RunTable = field(repr=False)
    name: str
    law_name: str
    status: Literal["fitted", "not_identified", "not_fitted"]
    reason: str = ""
    runs: int
    convention: str
    flops_name: str
    tokenizer: str
    range_flops: tuple[float, float]
    range_loss: tuple[float, float] | None
    constants: Mapping[str, Estimate] = field(default_factory=dict)
    by_cluster: Mapping[str, Estimate] = field(default_factory=dict)
    interval_method: str = ""
    replicates_converged: float | None = None
    at: tuple[At, ...] = ()
    profiles: tuple[Profile, ...] = ()
    drops: tuple[Dropped, ...] = ()
    published: tuple[Scored, ...] = ()
    approaches: Approaches | None = None
    envelope: EnvelopeLaw | None = None
    held_out: HeldOut | None = None
    metrics: tuple[MetricLaw, ...] = ()
    cautions: tuple[Caution, ...] = ()
    fit: Fit | FormFit | None = field(default=None, repr=False)
    replicates: Mapping[str, Float[np.ndarray, " replicates"]] = field(default_factory=dict, repr=False)

    @property
    def law(self) -> LossLaw | None:
        """The fitted law of N and D, None where the form has none or nothing was fitted."""
        return None if self.fit is None else self.fit.law
