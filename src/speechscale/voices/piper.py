"""Speak with piper voices: a model file (.onnx) and its settings (.onnx.json) that the user supplies.

Enters: utterances whose speaker is "PATH.onnx" or "PATH.onnx#SPEAKER". Leaves: `Spoken`; words have times where the
model tells its phoneme durations and they can be told apart by word. The one decision worth knowing: times are exact or
absent: when the phonemizer merges words ("in the"), the words of that segment have no time, and an aligner gives them.
Extra: piper-tts (GPL-3.0). Written against `piper.PiperVoice` of piper1-gpl; see docs/voices.md for what ran.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechscale.errors import DataError, MissingExtra
from speechscale.records import NO_TIME, Utterance
from speechscale.speech.audio import TARGET_RATE_HZ, resample
from speechscale.voices.segments import OnError, printable_words, speak_by_segment
from speechscale.voices.spoken import Span, Spoken
from speechscale.voices.word_events import has_letters, rescale

WORD_GAP = " "
EDGES = frozenset({"^", "$", "_"})
"""Beginning, end and padding of a sentence, in piper's alphabet."""


class PiperEngine:
    """See `engines.Engine`. Models are loaded once and stay.

    Raises:
        MissingExtra: piper-tts is not installed.
    """

    name = "piper"
    voices: tuple[str, ...] = ()
    sample_rate_hz = 0
    gives_word_times = True
    gives_phone_times = False
    deterministic = False

    def __init__(self, *, licence: str = "") -> None:
        try:
            self._piper: Any = importlib.import_module("piper")
        except ImportError as error:
            raise MissingExtra("speaking with piper voices", "piper") from error
        self._licence = licence
        self._models: dict[str, Any] = {}

    def check_voice(self, voice: str) -> None:
        """Raises DataError: a file is missing, or the model has no such speaker."""
        path, speaker = _split(voice)
        for file in (path, path.with_name(path.name + ".json")):
            if not file.is_file():
                raise DataError(f"piper voice '{voice}': {file} is missing; give PATH.onnx with PATH.onnx.json beside")
        self._speaker_id(path, speaker)

    def voice_version(self, voice: str) -> str:
        path, speaker = _split(voice)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return f"{path.name} sha256 {digest[:16]}" + (f", speaker {speaker}" if speaker else "")

    def licence(self, voice: str) -> str:
        name = _split(voice)[0].stem
        return self._licence or f"piper voice {name}; terms of the voice: see its MODEL_CARD (engine GPL-3.0)"

    def speak(self, utterances: Sequence[Utterance], on_error: OnError | None) -> Iterator[Spoken]:
        # The model adds noise, so nothing is said twice alike and nothing is remembered.
        return speak_by_segment(utterances, self._speak_segment, on_error=on_error, cache_segments=0)

    def _speak_segment(self, voice: str, segment: str) -> Spoken:
        path, speaker = _split(voice)
        model, words = self._model(path), segment.split()
        # "[[" would open raw phonemes.
        text = " ".join(printable_words(segment)).replace("[[", "((").replace("]]", "))")
        options = self._piper.SynthesisConfig(speaker_id=self._speaker_id(path, speaker))
        asked: dict[str, Any] = {"syn_config": options}
        if _takes(model.synthesize, "include_alignments"):
            asked["include_alignments"] = True
        try:
            chunks = list(model.synthesize(text, **asked))
        except (ValueError, RuntimeError) as error:
            raise DataError(f"piper cannot say segment '{segment}' ({error}); correct or drop it") from error
        if not chunks:
            raise DataError(f"the voice is silent for segment '{segment}'; write its language or drop the utterance")
        rate_hz = int(chunks[0].sample_rate)
        waves = [np.asarray(chunk.audio_float_array, np.float32).reshape(-1) for chunk in chunks]
        audio = resample(np.concatenate(waves), rate_hz, TARGET_RATE_HZ)
        np.clip(audio, -1, 1, out=audio)
        spans = _word_spans(words, chunks, [len(wave) for wave in waves], rate_hz, len(audio))
        return Spoken(id="", audio=audio, words=spans, phones=[])

    def _model(self, path: Path) -> Any:
        if str(path) not in self._models:
            load = self._piper.PiperVoice.load
            more = {"include_alignments": True} if _takes(load, "include_alignments") else {}
            self._models[str(path)] = load(str(path), **more)
        return self._models[str(path)]

    def _speaker_id(self, path: Path, speaker: str) -> int | None:
        if not speaker:
            return None
        try:
            settings = json.loads(path.with_name(path.name + ".json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"piper voice {path}.json: not readable ({error}); copy it again") from error
        names: dict[str, int] = settings.get("speaker_id_map") or {}
        count = int(settings.get("num_speakers", 1))
        if speaker in names:
            return int(names[speaker])
        if speaker.isdecimal() and int(speaker) < count:
            return int(speaker)
        known = ", ".join(list(names)[:10]) or f"0 to {count - 1}"
        raise DataError(f"piper voice {path.name}: no speaker '{speaker}'; choose one of: {known}")


def _split(voice: str) -> tuple[Path, str]:
    path, _, speaker = voice.partition("#")
    return Path(path), speaker


def _takes(function: Any, name: str) -> bool:
    """Whether this version of the package knows an argument."""
    return name in inspect.signature(function).parameters


def _word_spans(
    words: Sequence[str], chunks: Sequence[Any], lengths: Sequence[int], rate_hz: int, samples: int
) -> list[Span]:
    """Times of words from phoneme durations; all without time unless groups of phonemes and words agree in number."""
    groups: list[tuple[int, int]] = []
    offset = 0
    for chunk, length in zip(chunks, lengths, strict=True):
        alignments = getattr(chunk, "phoneme_alignments", None)
        if not alignments or sum(int(a.num_samples) for a in alignments) > length + rate_hz // 10:
            return [(word, NO_TIME, NO_TIME) for word in words]
        groups += _groups(alignments, offset)
        # By the audio itself, not by the sum of durations, so that chunks never drift.
        offset += length
    spoken = [index for index, word in enumerate(words) if has_letters(word)]
    if len(groups) != len(spoken):
        return [(word, NO_TIME, NO_TIME) for word in words]
    times = dict(zip(spoken, groups, strict=True))
    spans: list[Span] = []
    latest = 0
    for index, word in enumerate(words):
        start, end = times.get(index, (-1, -1))
        if start < 0:
            spans.append((word, latest, latest))
            continue
        first = min(max(rescale(start, rate_hz, TARGET_RATE_HZ), latest), samples)
        latest = min(max(rescale(end, rate_hz, TARGET_RATE_HZ), first), samples)
        spans.append((word, first, latest))
    return spans


def _groups(alignments: Sequence[Any], offset: int) -> list[tuple[int, int]]:
    """(start, end) of each run of phonemes between gaps; punctuation and its pause belong to no word."""
    groups: list[tuple[int, int]] = []
    is_open = False
    for alignment in alignments:
        end = offset + int(alignment.num_samples)
        phoneme = str(alignment.phoneme)
        if phoneme == WORD_GAP or phoneme in EDGES:
            is_open = False
        elif has_letters(phoneme):
            groups.append((groups.pop()[0] if is_open else offset, end))
            is_open = True
        offset = end
    return groups
