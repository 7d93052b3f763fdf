"""Turn any corpus into units.

Enters: utterances, spoken on the fly by a voice or read from files. Leaves: a `UnitTable`, and a reason for every
utterance that is not in it. The one decision worth knowing: both sources become `Spoken` (audio and words in samples at
16 kHz) before anything else happens, so that there is one pipeline; batches only save time and never change a unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from speechscale.align.formats import clip_words
from speechscale.errors import DataError
from speechscale.records import NO_TIME, UnitTable, UnitTableBuilder, Utterance, dedup
from speechscale.skips import SkipLog
from speechscale.speech.audio import TARGET_RATE_HZ, load_audio, resample
from speechscale.speech.units import SpeechTokenizer, phone_frames, word_frames
from speechscale.voices.espeak import Spoken, speak_shard

SHARD_UTTERANCES = 512
"""Utterances per call of a loader: one start of the voice engine, one cache of its segments. It never changes audio."""

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
    """Load the audio files of utterances, whose paths are relative to `root`. Words without time stay so."""

    root: Path
    has_phones: bool = field(default=False, init=False)

    def __call__(self, utterances: Sequence[Utterance], on_error: OnError) -> Iterator[Spoken]:
        for utterance in utterances:
            try:
                yield self._load(utterance)
            except DataError as error:
                # Relative paths, so that the same corpus gives the same skips wherever it lies.
                on_error(utterance.id, str(error).replace(f"{self.root}/", ""))

    def _load(self, utterance: Utterance) -> Spoken:
        path = self.root / utterance.audio
        if not utterance.audio or not path.resolve().is_relative_to(self.root.resolve()):
            raise DataError(f"audio '{utterance.audio}' is not inside the corpus folder; read the folder again")
        audio = load_audio(path).audio
        words = []
        for word in clip_words(utterance.words, len(audio) / TARGET_RATE_HZ):
            if word.start_s is None or word.end_s is None:
                words.append((word.text, NO_TIME, NO_TIME))
            else:
                start, end = round(word.start_s * TARGET_RATE_HZ), round(word.end_s * TARGET_RATE_HZ)
                words.append((word.text, start, min(end, len(audio))))
        return Spoken(id=utterance.id, audio=audio, words=words, phones=[])


def encode_corpus(
    utterances: Iterable[Utterance],
    tokenizer: SpeechTokenizer,
    *,
    loader: Loader,
    skips: SkipLog,
    keep_audio: int = 0,
    on_audio: Callable[[str, Float[np.ndarray, "samples"]], None] | None = None,
    shard_utterances: int = SHARD_UTTERANCES,
    batch_s: float = 120.0,
) -> UnitTable:
    """Encode every utterance to deduplicated units with word frames; drop bad ones with a reason.

    Args:
        loader: `VoiceLoader()` or `FileLoader(root=...)`.
        skips: receives what is dropped.
        keep_audio: how many of the first kept utterances `on_audio(id, waveform at 16 kHz)` gets.
        batch_s: seconds of audio in memory at once (and at least one utterance).

    Raises:
        DataError: no utterance at all, or none usable (with the first reasons), or an oracle tokenizer on recordings.
    """
    if tokenizer.oracle and not loader.has_phones:
        raise DataError(
            "units 'phones' are the voice engine's own phone events, which exist only for synthesized speech; "
            "use an encoder such as 'mfcc' for recordings"
        )
    assert (keep_audio > 0) == (on_audio is not None), "keep_audio and on_audio go together"
    builder = UnitTableBuilder(frame_rate_hz=tokenizer.frame_rate_hz, num_units=tokenizer.num_units)
    counts = _Counts()
    kept, before = 0, len(skips)
    for batch in _batches(_load(utterances, loader, skips, counts, shard_utterances), batch_s):
        for (utterance, spoken), frames in zip(batch, _frames(tokenizer, batch), strict=True):
            try:
                if isinstance(frames, DataError):
                    raise frames
                _add(builder, tokenizer, utterance, spoken, frames)
            except DataError as error:
                _skip(skips, utterance.id, str(error))
                continue
            if on_audio is not None and kept < keep_audio:
                on_audio(utterance.id, spoken.audio)
            kept += 1
    skips.check(read=counts.read, kept=kept, since=before)
    if kept == 0:
        if not counts.read:
            raise DataError("the corpus has no utterances to encode; check its folder, splits and counts")
        raise DataError(f"none of {counts.read} utterances can be used: {SkipLog(skips.skips[before:]).first()}")
    return builder.build()


def sample_waveforms(
    utterances: Iterable[Utterance],
    *,
    loader: Loader,
    max_hours: float,
    sample_rate_hz: int = TARGET_RATE_HZ,
    skips: SkipLog | None = None,
    shard_utterances: int = SHARD_UTTERANCES,
) -> Iterator[Float[np.ndarray, "samples"]]:
    """Yield the waveforms of the first utterances until `max_hours` of audio are out, to fit k-means on.

    The last one may go over. Utterances that cannot be used are passed over (and reported to `skips`, if given).

    Args:
        sample_rate_hz: what the encoder wants.

    Raises:
        DataError: not one utterance could be used.
    """
    log = SkipLog() if skips is None else skips
    samples, limit = 0, max_hours * 3600 * TARGET_RATE_HZ
    for _, spoken in _load(utterances, loader, log, _Counts(), shard_utterances):
        samples += len(spoken.audio)
        yield resample(spoken.audio, TARGET_RATE_HZ, sample_rate_hz)
        if samples >= limit:
            return
    if samples == 0:
        raise DataError(f"no audio to fit units on: {log.first() or 'the corpus is empty'}")


@dataclass(slots=True)
class _Counts:
    read: int = 0


def _load(
    utterances: Iterable[Utterance], loader: Loader, skips: SkipLog, counts: _Counts, shard_utterances: int
) -> Iterator[tuple[Utterance, Spoken]]:
    """Pair each utterance with its audio, shard by shard, in order; skip what the loader reports."""
    stream, seen = iter(utterances), set[str]()
    while shard := list(islice(stream, shard_utterances)):
        counts.read += len(shard)
        fresh: dict[str, Utterance] = {}
        for utterance in shard:
            if utterance.id in seen:
                skips.add(utterance.id, "an earlier utterance has the same id", "give every utterance its own id")
            else:
                seen.add(utterance.id)
                fresh[utterance.id] = utterance
        reported: set[str] = set()

        def report(id: str, message: str, reported: set[str] = reported) -> None:
            reported.add(id)
            _skip(skips, id, message)

        for spoken in loader(list(fresh.values()), report):
            yield fresh.pop(spoken.id), spoken
        assert fresh.keys() == reported, f"the loader lost {sorted(fresh.keys() ^ reported)[:3]}"


def _batches(pairs: Iterable[tuple[Utterance, Spoken]], batch_s: float) -> Iterator[list[tuple[Utterance, Spoken]]]:
    batch: list[tuple[Utterance, Spoken]] = []
    samples = 0
    for pair in pairs:
        batch.append(pair)
        samples += len(pair[1].audio)
        if samples >= batch_s * TARGET_RATE_HZ:
            yield batch
            batch, samples = [], 0
    if batch:
        yield batch


def _frames(
    tokenizer: SpeechTokenizer, batch: Sequence[tuple[Utterance, Spoken]]
) -> list[Int[np.ndarray, "frames"] | DataError]:
    """Units per frame of each utterance, or what is wrong with it."""

    def waveform(spoken: Spoken) -> np.ndarray:
        return resample(spoken.audio, TARGET_RATE_HZ, tokenizer.sample_rate_hz)

    def one(spoken: Spoken) -> np.ndarray | DataError:
        try:
            if tokenizer.oracle:
                return phone_frames(tokenizer, spoken.phones, len(spoken.audio))
            return tokenizer.units([waveform(spoken)])[0]
        except DataError as error:
            return error

    if not tokenizer.oracle:
        try:
            return list(tokenizer.units([waveform(spoken) for _, spoken in batch]))
        except DataError:
            pass  # One of them is bad; find out which.
    return [one(spoken) for _, spoken in batch]


def _add(
    builder: UnitTableBuilder,
    tokenizer: SpeechTokenizer,
    utterance: Utterance,
    spoken: Spoken,
    frames: Int[np.ndarray, "frames"],
) -> None:
    units, durations = dedup(frames)
    # With phone units, words must end on the frames where their phones end.
    phones = spoken.phones if tokenizer.oracle else ()
    builder.add(
        id=utterance.id,
        speaker=utterance.speaker,
        split=utterance.split,
        text=utterance.text,
        units=units,
        durations_frames=durations,
        words=[word for word, _, _ in spoken.words],
        word_frames=word_frames(spoken.words, tokenizer.frame_rate_hz, TARGET_RATE_HZ, len(frames), phones=phones),
    )


def _skip(skips: SkipLog, id: str, message: str) -> None:
    """File a message of the form 'what is wrong; remedy'."""
    reason, _, remedy = message.rpartition("; ")
    skips.add(id, reason or remedy, remedy if reason else "correct or drop the utterance")
