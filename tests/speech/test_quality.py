"""Catches measures of units that flatter: wrong formulas, leaks from query to candidates, a displaced shift curve."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.speech.information import entropy, mutual_information
from speechscale.speech.labeled import Labeled, phone_index, phones_at, plain_phone
from speechscale.speech.quality import measure
from speechscale.speech.quality_page import quality_table, write_quality_page
from speechscale.speech.quality_shift import shift_curve
from speechscale.speech.retrieval import WordToken, edit_distances, retrieve, word_tokens

RATE = 25.0


def utterance(id: str, speaker: str, sounds: list[int], units: list[int] | None = None, **rest: object) -> Labeled:
    """Phones of 120 ms; by default the unit of a frame is its phone."""
    phones = tuple((f"P{sound}", 0.12 * i, 0.12 * (i + 1)) for i, sound in enumerate(sounds))
    own = np.repeat(sounds, 3) if units is None else np.array(units)
    return Labeled(id=id, speaker=speaker, units=own.astype(np.int16), phones=phones, **rest)  # type: ignore[arg-type]


def random_corpus(count: int = 40, phones: int = 12, length: int = 60) -> list[Labeled]:
    rng = np.random.default_rng(0)
    return [utterance(f"u{i}", f"s{i % 4}", rng.integers(phones, size=length).tolist()) for i in range(count)]


def test_information_of_a_known_table() -> None:
    shared, rows, columns = mutual_information(np.array([[2.0, 0.0], [1.0, 1.0]]))
    assert (rows, columns) == pytest.approx((1.0, entropy(np.array([3.0, 1.0]))))
    assert shared == pytest.approx(1.0 + columns - 1.5)


def test_units_that_are_the_phones_are_perfect() -> None:
    quality = measure(random_corpus(), frame_rate_hz=RATE, num_units=12, resamples=20)
    assert quality.pnmi is not None
    assert quality.phone_purity is not None
    assert quality.cluster_purity is not None
    assert quality.speaker_information is not None
    values = [quality.pnmi.value, quality.phone_purity.value, quality.cluster_purity.value]
    assert values == pytest.approx([1.0, 1.0, 1.0])
    assert quality.pnmi.chance is not None
    assert quality.pnmi.chance < 0.1
    assert quality.speaker_information.value < 0.01
    assert (quality.used_units, quality.phone_types, quality.speakers, quality.labeled_frames) == (12, 12, 4, 7200)
    # A phone lasts 3 frames and is followed by another one 11 times in 12.
    assert quality.units_per_second.value == pytest.approx(RATE / 3 * 11 / 12, rel=0.02)
    assert quality.bits_per_second.value == pytest.approx(quality.units_per_second.value * math.log2(12), rel=0.01)


def test_purities_are_not_swapped() -> None:
    """Splitting each phone over two units leaves phone purity at 1 and halves cluster purity."""
    rng = np.random.default_rng(1)
    corpus = [
        utterance(f"u{i}", "s", sounds, [2 * s + int(rng.integers(2)) for s in sounds for _ in range(3)])
        for i, sounds in enumerate(rng.integers(6, size=(30, 50)).tolist())
    ]
    quality = measure(corpus, frame_rate_hz=RATE, num_units=12, resamples=5, with_shift=False)
    assert quality.phone_purity is not None
    assert quality.cluster_purity is not None
    assert quality.phone_purity.value == 1.0
    assert quality.cluster_purity.value == pytest.approx(0.5, abs=0.05)
    assert quality.speaker_information is None


def test_random_units_score_their_chance_level() -> None:
    rng = np.random.default_rng(2)
    corpus = [
        utterance(u.id, u.speaker, rng.integers(12, size=20).tolist(), rng.integers(50, size=60).tolist())
        for u in random_corpus(12)
    ]
    quality = measure(corpus, frame_rate_hz=RATE, num_units=50, resamples=20)
    assert quality.pnmi is not None
    assert quality.speaker_information is not None
    assert quality.pnmi.chance == pytest.approx(quality.pnmi.value, abs=0.03)
    assert quality.speaker_information.value < 0.02 < (quality.speaker_information.chance or 0)


def test_units_that_name_the_speaker_have_all_speaker_information() -> None:
    corpus = [utterance(f"u{i}", f"s{i % 4}", [1, 2, 3], [i % 4] * 9) for i in range(16)]
    quality = measure(corpus, frame_rate_hz=RATE, num_units=4, resamples=5, with_shift=False)
    assert quality.speaker_information is not None
    assert quality.speaker_information.value == pytest.approx(1.0)


def odd_corpus(late_s: float) -> list[Labeled]:
    """Phones of random length; each frame's unit is the phone `late_s` before its center."""
    rng = np.random.default_rng(3)
    corpus = []
    for number in range(30):
        borders = np.concatenate([[0.0], np.cumsum(rng.uniform(0.05, 0.25, size=60))])
        sounds = rng.integers(10, size=60)
        phones = tuple((f"P{s}", a, b) for s, (a, b) in zip(sounds, itertools.pairwise(borders), strict=True))
        centers = (np.arange(int(borders[-1] * RATE)) + 0.5) / RATE - late_s
        heard = np.clip(np.searchsorted(borders, centers, side="right") - 1, 0, 59)
        corpus.append(Labeled(id=f"u{number}", speaker="s", units=sounds[heard].astype(np.int16), phones=phones))
    return corpus


