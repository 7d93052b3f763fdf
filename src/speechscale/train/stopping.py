"""Requests to stop, as signals: heard at once, obeyed between two steps.

Enters: SIGTERM, SIGINT (Ctrl-C) or SIGUSR1 (Slurm's warning before the time limit). Leaves: a reason to stop.
The one decision worth knowing: the first request lets the step and a checkpoint be finished; a second Ctrl-C does not.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopRequest:
    """Whether somebody asked. Calling it gives the reason, or ""."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __call__(self) -> str:
        return "" if self.signal is None else f"asked to stop ({self.signal.name})"

    @property
    def exit_code(self) -> int:
        """What the process ends with: 128 and the signal's number, as shells say it; 0 if nobody asked."""
        return 0 if self.signal is None else 128 + self.signal


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Listen for requests as long as the context lasts; in the main thread only."""
    request = StopRequest()

    def hear(number: int, frame: Any) -> None:
        if request.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal = signal.Signals(number)

    before = {number: signal.signal(number, hear) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
