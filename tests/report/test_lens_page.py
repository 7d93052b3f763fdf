"""Would catch: a page whose numbers are not those of lens.json, that claims a find where the interval holds 0, that
needs a network or lets an utterance inject HTML; a command that writes half of its files."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from speechscale.cli.eval_lens import _speech, lens
from speechscale.errors import DataError
from speechscale.model.folders import save_model
from speechscale.model.sizes import get_size
from speechscale.model.slm import new_model
from speechscale.records import UnitTable, UnitTableBuilder
from speechscale.report.lens_page import (
    group_rows,
    lag_figure,
    layer_figure,
    layer_rows,
    picture_figure,
    verdict,
    write_lens_page,
)
from speechscale.speech.unit_files import write_units
from speechscale.tokens.unit_sources import UnitSource
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

WORDS = [f"w{letter}" for letter in "abcdefghijklmnop"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model's folder, a file of units, and the lens of both in OUT."""
    folder = tmp_path_factory.mktemp("lens")
    vocabulary = Vocabulary.joint(build_text_tokenizer([" ".join(WORDS)]), 12)
    save_model(new_model(get_size("llama:0.02M"), vocabulary.size, 64, seed=0), folder / "model")
    vocabulary.save(folder / "model")
    rng = np.random.default_rng(0)
    builder = UnitTableBuilder(frame_rate_hz=50.0, num_units=12)
    for number in range(14):
        said = rng.choice(WORDS[: 6 if number < 4 else 16], 6).tolist()
        builder.add(
            id=f"u{number}<b>", speaker="s", split="train" if number < 4 else "test", text=" ".join(said),
            units=np.arange(18) % 12, durations_frames=np.full(18, 2), words=said,
            word_frames=np.array([[6 * i, 6 * i + 5] for i in range(6)]),
        )  # fmt: skip
    write_units(folder / "units.parquet", builder.build(), "f" * 64)
    result = run(folder, folder / "out")
    assert result.exit_code == 0, result.output
    assert "lens.parquet" in result.output
    return folder


def run(folder: Path, out: Path, *more: str) -> Any:
    arguments = [str(folder / "model"), "--units", str(folder / "units.parquet"), "--out", str(out), *more]
    return CliRunner().invoke(lens, arguments)


@pytest.fixture
def record(made: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made / "out" / "lens.json").read_text())
    return found


def test_command_writes_all(made: Path, record: dict[str, Any]) -> None:
    assert sorted(path.name for path in (made / "out").iterdir()) == [
        "lens.html", "lens.json", "lens.parquet", "skips.jsonl"]  # fmt: skip
    assert (record["format"], record["format_version"]) == ("speechscale lens", 1)
    assert record["figures"]["words"] == 60
    assert record["figures"]["utterances"] == 10
    heard = record["figures"]["groups"]["heard in training"]["words"]
    assert 0 < heard < 60  # told by the split "train" beside
    assert record["stamp"]["speech_tokenizer"] == "f" * 64
    assert len(record["stamp"]["model"]["sha256"]) == 64
    assert {"speechscale", "torch"} <= set(record["stamp"]["versions"])
    assert [len(layer) for layer in record["example"]["layers"]] == [6] * len(record["figures"]["layers"])


