"""Catches wrong estimates of the time left, logs full of lines, and terminals left in the middle of one."""

from __future__ import annotations

import io

import pytest

from speechscale.progress import Progress, ProgressLine, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_has_counts_rates_and_time_left() -> None:
    """Items of earlier runs count as done but not as speed."""
    progress = Progress(items_done=200, items_kept=600, items_total=1000, audio_s=7200.0, wall_s=20.0, note="3 dropped")
    assert progress.left_s == 20.0
    assert (
        progress.line("encoded")
        == "encoded 800/1,000, 10.0/s, 2.00 h at 0.1 h/s (360 x real time), 3 dropped, about 20 s left"
    )


def test_time_left_goes_by_the_share_where_there_is_one() -> None:
    """A source of unknown length is measured in bytes; without any measure nothing is promised."""
    assert Progress(items_done=5, wall_s=30.0, share=0.25).left_s == 90.0
    assert Progress(items_done=5, wall_s=30.0, share=0.25).line("read") == "read 5, 0.2/s, 25%, about 2 min left"
    assert Progress(items_done=5, wall_s=30.0).left_s is None
    assert Progress(items_done=5, wall_s=30.0).line("read") == "read 5, 0.2/s, 30 s so far"
    assert Progress(items_done=0, items_total=9, wall_s=0.0).left_s is None
    assert Progress(items_done=9, items_total=9, wall_s=30.0).line("read") == "read 9/9, 0.3/s, in 30 s"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (5399, "90 min"), (9000, "2.5 h")]
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def told(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> str:
    """What is written for one report per second of `clock`."""
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("speechscale.progress.time.monotonic", lambda: clock[0])
    with ProgressLine("made") as watch:
        for second in range(26):
            clock[0] = float(second)
            watch(Progress(items_done=second, items_total=25, wall_s=float(second)))
    return stream.getvalue()


def test_a_log_gets_a_line_every_ten_seconds_and_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = told(io.StringIO(), monkeypatch, [0.0]).splitlines()
    assert [line.split(",")[0] for line in lines] == ["made 10/25", "made 20/25", "made 25/25"]


def test_a_terminal_gets_one_changing_line_that_fits_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    text = told(Terminal(), monkeypatch, [0.0])
    assert text.count("\n") == 1
    assert text.endswith("\n")
    shown = text.rstrip("\n").split("\r\x1b[K")[1:]
    assert len(shown) == 26
    assert all(len(line) <= 19 for line in shown)


def test_an_error_starts_on_a_line_of_its_own_and_no_work_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with ProgressLine("made"):
        pass
    assert stream.getvalue() == ""

    def broken() -> None:
        with ProgressLine("made") as watch:
            watch(Progress(items_done=1, wall_s=1.0))
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        broken()
    assert stream.getvalue().endswith("\n")
