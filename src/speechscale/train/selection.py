"""Validation along a run, and the best of its checkpoints.

Enters: an objective at some step. Leaves: `Check`s, and the weights that were lowest on the set "select".
The one decision worth knowing: only "select" is looked at along the way; every other set is measured twice, at the end
and with the best weights, so that nothing is chosen by what it is reported on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int, Int8
from torch import Tensor

from speechscale.errors import DataError
from speechscale.model.anatomy import causal_lm
from speechscale.tokens.packing import Batch
from speechscale.train.losses import Losses, loss_by_modality
from speechscale.train.objective import Objective, Precision
from speechscale.train.parallel import Group, local_copy, restore_local, whole_outside_blocks

SELECT = "select"
"""Name of the validation set that chooses the best checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One validation along the trajectory.

    Args:
        probes: what the probe measured besides, numbers by name. probe_seconds: that it took.
    """

    step: int
    tokens_seen: int
    losses: Mapping[str, Losses]
    probes: Mapping[str, Any] = field(default_factory=dict)
    probe_seconds: float = field(default=0.0, compare=False)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Check:
        losses = {name: Losses(**values) for name, values in saved["losses"].items()}
        return cls(**{**saved, "losses": losses})


CheckHook = Callable[[Any, Check], None]
ProbeHook = Callable[[Any, int, bool], Mapping[str, Any]]
"""(causal LM, number of the check from 1, whether it is the last) -> numbers by name, nested or not.

Called by every process. A model that is sharded over them is whole outside of its blocks, which gather themselves when
called, so each process must call it equally often. Neither weights nor a random state may change.
"""


@dataclass(slots=True, kw_only=True)
class Selection:
    """Validations so far and the best of them.

    Args:
        keep: the best weights stay in host memory. recall: otherwise, puts the weights of a step into the model; False
            where they are not to be had.
    """

    objective: Objective
    validation: Mapping[str, Sequence[Batch]]
    modality: Int8[np.ndarray, " V"]
    units: Int[np.ndarray, " V"] | None
    select_on: str
    group: Group
    precision: Precision
    keep: bool = True
    recall: Callable[[int], bool] | None = None
    checks: list[Check] = field(default_factory=list)
    best_check: Check | None = None
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def probe_seconds(self) -> float:
        """Of all checks, earlier starts included."""
        return math.fsum(check.probe_seconds for check in self.checks)

    def measure(self, name: str) -> Losses:
        """The losses of one set now."""
        return loss_by_modality(
            self.objective,
            self.validation[name],
            self.modality,
            self.units,
            precision=self.precision,
            group=self.group,
        )

    def check(
        self, step: int, tokens_seen: int, hook: CheckHook | None, probe: ProbeHook | None = None, *, last: bool = False
    ) -> Check:
        """Validate on "select" and keep the weights if they are the best so far; probe whatever else is wanted."""
        losses = {SELECT: self.measure(SELECT)} if SELECT in self.validation else {}
        probes, seconds = self._probed(probe, last)
        check = Check(step=step, tokens_seen=tokens_seen, losses=losses, probes=probes, probe_seconds=seconds)
        self.checks.append(check)
        if self._value(check) < (math.inf if self.best_check is None else self._value(self.best_check)):
            self.best_check = check
            if self.keep:
                self.best = local_copy(self.objective)
        if hook is not None:
            hook(self.objective.model, check)
        self.objective.train()
        return check

    def _probed(self, probe: ProbeHook | None, last: bool) -> tuple[Mapping[str, Any], float]:
        if probe is None:
            return {}, 0.0
        began = time.perf_counter()
        with whole_outside_blocks(self.objective):
            probes = probe(causal_lm(self.objective.model), len(self.checks) + 1, last)
        return probes, time.perf_counter() - began

    def _value(self, check: Check) -> float:
        if not check.losses:
            return -check.tokens_seen  # without "select" the last check wins
        loss: float | None = getattr(check.losses[SELECT], self.select_on)
        if loss is None:
            raise DataError(f"validation set '{SELECT}' has no {self.select_on} to choose a checkpoint by; add some")
        return loss

    def finish(self, with_best: Callable[[Any], None] | None) -> tuple[dict[str, Losses], dict[str, Losses]]:
        """Losses of every set at the end and at the best check; the model keeps its final weights.

        Args:
            with_best: called while the model holds the best weights.
        """
        final = {name: self.measure(name) for name in self.validation}
        older = bool(self.checks) and self.best_check not in (None, self.checks[-1])
        last = local_copy(self.objective) if older else {}
        if not last or not self._put_best():
            self.best_check = self.checks[-1] if self.checks else None
            if with_best is not None:
                with_best(self.objective.model)
            return final, final
        best = {name: self.measure(name) for name in self.validation}
        if with_best is not None:
            with_best(self.objective.model)
        restore_local(self.objective, last)
        return final, best

    def _put_best(self) -> bool:
        """Put the best weights into the model, if they are to be had."""
        if self.best:
            restore_local(self.objective, self.best)
            return True
        assert self.best_check is not None
        return self.recall is not None and self.recall(self.best_check.step)
