"""Catches items lost, doubled or reordered by kills, and one bad item taking its neighbors with it."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from speechscale.errors import DataError, MissingExtra, StaleStep
from speechscale.journal import Row, read_part, run_parts, skip_row
from speechscale.progress import Progress


@dataclass(frozen=True)
class Entry:
    id: str


@dataclass
class Toy:
    """Rows hold their name's length; "bad" items are skips, "dead" ones kill their worker, "hung" ones never return.

    "long" ones take a second more than the patience of the tests, and say so.
    """

    parts: list[list[str]]
    slow_s: float = 0.0
    ahead: int = 1
    start_s: float = 0.0
    started: bool = field(default=False, init=False)

    def start(self) -> None:
        time.sleep(self.start_s)
        self.started = True

    def patience(self, item: Entry) -> float:
        return 30.0 if item.id.startswith("long") else 0.0

    def items(self, part: int) -> Sequence[Entry]:
        return [Entry(id) for id in self.parts[part]]

    def rows(self, items: Sequence[Entry]) -> Iterator[Row]:
        assert self.started
        for at in range(0, len(items), self.ahead):
            batch = items[at : at + self.ahead]
            for item in batch:  # reads ahead, like a loader of batches
                if item.id.startswith("dead"):
                    os.kill(os.getpid(), signal.SIGKILL)
                if item.id.startswith("hung"):
                    time.sleep(60)
                if item.id.startswith("long"):
                    time.sleep(1.5)
            for item in batch:
                time.sleep(self.slow_s)
                if item.id.startswith("bad"):
                    yield skip_row(item.id, "it is bad; mend it")
                else:
                    yield {"id": item.id, "value": len(item.id), "seconds": 2.0}


def rows_of(toy: Toy, folder: Path) -> list[Row]:
    return [row for part in range(len(toy.parts)) for row in read_part(folder, part)]


NAMES = [[f"p{part}-{index}" for index in range(5)] for part in range(4)]


def test_rows_are_the_same_on_any_number_of_workers(tmp_path: Path) -> None:
    toy, seen = Toy(NAMES), list[Progress]()
    sizes = [len(part) for part in NAMES]
    for workers in (0, 1, 3):
        run_parts(Toy(NAMES), sizes, tmp_path / str(workers), recipe={}, workers=workers, watch=seen.append)
    assert rows_of(toy, tmp_path / "0") == rows_of(toy, tmp_path / "1") == rows_of(toy, tmp_path / "3")
    assert [row["id"] for row in rows_of(toy, tmp_path / "0")] == [id for part in NAMES for id in part]
    assert seen[-1].items_done == seen[-1].items_total == 20
    assert seen[-1].audio_s == 40.0
    assert "20/20" in seen[-1].line("done")


def test_a_torn_line_is_done_again_and_finished_rows_are_not(tmp_path: Path) -> None:
    toy = Toy(NAMES)
    sizes = [len(part) for part in NAMES]
    run_parts(toy, sizes, tmp_path, recipe={"a": 1})
    wanted, path = rows_of(toy, tmp_path), tmp_path / "part-00001.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    seen = list[Progress]()
    run_parts(toy, sizes, tmp_path, recipe={"a": 1}, workers=0, watch=seen.append)
    assert rows_of(toy, tmp_path) == wanted
    assert path.read_bytes() == whole
    assert seen[-1].items_done == 1
    with pytest.raises(StaleStep, match="a: 1 -> 2"):
        run_parts(toy, sizes, tmp_path, recipe={"a": 2})


@pytest.mark.parametrize(("bad", "why"), [("dead", "its worker died (exit code -9"), ("hung", "no answer within 1 s")])
def test_a_worker_that_dies_or_hangs_costs_one_item_and_never_its_neighbor(tmp_path: Path, bad: str, why: str) -> None:
    """The loader reads ahead, so the first death says nothing about who caused it."""
    names = [["a", "b", f"{bad}-1", "c"], ["d", f"{bad}-2"], ["e"]]
    toy = Toy(names, ahead=4)
    run_parts(toy, [4, 2, 1], tmp_path, recipe={}, workers=2, patience_s=1.0 if bad == "hung" else 60.0)
    rows = rows_of(toy, tmp_path)
    assert [row["id"] for row in rows] == ["a", "b", f"{bad}-1", "c", "d", f"{bad}-2", "e"]
    skips = {row["id"]: row["skip"][0] for row in rows if "skip" in row}
    assert list(skips) == [f"{bad}-1", f"{bad}-2"]
    assert all(reason.startswith(why) for reason in skips.values())


def test_loading_models_and_long_items_are_not_hanging(tmp_path: Path) -> None:
    """A patience of half a second must not kill a worker that loads for one, nor an item known to be long."""
    toy = Toy([["a", "long", "b"]], start_s=1.0)
    run_parts(toy, [3], tmp_path, recipe={}, patience_s=0.5)
    assert [row["value"] for row in rows_of(toy, tmp_path)] == [1, 4, 1]


@dataclass
class Stillborn(Toy):
    def start(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_die_while_they_start_blame_no_item(tmp_path: Path) -> None:
    """A machine without memory for the model must not turn a corpus into skips."""
    with pytest.raises(DataError, match="exit code -9"):
        run_parts(Stillborn([["a", "b"]]), [2], tmp_path, recipe={}, workers=1)
    assert rows_of(Toy([["a", "b"]]), tmp_path) == []


def test_skips_are_kept_or_stop_the_work(tmp_path: Path) -> None:
    toy = Toy([["a", "bad", "b"]])
    run_parts(toy, [3], tmp_path / "on", recipe={}, workers=0)
    assert [row.get("skip") for row in rows_of(toy, tmp_path / "on")] == [None, ["it is bad", "mend it"], None]
    for workers in (0, 1):
        with pytest.raises(DataError, match="bad: it is bad; mend it"):
            run_parts(toy, [3], tmp_path / "off", recipe={}, workers=workers, stop_on_skip=True)
        assert [row["id"] for row in rows_of(toy, tmp_path / "off")] == ["a"]  # a mended item is tried again
    with pytest.raises(DataError, match="bad: it is bad; mend it"):
        run_parts(toy, [3], tmp_path / "on", recipe={}, stop_on_skip=True)


def test_errors_of_the_start_reach_the_caller(tmp_path: Path) -> None:
    class Broken(Toy):
        def start(self) -> None:
            raise DataError("no model; get one")

    with pytest.raises(DataError, match="no model"):
        run_parts(Broken([["a"]]), [1], tmp_path, recipe={}, workers=0)
    missing = pickle.loads(pickle.dumps(MissingExtra("aligning", "align")))  # as it travels from a worker
    assert (str(missing), missing.extra) == (str(MissingExtra("aligning", "align")), "align")


KILLED = """
import sys
from pathlib import Path
from tests.test_journal import NAMES, Toy
from speechscale.journal import run_parts
if __name__ == "__main__":
    run_parts(Toy(NAMES, slow_s=0.05), [5] * 4, Path(sys.argv[1]), recipe={}, workers=2)
"""


def test_kill_nine_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(KILLED)
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"}
    folder = tmp_path / "journal"
    process = subprocess.Popen([sys.executable, str(script), str(folder)], env=environment)
    deadline = time.monotonic() + 60
    while not (folder / "part-00000.jsonl").exists() or not (folder / "part-00000.jsonl").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    while True:  # workers notice that their parent is gone
        try:
            run_parts(Toy(NAMES), [5] * 4, folder, recipe={}, workers=2)
            break
        except DataError:
            time.sleep(0.1)
    run_parts(Toy(NAMES), [5] * 4, tmp_path / "whole", recipe={}, workers=0)
    assert rows_of(Toy(NAMES), folder) == rows_of(Toy(NAMES), tmp_path / "whole")
