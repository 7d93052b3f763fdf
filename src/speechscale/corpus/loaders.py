"""Where audio comes from: a voice that speaks it, or files.

Enters: utterances. Leaves: `Spoken`, audio at 16 kHz and words in samples, in order. The one decision worth knowing:
both sources become the same record before anything else happens, so that there is one pipeline behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from speechscale.align.formats import clip_words
from speechscale.errors import DataError
from speechscale.records import NO_TIME, Utterance
from speechscale.speech.audio import TARGET_RATE_HZ, load_audio
from speechscale.voices.espeak import Spoken, speak_shard

OnError = Callable[[str, str], None]
"""Called with (id, what is wrong; remedy)."""


class Loader(Protocol):
    """A source of audio: yields each utterance it can make, in order, and reports every other one."""

    @property
    def has_phones(self) -> bool:
        """Whether exact phone events come with the audio (synthesized speech only)."""
        ...

    def __call__(self, utterances: Sequence[Utterance], on_error: OnError) -> Iterator[Spoken]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceLoader:
    """Speak utterances; one fresh process per shard. `timeout_s` is the watchdog's patience."""

    timeout_s: float = 60.0
    has_phones: bool = field(default=True, init=False)

    def __call__(self, utterances: Sequence[Utterance], on_error: OnError) -> Iterator[Spoken]:
        return speak_shard(utterances, timeout_s=self.timeout_s, on_error=on_error)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLoader:
    """Load utterances from files below `root` (whole, a part, one channel). Words without time stay so.

    `sample_rate_hz`: what the encoder wants; files are resampled once, from their own rate to this one.
    """

    root: Path
    sample_rate_hz: int = TARGET_RATE_HZ
    has_phones: bool = field(default=False, init=False)

    def __call__(self, utterances: Sequence[Utterance], on_error: OnError) -> Iterator[Spoken]:
        for utterance in utterances:
            try:
                yield self.load(utterance)
            except DataError as error:
                # Relative paths, so that the same corpus gives the same skips wherever it lies.
                on_error(utterance.id, str(error).replace(f"{self.root}/", ""))

    def path(self, utterance: Utterance) -> str:
        """The audio's path ("FILE" or "TAR::MEMBER"). Raises DataError if it leaves the root."""
        file, mark, member = utterance.audio.partition("::")
        path = self.root / file
        if not file or not path.resolve().is_relative_to(self.root.resolve()):
            raise DataError(f"audio '{utterance.audio}' is not inside the corpus folder; read the folder again")
        return f"{path}{mark}{member}"

    def load(self, utterance: Utterance) -> Spoken:
        """Audio and words of one utterance. Raises DataError."""
        rate_hz = self.sample_rate_hz
        audio = load_audio(
            self.path(utterance),
            sample_rate_hz=rate_hz,
            start_s=utterance.start_s,
            end_s=utterance.end_s,
            channel=utterance.channel,
        ).audio
        words = []
        for word in clip_words(utterance.words, len(audio) / rate_hz):
            if word.start_s is None or word.end_s is None:
                words.append((word.text, NO_TIME, NO_TIME))
            else:
                start, end = round(word.start_s * rate_hz), round(word.end_s * rate_hz)
                words.append((word.text, start, min(end, len(audio))))
        return Spoken(id=utterance.id, audio=audio, words=words, phones=[], sample_rate_hz=rate_hz)


def at_rate(loader: Loader, sample_rate_hz: int) -> Loader:
    """The loader, made to give this rate where its source allows it; others are resampled afterwards."""
    return replace(loader, sample_rate_hz=sample_rate_hz) if isinstance(loader, FileLoader) else loader