@pytest.mark.parametrize("late_ms", [-120, -25, 0, 40, 80])
def test_a_timing_bug_shows_as_a_displaced_peak(late_ms: int) -> None:
    """Units that come `late_ms` too late must be moved by -late_ms, also when that is no whole frame."""
    curve = shift_curve(odd_corpus(late_ms / 1000), frame_rate_hz=RATE, num_units=10, resamples=20)
    assert curve is not None
    assert curve.peak_ms == pytest.approx(-late_ms, abs=4)
    assert curve.peak_low_ms - 2 <= -late_ms <= curve.peak_high_ms + 2
    assert (curve.offsets_ms[0], curve.offsets_ms[-1], len(curve.offsets_ms)) == (-320, 320, 65)
    if late_ms:
        assert not curve.on_time


def test_phone_at_a_time() -> None:
    phones = (("AH0", 0.1, 0.2), ("sp", 0.2, 0.3), ("B", 0.4, 0.5))
    index = phone_index([Labeled(id="u", speaker="s", units=np.zeros(3, np.int16), phones=phones)])
    assert sorted(index) == ["AH", "B", "sil"]
    names = {number: name for name, number in index.items()} | {-1: None}
    found = [names[int(i)] for i in phones_at(phones, index, np.array([0.05, 0.1, 0.25, 0.35, 0.49, 0.5]))]
    assert found == [None, "AH", "sil", "sil", "B", None]
    assert [plain_phone(label) for label in ("AH0", "_", "spn", "i:", "3:", "I2")] == [
        "AH",
        "sil",
        "spn",
        "i:",
        "3:",
        "I2",
    ]


@given(
    query=st.lists(st.integers(0, 3), max_size=7),
    others=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=7), min_size=1, max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_edit_distance_is_that_of_the_textbook(query: list[int], others: list[list[int]]) -> None:
    def slow(a: list[int], b: list[int]) -> int:
        table = {(i, 0): i for i in range(len(a) + 1)} | {(0, j): j for j in range(len(b) + 1)}
        for i, j in itertools.product(range(1, len(a) + 1), range(1, len(b) + 1)):
            swap = table[i - 1, j - 1] + (a[i - 1] != b[j - 1])
            table[i, j] = min(swap, table[i - 1, j] + 1, table[i, j - 1] + 1)
        return table[len(a), len(b)]

    longest = max(map(len, others))
    padded = np.array([other + [-1] * (longest - len(other)) for other in others], np.int32)
    got = edit_distances(np.array(query, np.int32), padded, np.array([len(o) for o in others]))
    assert got.tolist() == [slow(query, other) for other in others]


def token(word: str, speaker: str, utterance: str, units: list[int]) -> WordToken:
    return WordToken(word=word, speaker=speaker, utterance=utterance, units=np.array(units, np.int32))


def test_retrieval_never_finds_the_query_and_shares_ties() -> None:
    tokens = [
        token("cat", "a", "1", [1, 2, 3]),
        token("cat", "b", "2", [1, 2, 4]),
        token("dog", "b", "2", [1, 2, 5]),
        token("cat", "a", "3", [9, 9, 9]),
        token("dog", "a", "3", [1, 2, 3]),
    ]
    other = retrieve(tokens, queries=100, seed=0, other_speakers=True)
    assert other is not None
    # Both of speaker a's good tokens tie between cat and dog; [9, 9, 9] ties too; b's cat and dog tie likewise.
    assert sorted(other.right.tolist()) == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.5])
    same = retrieve(tokens, queries=100, seed=0, other_speakers=False)
    assert same is not None
    # Only the two cats of speaker a can be found: the first one finds dog of utterance 3, the other ties with nothing.
    assert sorted(same.right.tolist()) == [0.0, 1.0]
    assert retrieve(tokens[:1], queries=5, seed=0, other_speakers=True) is None


def test_word_tokens_take_frames_by_their_center() -> None:
    words = (("Printing,", 0.0, 0.09), ("...", 0.09, 0.1), ("in", 0.1, 0.18), ("a", 0.18, 0.19))
    made = word_tokens([Labeled(id="u", speaker="s", units=np.array([5, 5, 7, 8, 9]), words=words)], RATE)
    # Centers lie at 20, 60, 100, 140, 180 ms.
    assert [(t.word, t.units.tolist()) for t in made] == [("printing", [5]), ("in", [7, 8]), ("a", [9])]


def test_bad_units_are_named_and_empty_corpora_refused() -> None:
    with pytest.raises(DataError, match=r"utterance u: units 3\.\.3, allowed 0\.\.2"):
        measure([utterance("u", "s", [3])], frame_rate_hz=RATE, num_units=3)
    with pytest.raises(DataError, match="no utterances"):
        measure([], frame_rate_hz=RATE, num_units=3)


def test_without_labels_only_costs_are_reported() -> None:
    bare = [Labeled(id="u", speaker="s", units=np.array([1, 1, 2], np.int16))]
    quality = measure(bare, frame_rate_hz=RATE, num_units=3, resamples=3)
    assert quality.pnmi is quality.shift is quality.retrieval_other is quality.speaker_information is None
    assert quality.labeled_frames == 0
    assert quality.units_per_second.value == pytest.approx(2 / 3 * RATE)
    assert [name for name, *_ in quality_table(quality)][:2] == ["utterances", "speakers"]


def test_equal_seeds_give_equal_figures() -> None:
    corpus = random_corpus(8)
    kwargs = {"frame_rate_hz": RATE, "num_units": 12, "resamples": 5}
    assert measure(corpus, **kwargs) == measure(corpus, **kwargs)  # type: ignore[arg-type]


def test_page_is_complete_and_escapes_names(tmp_path: Path) -> None:
    quality = measure(random_corpus(6), frame_rate_hz=RATE, num_units=12, resamples=5)
    write_quality_page(tmp_path / "q.html", quality, title="a <b> & c")
    page = (tmp_path / "q.html").read_text(encoding="utf-8")
    assert "a &lt;b&gt; &amp; c" in page
    assert "a <b>" not in page
    assert 'src="http' not in page
    assert "Plotly.newPlot" in page
    assert "PNMI" in page
