"""A run in the terminal, live; in a log, a plain line about every ten seconds.

Enters: the events of a run, as a sink of `RunLog`. Leaves: text on stderr. The one decision worth knowing: drawing may
cost at most OVERHEAD of the time, so the next picture waits as long as the last one was dear; no thread draws.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from speechscale.progress import LOG_EVERY_S, duration

REFRESH_S = 0.25
OVERHEAD = 0.001
SPARK = 48
BARS = "▁▂▃▄▅▆▇█"
LOSSES = {
    "loss_speech_per_unit": "speech, per unit",
    "loss_text_per_token": "text, per token",
    "loss_marker": "markers",
    "loss": "all targets",
}
SHORT = {"loss": "loss", "loss_speech_per_unit": "speech", "loss_text_per_token": "text"}


class Dashboard:
    """Sink that shows where a run stands.

    Args:
        title: what the run is called. console: stderr, unless a test or a notebook has another.

    Example: RunLog.open(folder, sinks=[Dashboard(folder.name)])
    """

    name = "dashboard"

    def __init__(
        self, title: str = "", *, console: Console | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.title = title
        self._console, self._clock = console or Console(stderr=True), clock
        self._step: dict[str, Any] = {}
        self._first: dict[str, Any] = {}
        self._latest: dict[str, Mapping[str, Any]] = {}
        self._trails: dict[str, deque[float]] = {key: deque(maxlen=SPARK) for key in LOSSES}
        self._live: Live | None = None
        self._pending = False
        terminal = self._console.is_terminal and not self._console.is_dumb_terminal
        self._draw: Callable[[], None] = self._refresh if terminal else self._line
        self._every = 0.0 if terminal else LOG_EVERY_S
        self._due = self._clock() + self._every

    def __call__(self, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        self._latest[kind] = event
        if kind == "step":
            self._step = dict(event)
            self._first = self._first or self._step
            for key, trail in self._trails.items():
                if isinstance(event.get(key), int | float):
                    trail.append(event[key])
        self._pending = True
        if self._clock() >= self._due:
            self._tell()

    def close(self) -> None:
        """Show the last state; leave the terminal on a line of its own."""
        if self._pending:
            self._tell()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _tell(self) -> None:
        began = self._clock()
        self._draw()
        ended = self._clock()
        self._due = ended + max(self._every, REFRESH_S, (ended - began) / OVERHEAD)
        self._pending = False

    def _refresh(self) -> None:
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(self.picture(), refresh=True)

    def _line(self) -> None:
        if self._step:
            self._console.file.write(self.line() + "\n")
            self._console.file.flush()

    @property
    def share(self) -> float | None:
        """Of the budget; None: not known."""
        total = self._step.get("tokens_total")
        return self._step["tokens_seen"] / total if total else None

    @property
    def left_s(self) -> float | None:
        """Time left at the rate since this start of the run; None: nothing to go by."""
        now, first = self._step, self._first
        total = now.get("tokens_total")
        tokens = now["tokens_seen"] - first["tokens_seen"]
        seconds = now.get("seconds", 0.0) - first.get("seconds", 0.0)
        rate = tokens / seconds if tokens and seconds > 0 else now.get("tokens_per_s")
        return (total - now["tokens_seen"]) / rate if total and rate else None

    def line(self) -> str:
        """One line. Example: 'run: step 10, 1,000/4,000 tokens, 25%, 100/s, loss 3.21, speech 3.40, about 30 s left'"""
        now = self._step
        total = f"/{now['tokens_total']:,}" if now.get("tokens_total") else ""
        parts = [f"step {now['step']:,}", f"{now['tokens_seen']:,}{total} tokens"]
        if self.share is not None:
            parts.append(f"{self.share:.0%}")
        if known(now, "tokens_per_s"):
            parts.append(f"{now['tokens_per_s']:,.0f}/s")
        if known(now, "mfu"):
            parts.append(f"MFU {now['mfu']:.1%}")
        parts += [f"{label} {now[key]:.4f}" for key, label in SHORT.items() if known(now, key)]
        parts.append(self._time())
        return (f"{self.title}: " if self.title else "") + ", ".join(parts)

    def _time(self) -> str:
        if "stop" in self._latest:
            stop = self._latest["stop"]
            seconds = f" after {duration(stop['seconds'])}" if known(stop, "seconds") else ""
            return f"stopped{seconds}: {stop['reason']}"
        left_s = self.left_s
        return "time left not known yet" if left_s is None else f"about {duration(left_s)} left"

    def picture(self) -> Text:
        """The whole dashboard, without wrapping."""
        # A Text costs a tenth of a Table.
        text = Text(no_wrap=True, overflow="ellipsis")
        head = [self.title or "run"]
        if self._step:
            head += [f"step {self._step['step']:,}", self._budget(), self._time()]
        text.append("  ".join(head) + "\n", "bold")
        for key, label in LOSSES.items():
            if self._trails[key] and known(self._step, key):
                text.append(f"  loss {label:<17}", "dim")
                text.append(f"{self._step[key]:>9.4f}  ")
                text.append(sparkline(self._trails[key]) + "\n", "cyan")
        for label, content in self._facts():
            if content:
                text.append(f"  {label:<11}", "dim")
                text.append(f"{content}\n")
        text.right_crop(1)
        return text

    def _budget(self) -> str:
        seen, share = self._step["tokens_seen"], self.share
        if share is None:
            return f"{seen:,} tokens"
        full = min(int(24 * share), 24)
        return f"{'█' * full}{'░' * (24 - full)} {share:.1%} of {self._step['tokens_total']:,} tokens"

    def _facts(self) -> list[tuple[str, str]]:
        now = self._step
        forms = {
            "speed": (
                ("tokens_per_s", "{:,.0f} tokens/s"),
                ("mfu", "MFU {:.1%}"),
                ("data_wait_share", "data wait {:.1%}"),
            ),
            "update": (("grad_norm", "gradient norm {:.3g}"), ("learning_rate", "learning rate {:.3g}")),
            "spent": (("seconds", ""), ("gpu_hours", "{:.3g} GPU-hours"), ("dollars", "{:,.2f} dollars")),
        }
        rows = []
        for label, wanted in forms.items():
            found = [(form, now[key]) for key, form in wanted if known(now, key)]
            rows.append((label, ", ".join(form.format(value) if form else duration(value) for form, value in found)))
        check, saved = self._latest.get("check"), self._latest.get("checkpoint")
        if check is not None:
            rows.append(("last check", f"step {check['step']:,}: {_losses(check['losses'])}"))
            if check.get("probes"):
                took = f" ({check['probe_seconds']:.1f} s)" if known(check, "probe_seconds") else ""
                rows.append(("probes", ", ".join(_probes(check["probes"])) + took))
        if saved is not None:
            took = f" in {saved['seconds']:.1f} s" if known(saved, "seconds") else ""
            rows.append(("saved", f"step {saved['step']:,}: {Path(saved['path']).name}{took}"))
        if "note" in self._latest:
            text = str(self._latest["note"]["text"])  # may hold a service's own words: none may move the cursor
            rows.append(("note", "".join(c if c.isprintable() else " " for c in text)))
        return rows


def sparkline(values: deque[float]) -> str:
    """Values as bars between their own extremes; what is not finite is '!'. Example: [1, 2, 3] -> '▁▄█'"""
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[int((value - low) * scale)] if math.isfinite(value) else "!" for value in values)


def known(event: Mapping[str, Any], key: str) -> bool:
    """Whether the event has a number there."""
    return isinstance(event.get(key), int | float)


def _probes(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Example: 'cloze/story_cloze/ss 0.610 ± 0.021'"""
    if known(values, "estimate"):
        error = f" ± {values['se']:.3f}" if known(values, "se") else ""
        yield f"{above} {values['estimate']:.3f}{error}"
        return
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _probes(value, f"{above}/{name}" if above else str(name))


def _losses(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """Example: 'select: speech 3.301 ± 0.021, text 2.914; test: ...'"""
    parts = []
    for name, losses in sets.items():
        found = []
        if known(losses, "speech_per_unit"):
            error = f" ± {losses['speech_se']:.3f}" if known(losses, "speech_se") else ""
            found.append(f"speech {losses['speech_per_unit']:.3f}{error}")
        if known(losses, "text_per_token"):
            found.append(f"text {losses['text_per_token']:.3f}")
        parts.append(f"{name}: {', '.join(found) or 'no loss'}")
    return "; ".join(parts)
