"""Catches packed rows unlike those made on the fly, changed by workers or kills, or believed when damaged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechscale.errors import DataError, StaleStep
from speechscale.records import UnitTable
from speechscale.tokens import shards
from speechscale.tokens.interleave import InterleaveConfig, Knot
from speechscale.tokens.mixture import MixtureSampler
from speechscale.tokens.packed_rows import PackedRows, PackedSource, packed_damage
from speechscale.tokens.packing import STREAMS, Row, assemble
from speechscale.tokens.shards import write_packed
from speechscale.tokens.sources import StoreSource
from speechscale.tokens.store import TokenStore, build_store
from speechscale.tokens.vocabulary import Vocabulary

MakeTable = Callable[..., UnitTable]
INTERLEAVE = InterleaveConfig(speech_span="poisson(3)")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, make_table: MakeTable, vocabulary: Vocabulary) -> TokenStore:
    texts = [" ".join(["tom likes the jam ."] * (1 + number % 9)) for number in range(400)]
    folder = tmp_path_factory.mktemp("tokens") / "store"
    vocabulary.save(folder.parent / "vocabulary")
    return build_store(folder, vocabulary, table=make_table(700), texts=texts)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "PART_TOKENS", 1)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("pack", ["best_fit", "stream"])
def test_rows_are_those_made_on_the_fly(tmp_path: Path, store: TokenStore, stream: str, pack: Any) -> None:
    settings = {"context": 64, "seed": 3, "pack": pack, "interleave": INTERLEAVE}
    rows = write_packed(store, stream, tmp_path / "rows", epochs=2, **settings)
    source = StoreSource(store, stream, 64, 3, pack=pack, interleave=INTERLEAVE)
    made = [source.block(number, 0.0) for number in range(2 * source.blocks)]
    code = STREAMS.index(stream)
    expected = assemble([Row(block, row, code) for block in made for row in range(len(block))], 64, 0)
    found = rows.batch(np.arange(len(rows)))
    for name in ("tokens", "segments", "positions", "stream"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    some = np.array([len(rows) - 1, 0, 7, 7])
    assert np.array_equal(rows.batch(some).tokens, expected.tokens[some])
    assert rows.tokens == (expected.segments >= 0).sum() == sum(rows.meta["kinds"].values())
    kinds = store.vocabulary.modality_table()[expected.tokens[expected.segments >= 0]]
    counted = dict(zip(("text", "speech", "marker"), np.bincount(kinds, minlength=3).tolist(), strict=True))
    assert rows.meta["kinds"] == counted
    assert rows.arrays["tokens"].dtype == np.uint16
    assert rows.arrays["closed"].sum() == 2 * store.documents(stream)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows"]


@pytest.mark.usefixtures("small_parts")
def test_workers_change_no_byte(tmp_path: Path, store: TokenStore) -> None:
    made = []
    for workers in (0, 1, 2, 4):
        folder = tmp_path / f"w{workers}"
        write_packed(store, "interleaved", folder, context=32, interleave=INTERLEAVE, workers=workers)
        made.append(files(folder))
    assert made[1:] == made[:1] * 3
    assert {"meta.json", "tokens.bin"} <= set(made[0])


CHILD = """
import sys
from pathlib import Path
from speechscale.tokens import shards
from speechscale.tokens.store import TokenStore
from speechscale.tokens.vocabulary import Vocabulary
folder, out = map(Path, sys.argv[1:])
shards.PART_TOKENS = 1
store = TokenStore.open(folder / "store", Vocabulary.load(folder / "vocabulary"))
shards.write_packed(store, "speech", out, context=32, epochs=40)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_a_killed_run_goes_on(tmp_path: Path, store: TokenStore) -> None:
    folder, command = tmp_path / "killed", [sys.executable, "-c", CHILD, str(store.folder.parent)]
    seen = 0
    for _ in range(3):
        process = subprocess.Popen([*command, str(folder)])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            done = len(list((folder / ".work").glob("part-*.jsonl"))) if (folder / ".work").is_dir() else 0
            if done > seen + 2:
                break
            time.sleep(0.005)
        seen = done
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (folder / "meta.json").exists() or seen, "nothing was packed before the kills"
    write_packed(store, "speech", folder, context=32, epochs=40)
    write_packed(store, "speech", tmp_path / "whole", context=32, epochs=40)
    assert files(folder) == files(tmp_path / "whole")


