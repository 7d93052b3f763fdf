"""Say how far a long reading is: items, items per second, time left.

Enters: counts and how many bytes were read. Leaves: a line about every five seconds. The one decision worth knowing:
the time left comes from bytes, not items, because a source never says how many items it has.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from speechscale.corpus.readers.base import Meter

Say = Callable[[str], None]
SAY_EVERY_S = 5.0


@dataclass(slots=True)
class Progress:
    """Call `step` for every item and `end` once; `say` None keeps quiet."""

    say: Say | None
    meter: Meter
    _begin: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)

    def step(self, read: int, dropped: int) -> None:
        if self.say is None or read % 64:
            return
        now = time.monotonic()
        if now - self._last >= SAY_EVERY_S:
            self._last = now
            self.say(self._line(read, dropped, now))

    def end(self, read: int, dropped: int) -> None:
        if self.say is not None:
            self.say(self._line(read, dropped, time.monotonic(), ended=True))

    def _line(self, read: int, dropped: int, now: float, *, ended: bool = False) -> str:
        seconds = max(now - self._begin, 1e-6)
        line = f"{read:,} items, {dropped:,} dropped, {read / seconds:,.0f}/s"
        if ended or not self.meter.total or not self.meter.done:
            return line + (f", {seconds:.0f} s" if ended else "")
        share = min(1.0, self.meter.done / self.meter.total)
        left = round(seconds * (1 - share) / share)
        return f"{line}, {share:.0%}, {left // 60}:{left % 60:02d} left"
