"""Speak utterances with curated espeak-ng voices and say exactly when each word and phone sounds.

Enters: utterances (segments and the name of a voice). Leaves: `Spoken`, in order: 16 kHz audio, words, phones.
The one decision worth knowing: a fork of one pristine engine process speaks each (voice, segment), so its audio
depends on nothing else: not on order, shard, number of workers or restarts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.records import Utterance
from speechscale.speech.audio import TARGET_RATE_HZ, resample
from speechscale.voices.espeak_process import EngineLost, EngineProcess, Tone, engine_paths
from speechscale.voices.word_events import PAUSE, has_letters, merged_groups, phone_spans, split_merged, tile

MIN_PAUSE_S = 0.15
"""Silence between segments, at least."""
GRID_SAMPLES = 640
"""Segments start on multiples of 40 ms at 16 kHz, a whole number of frames at 25, 50 and 100 Hz, so that framing never
differs between two places where a segment is spoken."""
TAIL_S = 0.05
"""Sound kept behind the last phone of a segment; the engine leaves between 0.01 and 0.1 s of silence."""
CACHE_SEGMENTS = 1024
"""Segments remembered within a shard, about 0.1 MB each."""

Span = tuple[str, int, int]
"""Text or label, start and end sample at 16 kHz."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """A formant variant of one synthesizer, not a person.

    Args:
        language: English variety, as the engine names it ("en" is British).
        variant: formant set of the engine.
        held_out: reserved for evaluation; its variant speaks in no training voice.
        rate_wpm: words per minute. pitch: 0 to 99, 50 leaves the variant's own range.
    """

    name: str
    language: str
    variant: str
    held_out: bool = False
    rate_wpm: int = 175
    pitch: int = 50


VOICES: dict[str, Voice] = {
    voice.name: voice
    for voice in (
        Voice(name="us-f2", language="en-us", variant="f2"),
        Voice(name="gb-m3", language="en", variant="m3"),
        Voice(name="us-m1", language="en-us", variant="m1"),
        Voice(name="gb-f1", language="en", variant="f1"),
        Voice(name="scotland-m2", language="en-gb-scotland", variant="m2"),
        Voice(name="us-f4", language="en-us", variant="f4"),
        Voice(name="caribbean-m7", language="en-029", variant="m7"),
        Voice(name="rp-f2", language="en-gb-x-rp", variant="f2", pitch=40),
        Voice(name="nyc-m4", language="en-us-nyc", variant="m4"),
        Voice(name="lancaster-f4", language="en-gb-x-gbclan", variant="f4", pitch=60),
        Voice(name="gb-m1", language="en", variant="m1", pitch=40),
        Voice(name="us-m7", language="en-us", variant="m7", pitch=60),
        Voice(name="us-f3", language="en-us", variant="f3", held_out=True),
        Voice(name="gb-m6", language="en", variant="m6", held_out=True),
        Voice(name="us-m8", language="en-us", variant="m8", held_out=True),
        Voice(name="gb-f5", language="en", variant="f5", held_out=True),
    )
}
"""Training voices first; each prefix of either kind mixes sexes."""

INVENTORY_TEXT = (
    "the quick brown fox jumps over the lazy dog while a small bird sings above",
    "she sells sea shells by the sea shore and he measures treasure with pleasure",
    "boys enjoy noisy toys now and how about the brown cow outside our house",
    "father thought the north wind was stronger than the sun in the early morning",
    "their hair is fair near here for sure and the poor tourists hear pure music",
    "thirty three thieves thought they thrilled the throne throughout thursday",
    "joan chose a huge orange sponge and judge george watched each page",
    "good books could put a full cushion where the wolf would look",
    "bring the long string and sing a song in the evening with uncle hank",
    "the little bottle of water and butter is better later at the city party",
    "we usually use a new blue tube and a few human cubes on tuesday",
    "an idea about the area is to go on for ever and ever after all of it",
    "fire power hour tower liar buyer player mayor lawyer flower",
    "button cotton kitten mountain sudden garden eaten written certain",
    "my own eye saw a high white kite in the sky at night as I lay by the fire",
    "what happened to the happy family of eleven animals at the hotel",
    "zebras and lions visit the vast zoo whose owner loves every visitor very much",
    "bread red head said many any friends went again when the letter came",
    "cats and dogs walked past the last bath and laughed at the dance after half an hour",
    "cot caught dog log song hot stop lot off coffee wash want watch",
    "first bird heard her word and turned the world of work to earth",
    "no one knows the whole story of old cold gold bowls going home slowly alone",
    "train dry tree drum street strong christmas tube duty stew dune",
    "loch uh oh yes yet you yellow onion million william failure",
    "one two three four five six seven eight nine ten eleven twelve hundred thousand",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z",
    "fork torch court door floor four more sport wore force cord lord order",
    "serious period hero zero mirror spirit marry merry mary hurry courage sorry tomorrow orange",
    "ill will milk wolf bulb help belt fell tall ball all always people table apple school rule feel real",
    "does not do to be been have had has there was out of it in the on the from the is in as if at all",
)
"""Sentences whose phones make up `phone_inventory`: all phones of English words in the shipped varieties."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """A spoken utterance; spans are half-open sample ranges at 16 kHz.

    Args:
        audio: mono, float32 in [-1, 1].
        words: every whitespace-separated word of the segments, in order; punctuation alone has an empty span.
        phones: labels of the engine without stress, "_" for silence; they tile the audio, and word borders are
            phone borders. Empty for recordings.
    """

    id: str
    audio: Float[np.ndarray, "samples"]
    words: list[Span]
    phones: list[Span]


def speak_shard(
    utterances: Sequence[Utterance],
    *,
    timeout_s: float = 60.0,
    on_error: Callable[[str, str], None] | None = None,
) -> Iterator[Spoken]:
    """Speak `segments` of each utterance in the voice named by `speaker`, in order, joined by short pauses.

    Args:
        timeout_s: patience per segment; then the engine process is replaced and the utterance tried once more.
        on_error: receives (id, "reason; remedy") of each utterance that cannot be spoken, which is then left out.

    Raises:
        MissingExtra: espeakng-loader is not installed.
        DataError: unknown voice, unusable engine; without `on_error` also the first utterance that cannot be spoken.
    """
    for utterance in utterances:
        if utterance.speaker not in VOICES:
            raise DataError(
                f"utterance {utterance.id}: no voice '{utterance.speaker}'; choose one of: {', '.join(VOICES)}"
            )
    engine_paths()  # Raises here, not at the first `next`.
    return _speak(utterances, timeout_s, on_error)


def phone_inventory(voices: Sequence[str], *, timeout_s: float = 60.0) -> tuple[str, ...]:
    """List the phone labels of the given voices, sorted, "_" among them.

    Voices of one language share their labels, so one of each language speaks `INVENTORY_TEXT`.

    Raises:
        DataError, MissingExtra: as `speak_shard`.
    """
    unknown = [name for name in voices if name not in VOICES]
    if unknown or not voices:
        raise DataError(f"phones of voices {unknown or 'none'}: choose some of: {', '.join(VOICES)}")
    speakers = {VOICES[name].language: name for name in reversed(voices)}
    shard = [
        Utterance(id=f"inventory-{name}", text="", speaker=name, split="train", segments=INVENTORY_TEXT)
        for name in speakers.values()
    ]
    return tuple(
        sorted({label for spoken in speak_shard(shard, timeout_s=timeout_s) for label, _, _ in spoken.phones} | {PAUSE})
    )


def _speak(
    utterances: Sequence[Utterance], timeout_s: float, on_error: Callable[[str, str], None] | None
) -> Iterator[Spoken]:
    engine = EngineProcess(timeout_s)
    speak_once = lru_cache(CACHE_SEGMENTS)(lambda voice, segment: _speak_segment(engine, VOICES[voice], segment))
    try:
        for utterance in utterances:
            try:
                spoken = _speak_utterance(utterance, speak_once)
            except DataError as error:
                if on_error is None:
                    raise DataError(f"utterance {utterance.id}: {error}") from error
                on_error(utterance.id, str(error))
                continue
            yield spoken
    finally:
        engine.stop()


def _speak_utterance(utterance: Utterance, speak_once: Callable[[str, str], Spoken]) -> Spoken:
    """Speak and join the segments; a lost engine process costs one retry."""
    if not utterance.segments:
        raise DataError("it has no segments to speak; give it at least one sentence")
    for segment in utterance.segments:
        if not has_letters(segment):
            raise DataError(f"segment '{segment}' has no letters or digits; correct its text or drop the utterance")
    try:
        parts = [speak_once(utterance.speaker, segment) for segment in utterance.segments]
    except EngineLost:
        try:
            parts = [speak_once(utterance.speaker, segment) for segment in utterance.segments]
        except EngineLost as error:
            raise DataError(f"the voice engine {error}, twice; simplify its text or drop the utterance") from error
    return _join(utterance.id, parts)


def _join(id: str, parts: Sequence[Spoken]) -> Spoken:
    """Put segments behind each other, each starting on the grid, after at least the minimal pause."""
    starts, length = [], 0
    for part in parts:
        starts.append(length)
        end = length + len(part.audio)
        length = -(-(end + round(MIN_PAUSE_S * TARGET_RATE_HZ)) // GRID_SAMPLES) * GRID_SAMPLES
    audio = np.zeros(starts[-1] + len(parts[-1].audio), np.float32)
    words: list[Span] = []
    phones: list[Span] = []
    for start, part in zip(starts, parts, strict=True):
        audio[start : start + len(part.audio)] = part.audio
        words += [(text, start + a, start + b) for text, a, b in part.words]
        if phones and phones[-1][2] < start:
            phones.append((PAUSE, phones[-1][2], start))
        phones += [(label, start + a, start + b) for label, a, b in part.phones]
    return Spoken(id=id, audio=audio, words=words, phones=_merge_pauses(phones))


def _merge_pauses(phones: Sequence[Span]) -> list[Span]:
    merged: list[Span] = []
    for label, start, end in phones:
        if merged and label == PAUSE == merged[-1][0]:
            merged[-1] = (PAUSE, merged[-1][1], end)
        else:
            merged.append((label, start, end))
    return merged


def _speak_segment(engine: EngineProcess, voice: Voice, segment: str) -> Spoken:
    """Speak one segment: audio from its first sample to shortly behind its last phone."""
    words = segment.split()
    tone = Tone(voice=f"{voice.language}+{voice.variant}", rate_wpm=voice.rate_wpm, pitch=voice.pitch)
    # Control characters would be commands to the engine; replaced one for one, so that text positions stay.
    said = ["".join(character if character.isprintable() else " " for character in word) for word in words]
    pcm, events = engine.speak(tone, " ".join(said))
    phones = phone_spans(words, events, len(pcm))
    if not phones:
        raise DataError(f"the voice is silent for segment '{segment}'; write it in English or drop the utterance")
    for group in merged_groups(words, phones):
        split_merged(words, phones, group, engine.spell(tone, tuple(said[index] for index in group)))
    pcm = pcm[: phones[-1].end + round(TAIL_S * engine.rate_hz)]
    audio = resample(pcm.astype(np.float32) / 32768, engine.rate_hz, TARGET_RATE_HZ)
    np.clip(audio, -1, 1, out=audio)
    timed = tile(words, phones, engine.rate_hz, TARGET_RATE_HZ, len(audio))
    spans = [(word, start, end) for word, (start, end) in zip(words, timed.words, strict=True)]
    return Spoken(id="", audio=audio, words=spans, phones=timed.phones)
