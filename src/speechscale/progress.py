"""How far long work is: one line with rate, speed and time left.

Enters: `Progress` values, as often as the work likes. Leaves: one changing line on a terminal, a line about every ten
seconds in a log. The one decision worth knowing: work reports plain numbers and never prints, so that a function called
from a program is quiet, and every command shows the same line.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

LOG_EVERY_S = 10.0
TERMINAL_EVERY_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where work stands.

    Args:
        items_done: in this run. items_kept: from earlier runs. items_total: both and what is left, None: not known.
        audio_s: seconds of audio of this run. wall_s: seconds since it began.
        share: of this run's work that is done, where bytes or hours tell it better than items.
        note: further counts, for people.
    """

    items_done: int
    items_kept: int = 0
    items_total: int | None = None
    audio_s: float = 0.0
    wall_s: float
    share: float | None = None
    note: str = ""

    @property
    def left_s(self) -> float | None:
        """Estimated time left; None: nothing to go by."""
        share = self.share
        if share is None and self.items_total is not None:
            share = self.items_done / max(self.items_total - self.items_kept, 1)
        return self.wall_s * (1 - share) / share if share else None

    def line(self, what: str) -> str:
        """One line. Example: 'encoded 1,200/5,000, 12.1/s, 3.10 h at 0.031 h/s (112 x real time), about 40 s left'."""
        wall_s = max(self.wall_s, 1e-9)
        total = "" if self.items_total is None else f"/{self.items_total:,}"
        parts = [f"{what} {self.items_kept + self.items_done:,}{total}", f"{self.items_done / wall_s:,.1f}/s"]
        if self.audio_s:
            hours = self.audio_s / 3600
            parts.append(f"{hours:.2f} h at {hours / wall_s:.2g} h/s ({self.audio_s / wall_s:,.0f} x real time)")
        if self.note:
            parts.append(self.note)
        left_s = self.left_s
        if left_s is None:
            return ", ".join([*parts, f"{duration(wall_s)} so far"])
        if self.share is not None and left_s:
            parts.append(f"{self.share:.0%}")
        return ", ".join([*parts, f"about {duration(left_s)} left" if left_s else f"in {duration(wall_s)}"])


Watch = Callable[[Progress], None]


class ProgressLine:
    """A watcher that writes to stderr; the last line always comes, and a terminal is left on a line of its own.

    Example: with ProgressLine("encoded") as watch: encode_folder(corpus, tokenizer, out, watch=watch)
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._terminal = sys.stderr.isatty()
        # A terminal shows that something goes on at once; a log of a short run holds one line.
        self._told = float("-inf") if self._terminal else time.monotonic()
        self._pending: Progress | None = None
        self._open = False

    def __enter__(self) -> ProgressLine:
        return self

    def __call__(self, progress: Progress) -> None:
        self._pending = progress
        if time.monotonic() - self._told >= (TERMINAL_EVERY_S if self._terminal else LOG_EVERY_S):
            self._tell()

    def __exit__(self, *_: object) -> None:
        self._tell()
        if self._open:
            print(file=sys.stderr, flush=True)
            self._open = False

    def _tell(self) -> None:
        if self._pending is None:
            return
        line, self._pending, self._told = self._pending.line(self.what), None, time.monotonic()
        if self._terminal:
            room = shutil.get_terminal_size().columns - 1  # A line that wraps cannot be replaced.
            print(f"\r\x1b[K{line[:room]}", end="", file=sys.stderr, flush=True)
            self._open = True
        else:
            print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """For people. Examples: '45 s', '12 min', '3.1 h'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
