"""Catches subwords that lose units, depend on the run or on stand-in characters, or differ from SentencePiece's own."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import speechscale.tokens.subwords as subwords_module
import speechscale.tokens.subwords_training as training
from speechscale.errors import DataError, MissingExtra
from speechscale.records import offsets
from speechscale.tokens.ragged import Ragged
from speechscale.tokens.subwords import Subwords, alphabet_start, to_texts
from speechscale.tokens.subwords_report import CompressionReport
from speechscale.tokens.subwords_training import repeated_runs, train_subwords

KINDS = ("unigram", "bpe")
UNITS = 40


def chain(rows: int, *, units: int = UNITS, seed: int = 0) -> list[np.ndarray]:
    """Sequences in which each unit has few successors, as in speech."""
    rng = np.random.default_rng(seed)
    nexts = np.random.default_rng(99).integers(0, units, (units, 4))
    made = []
    for _ in range(rows):
        row = [int(rng.integers(units))]
        for _ in range(int(rng.integers(0, 120))):
            row.append(int(nexts[row[-1], min(int(rng.exponential(1.0)), 3)]))
        made.append(np.array(row, np.int16))
    return made


def ragged(rows: list[Any]) -> Ragged:
    return Ragged(np.concatenate([np.zeros(0, np.int64), *map(np.asarray, rows)]), offsets([len(row) for row in rows]))


CORPUS = chain(150)
TRAINED = {kind: train_subwords(CORPUS, kind, 150, UNITS) for kind in KINDS}


def test_bpe_by_hand() -> None:
    """The most frequent pair first: (0, 1) 4 times, then (01, 2) 3 times; 3 and 4 never occur and are still pieces."""
    made = train_subwords([np.array([0, 1, 2, 0, 1, 2]), np.array([0, 1]), np.array([0, 1, 2])], "bpe", 7, 5)
    assert made.pieces == ((0, 1), (0, 1, 2))
    assert made.merges == ((0, 1), (5, 2))
    pieces = made.encode(ragged([[0, 1, 2, 2], [], [4, 0, 1, 3]]))
    assert [row.tolist() for row in pieces.rows()] == [[6, 2], [], [4, 5, 3]]
    assert made.units_per_piece.tolist() == [1, 1, 1, 1, 1, 2, 3]


def test_unigram_takes_the_likeliest_cutting() -> None:
    made = Subwords(kind="unigram", num_units=3, pieces=((0, 1), (1, 2)), scores=(-3.0, -3.0, -3.0, -4.0, -2.0))
    # 0|12 costs 5, 01|2 costs 7, 0|1|2 costs 9.
    assert made.encode(ragged([[0, 1, 2], [0, 1], [2]])).flat.tolist() == [0, 4, 3, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_size_is_what_was_asked(kind: str) -> None:
    made = TRAINED[kind]
    assert made.size == 150 == UNITS + len(made.pieces)
    assert len(set(made.pieces)) == len(made.pieces)
    assert 3 <= max(map(len, made.pieces)) <= 16
    pieces = made.encode(ragged(CORPUS))
    units = sum(map(len, CORPUS))
    assert units / len(pieces.flat) > 1.5
    short = train_subwords(CORPUS, kind, 100, UNITS, longest_piece=3)
    assert max(map(len, short.pieces)) == 3


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.lists(st.integers(0, UNITS - 1), max_size=60), max_size=6), chunk=st.integers(1, 50))
def test_nothing_is_lost(kind: str, rows: list[list[int]], chunk: int) -> None:
    made, units = TRAINED[kind], ragged(rows)
    whole = made.encode(units)
    back = made.decode(whole)
    assert back.flat.tolist() == units.flat.tolist()
    assert back.offsets.tolist() == units.offsets.tolist()
    assert np.array_equal(made.spell(whole.flat), units.flat)
    assert whole.flat.dtype == np.int32
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subwords_module, "ENCODE_CHUNK_UNITS", chunk)
        in_chunks = made.encode(units)
    assert np.array_equal(in_chunks.flat, whole.flat)
    assert np.array_equal(in_chunks.offsets, whole.offsets)
    alone = [made.encode(ragged([row])).flat.tolist() for row in rows]
    assert [row.tolist() for row in whole.rows()] == alone


@pytest.mark.parametrize("kind", KINDS)
def test_slices_of_larger_arrays(kind: str) -> None:
    """Offsets need not begin at 0, as in a part of a store."""
    made, units = TRAINED[kind], ragged(CORPUS[:6])
    part = made.encode(Ragged(units.flat, units.offsets[2:5]))
    assert [row.tolist() for row in part.rows()] == [row.tolist() for row in made.encode(ragged(CORPUS[2:4])).rows()]
    assert np.array_equal(made.decode(Ragged(made.encode(units).flat, made.encode(units).offsets[1:])).offsets[0], 0)


@pytest.mark.parametrize("kind", KINDS)
def test_same_corpus_same_bytes(kind: str, tmp_path: Path) -> None:
    again = train_subwords(iter(CORPUS), kind, 150, UNITS)
    TRAINED[kind].save(tmp_path / "a.json")
    again.save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    for copy in (Subwords.load(tmp_path / "a.json"), pickle.loads(pickle.dumps(again))):
        assert copy == again
        assert copy.record == again.record
        assert copy.fingerprint == again.fingerprint
        assert np.array_equal(copy.encode(ragged(CORPUS)).flat, again.encode(ragged(CORPUS)).flat)
    assert train_subwords(CORPUS, kind, 149, UNITS).fingerprint != again.fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_do_not_depend_on_the_characters(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to itself SentencePiece finds other pieces with characters of three bytes than with those of two."""
    short = train_subwords(CORPUS, kind, 100, UNITS, longest_piece=4)
    encoded = TRAINED[kind].encode(ragged(CORPUS)).flat
    for alphabet in subwords_module.ALPHABETS[1:]:
        monkeypatch.setattr(subwords_module, "ALPHABETS", (alphabet,))
        made = train_subwords(CORPUS, kind, 150, UNITS)
        assert made == TRAINED[kind]
        assert np.array_equal(made.encode(ragged(CORPUS)).flat, encoded)
        assert train_subwords(CORPUS, kind, 100, UNITS, longest_piece=4) == short


