"""Turn any corpus into units.

Enters: utterances and a loader of their audio. Leaves: units and word frames of each, as a stream or a `UnitTable`, and
a reason for every utterance that is not in it. The one decision worth knowing: batches only save time and never change
a unit, so a corpus may be cut into shards, resumed and encoded by any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Float, Int

from speechscale.corpus.loaders import FileLoader, Loader, OnError, VoiceLoader, at_rate
from speechscale.errors import DataError
from speechscale.records import UnitTable, UnitTableBuilder, Utterance, dedup, unit_row_problem
from speechscale.skips import SkipLog
from speechscale.speech.audio import TARGET_RATE_HZ, resample
from speechscale.speech.units import SpeechTokenizer, phone_frames, word_frames
from speechscale.voices.espeak import Spoken

__all__ = [
    "SHARD_UTTERANCES",
    "Encoded",
    "FileLoader",
    "Loader",
    "OnError",
    "VoiceLoader",
    "encode_corpus",
    "encode_stream",
    "sample_waveforms",
]

SHARD_UTTERANCES = 512
"""Utterances per call of a loader: one start of the voice engine, one cache of its segments. It never changes audio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One utterance with its units, checked: durations sum to the frames, words lie inside and in order."""

    utterance: Utterance
    spoken: Spoken
    units: Int[np.ndarray, " units"]
    durations_frames: Int[np.ndarray, " units"]
    words: list[str]
    word_frames: Int[np.ndarray, "words 2"]

    def add_to(self, builder: UnitTableBuilder) -> None:
        builder.add(
            id=self.utterance.id,
            speaker=self.utterance.speaker,
            split=self.utterance.split,
            text=self.utterance.text,
            units=self.units,
            durations_frames=self.durations_frames,
            words=self.words,
            word_frames=self.word_frames,
        )


def encode_stream(
    utterances: Iterable[Utterance],
    tokenizer: SpeechTokenizer,
    *,
    loader: Loader,
    skips: SkipLog,
    shard_utterances: int = SHARD_UTTERANCES,
    batch_s: float = 120.0,
) -> Iterator[Encoded]:
    """Encode utterances one after the other; memory holds `batch_s` seconds of audio (and at least one utterance).

    Args:
        loader: `VoiceLoader()` or `FileLoader(root=...)`.
        skips: receives what is dropped; read = yielded + dropped is asserted at the end.

    Raises:
        DataError: an oracle tokenizer on recordings, or no utterance at all.
    """
    if tokenizer.oracle and not loader.has_phones:
        raise DataError(
            "units 'phones' are the voice engine's own phone events, which exist only for synthesized speech; "
            "use an encoder such as 'adapted' for recordings"
        )
    counts, kept, before = _Counts(), 0, len(skips)
    loader = at_rate(loader, tokenizer.sample_rate_hz)
    for batch in _batches(_load(utterances, loader, skips, counts, shard_utterances), batch_s):
        for (utterance, spoken), frames in zip(batch, _frames(tokenizer, batch), strict=True):
            try:
                if isinstance(frames, DataError):
                    raise frames
                encoded = _encoded(tokenizer, utterance, spoken, frames)
            except DataError as error:
                _skip(skips, utterance.id, str(error))
                continue
            kept += 1
            yield encoded
    skips.check(read=counts.read, kept=kept, since=before)
    if not counts.read:
        raise DataError("the corpus has no utterances to encode; check its folder, splits and counts")


def encode_corpus(
    utterances: Iterable[Utterance],
    tokenizer: SpeechTokenizer,
    *,
    loader: Loader,
    skips: SkipLog,
    keep_audio: int = 0,
    on_audio: Callable[[str, Float[np.ndarray, " samples"]], None] | None = None,
    shard_utterances: int = SHARD_UTTERANCES,
    batch_s: float = 120.0,
) -> UnitTable:
    """Encode every utterance into one table in memory; arguments as `encode_stream`.

    Args:
        keep_audio: how many of the first kept utterances `on_audio(id, waveform at 16 kHz)` gets.

    Raises:
        DataError: no utterance at all, or none usable (with the first reasons), or an oracle tokenizer on recordings.
    """
    assert (keep_audio > 0) == (on_audio is not None), "keep_audio and on_audio go together"
    builder = UnitTableBuilder(frame_rate_hz=tokenizer.frame_rate_hz, num_units=tokenizer.num_units)
    kept, before = 0, len(skips)
    for encoded in encode_stream(
        utterances, tokenizer, loader=loader, skips=skips, shard_utterances=shard_utterances, batch_s=batch_s
    ):
        encoded.add_to(builder)
        if on_audio is not None and kept < keep_audio:
            spoken = encoded.spoken
            on_audio(encoded.utterance.id, resample(spoken.audio, spoken.sample_rate_hz, TARGET_RATE_HZ))
        kept += 1
    if kept == 0:
        dropped = SkipLog(skips.skips[before:])
        raise DataError(f"none of {len(dropped)} utterances can be used: {dropped.first()}")
    return builder.build()


def sample_waveforms(
    utterances: Iterable[Utterance],
    *,
    loader: Loader,
    max_hours: float,
    sample_rate_hz: int = TARGET_RATE_HZ,
    skips: SkipLog | None = None,
    shard_utterances: int = SHARD_UTTERANCES,
) -> Iterator[Float[np.ndarray, " samples"]]:
    """Yield the waveforms of the first utterances until `max_hours` of audio are out, to fit k-means on.

    The last one may go over. Utterances that cannot be used are passed over (and reported to `skips`, if given).

    Args:
        sample_rate_hz: what the encoder wants.

    Raises:
        DataError: not one utterance could be used.
    """
    log = SkipLog() if skips is None else skips
    seconds, limit = 0.0, max_hours * 3600
    for _, spoken in _load(utterances, at_rate(loader, sample_rate_hz), log, _Counts(), shard_utterances):
        seconds += len(spoken.audio) / spoken.sample_rate_hz
        yield resample(spoken.audio, spoken.sample_rate_hz, sample_rate_hz)
        if seconds >= limit:
            return
    if seconds == 0:
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
    seconds = 0.0
    for pair in pairs:
        batch.append(pair)
        seconds += len(pair[1].audio) / pair[1].sample_rate_hz
        if seconds >= batch_s:
            yield batch
            batch, seconds = [], 0.0
    if batch:
        yield batch


def _frames(
    tokenizer: SpeechTokenizer, batch: Sequence[tuple[Utterance, Spoken]]
) -> list[Int[np.ndarray, " frames"] | DataError]:
    """Units per frame of each utterance, or what is wrong with it."""

    def waveform(spoken: Spoken) -> np.ndarray:
        return resample(spoken.audio, spoken.sample_rate_hz, tokenizer.sample_rate_hz)

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


def _encoded(
    tokenizer: SpeechTokenizer, utterance: Utterance, spoken: Spoken, frames: Int[np.ndarray, " frames"]
) -> Encoded:
    """Join units and words. Raises DataError if they do not fit together."""
    units, durations = dedup(frames)
    words = [word for word, _, _ in spoken.words]
    # With phone units, words must end on the frames where their phones end.
    phones = spoken.phones if tokenizer.oracle else ()
    spans = word_frames(spoken.words, tokenizer.frame_rate_hz, spoken.sample_rate_hz, len(frames), phones=phones)
    problem = unit_row_problem(units, durations, words, spans, tokenizer.num_units)
    if problem:
        raise DataError(f"utterance {utterance.id}: {problem}")
    return Encoded(
        utterance=utterance,
        spoken=spoken,
        units=units,
        durations_frames=durations,
        words=words,
        word_frames=spans,
    )


def _skip(skips: SkipLog, id: str, message: str) -> None:
    """File a message of the form 'what is wrong; remedy'."""
    reason, _, remedy = message.rpartition("; ")
    skips.add(id, reason or remedy, remedy if reason else "correct or drop the utterance")
