"""Catches engines that break the promises of `Spoken`, a cast that mixes voices up, audio that depends on history."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.records import NO_TIME, Utterance
from speechscale.voices import engines, flite
from speechscale.voices.engines import ENGINES, Cast, VoiceOptions, parse_voice
from speechscale.voices.segments import EngineDown, OnError, speak_by_segment
from speechscale.voices.spoken import Spoken, check_spoken, join_segments, owners
from speechscale.voices.word_events import has_letters

NO_ESPEAK = importlib.util.find_spec("espeakng_loader") is None
NO_FLITE = flite.missing_library()
needs_flite = pytest.mark.skipif(bool(NO_FLITE), reason=NO_FLITE)
REAL = [
    pytest.param(
        ("us-f2", "gb-m3"),
        marks=pytest.mark.skipif(NO_ESPEAK, reason="the extra 'voices' is not installed"),
        id="espeak",
    ),
    pytest.param(("flite:kal16", "flite:slt"), marks=needs_flite, id="flite"),
]
SENTENCES = (
    '"Hello," she said, there was 1984 well-known (s)ong e.g. don\'t -- $3.50 go!',
    "The naïve café in New York closes at 5 p.m. - O'Neil's word(s) & more...",
    "In the house on the hill there was a dog.",
)


def utterance(id: str, *segments: str, speaker: str = "us-f2") -> Utterance:
    return Utterance(id=id, text=" ".join(segments), speaker=speaker, split="", segments=segments)


def assert_consistent(spoken: Spoken, segments: Sequence[str]) -> None:
    """What an engine with word and phone times promises, checked apart from `check_spoken`."""
    assert spoken.audio.dtype == np.float32
    assert np.isfinite(spoken.audio).all()
    assert 0.01 < np.abs(spoken.audio).max() <= 1
    assert [text for text, _, _ in spoken.words] == " ".join(segments).split()
    borders = [0] + [end for _, _, end in spoken.phones]
    assert [start for _, start, _ in spoken.phones] == borders[:-1]
    assert borders[-1] == len(spoken.audio)
    assert borders == sorted(set(borders))
    flat = [sample for _, start, end in spoken.words for sample in (start, end)]
    assert flat == sorted(flat)
    assert set(flat) <= set(borders)
    for text, start, end in spoken.words:
        assert end > start or not has_letters(text), text


@pytest.mark.parametrize("voices", REAL)
def test_real_engines_time_every_word_and_tile_the_audio(voices: tuple[str, ...]) -> None:
    said = [utterance(f"{v}-{i}", s, SENTENCES[2], speaker=v) for v in voices for i, s in enumerate(SENTENCES)]
    spoken = list(Cast(voices).speak(said))
    assert [one.id for one in spoken] == [one.id for one in said]
    for one, asked in zip(spoken, said, strict=True):
        assert_consistent(one, asked.segments)
        check_spoken(one, asked.text.split())


@pytest.mark.parametrize("voices", REAL)
def test_audio_does_not_depend_on_what_was_said_before(voices: tuple[str, ...]) -> None:
    """slt of flite never repeats itself within one process; forks must."""
    said = [utterance(f"{v}-{i}", s, speaker=v) for v in voices for i, s in enumerate(SENTENCES[1:])]
    whole = {one.id: one for one in Cast(voices).speak(said)}
    for order in (said[::-1], said[1:2]):
        for again in Cast(voices).speak(order):
            assert again.audio.tobytes() == whole[again.id].audio.tobytes()
            assert again.words == whole[again.id].words


@pytest.mark.parametrize("voices", REAL)
def test_words_sound_inside_their_spans(voices: tuple[str, ...]) -> None:
    """Catches times of another word, and offsets of a trimmed edge."""
    (spoken,) = Cast(voices[:1]).speak([utterance("u", SENTENCES[2], SENTENCES[2], speaker=voices[0])])
    inside = np.zeros(len(spoken.audio), bool)
    for _, start, end in spoken.words:
        inside[start:end] = True
    power = spoken.audio.astype(np.float64) ** 2
    assert power[~inside].sum() < 0.01 * power.sum()
    assert 0.01 < (~inside).mean() < 0.5


@pytest.mark.skipif(NO_ESPEAK or bool(NO_FLITE), reason="needs espeak and flite")
def test_a_cast_keeps_the_order_over_engines_and_reports_each_failure_once() -> None:
    voices = ("us-f2", "flite:kal16")
    texts = ["one two.", "...", "three.", "four five.", "--", "six."]
    said = [utterance(str(i), text, speaker=voices[i % 2]) for i, text in enumerate(texts)]
    errors: dict[str, str] = {}
    spoken = list(Cast(voices).speak(said, errors.__setitem__))
    assert [one.id for one in spoken] == ["0", "2", "3", "5"]
    assert errors.keys() == {"1", "4"}
    assert all("; " in message for message in errors.values())


class Fake:
    """Says nothing for 'bad', reports late (an engine that works ahead), speaks a constant otherwise."""

    name, voices, sample_rate_hz = "fake", ("a",), 16_000
    gives_word_times, gives_phone_times, deterministic = False, False, True

    def check_voice(self, voice: str) -> None:
        if voice != "a":
            raise DataError(f"no fake voice '{voice}'; choose a")

    def voice_version(self, voice: str) -> str:
        return "1"

    def licence(self, voice: str) -> str:
        return "none"

    def speak(self, utterances: Sequence[Utterance], on_error: OnError | None) -> Iterator[Spoken]:
        for one in utterances:
            if on_error is not None and one.text == "bad":
                on_error(one.id, "it is bad; drop it")
        for one in utterances:
            if one.text != "bad":
                words = [(word, NO_TIME, NO_TIME) for word in one.text.split()]
                yield Spoken(id=one.id, audio=np.full(160, 0.5, np.float32), words=words, phones=[])


@given(st.lists(st.sampled_from(["good", "bad"]), max_size=12))
def test_nothing_is_lost_whenever_an_engine_reports(texts: list[str]) -> None:
    table = dict(ENGINES)
    ENGINES["fake"] = lambda options: Fake()
    try:
        errors: dict[str, str] = {}
        said = [utterance(str(i), text, speaker="fake:a") for i, text in enumerate(texts)]
        spoken = [one.id for one in Cast(["fake:a"]).speak(said, errors.__setitem__)]
        assert spoken == [str(i) for i, text in enumerate(texts) if text == "good"]
        assert list(errors) == [str(i) for i, text in enumerate(texts) if text == "bad"]
    finally:
        ENGINES.clear()
        ENGINES.update(table)


def test_without_on_error_the_first_failure_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "fake", lambda options: Fake())
    with pytest.raises(DataError, match="utterance 1: it is bad"):
        list(
            Cast(["fake:a"]).speak([utterance("0", "good", speaker="fake:a"), utterance("1", "bad", speaker="fake:a")])
        )


@pytest.mark.parametrize(
    ("address", "engine", "voice", "label"),
    [
        ("us-f2", "espeak", "us-f2", "us-f2"),
        ("espeak:us-f2", "espeak", "us-f2", "us-f2"),
        ("flite:slt", "flite", "slt", "flite:slt"),
        ("piper:/a/b c/en_US-x.onnx#3", "piper", "/a/b c/en_US-x.onnx#3", "piper:en_US-x#3"),
        ("http:alloy", "http", "alloy", "http:alloy"),
    ],
)
def test_addresses(address: str, engine: str, voice: str, label: str) -> None:
    """Catches machine paths in the speakers of a corpus."""
    parsed = parse_voice(address)
    assert (parsed.engine, parsed.voice, parsed.label) == (engine, voice, label)


@pytest.mark.parametrize("bad", ["nobody:x", "flite:", "", "espeak: "])
def test_unusable_addresses_are_refused(bad: str) -> None:
    with pytest.raises(DataError, match=r"no engine|missing"):
        Cast([bad])


def test_a_voice_twice_or_unknown_is_refused() -> None:
    with pytest.raises(DataError, match="more than once"):
        Cast(["us-f2", "espeak:us-f2"])
    with pytest.raises(DataError, match="more than once"):
        Cast([])
    with pytest.raises(DataError, match="no voice 'flite:slt' in this cast"):
        list(Cast(["us-f2"]).speak([utterance("u", "hi", speaker="flite:slt")]))
    if not NO_ESPEAK:
        with pytest.raises(DataError, match="no espeak voice 'us-f99'"):
            Cast(["us-f99"]).check()


def test_a_missing_flite_says_which_command_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*args: Any, **kwargs: Any) -> None:
        raise OSError("cannot open shared object file")

    monkeypatch.setattr(flite.ctypes, "CDLL", absent)
    with pytest.raises(DataError, match="apt-get install flite"):
        Cast(["flite:slt"]).check()


@needs_flite
def test_flite_says_typographic_text_and_refuses_what_it_would_leave_out() -> None:
    """Catches words that stand in the text and are not in the audio: flite reads ASCII only."""
    plain, typeset = "don't go - naive cafe", "don’t go — naïve café"
    said = [utterance(text, text, speaker="flite:kal16") for text in (plain, typeset, "the 日本 word")]
    errors: dict[str, str] = {}
    one, other = Cast(["flite:kal16"]).speak(said, errors.__setitem__)
    assert one.audio.tobytes() == other.audio.tobytes()
    assert [word for word, _, _ in other.words] == typeset.split()
    assert "leaves out '日本'" in errors["the 日本 word"]


@needs_flite
def test_facts_name_version_and_licence() -> None:
    facts = Cast(["flite:slt"], VoiceOptions()).check()["flite:slt"]
    assert "BSD" in str(facts["licence"])
    assert facts["word_times"]


def test_an_engine_that_is_down_is_never_a_dropped_utterance() -> None:
    """Catches a dead server that silently empties a corpus."""

    def down(voice: str, segment: str) -> Spoken:
        raise EngineDown("server gone; start it")

    errors: dict[str, str] = {}
    with pytest.raises(EngineDown):
        list(speak_by_segment([utterance("u", "hi")], down, on_error=errors.__setitem__))
    assert not errors


def spoken(words: list[tuple[str, int, int]], samples: int = 100, **changes: Any) -> Spoken:
    values: dict[str, Any] = {
        "id": "u",
        "audio": np.zeros(samples, np.float32),
        "words": words,
        "phones": [],
        **changes,
    }
    return Spoken(**values)


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        (spoken([("a", 0, 5)], samples=0), "no samples"),
        (spoken([("a", 0, 5)], audio=np.array([np.nan], np.float32)), "NaN"),
        (spoken([("a", 0, 5)], audio=np.array([1.5] * 10, np.float32)), "full scale"),
        (spoken([("b", 0, 5)]), "other ones"),
        (spoken([("a", 0, 500)]), "outside"),
        (spoken([("a", 9, 5)]), "out of order"),
        (spoken([("a", 0, 5)], phones=[("x", 0, 40), ("y", 41, 100)]), "tile"),
    ],
)
def test_broken_promises_of_engines_are_refused(broken: Spoken, what: str) -> None:
    with pytest.raises(DataError, match=what):
        check_spoken(broken, ["a"])


def test_words_without_time_stay_so_when_segments_are_joined() -> None:
    """Catches NO_TIME that is moved by an offset."""
    part = spoken([("a", NO_TIME, NO_TIME), ("b", 3, 9)])
    joined = join_segments("j", [part, part])
    assert joined.words[0] == joined.words[2] == ("a", NO_TIME, NO_TIME)
    assert joined.words[3][1] - joined.words[1][1] == len(joined.audio) - 100


WORDS = st.lists(st.text("ab-'.,1é", min_size=1, max_size=6), min_size=1, max_size=8)


@given(WORDS, st.data())
def test_pieces_of_the_very_text_find_their_words(words: list[str], data: Any) -> None:
    text = "".join(words)
    home = [index for index, word in enumerate(words) for _ in word]
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(text) - 1)))))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True) if a < b]
    found = owners(words, pieces)
    position = 0
    for piece, owner in zip(pieces, found, strict=True):
        assert owner in home[position : position + len(piece)] or owner == max(found[: pieces.index(piece) + 1])
        position += len(piece)
    assert found == sorted(found)


@given(WORDS, st.lists(st.text(max_size=4), max_size=8))
def test_pieces_of_any_other_text_are_owned_in_order(words: list[str], pieces: list[str]) -> None:
    found = owners(words, pieces)
    assert len(found) == len(pieces)
    assert found == sorted(found)
    assert all(0 <= owner < len(words) for owner in found)


def test_pieces_survive_what_an_engine_rewrites() -> None:
    assert owners(["I'm", "“fine”,", "Bob."], ["I", "'m", '"', "fine", '"', ",", "Bob", "."]) == [
        0,
        0,
        0,
        1,
        1,
        1,
        2,
        2,
    ]


def test_registry_names_are_the_engines_own() -> None:
    assert set(engines.ENGINES) == {"espeak", "flite", "piper", "kokoro", "http"}
