"""Speak through any server with OpenAI's speech interface: POST BASE/v1/audio/speech.

Enters: texts. Leaves: audio, checked by decoding it; no word times, so `speechscale align` comes next. The one decision
worth knowing: an outage of the server is never blamed on a text; the key is safe as `http_client` says.
Source: the public OpenAI API reference, "Create speech"; vLLM-Omni, Kokoro-FastAPI and others serve the same form.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import soundfile
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.records import NO_TIME, Utterance
from speechscale.speech.audio import TARGET_RATE_HZ, resample
from speechscale.voices.http_client import HttpClient
from speechscale.voices.segments import EngineDown, OnError, check_segments
from speechscale.voices.spoken import Spoken, check_spoken

FORMATS = ("wav", "flac", "pcm")
MAX_BYTES = 64 << 20
"""Largest answer that is read: half an hour of 16-bit mono at 16 kHz."""
FAILURES_IN_A_ROW = 5
"""After as many the server is asked for something easy before any text is blamed."""
PROBE = "This is a test."
MAX_WORDS_PER_S = 12.0
"""Faster than anybody speaks: the answer was cut off."""


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
        if audio_format not in FORMATS:
            raise DataError(f"endpoint format '{audio_format}': allowed are {', '.join(FORMATS)}; choose one of them")
        self._client = HttpClient(
            base=base,
            path="audio/speech",
            what="speech server",
            item="utterance",
            accept="audio/*",
            key_env=key_env,
            allow_http=allow_http,
            timeout_s=timeout_s,
            retries=retries,
            max_bytes=MAX_BYTES,
            refused="the address, the model, the voice and the key",
        )
        self.host, self.url = self._client.host, self._client.url
        self.model, self.audio_format, self.pcm_hz, self.speed = model, audio_format, pcm_hz, speed
        self.concurrency = max(1, concurrency)
        self._licence = licence

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
        return self._client.post(
            {
                "model": self.model,
                "voice": voice,
                "input": text,
                "response_format": self.audio_format,
                "speed": self.speed,
            }
        )

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