def test_unigram_cuts_as_sentencepiece_does(monkeypatch: pytest.MonkeyPatch, shared: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    kept = []

    class Keep(sentencepiece.SentencePieceProcessor):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            kept.append(self)

    monkeypatch.setattr(sentencepiece, "SentencePieceProcessor", Keep)
    lines = (shared / "data/dev-units/slamkit/features.jsonl").read_text().splitlines()
    real = [np.array(json.loads(line)["units"]) for line in lines]
    rng = np.random.default_rng(0)
    random = [rng.integers(0, 500, int(rng.integers(1, 300))) for _ in range(60)]
    made = train_subwords([*chain(200, units=500), *real, *real], "unigram", 1200, 500)
    rows = [*real, *random, *chain(100, units=500, seed=5)]
    ours = made.encode(ragged(rows)).rows()
    start = alphabet_start(500)
    theirs = kept[0].encode(to_texts(np.concatenate(rows), offsets([len(row) for row in rows])[:-1], 500), out_type=str)
    units = [[[ord(character) - start for character in piece] for piece in row] for row in theirs]
    assert [[list(made.units(piece)) for piece in row.tolist()] for row in ours] == units


@pytest.mark.parametrize("kind", KINDS)
def test_many_units_most_of_them_unseen(kind: str) -> None:
    rng = np.random.default_rng(0)
    rows = [np.minimum(rng.zipf(1.3, 200) - 1, 31_999) for _ in range(60)]
    made = train_subwords(rows, kind, 32_200, 32_000)
    assert made.size == 32_200
    units = ragged([list(range(32_000))])
    assert np.array_equal(made.decode(made.encode(units)).flat, units.flat)


def test_repeated_runs_by_brute_force() -> None:
    """Seeds are what a count of every run says, of those that more than one thing follows."""
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, 4, int(rng.integers(0, 30))).tolist() for _ in range(12)]
    text, starts, lengths, counts = repeated_runs(ragged(rows), 6)
    found = {}
    for start, length, count in zip(starts.tolist(), lengths.tolist(), counts.tolist(), strict=True):
        found[tuple((text[start : start + length] - 1).tolist())] = count
    assert len(found) == len(starts)
    counted: dict[tuple[int, ...], int] = {}
    nexts: dict[tuple[int, ...], set[Any]] = {}
    for number, row in enumerate(rows):
        for first in range(len(row)):
            for length in range(2, min(6, len(row) - first) + 1):
                run = tuple(row[first : first + length])
                counted[run] = counted.get(run, 0) + 1
                rest = row[first + length : first + length + 1]
                nexts.setdefault(run, set()).add(rest[0] if rest else ("end", number))
    expected = {run: count for run, count in counted.items() if count > 1 and (len(run) == 6 or len(nexts[run]) > 1)}
    assert found == expected


