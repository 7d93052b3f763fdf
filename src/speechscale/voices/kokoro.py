"""Speak with Kokoro: weights that the user supplies, word times that come with the synthesis.

Enters: utterances whose speaker is a voice such as "af_heart". Leaves: `Spoken` with word times. The one decision worth
knowing: the package cuts long text into chunks and counts times from each chunk's start; chunks are placed by the
samples that really came, silence included, never by the last word's end (hexgrad/kokoro#32 is where users drift).
Extra: kokoro (Apache-2.0; its English G2P loads a spaCy model). Written against kokoro 0.9; see docs/voices.md.
"""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from speechscale.errors import DataError, MissingExtra
from speechscale.records import NO_TIME, Utterance
from speechscale.speech.audio import TARGET_RATE_HZ, resample
from speechscale.voices.segments import OnError, printable_words, speak_by_segment
from speechscale.voices.spoken import Span, Spoken, owners
from speechscale.voices.word_events import has_letters

RATE_HZ = 24_000
REPO = "hexgrad/Kokoro-82M"
MODEL_FILES = ("config.json", "kokoro-v1_0.pth")
LANGUAGES = "ab"
"""American and British English; only these have word times in the package."""


class KokoroEngine:
    """See `engines.Engine`.

    Args:
        folder: config.json, kokoro-v1_0.pth and voices/NAME.pt of the published model; nothing is downloaded from here.

    Raises:
        MissingExtra: kokoro is not installed. DataError: the folder lacks a file.
    """

    name = "kokoro"
    sample_rate_hz = RATE_HZ
    gives_word_times = True
    gives_phone_times = False
    deterministic = False

    def __init__(self, *, folder: Path, device: str = "cpu", speed: float = 1.0) -> None:
        missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
        if missing:
            raise DataError(
                f"kokoro folder '{folder}': {missing[0]} is missing; name the folder of the published model with "
                "--kokoro-folder (config.json, kokoro-v1_0.pth, voices/NAME.pt)"
            )
        try:
            self._kokoro: Any = importlib.import_module("kokoro")
        except ImportError as error:
            raise MissingExtra("speaking with Kokoro voices", "kokoro") from error
        self.folder, self.device, self.speed = folder, device, speed
        self._model: Any = None
        self._pipelines: dict[str, Any] = {}
        self.voices: tuple[str, ...] = tuple(sorted(path.stem for path in (folder / "voices").glob("*.pt")))

    def check_voice(self, voice: str) -> None:
        if voice not in self.voices:
            raise DataError(
                f"no Kokoro voice '{voice}' in {self.folder / 'voices'}; it has: {', '.join(self.voices) or 'none'}"
            )
        if voice[0] not in LANGUAGES:
            raise DataError(f"Kokoro voice '{voice}' is not English; choose one that begins with a or b")

    def voice_version(self, voice: str) -> str:
        model, style = (_sha256(self.folder / part) for part in (MODEL_FILES[1], f"voices/{voice}.pt"))
        return f"{MODEL_FILES[1]} sha256 {model[:16]}, {voice}.pt sha256 {style[:16]}, speed {self.speed:g}"

    def licence(self, voice: str) -> str:
        return f"Kokoro-82M voice {voice} (weights Apache-2.0, as published)"

    def speak(self, utterances: Sequence[Utterance], on_error: OnError | None) -> Iterator[Spoken]:
        # The decoder adds noise, so nothing is said twice alike and nothing is remembered.
        return speak_by_segment(utterances, self._speak_segment, on_error=on_error, cache_segments=0)

    def _speak_segment(self, voice: str, segment: str) -> Spoken:
        words = segment.split()
        # "[word](/sounds/)" would be a command of the G2P.
        text = " ".join(printable_words(segment)).replace("](", ")(")
        style = str(self.folder / "voices" / f"{voice}.pt")
        waves: list[np.ndarray] = []
        tokens: list[tuple[str, float | None, float | None]] = []
        offset_s = 0.0
        try:
            for result in self._pipeline(voice[0])(text, voice=style, speed=self.speed, split_pattern=None):
                if result.audio is None:
                    continue
                wave = np.asarray(result.audio.detach().cpu().numpy(), np.float32).reshape(-1)
                tokens += _placed(result.tokens or [], offset_s, len(wave) / RATE_HZ)
                waves.append(wave)
                offset_s += len(wave) / RATE_HZ
        except (ValueError, RuntimeError, AssertionError) as error:
            raise DataError(f"Kokoro cannot say segment '{segment}' ({error}); correct or drop it") from error
        if not waves:
            raise DataError(f"the voice is silent for segment '{segment}'; write it in English or drop the utterance")
        audio = resample(np.concatenate(waves), RATE_HZ, TARGET_RATE_HZ)
        np.clip(audio, -1, 1, out=audio)
        return Spoken(id="", audio=audio, words=_word_spans(words, tokens, len(audio)), phones=[])

    def _pipeline(self, language: str) -> Any:
        """One pipeline per English, one model for both."""
        if self._model is None:
            config, weights = (str(self.folder / name) for name in MODEL_FILES)
            self._model = self._kokoro.KModel(repo_id=REPO, config=config, model=weights).to(self.device).eval()
        if language not in self._pipelines:
            self._pipelines[language] = self._kokoro.KPipeline(lang_code=language, repo_id=REPO, model=self._model)
        return self._pipelines[language]


def _placed(tokens: Sequence[Any], offset_s: float, duration_s: float) -> list[tuple[str, float | None, float | None]]:
    """Tokens of a chunk with times from the start of the segment, inside the chunk."""
    placed: list[tuple[str, float | None, float | None]] = []
    for token in tokens:
        start, end = getattr(token, "start_ts", None), getattr(token, "end_ts", None)
        if start is None or end is None or not math.isfinite(start + end) or end <= start:
            placed.append((token.text, None, None))
        else:
            placed.append((token.text, offset_s + min(start, duration_s), offset_s + min(end, duration_s)))
    return placed


def _word_spans(
    words: Sequence[str], tokens: Sequence[tuple[str, float | None, float | None]], samples: int
) -> list[Span]:
    """Times of whitespace words from those of their tokens; a word with letters but no timed token has no time."""
    found: dict[int, tuple[float, float]] = {}
    untimed: set[int] = set()
    for owner, (text, start, end) in zip(owners(words, [text for text, _, _ in tokens]), tokens, strict=True):
        if not has_letters(text):
            continue
        if start is None or end is None:
            untimed.add(owner)
        else:
            found[owner] = (found.get(owner, (start, 0.0))[0], end)
    spans: list[Span] = []
    latest = 0
    for index, word in enumerate(words):
        if index in found and index not in untimed:
            start, end = (round(time_s * TARGET_RATE_HZ) for time_s in found[index])
            start = min(max(start, latest), samples)
            latest = min(max(end, start), samples)
            spans.append((word, start, latest))
        elif has_letters(word):
            spans.append((word, NO_TIME, NO_TIME))
        else:
            spans.append((word, latest, latest))
    return spans


@cache
def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
