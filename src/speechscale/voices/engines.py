"""All voice engines behind one interface, and the cast of a corpus: which voices speak, by which engine.

Enters: addresses such as "us-f2", "flite:slt", "piper:/voices/en.onnx", "kokoro:af_heart", "http:alloy". Leaves:
`Spoken` in the order of the utterances, whatever the engines. The one decision worth knowing: an utterance's `speaker`
is the voice's label, which holds no path, so that a corpus says the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from speechscale.errors import DataError
from speechscale.records import Utterance
from speechscale.voices.segments import OnError
from speechscale.voices.spoken import Spoken

PLAIN_ENGINE = "espeak"
"""Whose voices need no prefix."""


class Engine(Protocol):
    """Something that speaks. `speaker` of an utterance is a voice of this engine, without the engine's name.

    Attributes:
        voices: known names; empty where any name or path may be a voice.
        sample_rate_hz: what the engine makes before it becomes 16 kHz; 0 when voices differ.
        gives_word_times: words have times, as far as the engine tells; the others need `speechscale align`.
        gives_phone_times: phones tile the audio.
        deterministic: the same text in the same voice is the same bytes, always.
    """

    name: str
    voices: tuple[str, ...]
    sample_rate_hz: int
    gives_word_times: bool
    gives_phone_times: bool
    deterministic: bool

    def check_voice(self, voice: str) -> None:
        """Raise DataError for a voice that cannot speak, with what can."""
        ...

    def voice_version(self, voice: str) -> str:
        """What decides how the voice sounds: engine and its version, checksum of its model; without paths or keys."""
        ...

    def licence(self, voice: str) -> str:
        """Where the voice comes from and under which terms, as far as it is known."""
        ...

    def speak(self, utterances: Sequence[Utterance], on_error: OnError | None) -> Iterator[Spoken]:
        """Speak in order; whatever cannot be spoken goes to `on_error` (or is raised, without one)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceOptions:
    """What engines need to know besides the voice. Nothing secret: keys are named, not held.

    Args:
        timeout_s: patience per segment (espeak, flite) or request (http).
        endpoint: base address of an OpenAI-style server. endpoint_model: its "model" field.
        endpoint_format: "wav", "flac" or "pcm" (16-bit mono at `endpoint_pcm_hz`).
        endpoint_key_env: environment variable with the key; unset means none is sent.
        allow_http: send texts over plain http to other machines.
        concurrency: requests at a time and worker. retries: more tries after a busy or failing server.
        speed: of http and kokoro voices.
        kokoro_folder: config.json, kokoro-v1_0.pth, voices/NAME.pt. device: of kokoro ("cpu", "cuda").
        voice_licence: terms of voices whose terms the engine cannot tell.
    """

    timeout_s: float = 60.0
    endpoint: str = "http://127.0.0.1:8000"
    endpoint_model: str = "tts-1"
    endpoint_format: str = "wav"
    endpoint_pcm_hz: int = 24_000
    endpoint_key_env: str = "SPEECHSCALE_TTS_KEY"
    allow_http: bool = False
    concurrency: int = 4
    retries: int = 5
    speed: float = 1.0
    kokoro_folder: str = ""
    device: str = "cpu"
    voice_licence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceAddress:
    """Which engine speaks which of its voices; `label` is what the corpus calls the speaker."""

    engine: str
    voice: str
    label: str


def _espeak(options: VoiceOptions) -> Engine:
    from speechscale.voices.espeak import EspeakEngine

    return EspeakEngine(timeout_s=options.timeout_s)


def _flite(options: VoiceOptions) -> Engine:
    from speechscale.voices.flite import FliteEngine

    return FliteEngine(timeout_s=options.timeout_s)


def _piper(options: VoiceOptions) -> Engine:
    from speechscale.voices.piper import PiperEngine

    return PiperEngine(licence=options.voice_licence)


def _kokoro(options: VoiceOptions) -> Engine:
    from speechscale.voices.kokoro import KokoroEngine

    return KokoroEngine(folder=Path(options.kokoro_folder), device=options.device, speed=options.speed)


def _http(options: VoiceOptions) -> Engine:
    from speechscale.voices.endpoint import EndpointEngine

    return EndpointEngine(
        base=options.endpoint,
        model=options.endpoint_model,
        audio_format=options.endpoint_format,
        pcm_hz=options.endpoint_pcm_hz,
        key_env=options.endpoint_key_env,
        allow_http=options.allow_http,
        timeout_s=options.timeout_s,
        concurrency=options.concurrency,
        retries=options.retries,
        speed=options.speed,
        licence=options.voice_licence,
    )