def test_sample_is_bounded_seeded_and_said() -> None:
    sizes = []
    for seed in (0, 1):
        rows, record = training._sample(iter(CORPUS), UNITS, 2000, seed)
        lengths = rows.lengths
        assert record["units_used"] == len(rows.flat) <= 2000
        assert len(rows.flat) > 2000 - 2 * 121
        assert record["units_read"] == sum(map(len, CORPUS))
        assert (record["sequences_read"], record["sequences_used"]) == (150, len(lengths))
        texts = [row.tolist() for row in CORPUS]
        at = [texts.index(row.tolist()) for row in rows.rows() if len(row) > 3]
        assert at == sorted(at), "the chosen sequences keep their order"
        sizes.append(lengths.tolist())
    assert sizes[0] != sizes[1]
    assert training._sample(iter(CORPUS), UNITS, 2000, 0)[0].lengths.tolist() == sizes[0]
    made = train_subwords(CORPUS, "bpe", 90, UNITS, seed=1, max_units=2000)
    assert made.record["max_units"] == 2000
    assert made.record["seed"] == 1
    assert made != train_subwords(CORPUS, "bpe", 90, UNITS, seed=0, max_units=2000)
    one, _ = training._sample([np.zeros(9000, np.int16)], UNITS, 10, 0)
    assert one.lengths.tolist() == [4096, 4096, 808]


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input(kind: str) -> None:
    with pytest.raises(DataError, match=r"units run 0\.\.40, allowed are 0\.\.39"):
        train_subwords([np.array([0, 40])], kind, 100, UNITS)
    with pytest.raises(DataError, match="size 40 counts the 40 single units too; give more than 40"):
        train_subwords(CORPUS, kind, 40, UNITS)
    for empty in ([], [np.zeros(0, np.int16)] * 3):
        with pytest.raises(DataError, match="hold no unit"):
            train_subwords(empty, kind, 100, UNITS)
    with pytest.raises(DataError, match=r"size 5000 cannot be reached from 12 units, they give 4\d;"):
        train_subwords([np.array([1, 2, 1, 2]), np.array([1, 2, 1, 2, 3, 3, 3, 3])], kind, 5000, UNITS)
    if kind == "unigram":
        with pytest.raises(DataError, match=r"SentencePiece cannot learn from 18 units: .*; give more units"):
            train_subwords([np.array([0, 1] * 9)], kind, 4, 3)
    with pytest.raises(DataError, match=r"units run -1\.\.3"):
        TRAINED[kind].encode(ragged([[3, -1]]))
    with pytest.raises(DataError, match=r"pieces run 0\.\.150, the subwords have 0\.\.149"):
        TRAINED[kind].spell(np.array([0, 150]))
    with pytest.raises(DataError, match="kind 'words' are unknown; allowed: unigram, bpe"):
        train_subwords(CORPUS, "words", 100, UNITS)
    with pytest.raises(DataError, match=r"70000 units; allowed are 1\.\.65534"):
        train_subwords(CORPUS, kind, 80_000, 70_000)


