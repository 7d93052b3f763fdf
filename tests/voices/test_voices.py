"""Catches audio that depends on what was spoken before, words without time, and an engine that hangs or stays."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError, MissingExtra
from speechscale.records import Utterance
from speechscale.voices import espeak_process, worker_process
from speechscale.voices.espeak import GRID_SAMPLES, MIN_PAUSE_S, VOICES, Spoken, phone_inventory, speak_shard

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="the extra 'voices' is not installed"
)

SENTENCES = (
    "there was a cat in the house.",
    "Anna does not live near the lake, but on the hill.",
    "he might have been out of bed!",
    "she sells 20 shells from the shop.",
)


COMMON = ["the", "in", "on", "a", "was", "there", "for", "of", "be", "to", "it", "I", "no", "more", "been"]
COMMON += ["7", "-", ",", "x!", "O'Neil", "U.S.", "don't"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The engine processes started by the test, in order."""
    processes: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            processes.append(self)

    monkeypatch.setattr(worker_process.subprocess, "Popen", Recorded)
    return processes


def utterance(id: str, *segments: str, speaker: str = "us-f2") -> Utterance:
    return Utterance(id=id, text=" ".join(segments), speaker=speaker, split="train", segments=segments)


def speak(*utterances: Utterance, **options: Any) -> dict[str, Spoken]:
    return {spoken.id: spoken for spoken in speak_shard(utterances, **options)}


def assert_equal(left: Spoken, right: Spoken) -> None:
    assert left.audio.tobytes() == right.audio.tobytes()
    assert left.words == right.words
    assert left.phones == right.phones


def assert_consistent(spoken: Spoken, segments: tuple[str, ...]) -> None:
    assert spoken.audio.dtype == np.float32
    assert np.isfinite(spoken.audio).all()
    assert np.abs(spoken.audio).max() <= 1
    assert [text for text, _, _ in spoken.words] == " ".join(segments).split()
    borders = [0] + [end for _, _, end in spoken.phones]
    assert [start for _, start, _ in spoken.phones] == borders[:-1]
    assert borders[-1] == len(spoken.audio)
    assert borders == sorted(set(borders))
    flat = [sample for _, start, end in spoken.words for sample in (start, end)]
    assert flat == sorted(flat)
    assert set(flat) <= set(borders)


def test_twelve_voices_and_more_for_evaluation_with_unseen_variants() -> None:
    seen = {voice.variant for voice in VOICES.values() if not voice.held_out}
    held_out = {voice.variant for voice in VOICES.values() if voice.held_out}
    assert sum(not voice.held_out for voice in VOICES.values()) >= 12
    assert len(held_out) >= 3
    assert not seen & held_out
    assert all(name == voice.name for name, voice in VOICES.items())


def test_all_voices_sound_different() -> None:
    spoken = speak(*(utterance(name, SENTENCES[0], speaker=name) for name in VOICES))
    assert len({one.audio.tobytes() for one in spoken.values()}) == len(VOICES)


def test_audio_does_not_depend_on_order_shard_or_neighbors() -> None:
    voices = ["us-f2", "gb-m3", "us-m1", "gb-f1"]  # us-f2 uses noise, which the engine seeds from the clock.
    shard = [utterance(f"{v}-{i}", s, speaker=v) for v in voices for i, s in enumerate(SENTENCES)]
    whole = speak(*shard)
    for again in (speak(*shard), speak(*reversed(shard)), speak(*shard[5:9])):
        for id, spoken in again.items():
            assert_equal(spoken, whole[id])