ENGINES: dict[str, Callable[[VoiceOptions], Engine]] = {
    "espeak": _espeak,
    "flite": _flite,
    "piper": _piper,
    "kokoro": _kokoro,
    "http": _http,
}
"""Name -> how to make it; only the engines that are used are ever imported."""


def parse_voice(address: str) -> VoiceAddress:
    """Read "engine:voice"; a name without engine is espeak's.

    Example: "flite:slt" -> engine "flite", voice "slt", label "flite:slt"; "espeak:us-f2" has the label "us-f2".

    Raises:
        DataError: no such engine, no voice.
    """
    engine, colon, voice = address.partition(":")
    if not colon:
        engine, voice = PLAIN_ENGINE, address
    if engine not in ENGINES:
        raise DataError(f"voice '{address}': no engine '{engine}'; allowed are {', '.join(ENGINES)}, as in flite:slt")
    if not voice.strip():
        raise DataError(f"voice '{address}': the voice is missing; write it behind the colon, as in flite:slt")
    label = address if engine != PLAIN_ENGINE else voice
    if engine == "piper":
        path, _, speaker = voice.partition("#")
        label = f"piper:{Path(path).stem}" + (f"#{speaker}" if speaker else "")
    return VoiceAddress(engine=engine, voice=voice, label=label)


class Cast:
    """The voices of one corpus. Engines start when they are first needed, in the process that uses them.

    Example: for spoken in Cast(["us-f2", "flite:slt"]).speak(utterances): ...

    Raises:
        DataError: no voice, a voice twice, an unknown engine.
    """

    def __init__(self, addresses: Sequence[str], options: VoiceOptions | None = None) -> None:
        self.options = options or VoiceOptions()
        parsed = [parse_voice(address) for address in addresses]
        self.voices = {address.label: address for address in parsed}
        if not parsed or len(self.voices) < len(parsed):
            twice = [label for label in self.voices if sum(a.label == label for a in parsed) > 1]
            raise DataError(f"voices: {twice or 'none'} given more than once or not at all; name each voice once")
        self._engines: dict[str, Engine] = {}

    def engine(self, label: str) -> Engine:
        """The engine of a voice. Raises DataError or MissingExtra when it cannot be used here."""
        name = self.voices[label].engine
        if name not in self._engines:
            self._engines[name] = ENGINES[name](self.options)
        return self._engines[name]

    def check(self) -> dict[str, dict[str, object]]:
        """Try every voice; return by label its version, licence, and what its engine gives."""
        facts: dict[str, dict[str, object]] = {}
        for label, address in self.voices.items():
            engine = self.engine(label)
            engine.check_voice(address.voice)
            facts[label] = {
                "engine": engine.name,
                "version": engine.voice_version(address.voice),
                "licence": engine.licence(address.voice),
                "word_times": engine.gives_word_times,
                "deterministic": engine.deterministic,
            }
        return facts

    def speak(self, utterances: Sequence[Utterance], on_error: OnError | None = None) -> Iterator[Spoken]:
        """Speak in order; each engine sees all of its utterances at once, so that it may work ahead.

        Args:
            utterances: their ids differ; `speaker` is a label of this cast.
            on_error: receives (id, "reason; remedy") of each utterance that cannot be spoken, which is then left out.

        Raises:
            DataError: an unknown speaker, an engine that is gone; without `on_error` also the first failure.
        """
        unknown = sorted({u.speaker for u in utterances} - self.voices.keys())
        if unknown:
            raise DataError(f"no voice '{unknown[0]}' in this cast; it has: {', '.join(self.voices)}")
        failed: set[str] = set()

        def report(id: str, message: str) -> None:
            if on_error is None:
                raise DataError(f"utterance {id}: {message}")
            failed.add(id)
            on_error(id, message)

        def named(utterance: Utterance) -> Utterance:
            return replace(utterance, speaker=self.voices[utterance.speaker].voice)

        names = [self.voices[utterance.speaker].engine for utterance in utterances]
        streams: dict[str, Iterator[Spoken]] = {}
        for name in dict.fromkeys(names):
            part = [named(u) for u, engine in zip(utterances, names, strict=True) if engine == name]
            first = next(u.speaker for u, engine in zip(utterances, names, strict=True) if engine == name)
            streams[name] = self.engine(first).speak(part, report)
        ahead: dict[str, Spoken] = {}
        for utterance, name in zip(utterances, names, strict=True):
            if name not in ahead and utterance.id not in failed:
                spoken = next(streams[name], None)
                if spoken is not None:
                    ahead[name] = spoken
            if name in ahead and ahead[name].id == utterance.id:
                yield ahead.pop(name)
            else:
                assert utterance.id in failed, f"engine {name} lost utterance {utterance.id}"
        rest = [next(stream, None) for stream in streams.values()]
        assert rest == [None] * len(rest), "an engine gave more than was asked for"