def test_contradictory_pieces_are_refused() -> None:
    good: dict[str, Any] = {"kind": "bpe", "num_units": 5, "pieces": ((0, 1),), "merges": ((0, 1),)}
    Subwords(**good)
    for change, problem in (
        ({"kind": "other"}, "kind 'other' is unknown"),
        ({"num_units": 0}, "0 units"),
        ({"pieces": ((0,),)}, "two or more units"),
        ({"pieces": ((0, 5),)}, "two or more units below 5"),
        ({"pieces": ((0, 1), (0, 1))}, "occurs twice"),
        ({"merges": ((0, 2),)}, "merges make other pieces"),
        ({"merges": ((0, 9),)}, r"merges of pieces 0\.\.5"),
        ({"scores": (0.0,) * 6}, "bpe needs no scores"),
        ({"kind": "unigram", "merges": ()}, "as many finite scores"),
        ({"kind": "unigram", "merges": (), "scores": (float("nan"),) * 6}, "as many finite scores"),
    ):
        with pytest.raises(DataError, match=problem):
            Subwords(**{**good, **change})


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "subwords.json"
    TRAINED["unigram"].save(path)
    saved = json.loads(path.read_text())
    for change in ({"scores": [saved["scores"][0] - 1e-6, *saved["scores"][1:]]}, {"fingerprint": ""}):
        path.write_text(json.dumps({**saved, **change}))
        with pytest.raises(DataError, match=r"subwords\.json: its content does not fit its fingerprint"):
            Subwords.load(path)
    for change in ({"scores": saved["scores"][1:]}, {"pieces": [["a", "b"]]}, {"num_units": "x"}, {"record": None}):
        path.write_text(json.dumps({**saved, **change}))
        with pytest.raises(DataError, match=r"subwords .*subwords\.json: .*train the subwords again"):
            Subwords.load(path)
    path.write_text(json.dumps({**saved, "format_version": 2}))
    with pytest.raises(DataError, match="format"):
        Subwords.load(path)
    path.unlink()
    with pytest.raises(DataError, match="the file is missing"):
        Subwords.load(path)


def test_encoding_needs_no_sentencepiece_and_training_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MissingExtra, match=r"speechscale\[subwords\]"):
        train_subwords(CORPUS, "unigram", 150, UNITS)
    TRAINED["unigram"].save(tmp_path / "a.json")
    loaded = Subwords.load(tmp_path / "a.json")
    assert np.array_equal(loaded.decode(loaded.encode(ragged(CORPUS))).flat, np.concatenate(CORPUS))


@pytest.mark.parametrize("kind", KINDS)
def test_compression_adds_up(kind: str) -> None:
    made = TRAINED[kind]
    report, whole = CompressionReport(made), CompressionReport(made)
    splits = ["train" if index % 3 else "test" for index in range(len(CORPUS))]
    for first, stop in pairwise([0, 70, 70, 150]):
        report.add(ragged(CORPUS[first:stop]), splits[first:stop])
    whole.add(ragged(CORPUS), splits)
    got = report.to_json()
    assert got == whole.to_json()
    assert sorted(got) == ["all", "test", "train"]
    pieces = made.encode(ragged(CORPUS))
    everything = got["all"]
    assert everything["units"] == sum(map(len, CORPUS)) == got["test"]["units"] + got["train"]["units"]
    assert everything["pieces"] == len(pieces.flat) == got["test"]["pieces"] + got["train"]["pieces"]
    assert everything["sequences"] == 150
    assert everything["units_per_piece"] == everything["units"] / everything["pieces"]
    assert everything["merged_share"] == float((pieces.flat >= UNITS).mean())
    assert sum(everything["share_by_length"].values()) == pytest.approx(1)
    used = np.bincount(pieces.flat, minlength=made.size)
    classes = {"0": (used == 0).sum(), "1-9": ((used > 0) & (used < 10)).sum()}
    classes |= {"10-99": ((used >= 10) & (used < 100)).sum(), "100-999": ((used >= 100) & (used < 1000)).sum()}
    assert {key: value for key, value in everything["pieces_by_use"].items() if value} == {
        key: value for key, value in classes.items() if value
    }
    assert "units/piece" in report.text()


def test_report_of_nothing_has_no_ratio() -> None:
    report = CompressionReport(TRAINED["bpe"])
    report.add(ragged([[]]), ["train"])
    row = report.to_json()["all"]
    assert (row["sequences"], row["units"], row["units_per_piece"], row["merged_share"]) == (1, 0, None, None)
    assert row["pieces_by_use"] == {"0": 150}
    assert report.text()


@pytest.mark.slow
def test_training_gives_the_same_pieces_in_every_process() -> None:
    code = (
        "import numpy as np\nfrom speechscale.tokens.subwords_training import train_subwords\n"
        "rows = [np.array([i * j % 29 for i in range(1, 40)]) for j in range(1, 80)]\n"
        "print([train_subwords(rows, kind, 60, 29).fingerprint for kind in ('unigram', 'bpe')])"
    )
    seen = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    }
    assert len(seen) == 1