def test_a_segment_sounds_the_same_anywhere_and_starts_on_the_grid() -> None:
    spoken = speak(
        utterance("alone", SENTENCES[1]),
        utterance("last", SENTENCES[0], SENTENCES[1]),
        utterance("prompt", SENTENCES[0]),
    )
    alone, last, prompt = spoken["alone"], spoken["last"], spoken["prompt"]
    start = len(last.audio) - len(alone.audio)
    assert start % GRID_SAMPLES == 0
    assert MIN_PAUSE_S * 16_000 <= start - len(prompt.audio) < MIN_PAUSE_S * 16_000 + GRID_SAMPLES
    assert last.audio[start:].tobytes() == alone.audio.tobytes()
    assert last.audio[: len(prompt.audio)].tobytes() == prompt.audio.tobytes()
    assert not last.audio[len(prompt.audio) : start].any()
    assert last.words == prompt.words + [(w, start + a, start + b) for w, a, b in alone.words]
    assert_consistent(last, (SENTENCES[0], SENTENCES[1]))


def test_words_that_the_engine_merges_have_their_own_time() -> None:
    segment = "there was in the on the from the"
    for name in ("us-f2", "gb-m3", "scotland-m2", "caribbean-m7"):
        spoken = speak(utterance("u", segment, speaker=name))["u"]
        assert_consistent(spoken, (segment,))
        assert all(end - start >= 640 for _, start, end in spoken.words), name
        labels = [[p for p, a, b in spoken.phones if start <= a < end] for _, start, end in spoken.words]
        assert labels[1][0] == "w"
        assert labels[1][-1] == "z"
        assert all(labels[i][0] in ("D", "d") for i in (0, 3, 5, 7)), labels


def test_tokens_without_sound_are_empty_and_others_are_not() -> None:
    segment = 'he said "go away" -- then - 1984 was $3.50 & more | bars ...'
    spoken = speak(utterance("u", segment))["u"]
    assert_consistent(spoken, (segment,))
    assert {text for text, start, end in spoken.words if start == end} == {"--", "-", "|", "..."}


def test_words_sound_inside_their_spans_only() -> None:
    spoken = speak(utterance("u", *SENTENCES))["u"]
    inside = np.zeros(len(spoken.audio), bool)
    for _, start, end in spoken.words:
        inside[start:end] = True
    power = spoken.audio.astype(np.float64) ** 2
    assert power[~inside].sum() < 0.01 * power.sum()
    assert 0.02 < (~inside).mean() < 0.5


def test_engine_reads_no_commands_from_control_characters() -> None:
    spoken = speak(utterance("a", "go\x01+9p home\x07 now"), utterance("b", "go"))
    assert [text for text, _, _ in spoken["a"].words] == ["go\x01+9p", "home\x07", "now"]
    assert_consistent(spoken["a"], ("go\x01+9p home\x07 now",))


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.lists(
            st.one_of(
                st.sampled_from(COMMON),
                st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=4),
            ),
            min_size=1,
            max_size=7,
        ),
        min_size=3,
        max_size=6,
    )
)
def test_any_text_is_aligned_or_reported(segments: list[list[str]]) -> None:
    shard = [utterance(str(i), " ".join(words)) for i, words in enumerate(segments)]
    errors: dict[str, str] = {}
    spoken = speak(*shard, on_error=errors.__setitem__)
    assert spoken.keys() | errors.keys() == {one.id for one in shard}
    assert not spoken.keys() & errors.keys()
    for one in shard:
        if one.id in spoken:
            assert_consistent(spoken[one.id], one.segments)


def test_killed_engine_is_replaced_with_equal_results(started: list[subprocess.Popen[bytes]]) -> None:
    shard = [utterance(str(i), sentence, speaker="us-m1") for i, sentence in enumerate(SENTENCES)]
    undisturbed = speak(*shard)
    started.clear()
    disturbed = {}
    for spoken in speak_shard(shard):
        disturbed[spoken.id] = spoken
        started[-1].kill()
        started[-1].wait()
    assert len(started) == len(shard)
    for id, spoken in undisturbed.items():
        assert_equal(spoken, disturbed[id])


def test_hanging_engine_is_replaced_with_equal_results(started: list[subprocess.Popen[bytes]]) -> None:
    shard = [utterance(str(i), sentence) for i, sentence in enumerate(SENTENCES[:2])]
    undisturbed = speak(*shard)
    started.clear()
    speaking = speak_shard(shard, timeout_s=2.0)
    disturbed = [next(speaking)]
    os.kill(started[0].pid, signal.SIGSTOP)
    disturbed += speaking
    assert len(started) == 2
    for spoken in disturbed:
        assert_equal(spoken, undisturbed[spoken.id])