def test_damage_is_found_and_named(tmp_path: Path, store: TokenStore, vocabulary: Vocabulary) -> None:
    folder = tmp_path / "rows"
    write_packed(store, "speech", folder, context=64)
    path = folder / "tokens.bin"
    good = path.read_bytes()
    path.write_bytes(good[:9] + bytes([good[9] ^ 1]) + good[10:])
    with pytest.raises(DataError, match=r"tokens\.bin: chunk 0 .*SHA-256 differs"):
        PackedRows.open(folder, vocabulary)
    assert len(list(packed_damage(folder))) == 1
    path.write_bytes(good[:-2])
    with pytest.raises(DataError, match=r"tokens\.bin: .* bytes, meta\.json says .*truncated"):
        PackedRows.open(folder, vocabulary, verify=False)
    path.unlink()
    with pytest.raises(DataError, match=r"tokens\.bin: missing"):
        PackedRows.open(folder, vocabulary, verify=False)
    path.write_bytes(good)
    assert list(packed_damage(folder)) == []
    with pytest.raises(DataError, match="packed with the vocabulary"):
        PackedRows.open(folder, Vocabulary.textless(20))
    meta = json.loads((folder / "meta.json").read_text())
    meta["recipe"]["context"] = 65
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match="differs from its checksum"):
        PackedRows.open(folder, vocabulary)


def test_another_recipe_is_refused(tmp_path: Path, store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write_packed(store, "text", tmp_path / "rows", context=64)
    before = files(tmp_path / "rows")
    write_packed(store, "text", tmp_path / "rows", context=64)
    assert files(tmp_path / "rows") == before
    with pytest.raises(DataError, match="rows of another recipe"):
        write_packed(store, "text", tmp_path / "rows", context=65)
    config = InterleaveConfig(curriculum=(Knot(at=0.0, speech_share=0.2), Knot(at=1.0, speech_share=0.4)))
    with pytest.raises(DataError, match="curriculum"):
        write_packed(store, "interleaved", tmp_path / "c", context=64, interleave=config)

    def broken(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "_join", broken)
        with pytest.raises(OSError, match="No space left"):
            write_packed(store, "text", tmp_path / "half", context=64)
    with pytest.raises(StaleStep, match="another recipe"):
        write_packed(store, "text", tmp_path / "half", context=64, seed=1)


def test_packed_rows_in_a_mixture(tmp_path: Path, store: TokenStore) -> None:
    """Shares hold, every row comes once per pass, later passes have another order, and a state resumes."""
    rows = write_packed(store, "interleaved", tmp_path / "rows", context=64, interleave=INTERLEAVE)

    def fresh() -> MixtureSampler:
        sources = [PackedSource(rows, 0, name="packed"), StoreSource(store, "text", 64, 0)]
        return MixtureSampler(sources, {"packed": 3, "text": 1})

    sampler = fresh()
    batches = list(islice(sampler.batches(4), 3 * len(rows) // 4))
    own = [tuple(b.tokens[r].tolist()) for b in batches for r in range(4) if b.stream[r, 0] == 2]
    once = [tuple(row) for row in rows.batch(np.arange(len(rows))).tokens.tolist()]
    assert own[: len(rows)] == once
    assert sorted(own[len(rows) : 2 * len(rows)]) == sorted(once)
    assert own[len(rows) : 2 * len(rows)] != once
    stats = sampler.stats()
    seen = stats.by_stream("tokens_seen")
    assert seen["interleaved"] / sum(seen.values()) == pytest.approx(0.75, abs=0.01)
    assert stats.sources["packed"].tokens_unique == rows.tokens
    halfway = fresh()
    list(islice(halfway.batches(4), 100))
    resumed = next(fresh().batches(4, state=halfway.state()))
    assert np.array_equal(resumed.tokens, batches[100].tokens)


def test_packed_epochs_are_epochs(tmp_path: Path, store: TokenStore) -> None:
    """Would catch rows of a second epoch that are counted as unique, and unique speech that is not known but told."""
    rows = write_packed(store, "interleaved", tmp_path / "rows", context=64, interleave=INTERLEAVE, epochs=2)
    source = PackedSource(rows, 0)
    assert source.documents == store.documents("interleaved")
    first = StoreSource(store, "interleaved", 64, 0, interleave=INTERLEAVE)
    one = sum(int(first.block(number, 0.0).tokens.sum()) for number in range(first.blocks))
    sampler = MixtureSampler([source], {"interleaved": 1.0}, max_epochs=3)
    with pytest.raises(DataError, match="was read 3 times"):
        list(sampler.batches(1))
    stats = sampler.stats()
    assert stats.sources["interleaved"].epochs == 3
    assert stats.sources["interleaved"].tokens_unique == one
    assert (stats.speech_units_unique, stats.speech_hours_unique) == (None, None)
    size = source.epoch_size()
    assert size.tokens == rows.tokens / 2
    assert size.targets == pytest.approx(stats.target_tokens / 3, rel=0.01)


def test_other_peoples_files_stay(tmp_path: Path, store: TokenStore) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"weights")
    with pytest.raises(DataError, match="holds other files"):
        write_packed(store, "text", tmp_path / "model", context=64)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["pytorch_model.bin"]


def test_left_work_is_cleared(tmp_path: Path, store: TokenStore) -> None:
    write_packed(store, "text", tmp_path / "rows", context=64)
    (tmp_path / "rows" / ".work").mkdir()
    write_packed(store, "text", tmp_path / "rows", context=64)
    assert not (tmp_path / "rows" / ".work").exists()
