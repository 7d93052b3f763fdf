"""Catches a server's failure taken for speech, a key that leaks, and drops that are really an outage."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pytest
import soundfile

from speechscale.errors import DataError
from speechscale.records import NO_TIME, Utterance
from speechscale.voices import endpoint, http_client
from speechscale.voices.endpoint import EndpointEngine
from speechscale.voices.segments import EngineDown
from tests.local_server import Answer, serving

KEY = "sk-very-secret-0123456789"
KEY_ENV = "SPEECHSCALE_TEST_KEY"


def sound(seconds: float = 1.0, rate_hz: int = 24_000, container: str = "WAV") -> bytes:
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    file = io.BytesIO()
    soundfile.write(file, 0.5 * np.sin(2 * np.pi * 220 * time_s), rate_hz, format=container, subtype="PCM_16")
    return file.getvalue()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "FIRST_WAIT_S", 0.01)
    monkeypatch.delenv(KEY_ENV, raising=False)


def engine(base: str, **options: Any) -> EndpointEngine:
    return EndpointEngine(base=base, **{"key_env": KEY_ENV, "timeout_s": 5.0, "retries": 2, **options})


def texts(count: int) -> list[Utterance]:
    return [
        Utterance(id=str(i), text="", speaker="alloy", split="", segments=(f"number {i} speaks.", "and ends."))
        for i in range(count)
    ]


def test_success_gives_audio_at_16_khz_and_words_without_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    with serving(lambda body, n: (200, {"Content-Type": "audio/wav"}, sound())) as (base, server):
        spoken = list(engine(base, model="m", speed=1.5).speak(texts(6), None))
    assert [one.id for one in spoken] == [str(i) for i in range(6)]
    assert len(spoken[0].audio) == 16_000
    assert spoken[0].words == [(w, NO_TIME, NO_TIME) for w in ["number", "0", "speaks.", "and", "ends."]]
    path, headers, body = server.requests[0]
    assert path == "/v1/audio/speech"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": "m",
        "voice": "alloy",
        "input": body["input"],
        "response_format": "wav",
        "speed": 1.5,
    }
    assert {r[2]["input"] for r in server.requests} == {f"number {i} speaks. and ends." for i in range(6)}


def test_no_key_no_header_and_a_base_with_v1_is_not_doubled() -> None:
    with serving(lambda body, n: (200, {}, sound())) as (base, server):
        list(engine(base + "/v1/").speak(texts(1), None))
    assert server.requests[0][0] == "/v1/audio/speech"
    assert "Authorization" not in server.requests[0][1]


@pytest.mark.parametrize("audio_format", ["wav", "flac", "pcm"])
def test_formats(audio_format: str) -> None:
    data = sound(container="FLAC") if audio_format == "flac" else sound()
    if audio_format == "pcm":
        data = data[44:]
    with serving(lambda body, n: (200, {}, data)) as (base, _):
        (spoken,) = engine(base, audio_format=audio_format).speak(texts(1), None)
    assert len(spoken.audio) == 16_000
    assert 0.4 < np.abs(spoken.audio).max() < 0.6


def test_answers_stay_in_order_and_requests_are_bounded() -> None:
    def answer(body: dict[str, Any], n: int) -> Answer:
        time.sleep(0.05 if "number 0" in body["input"] else 0.01)
        return 200, {}, sound(0.6 + 0.1 * int(body["input"].split()[1]))

    with serving(answer) as (base, server):
        spoken = list(engine(base, concurrency=3).speak(texts(9), None))
    assert [round(len(one.audio) / 1600) for one in spoken] == list(range(6, 15))
    assert 1 < server.most_at_once <= 3


def test_busy_then_success_is_tried_again_and_waits_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(http_client.time, "sleep", waits.append)
    answers: list[Answer] = [(429, {"Retry-After": "7"}, b"slow down"), (503, {}, b""), (200, {}, sound())]
    with serving(lambda body, n: answers[n]) as (base, server):
        (spoken,) = engine(base).speak(texts(1), None)
    assert len(spoken.audio) == 16_000
    assert len(server.requests) == 3
    assert waits == [7.0, pytest.approx(0.02)]


def test_an_utterance_that_the_server_cannot_say_is_dropped_and_others_go_on() -> None:
    def answer(body: dict[str, Any], n: int) -> Answer:
        return (500, {}, b"boom") if "number 1 " in body["input"] else (200, {}, sound())

    errors: dict[str, str] = {}
    with serving(answer) as (base, _):
        spoken = list(engine(base).speak(texts(4), errors.__setitem__))
    assert [one.id for one in spoken] == ["0", "2", "3"]
    assert list(errors) == ["1"]
    assert "after 3 tries (HTTP 500: boom)" in errors["1"]


def test_an_outage_stops_the_run_and_drops_nothing() -> None:
    """Catches texts that are dropped for good because the server was down for a minute."""
    errors: dict[str, str] = {}

    def answer(body: dict[str, Any], n: int) -> Answer:
        return (200, {}, sound()) if int(body["input"].split()[1]) < 3 else (500, {}, b"boom")

    with (
        serving(answer) as (base, _),
        pytest.raises(EngineDown, match="does not speak in voice 'alloy'"),
    ):
        list(engine(base, retries=0, concurrency=2).speak(texts(20), errors.__setitem__))
    assert not errors


def test_an_outage_at_the_end_of_a_shard_drops_nothing_either() -> None:
    """Catches the last texts of a shard, behind which no text ever succeeds."""
    errors: dict[str, str] = {}
    with (
        serving(lambda body, n: (200, {}, sound()) if n < 3 else (503, {}, b"")) as (base, _),
        pytest.raises(EngineDown),
    ):
        list(engine(base, retries=0, concurrency=1).speak(texts(5), errors.__setitem__))
    assert not errors


def test_a_text_said_before_the_outage_proves_nothing() -> None:
    """Catches texts blamed because a neighbor, asked at the same time, had been answered."""
    errors: dict[str, str] = {}

    def answer(body: dict[str, Any], n: int) -> Answer:
        if "number 1 " in body["input"]:
            return 200, {}, sound()
        time.sleep(0.1)
        return 503, {}, b""

    with serving(answer) as (base, _), pytest.raises(EngineDown):
        list(engine(base, retries=0, concurrency=2).speak(texts(2), errors.__setitem__))
    assert not errors


def test_a_voice_that_the_server_lacks_stops_although_another_speaks() -> None:
    """Catches a corpus without one of its voices, all of whose texts were dropped."""
    errors: dict[str, str] = {}

    def answer(body: dict[str, Any], n: int) -> Answer:
        return (400, {}, b"no such voice") if body["voice"] == "nova" else (200, {}, sound())

    said = [replace(text, speaker=("alloy", "nova")[i % 2]) for i, text in enumerate(texts(6))]
    with serving(answer) as (base, _), pytest.raises(EngineDown, match=r"voice 'nova'.*no such voice"):
        list(engine(base).speak(said, errors.__setitem__))
    assert not errors


def test_many_bad_texts_in_a_row_are_dropped_when_the_server_is_fine() -> None:
    def answer(body: dict[str, Any], n: int) -> Answer:
        return (400, {}, b"bad text") if "number" in body["input"] else (200, {}, sound())

    errors: dict[str, str] = {}
    with serving(answer) as (base, _):
        assert list(engine(base).speak(texts(12), errors.__setitem__)) == []
    assert list(errors) == [str(i) for i in range(12)]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_stops_at_once(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    said = f"bad key {KEY}".encode()
    with (
        serving(lambda body, n: (status, {}, said)) as (base, server),
        pytest.raises(EngineDown, match=KEY_ENV) as caught,
    ):
        list(engine(base, concurrency=1).speak(texts(5), lambda id, message: None))
    assert KEY not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("key", [f"{KEY}\nX-Other: 1", f"{KEY}\u2026"])
def test_a_key_that_fits_no_header_is_refused_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own error would show it."""
    monkeypatch.setenv(KEY_ENV, key)
    with serving(lambda body, n: (200, {}, sound())) as (base, server), pytest.raises(EngineDown) as caught:
        list(engine(base).speak(texts(1), None))
    assert KEY not in str(caught.value)
    assert KEY_ENV in str(caught.value)
    assert not server.requests


