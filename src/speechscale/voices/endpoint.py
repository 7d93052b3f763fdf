"""Speak through any server with OpenAI's speech interface: POST BASE/v1/audio/speech.

Enters: texts. Leaves: audio, checked by decoding it; no word times, so `speechscale align` comes next. The one decision
worth knowing: the key comes from an environment variable and goes into one header only: redirects are refused, plain
http leaves the machine only when allowed, and messages are scrubbed of it.
Source: the public OpenAI API reference, "Create speech"; vLLM-Omni, Kokoro-FastAPI and others serve the same form.
"""

from __future__ import annotations

import io
import ipaddress
import json
import os
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPException
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import soundfile
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.records import NO_TIME, Utterance
from speechscale.speech.audio import TARGET_RATE_HZ, resample
from speechscale.voices.segments import EngineDown, OnError, check_segments
from speechscale.voices.spoken import Spoken, check_spoken

FORMATS = ("wav", "flac", "pcm")
MAX_BYTES = 64 << 20
"""Largest answer that is read: half an hour of 16-bit mono at 16 kHz."""
MAX_WAIT_S = 60.0
"""Longest pause between two tries."""
FIRST_WAIT_S = 0.5
FAILURES_IN_A_ROW = 5
"""After as many the server is asked for something easy before any text is blamed."""
PROBE = "This is a test."
MAX_WORDS_PER_S = 12.0
"""Faster than anybody speaks: the answer was cut off."""
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
REFUSED = frozenset({401, 402, 403, 404, 405})


