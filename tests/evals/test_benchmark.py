"""Would catch: an altered folder that is opened all the same, units encoded twice or by another tokenizer, phone labels
made up for recordings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from speechscale.corpus import unit_corpus
from speechscale.corpus.tables import write_items
from speechscale.errors import DataError
from speechscale.evals.benchmarks.benchmark import Benchmark, open_benchmark, set_counts
from speechscale.evals.benchmarks.prepare import prepare
from speechscale.evals.benchmarks.raw import RawItem
from speechscale.evals.cuts import Cut, cut_items
from speechscale.speech.units import SpeechTokenizer, fit_tokenizer, phone_tokenizer
from speechscale.voices.espeak import phone_inventory
from tests.evals.benchmarks import apart, item, joined, noise, source, texts


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "mfcc"
    waves = [0.1 * np.random.default_rng(i).standard_normal(16_000).astype(np.float32) for i in range(4)]
    fit_tokenizer(waves, encoder="mfcc", clusters=8, seed=0).save(folder)
    return folder


def edit(folder: Path, **changes: object) -> None:
    path = folder / "benchmark.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_units_are_encoded_once(tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "src"
    made = prepare(source([apart(root, "a"), apart(root, "b", 1)], root), tmp_path / "out")
    table = made.units(tokenizer, workers=0)
    assert table.ids[:5] == ["a/good", "a/bad", "a/prompt", "a/good-ending", "a/bad-ending"]
    fingerprint = SpeechTokenizer.load(tokenizer).fingerprint
    assert [path.name for path in (made.folder / "units").iterdir()] == [fingerprint[:16]]

    def encodes(*_: object, **__: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(unit_corpus, "run_parts", encodes)
    again = open_benchmark(made.folder).units(tokenizer, workers=0)
    assert (again.ids, again.units.tolist()) == (table.ids, table.units.tolist())
    cuts = cut_items(made.items(), table)
    frames = {name: cut.prompt for name, cut in cuts.items() if isinstance(cut, Cut)}
    assert list(frames) == ["a/good", "a/bad", "b/good", "b/bad"]


def test_a_choice_of_items_costs_its_own_recordings_only(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "src"
    made = prepare(source([apart(root, "a"), apart(root, "b", 1), apart(root, "c", 2)], root), tmp_path / "out")
    a, b, c = made.items()
    part = made.units(tokenizer, items=[c, a], workers=0)
    roles = ("good", "bad", "prompt", "good-ending", "bad-ending")
    assert part.ids == [f"{name}/{role}" for name in "ac" for role in roles]
    assert made.units(tokenizer, items=[b], workers=0).ids == [f"b/{role}" for role in roles]
    fingerprint = SpeechTokenizer.load(tokenizer).fingerprint[:16]
    assert not (made.folder / "units" / fingerprint).exists()
    assert len(list((made.folder / "units").glob(f"{fingerprint}-*/units.json"))) == 2

    def encodes(*_: object, **__: object) -> None:
        raise AssertionError("encoded again")

    with monkeypatch.context() as patch:
        patch.setattr(unit_corpus, "run_parts", encodes)
        assert made.units(tokenizer, items=[a, c], workers=0).units.tolist() == part.units.tolist()
    whole = made.units(tokenizer, items=[a, b, c], workers=0)
    assert (made.folder / "units" / fingerprint / "units.json").is_file()
    rows = [row for row, id in enumerate(whole.ids) if id[0] in "ac"]
    assert whole.take(rows).units.tolist() == part.units.tolist()
    monkeypatch.setattr(unit_corpus, "run_parts", encodes)
    assert made.units(tokenizer, items=[c, b], workers=0).ids == whole.ids
    with pytest.raises(DataError, match="it has no item 'x'; choose from its own"):
        prepare(source([apart(root, "a")], root), tmp_path / "one").units(tokenizer, items=[replace(a, id="x")])


def test_recordings_that_changed_since_are_not_encoded(tmp_path: Path, tokenizer: Path) -> None:
    root = tmp_path / "src"
    made = prepare(source([joined(root, "a"), joined(root, "b", 1)], root), tmp_path / "out")
    before = (root / "b-bad.wav").read_bytes()
    noise(root / "b-bad.wav", 1.5)
    for items in (None, made.items()[:1]):
        with pytest.raises(
            DataError, match=r"are 144,176 bytes, they were 128,176 when it was prepared; put them back"
        ):
            made.units(tokenizer, items=items, workers=0)
    (root / "b-bad.wav").unlink()
    with pytest.raises(DataError, match=r"1 are gone, the first is b-bad\.wav"):
        made.units(tokenizer, workers=0)
    (root / "b-bad.wav").write_bytes(before)
    assert len(made.units(tokenizer, workers=0)) == 4


def test_a_choice_goes_on_where_the_benchmark_was_moved_to(tmp_path: Path, tokenizer: Path) -> None:
    root = tmp_path / "src"
    made = prepare(source([apart(root, "a"), apart(root, "b", 1)], root), tmp_path / "out")
    chosen = made.items()[:1]
    made.units(tokenizer, items=chosen, workers=0)
    (folder,) = (made.folder / "units").iterdir()
    (folder / "units.json").unlink()  # As if it had been stopped.
    moved = open_benchmark((tmp_path / "out").rename(tmp_path / "moved"))
    assert len(moved.units(tokenizer, items=chosen, workers=0)) == 5


def test_prepare_encodes_at_once_where_a_tokenizer_is_named(tmp_path: Path, tokenizer: Path) -> None:
    made = prepare(source([joined(tmp_path, "a")], tmp_path), tmp_path / "out", tokenizer=tokenizer)
    (folder,) = (made.folder / "units").iterdir()
    assert (folder / "units.json").is_file()


def test_phone_labels_come_from_the_voice_that_spoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "phones"
    phone_tokenizer(phone_inventory(["us-f2"])).save(folder)
    made = prepare(source(texts(2)), tmp_path / "out", voices=("us-f2",))
    table = made.units(folder)
    assert table.ids == ["t0/good", "t0/bad", "t1/good", "t1/bad"]
    assert all(isinstance(cut, Cut) for cut in cut_items(made.items(), table).values())
    assert made.units(folder, items=made.items()[1:]).ids == table.ids  # All are there.
    fresh = prepare(source(texts(2)), tmp_path / "fresh", voices=("us-f2",))
    one = fresh.units(folder, items=fresh.items()[1:])
    assert one.ids == table.ids[2:]
    assert one.units.tolist() == table.take([2, 3]).units.tolist()
    monkeypatch.setattr("speechscale.evals.benchmarks.benchmark.encode_corpus", None)
    assert made.units(folder).ids == table.ids
    recorded = prepare(source([joined(tmp_path / "src", "a")], tmp_path / "src"), tmp_path / "recorded")
    with pytest.raises(DataError, match="not spoken by espeak voices"):
        recorded.units(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    raws = [joined(tmp_path / "src", name, number) for number, name in enumerate("ab")]
    return prepare(source(raws, tmp_path / "src"), tmp_path / "out").folder


def test_opening_gives_what_was_prepared(folder: Path) -> None:
    found = open_benchmark(folder)
    assert isinstance(found, Benchmark)
    assert [entry.id for entry in found.items()] == ["a", "b"]
    assert found.facts.origin == "download https://example.org/toy.zip"
    assert found.has_audio


def test_other_items_are_refused(folder: Path) -> None:
    items = open_benchmark(folder).items()
    write_items(folder / "items.parquet", [replace(items[0], pair="b"), items[1]])
    with pytest.raises(DataError, match=r"items\.parquet: not the items of benchmark\.json"):
        open_benchmark(folder).items()


def test_altered_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "benchmark.json").read_text())
    with pytest.raises(DataError, match=r"no benchmark\.json in it; make one with: speechscale eval prepare"):
        open_benchmark(tmp_path)
    edit(folder, audio_sha256=None)
    with pytest.raises(DataError, match="checksum is not that of its parts"):
        open_benchmark(folder)
    edit(folder, **{**content, "facts": {**content["facts"], "mood": "good"}})
    with pytest.raises(DataError, match="'mood'"):
        open_benchmark(folder)
    edit(folder, **{**content, "format_version": 99})
    with pytest.raises(DataError, match="version 99"):
        open_benchmark(folder)
    del content["info"]
    (folder / "benchmark.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="field 'info' is missing"):
        open_benchmark(folder)


def test_counts_are_per_set() -> None:
    raws = [
        RawItem(item=item("a@x", set="s", speaker="x")),
        RawItem(item=item("a@y", set="s", speaker="y", phenomenon="p")),
        RawItem(item=item("b", set="r")),
    ]
    assert set_counts(raw.item for raw in raws) == {
        "s": {"items": 2, "pairs": 1, "speakers": 2, "phenomena": 1},
        "r": {"items": 1, "pairs": 1, "speakers": 0, "phenomena": 0},
    }
