"""Catches words and phones that drift apart, vanish, overlap or leave the audio when samples become frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.records import NO_TIME, dedup, expand
from speechscale.speech.frames import Event, frame_boundaries, whole_frames, word_frames
from speechscale.speech.units import phone_frames, phone_losses, phone_tokenizer

RATE = 16_000
PHONES = phone_tokenizer([f"p{i}" for i in range(8)])
SETTINGS = settings(max_examples=200, deadline=None)


@st.composite
def spoken(draw: st.DrawFn) -> tuple[list[Event], int]:
    """Ordered phones with gaps and very short ones, and the length of the audio."""
    phones, at = [], draw(st.integers(0, 500))
    for _ in range(draw(st.integers(0, 25))):
        at += draw(st.sampled_from([0, 0, 0, 0, 40, 900]))
        length = draw(st.one_of(st.integers(0, 60), st.integers(100, 4000)))
        phones.append((f"p{draw(st.integers(0, 7))}", at, at + length))
        at += length
    return phones, at + draw(st.integers(0, 700))


@given(spoken())
@SETTINGS
def test_phone_frames_fill_the_audio_and_no_phone_is_lost(case: tuple[list[Event], int]) -> None:
    phones, samples = case
    frames = phone_frames(PHONES, phones, samples)
    assert len(frames) == samples // 160
    assert frames.dtype == np.int16
    np.testing.assert_array_equal(expand(*dedup(frames)), frames)
    lasting = [p for p in phones if p[2] > p[1]]
    lost = len(phones) - len(lasting) + max(0, len(lasting) - samples // 160)
    assert phone_losses(PHONES, phones, samples) == {"squeezed": lost, "unknown": 0}


@given(spoken(), st.data())
@SETTINGS
def test_words_made_of_phones_share_their_frames(case: tuple[list[Event], int], data: st.DataObject) -> None:
    phones, samples = case
    ends = sorted(data.draw(st.sets(st.integers(1, max(1, len(phones))), max_size=8)))
    groups = [phones[a:b] for a, b in zip([0, *ends], ends, strict=False) if phones[a:b]]
    words = [("word", group[0][1], group[-1][2]) for group in groups]
    frames = samples // 160
    places = word_frames(words, 100.0, RATE, frames, phones=phones)
    alone = word_frames(phones, 100.0, RATE, frames)
    last = 0
    for group, (start, end) in zip(groups, places, strict=True):
        first, last = last, last + len(group)
        assert (start, end) == (alone[first, 0], alone[last - 1, 1])
        expected = np.repeat(PHONES.label_index[group[0][0]], alone[first, 1] - alone[first, 0])
        units = phone_frames(PHONES, phones, samples)[start:end]
        np.testing.assert_array_equal(units[: len(expected)], expected)


@given(spoken(), st.sampled_from([25.0, 50.0, 100.0, 12.5, 75.0]), st.data())
@SETTINGS
def test_word_frames_are_ordered_and_inside(
    case: tuple[list[Event], int], frame_rate_hz: float, data: st.DataObject
) -> None:
    words, samples = case
    frames = whole_frames(samples, frame_rate_hz, RATE)
    unknown = data.draw(st.sets(st.integers(0, 30)))
    words = [(w, NO_TIME, NO_TIME) if i in unknown else (w, s, e) for i, (w, s, e) in enumerate(words)]
    places = word_frames(words, frame_rate_hz, RATE, frames)
    assert places.shape == (len(words), 2)
    assert places.dtype == np.int32
    timed = [i for i, word in enumerate(words) if word[1] != NO_TIME]
    assert (np.delete(places, timed, axis=0) == NO_TIME).all()
    border = places[timed].ravel()
    assert (np.diff(border) >= 0).all()
    assert ((border >= 0) & (border <= frames)).all()
    lasting = [i for i in timed if words[i][2] > words[i][1]]
    if len(lasting) <= frames:
        assert (places[lasting, 1] > places[lasting, 0]).all()


@given(
    st.lists(st.integers(641, 20_000), min_size=1, max_size=20),
    st.integers(0, 3000),
)
@SETTINGS
def test_long_words_are_simply_rounded(lengths: list[int], start: int) -> None:
    ends = start + np.cumsum(lengths)
    starts = np.concatenate(([start], ends[:-1]))
    words = [("w", int(s), int(e)) for s, e in zip(starts, ends, strict=True)]
    places = word_frames(words, 25.0, RATE, int(ends[-1]) // 640 + 1)
    np.testing.assert_array_equal(places, np.ceil(np.stack([starts, ends], axis=1) / 640 - 0.5))


def test_frame_belongs_to_the_event_that_holds_its_center() -> None:
    """Border 1.5 frames: the center of frame 1 lies on it and so belongs to what starts there."""
    phones = [("p1", 0, 240), ("p2", 240, 480)]
    assert phone_frames(PHONES, phones, 480).tolist() == [2, 3, 3]
    phones = [("p1", 0, 241), ("p2", 241, 480)]
    assert phone_frames(PHONES, phones, 480).tolist() == [2, 2, 3]


def test_short_phone_borrows_a_frame_from_the_next() -> None:
    phones = [("p0", 0, 320), ("p1", 320, 350), ("p2", 350, 960)]
    assert phone_frames(PHONES, phones, 960).tolist() == [1, 1, 2, 3, 3, 3]


def test_short_phone_at_the_end_borrows_from_the_one_before() -> None:
    phones = [("p0", 0, 470), ("p1", 470, 480)]
    assert phone_frames(PHONES, phones, 480).tolist() == [1, 1, 2]
    borders, at = frame_boundaries(np.array([[0, 470], [470, 480]]), 100.0, RATE, 3)
    assert (borders.tolist(), at.tolist()) == ([0, 470, 480], [0, 2, 3])


def test_gaps_and_unknown_phones_are_other_and_counted() -> None:
    phones = [("p0", 160, 320), ("??", 320, 480), ("p1", 800, 800)]
    assert phone_frames(PHONES, phones, 960).tolist() == [0, 1, 0, 0, 0, 0]
    assert phone_losses(PHONES, phones, 960) == {"squeezed": 1, "unknown": 1}


def test_too_many_phones_are_counted() -> None:
    phones = [(f"p{i}", 10 * i, 10 * i + 10) for i in range(8)]
    assert phone_frames(PHONES, phones, 320).tolist() == [7, 8]
    assert phone_losses(PHONES, phones, 320) == {"squeezed": 6, "unknown": 0}


def test_rounding_is_exact_far_out() -> None:
    """Ten hours in, float seconds would already be off."""
    start = 10 * 3600 * RATE + 320
    assert word_frames([("w", start, start + 640)], 25.0, RATE, 10 * 3600 * 25 + 2).tolist() == [[900_000, 900_001]]


def test_border_inside_a_phone_stays_inside_its_frames() -> None:
    phones = [("p0", 0, 10), ("p1", 10, 20), ("p2", 20, 480)]
    words = [("a", 0, 15), ("b", 15, 480)]
    assert word_frames(words, 100.0, RATE, 3, phones=phones).tolist() == [[0, 1], [1, 3]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([("a", 0, 160), ("b", 100, 400)], r"word 1 \('b'\) starts at sample 100, before word 0 ends at 160; align"),
        ([("a", 0, 5000)], r"word 0 \('a'\) spans samples 0\.\.5000, the audio has at most 1759; align"),
        ([("a", 300, 200)], r"spans samples 300\.\.200"),
        ([("a", -7, 200)], r"spans samples -7\.\.200"),
    ],
)
def test_impossible_times_are_named(words: list[Event], message: str) -> None:
    with pytest.raises(DataError, match=message):
        word_frames(words, 100.0, RATE, 10)
    with pytest.raises(DataError, match=message.replace("word", "phone")):
        phone_frames(PHONES, words, 1600)
