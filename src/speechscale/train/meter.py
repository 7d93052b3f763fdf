"""What a run reports while it goes on: losses, rates, utilization and cost over the last few steps.

Enters: `StepReport`s. Leaves: events for the log. The one decision worth knowing: rates are of wall time, with
everything in it, also validation and saving, but not probes, which are told apart; what a step itself takes is the
loop's business.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from speechscale.model.peak import Peak, gpu_hours_and_money, utilization
from speechscale.train.step import StepReport

LOSS_NAMES = {"speech": "loss_speech_per_unit", "text": "loss_text_per_token", "marker": "loss_marker"}


@dataclass(slots=True, kw_only=True)
class Meter:
    """Sums up steps into one event every `every` steps.

    Args:
        tokens: budget. flops_per_token: exact. peak: of one device. world: devices. dollars_per_hour: of one, if known.
        seconds, probe_seconds, targets: of earlier starts of the run. datasheet: the published peak, if known.
        clock: for tests.
    """

    tokens: int
    every: int
    flops_per_token: float
    peak: Peak
    world: int
    datasheet: Peak | None = None
    dollars_per_hour: float | None = None
    seconds: float = 0.0
    probe_seconds: float = 0.0
    clock: Callable[[], float] = time.perf_counter
    targets: Counter[str] = field(default_factory=Counter)
    _steps: list[StepReport] = field(default_factory=list)
    _began: float = field(init=False)
    _last: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self._last = self.clock()

    def add(self, report: StepReport) -> dict[str, Any] | None:
        """Take a step in; the event when one is due, or the budget is spent."""
        self._steps.append(report)
        self.targets.update(report.targets)
        if len(self._steps) < self.every and report.tokens_seen < self.tokens:
            return None
        return self._event()

    def leave_out(self, seconds: float) -> None:
        """Count time that has just passed as probing: it lowers no rate, and is paid for all the same."""
        self.probe_seconds += seconds
        self._began += seconds
        self._last += seconds

    def _event(self) -> dict[str, Any]:
        steps, self._steps = self._steps, []
        now = self.clock()
        wall, self._last = max(now - self._last, 1e-9), now
        last, count = steps[-1], sum(sum(step.targets.values()) for step in steps)
        seconds = self.seconds + now - self._began
        used = utilization(
            count, wall, self.flops_per_token, world=self.world, measured=self.peak, datasheet=self.datasheet
        )
        bill = gpu_hours_and_money(seconds + self.probe_seconds, self.world, self.dollars_per_hour)
        event = {
            "step": last.step,
            "tokens_seen": last.tokens_seen,
            "tokens_total": self.tokens,
            "loss": _mean([(step.loss, sum(step.targets.values())) for step in steps]),
            "learning_rate": last.learning_rate,
            "grad_norm": last.grad_norm,
            "log_denominator_square": last.log_denominator_square,
            "tokens_by_modality": dict(self.targets),
            "tokens_per_s": count / wall,
            "mfu": used.measured,
            "data_wait_share": sum(step.waited for step in steps) / wall,
            "seconds": seconds,
            "flops_exact": last.tokens_seen * self.flops_per_token,
            "gpu_hours": bill.device_hours,
        }
        for kind, name in LOSS_NAMES.items():
            if parts := [(step.losses[kind], step.targets[kind]) for step in steps if kind in step.losses]:
                event[name] = _mean(parts)
        if self.probe_seconds:
            event["probe_seconds"] = self.probe_seconds
        if used.datasheet is not None:
            event["mfu_datasheet"] = used.datasheet
        if bill.dollars is not None:
            event["dollars"] = bill.dollars
        return event


def _mean(parts: list[tuple[float, int]]) -> float:
    """Mean of values, weighted."""
    return sum(value * weight for value, weight in parts) / sum(weight for _, weight in parts)