class _Retry(Exception):
    """The server is busy or failing; `wait_s` is what it asks for."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class EndpointEngine:
    """See `engines.Engine`. A voice is whatever name the server knows.

    Raises:
        DataError: an address that is not http(s), plain http to another machine without `allow_http`, an unknown
            format.
    """

    name = "http"
    voices: tuple[str, ...] = ()
    sample_rate_hz = 0
    gives_word_times = False
    gives_phone_times = False
    deterministic = False

    def __init__(
        self,
        *,
        base: str,
        model: str = "tts-1",
        audio_format: str = "wav",
        pcm_hz: int = 24_000,
        key_env: str = "SPEECHSCALE_TTS_KEY",
        allow_http: bool = False,
        timeout_s: float = 60.0,
        concurrency: int = 4,
        retries: int = 5,
        speed: float = 1.0,
        licence: str = "",
    ) -> None:
        self.host = _checked_host(base, allow_http)
        if audio_format not in FORMATS:
            raise DataError(f"endpoint format '{audio_format}': allowed are {', '.join(FORMATS)}; choose one of them")
        base = base.rstrip("/")
        self.url = f"{base}/audio/speech" if base.endswith("/v1") else f"{base}/v1/audio/speech"
        self.model, self.audio_format, self.pcm_hz, self.speed = model, audio_format, pcm_hz, speed
        self.timeout_s, self.concurrency, self.retries = timeout_s, max(1, concurrency), max(0, retries)
        self._key_env, self._licence = key_env, licence
        handlers: list[Any] = [_NoRedirect()]
        if _is_loopback(self.host):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def check_voice(self, voice: str) -> None:
        if not voice.strip():
            raise DataError("http: needs the name of a voice behind the colon; ask the server which it has")

    def voice_version(self, voice: str) -> str:
        return f"{self.host}, model {self.model}, speed {self.speed:g}"

    def licence(self, voice: str) -> str:
        return self._licence or f"speech of {self.host}, model {self.model}, voice {voice}; terms not stated"

    def speak(self, utterances: Sequence[Utterance], on_error: OnError | None) -> Iterator[Spoken]:
        """Keep `concurrency` requests going; answers come out in order."""
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="speech-endpoint")
        stream, going = iter(utterances), deque[tuple[Utterance, Future[Spoken]]]()
        failed: list[tuple[Utterance, DataError]] = []
        try:
            while True:
                for utterance in islice(stream, self.concurrency - len(going)):
                    going.append((utterance, pool.submit(self._speak, utterance)))
                if not going:
                    break
                utterance, future = going.popleft()
                try:
                    spoken = future.result()
                except EngineDown:
                    raise
                except DataError as error:
                    failed.append((utterance, error))
                    if len(failed) == FAILURES_IN_A_ROW:
                        self._settle(failed, on_error)
                        failed = []
                    continue
                self._settle(failed, on_error)
                failed = []
                yield spoken
            self._settle(failed, on_error)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _settle(self, failed: Sequence[tuple[Utterance, DataError]], on_error: OnError | None) -> None:
        """Blame texts only when the server can say something else in their voice now: an outage drops nothing.

        Another text's success is no proof: it may have come before the outage.
        """
        for voice in sorted({utterance.speaker for utterance, _ in failed}):
            try:
                self._speak(Utterance(id="probe", text=PROBE, speaker=voice, split="", segments=(PROBE,)))
            except DataError as error:
                raise EngineDown(
                    f"speech server {self.host} does not speak in voice '{voice}': {error}; see to the server, then "
                    "run the same command again"
                ) from error
        for utterance, reason in failed:
            if on_error is None:
                raise DataError(f"utterance {utterance.id}: {reason}")
            on_error(utterance.id, str(reason))

    def _speak(self, utterance: Utterance) -> Spoken:
        check_segments(utterance)
        text = " ".join(utterance.segments)
        words = text.split()
        audio = self._audio(self._request(text, utterance.speaker))
        if not audio.any():
            raise DataError("the speech server answered with silence; try another voice or drop the utterance")
        duration_s = len(audio) / TARGET_RATE_HZ
        if len(words) > MAX_WORDS_PER_S * duration_s + 2:
            raise DataError(
                f"the speech server answered with {duration_s:.2f} s for {len(words)} words, which is cut off; "
                "give it shorter texts or drop the utterance"
            )
        spoken = Spoken(id=utterance.id, audio=audio, words=[(word, NO_TIME, NO_TIME) for word in words], phones=[])
        check_spoken(spoken, words)
        return spoken

    def _request(self, text: str, voice: str) -> bytes:
        """Ask until an answer comes, waiting longer each time."""
        for attempt in range(self.retries + 1):
            try:
                return self._once(text, voice)
            except _Retry as error:
                if attempt == self.retries:
                    tries = f"{attempt + 1} tries"
                    raise DataError(
                        f"the speech server failed after {tries} ({error}); run again later or drop the utterance"
                    ) from None
                time.sleep(min(MAX_WAIT_S, max(error.wait_s, FIRST_WAIT_S * 2**attempt)))
        raise AssertionError("unreachable")

    def _once(self, text: str, voice: str) -> bytes:
        body = {
            "model": self.model,
            "voice": voice,
            "input": text,
            "response_format": self.audio_format,
            "speed": self.speed,
        }
        headers = {"Content-Type": "application/json", "Accept": "audio/*", "User-Agent": "speechscale"}
        key = os.environ.get(self._key_env, "")
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url, data=json.dumps(body).encode(), headers=headers, method="POST")
        try:
            with self._opener.open(request, timeout=self.timeout_s) as answer:
                return self._read(answer)
        except urllib.error.HTTPError as error:
            with error:
                self._refuse(error, key)
        except (urllib.error.URLError, HTTPException, OSError) as error:
            # str of these never holds headers; the key is scrubbed all the same.
            raise _Retry(_scrubbed(str(error), key)) from None
        raise AssertionError("unreachable")

    def _read(self, answer: Any) -> bytes:
        """Read with a deadline and a limit, however slowly or much the server sends."""
        deadline = time.monotonic() + self.timeout_s
        data = bytearray()
        while piece := answer.read1(1 << 16):
            data += piece
            if len(data) > MAX_BYTES:
                raise DataError(f"the speech server sent more than {MAX_BYTES >> 20} MB; give it shorter texts")
            if time.monotonic() > deadline:
                raise _Retry(f"the answer took more than {self.timeout_s:g} s")
        promised = answer.headers.get("Content-Length")
        if promised is not None and promised.isdigit() and int(promised) != len(data):
            raise _Retry(f"the answer ended after {len(data)} of {promised} bytes")
        return bytes(data)

    def _refuse(self, error: urllib.error.HTTPError, key: str) -> None:
        """Sort an error status: try again, give up on the utterance, or on the server."""
        said = _scrubbed(" ".join(error.read(400).decode("utf-8", "replace").split()), key)
        why = f"HTTP {error.code}: {said[:200]}" if said else f"HTTP {error.code}"
        if error.code in RETRIED:
            wait = error.headers.get("Retry-After", "")
            raise _Retry(why, float(wait) if wait.replace(".", "", 1).isdigit() else 0.0)
        if error.code in REFUSED or 300 <= error.code < 400:
            remedy = f"check the address, the model, the voice and the key in ${self._key_env}"
            raise EngineDown(f"speech server {self.host} refuses ({why}); {remedy}")
        raise DataError(f"the speech server refuses the text ({why}); correct or drop the utterance")

    def _audio(self, data: bytes) -> Float[np.ndarray, " samples"]:
        """Decode an answer to 16 kHz mono. Raises DataError for anything that is not audio."""
        try:
            if self.audio_format == "pcm":
                if len(data) % 2:
                    raise DataError(f"the speech server sent {len(data)} bytes, no 16-bit samples; check the format")
                audio, rate_hz = np.frombuffer(data, "<i2").astype(np.float32) / 32768, self.pcm_hz
            else:
                audio, rate_hz = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
                audio = audio.mean(axis=1)
        except (soundfile.SoundFileError, RuntimeError) as error:
            start = data[:40].decode("ascii", "replace").replace("\n", " ")
            raise DataError(
                f"the speech server's answer is not {self.audio_format} audio (it begins with '{start}'); "
                "check the format it can make, or drop the utterance"
            ) from error
        if not len(audio) or not np.isfinite(audio).all():
            raise DataError("the speech server sent audio without usable samples; try again or drop the utterance")
        audio = resample(audio, rate_hz, TARGET_RATE_HZ)
        return np.clip(audio, -1, 1, out=audio)


def _checked_host(base: str, allow_http: bool) -> str:
    """The host of an address that may be used. Raises DataError."""
    try:
        parts = urlsplit(base)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise DataError(f"endpoint '{base}': {error}; write https://HOST or http://127.0.0.1:PORT") from error
    if parts.scheme not in ("http", "https") or not host:
        raise DataError(f"endpoint '{base}': not an address; write https://HOST or http://127.0.0.1:PORT")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise DataError(
            f"endpoint at {host}: user, password or query do not belong into the address; put the key into the "
            "environment variable"
        )
    if parts.scheme == "http" and not allow_http and not _is_loopback(host):
        raise DataError(
            f"endpoint '{base}': plain http would show texts and key to everybody on the way; use https, or allow it "
            "with --allow-http"
        )
    return host


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _scrubbed(text: str, key: str) -> str:
    return text.replace(key, "***") if key else text
