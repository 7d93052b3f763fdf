"""Speak utterances with curated espeak-ng voices and say exactly when each word and phone sounds.

Enters: utterances (segments and the name of a voice). Leaves: `Spoken`, in order: 16 kHz audio, words, phones.
The one decision worth knowing: a fork of one pristine engine process speaks each (voice, segment), so its audio
depends on nothing else: not on order, shard, number of workers or restarts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata

import numpy as np

from speechscale.errors import DataError
from speechscale.records import Utterance
from speechscale.speech.audio import TARGET_RATE_HZ, resample
from speechscale.voices.espeak_process import EngineProcess, Tone, engine_paths
from speechscale.voices.segments import OnError, printable_words, speak_by_segment
from speechscale.voices.spoken import GRID_SAMPLES, MIN_PAUSE_S, Span, Spoken
from speechscale.voices.word_events import PAUSE, merged_groups, phone_spans, split_merged, tile

__all__ = [
    "GRID_SAMPLES",
    "MIN_PAUSE_S",
    "VOICES",
    "EspeakEngine",
    "Span",
    "Spoken",
    "Voice",
    "phone_inventory",
    "speak_shard",
]

TAIL_S = 0.05
"""Sound kept behind the last phone of a segment; the engine leaves between 0.01 and 0.1 s of silence."""


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


class EspeakEngine:
    """The curated voices behind the interface of all engines; see `engines.Engine`."""

    name = "espeak"
    voices: tuple[str, ...] = tuple(VOICES)
    sample_rate_hz = 22_050
    gives_word_times = True
    gives_phone_times = True
    deterministic = True

    def __init__(self, *, timeout_s: float = 60.0) -> None:
        engine_paths()
        self.timeout_s = timeout_s

    def check_voice(self, voice: str) -> None:
        if voice not in VOICES:
            raise DataError(f"no espeak voice '{voice}'; choose one of: {', '.join(VOICES)}")

    def voice_version(self, voice: str) -> str:
        made = VOICES[voice]
        loader = metadata.version("espeakng-loader")
        return f"espeakng-loader {loader}, {made.language}+{made.variant}, {made.rate_wpm} wpm, pitch {made.pitch}"

    def licence(self, voice: str) -> str:
        return f"espeak-ng formant voice {voice} (engine GPL-3.0-or-later)"

    def speak(self, utterances: Sequence[Utterance], on_error: OnError | None) -> Iterator[Spoken]:
        return speak_shard(utterances, timeout_s=self.timeout_s, on_error=on_error)


def _speak(
    utterances: Sequence[Utterance], timeout_s: float, on_error: Callable[[str, str], None] | None
) -> Iterator[Spoken]:
    engine = EngineProcess(timeout_s)
    try:
        yield from speak_by_segment(
            utterances, lambda voice, segment: _speak_segment(engine, VOICES[voice], segment), on_error=on_error
        )
    finally:
        engine.stop()


def _speak_segment(engine: EngineProcess, voice: Voice, segment: str) -> Spoken:
    """Speak one segment: audio from its first sample to shortly behind its last phone."""
    words, said = segment.split(), printable_words(segment)
    tone = Tone(voice=f"{voice.language}+{voice.variant}", rate_wpm=voice.rate_wpm, pitch=voice.pitch)
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