def test_a_line_end_behind_the_key_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, f"{KEY}\n")
    with serving(lambda body, n: (200, {}, sound())) as (base, server):
        list(engine(base).speak(texts(1), None))
    assert server.requests[0][1]["Authorization"] == f"Bearer {KEY}"


def test_an_error_whose_text_never_comes_is_an_error_of_that_utterance(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(error: Any, *_: Any) -> bytes:
        raise TimeoutError("timed out")

    monkeypatch.setattr(HTTPError, "read", hang, raising=False)
    errors: dict[str, str] = {}

    def answer(body: dict[str, Any], n: int) -> Answer:
        return (400, {}, b"no") if "number 1 " in body["input"] else (200, {}, sound())

    with serving(answer) as (base, _):
        assert [one.id for one in engine(base).speak(texts(3), errors.__setitem__)] == ["0", "2"]
    assert "HTTP 400" in errors["1"]


def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a key that is sent on to another host."""
    monkeypatch.setenv(KEY_ENV, KEY)
    with serving(lambda body, n: (200, {}, sound())) as (other, stranger):  # noqa: SIM117
        with serving(lambda body, n: (307, {"Location": f"{other}/v1/audio/speech"}, b"")) as (base, _):
            with pytest.raises(EngineDown, match="HTTP 307"):
                list(engine(base).speak(texts(1), None))
    assert not stranger.requests


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"<html>not audio</html>" * 50, "not wav audio"),
        (b"", "not wav audio"),
        (sound(0.05), "cut off"),
        (b"RIFF" + bytes(100), "not wav audio"),
    ],
    ids=["html", "empty", "short", "header"],
)
def test_garbage_is_named_and_not_taken_for_speech(data: bytes, what: str) -> None:
    errors: dict[str, str] = {}

    def answer(body: dict[str, Any], n: int) -> Answer:
        return 200, {"Content-Type": "audio/wav"}, data if "number 1 " in body["input"] else sound()

    with serving(answer) as (base, _):
        assert [one.id for one in engine(base).speak(texts(3), errors.__setitem__)] == ["0", "2"]
    assert what in errors["1"]


def test_silence_is_not_taken_for_speech() -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(24_000), 24_000, format="WAV")
    with serving(lambda body, n: (200, {}, file.getvalue())) as (base, _), pytest.raises(DataError, match="silence"):
        list(engine(base).speak(texts(1), None))


def test_a_slow_server_times_out_and_a_cut_answer_is_tried_again() -> None:
    def answer(body: dict[str, Any], n: int) -> Answer:
        if n == 0:
            time.sleep(0.6)
        return 200, {"Content-Length": str(len(sound()))} if n == 1 else {}, sound()[: 1000 if n == 1 else None]

    with serving(answer) as (base, server):
        (spoken,) = engine(base, timeout_s=0.3).speak(texts(1), None)
        assert len(server.requests) == 3
    assert len(spoken.audio) == 16_000


def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MAX_BYTES", 10_000)
    with serving(lambda body, n: (200, {}, sound())) as (base, _), pytest.raises(DataError, match="sent more than"):
        list(engine(base).speak(texts(1), None))


def test_nobody_there_is_an_error_that_names_the_server() -> None:
    with pytest.raises(DataError, match="failed after 2 tries"):
        list(engine("http://127.0.0.1:9", retries=1).speak(texts(1), None))


@pytest.mark.parametrize("base", ["http://example.org", "http://10.0.0.1:8000", "http://localhost.example.org"])
def test_plain_http_to_other_machines_is_refused_unless_allowed(base: str) -> None:
    with pytest.raises(DataError, match="--allow-http"):
        engine(base)
    assert engine(base, allow_http=True).url.startswith(base)
    assert engine(base.replace("http:", "https:"))


@pytest.mark.parametrize("base", ["ftp://x", "nonsense", "https://", "https://user:pw@host", "https://h/?key=1"])
def test_addresses_that_are_none_or_hold_secrets_are_refused(base: str) -> None:
    with pytest.raises(DataError) as caught:
        engine(base)
    assert "pw" not in str(caught.value)


def test_the_key_is_nowhere_in_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a key in a record, a pickle or a log."""
    monkeypatch.setenv(KEY_ENV, KEY)
    made = engine("https://example.org")
    assert KEY not in repr(vars(made)) + made.voice_version("a") + made.licence("a")