def test_utterance_that_loses_the_engine_twice_is_reported_and_others_go_on(
    started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = espeak_process.EngineProcess.speak

    def hang(self: espeak_process.EngineProcess, tone: espeak_process.Tone, text: str) -> Any:
        if "cat" in text:
            ask(self, tone, "hello.")
            os.kill(started[-1].pid, signal.SIGSTOP)
        return ask(self, tone, text)

    monkeypatch.setattr(espeak_process.EngineProcess, "speak", hang)
    errors: dict[str, str] = {}
    spoken = speak(
        utterance("bad", SENTENCES[0]), utterance("good", SENTENCES[1]), timeout_s=1.0, on_error=errors.__setitem__
    )
    assert list(spoken) == ["good"]
    assert "did not answer in 1 s, twice" in errors["bad"]
    assert len(started) == 3


def _gone(pid: int) -> bool:
    """Whether a process has ended (an orphan may stay as a zombie where nobody collects orphans)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_closing_early_leaves_no_process(started: list[subprocess.Popen[bytes]]) -> None:
    speaking = speak_shard([utterance(str(i), SENTENCES[i]) for i in range(3)])
    next(speaking)
    assert isinstance(speaking, Iterator)
    speaking.close()  # type: ignore[attr-defined]
    assert started[0].returncode == -signal.SIGKILL


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_engine_ends_with_its_parent(how: signal.Signals) -> None:
    program = (
        "import time\n"
        "from speechscale.voices import espeak_process as e\n"
        "engine = e.EngineProcess(60.0)\n"
        "try:\n"
        "    engine.speak(e.Tone(voice='en', rate_wpm=175, pitch=50), 'hello')\n"
        "    print(engine._process.pid, flush=True)\n"
        "    time.sleep(60)\n"
        "finally:\n"
        "    engine.stop()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not _gone(pid)
        parent.send_signal(how)
        parent.wait(timeout=20)
        deadline = time.monotonic() + 20
        while not _gone(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert _gone(pid)


@pytest.mark.parametrize(
    ("segments", "reason"), [((), "no segments"), (("...",), "no letters"), (("fine.", " "), "no letters")]
)
def test_segment_without_words_is_reported(segments: tuple[str, ...], reason: str) -> None:
    bad, good = utterance("bad", *segments), utterance("good", "fine.")
    errors: dict[str, str] = {}
    assert list(speak(bad, good, on_error=errors.__setitem__)) == ["good"]
    assert list(errors) == ["bad"]
    assert reason in errors["bad"]
    assert "; " in errors["bad"]
    with pytest.raises(DataError, match=f"utterance bad: .*{reason}"):
        speak(bad, good)


def test_unknown_voice_names_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"utterance u: no voice 'us-f9'.*us-f2, gb-m3"):
        speak_shard([utterance("u", "fine.", speaker="us-f9")])
    with pytest.raises(DataError, match="us-f9"):
        phone_inventory(["us-f9"])


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingExtra, match=r"speechscale\[voices\]"):
        speak_shard([utterance("u", "fine.")])


def test_inventory_is_fixed_and_covers_other_texts_in_all_voices() -> None:
    inventory = phone_inventory(list(VOICES))
    assert inventory == tuple(sorted(set(inventory)))
    assert phone_inventory(["us-f2", "gb-m3"]) == phone_inventory(["gb-f1", "us-m1", "us-f2"])
    assert "_" in inventory
    assert 60 <= len(inventory) <= 90
    text = "nathan quickly measures eleven judges beside the winding river, near an oak tree."
    for spoken in speak(*(utterance(name, *SENTENCES, text, speaker=name) for name in VOICES)).values():
        assert {label for label, _, _ in spoken.phones} <= set(inventory)
