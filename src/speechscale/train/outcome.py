"""What goes into a training besides model and data, and what comes out of it.

Enters: nothing. Leaves: `Hooks`, `TrainResult`. The one decision worth knowing: hooks only listen; the numbers of a
run are the same with and without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from speechscale.train.losses import Losses
from speechscale.train.objective import Precision
from speechscale.train.selection import Check, CheckHook, ProbeHook
from speechscale.train.step import StepReport


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a run leaves behind, besides the trained model.

    Args:
        precision: the one used. steps, tokens_seen: target tokens; equal to the budget unless it was stopped.
        targets: stream -> modality -> target tokens seen.
        history: every step of this start. checks: the trajectory on the set "select".
        final: losses of every validation set at the end. best: the same at the best checkpoint.
        best_tokens_seen: where that is. best_state: its weights, for `parallel.restore_local`.
        stopped: why it ended before its budget; "" if it did not. interrupted: by a request, so without validation.
        seconds: of training, all starts together, without probes. probe_seconds: of those.
    """

    precision: Precision
    steps: int
    tokens_seen: int
    targets: Mapping[str, Mapping[str, int]]
    history: Sequence[StepReport]
    checks: Sequence[Check]
    final: Mapping[str, Losses]
    best: Mapping[str, Losses]
    best_tokens_seen: int
    best_state: Mapping[str, Tensor]
    stopped: str = ""
    interrupted: bool = False
    seconds: float = field(default=0.0, compare=False)
    probe_seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What a caller wants to hear; none of them may change the weights.

    Args:
        on_step: every step, on rank 0. on_check: after each validation, on every process. probe: measures something
            at each validation, see `ProbeHook`. on_save: told the step of each checkpoint when its writing begins.
        with_best: at the end, while the model holds the best weights.
        stop: asked before each step; an answer other than "" ends the run after a checkpoint.
    """

    on_step: Callable[[StepReport], None] | None = None
    on_check: CheckHook | None = None
    probe: ProbeHook | None = None
    on_save: Callable[[int], None] | None = None
    with_best: Callable[[Any], None] | None = None
    stop: Callable[[], str] = str  # str() is ""