def test_same_seed_same_bytes(made: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run(made, tmp_path / name, "--utterances", "5", "--seed", "3").exit_code == 0
    assert (tmp_path / "a" / "lens.json").read_bytes() == (tmp_path / "b" / "lens.json").read_bytes()
    assert (tmp_path / "a" / "lens.parquet").read_bytes() == (tmp_path / "b" / "lens.parquet").read_bytes()
    assert json.loads((tmp_path / "a" / "lens.json").read_text())["figures"]["utterances"] == 5


def test_speech_is_drawn_alike_however_it_is_stored(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus in parts is never held whole; its parts must not change what is drawn."""
    whole, _ = _speech(made / "units.parquet", "all", None, 5, 3)
    everything = [table for table, _ in UnitSource(path=made / "units.parquet").tables([made / "units.parquet"])]

    def parts(*_: Any) -> Iterator[tuple[UnitTable, int]]:
        (table,) = everything
        for rows in (range(3), range(3, 4), range(4, 14)):
            yield table.take(rows), 0

    monkeypatch.setattr(UnitSource, "tables", parts)
    apart, _ = _speech(made / "units.parquet", "all", None, 5, 3)
    assert apart.ids == whole.ids
    assert len(set(whole.ids)) == 5
    assert len(_speech(made / "units.parquet", "all", None, 99, 3)[0]) == 14


def test_wrong_speech_is_named(made: Path, tmp_path: Path) -> None:
    wrong = run(made, tmp_path / "out", "--split", "dev")
    assert isinstance(wrong.exception, DataError)
    assert "no utterance in split 'dev'; splits: test, train" in str(wrong.exception)
    assert not (tmp_path / "out").exists()
    nowhere = run(made, tmp_path / "out", "--device", "cuda:99")
    assert "device 'cuda:99': " in str(nowhere.exception)


def test_page_needs_no_network_and_trusts_no_text(made: Path) -> None:
    page = (made / "out" / "lens.html").read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", page)
    assert "<b>" not in page
    assert re.search(r"u\d+&lt;b&gt;: the utterance whose score", page)


def test_tables_hold_the_figures(record: dict[str, Any]) -> None:
    figures = record["figures"]
    rows = layer_rows(figures)
    assert len(rows) == len(figures["layers"]) + 1
    assert len({len(row) for row in rows}) == 1
    ten = figures["layers"][1]["hit10"]
    assert rows[2][rows[0].index("top 10")] == f"{ten['own']:.1%}"
    assert rows[2][rows[0].index("top 10 minus chance")] == (
        f"{100 * ten['difference']:+.1f} [{100 * ten['low']:+.1f}, {100 * ten['high']:+.1f}]")  # fmt: skip
    assert [row[0] for row in group_rows(figures)[1:3]] == ["first mention", "mentioned before"]


def test_pictures_hold_the_figures(record: dict[str, Any]) -> None:
    figures = record["figures"]
    heat = picture_figure(figures).data[0]
    assert np.array(heat.z, float).shape == (len(figures["layers"]), 26)
    assert heat.zmin == -heat.zmax
    names = {trace.name: list(trace.y) for trace in layer_figure(figures).data}
    assert names["while other words sound (chance)"] == [layer["hit10"]["chance"] for layer in figures["layers"]]
    lag = lag_figure(figures).data[0]
    assert list(lag.x) == [1000 * frame / 50 for frame in figures["lag"]["start"]["frames"]]


def test_the_verdict_follows_the_interval(record: dict[str, Any]) -> None:
    best = {"layer": 2, "own": 0.4, "chance": 0.1, "difference": 0.3, "low": 0.25, "high": 0.35, "cross_fitted": 0.29,
            "ever10": {"own": 0.77, "chance": 0.2},
            "beyond_embedding": {"value": 0.1, "low": 0.05, "high": 0.15}}  # fmt: skip
    figures = {"best": best, "layers": [0, 1, 2, 3],
               "lag": {"start": {"peak_frames": 7, "peak_low": 5.0, "peak_high": 9.0, "peak_s": 0.14}}}  # fmt: skip
    lines = verdict(figures)
    assert lines[0] == (
        "In layer 2 of 3 the word's token is among the top 10 of all text tokens 40.0% of the time the word sounds, "
        "and 10.0% while other words do. Difference: +30.0 points [+25.0, +35.0], cross-fitted +29.0 points; beyond "
        "what the embedding of one unit says: +10.0 points [+5.0, +15.0]."
    )
    assert lines[1].startswith("77.0% of words are among the top 10 at some time while they sound (chance 20.0%).")
    assert lines[1].endswith("at +7 frames [+5, +9] (+140 ms) from the word's start.")
    none = copy.deepcopy(figures)
    none["best"]["low"] = -0.01  # type: ignore[index, call-overload]
    assert verdict(none) == [
        "No layer names the word it hears more often than chance: the best, layer 2 of 3, differs by +30.0 points "
        "[-1.0, +35.0]."
    ]
    alone = copy.deepcopy(figures)
    alone["best"]["low"] = None  # type: ignore[index, call-overload]
    assert verdict(alone)[0].startswith("One utterance: no interval.")


def test_one_utterance_makes_a_page(made: Path, tmp_path: Path) -> None:
    assert run(made, tmp_path / "out", "--utterances", "1").exit_code == 0
    record = json.loads((tmp_path / "out" / "lens.json").read_text())
    assert record["figures"]["best"]["cross_fitted"] is None
    record["example"] = None
    write_lens_page(tmp_path / "again.html", record)
    assert "One utterance, read layer by layer" not in (tmp_path / "again.html").read_text()
