"""Interleaving: which words of an utterance are speech, and the token sequence that follows from it.

Enters: an `InterleaveSource` (words, their text ids, their unit ranges), row numbers, epoch, seed.
Leaves: ragged token ids `<text> the cat <speech> units <text> ...` and statistics of what was drawn.
The one decision worth knowing: the spans are those of the SIMS sampler, but drawn without its rejection loop: start and
length come from one random number, under the same law. The result is a pure function of (seed, utterance id, epoch).

Source: Maimon et al. 2025 (SIMS, arXiv 2504.02398) section 3; Zeng et al. 2024 (arXiv 2411.17607).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, UInt64

from speechscale.errors import DataError
from speechscale.records import NO_TIME, UnitTable, offsets
from speechscale.tokens.ragged import Ragged, draw_bits, ragged_arange, to_unit_interval
from speechscale.tokens.vocabulary import Vocabulary

ONE = 1 << 30
"""Probability 1 as an integer weight: sums of integers do not depend on the batch they are formed in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InterleaveConfig:
    """How speech and text alternate inside one sequence.

    Args:
        mean_span_words: mean of the Poisson law of span lengths; a draw of 0 words is drawn again.
        speech_share: floor of the share of words that are speech; the last span overshoots it.
        markers: open the sequence and every switch with `<speech>` or `<text>`.
        redraw_each_epoch: new spans in each epoch; otherwise every epoch repeats those of epoch 0.
    """

    level: Literal["word"] = "word"
    mean_span_words: float = 10.0
    speech_share: float = 0.3
    markers: bool = True
    redraw_each_epoch: bool = True

    def __post_init__(self) -> None:
        if self.level != "word":
            raise DataError(f"interleave.level '{self.level}': allowed: 'word'")
        if not 0 < self.mean_span_words < 1e6:
            raise DataError(f"interleave.mean_span_words {self.mean_span_words}: give a number above 0")
        if not 0 < self.speech_share <= 1:
            raise DataError(f"interleave.speech_share {self.speech_share}: give a share above 0 and at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class InterleaveSource:
    """Everything interleaving needs, in ragged columns; arrays may be memory maps.

    Args:
        units, unit_offsets: deduplicated units of each row, flat.
        word_offsets: words of row i are `word_offsets[i]:word_offsets[i + 1]`.
        word_tokens, word_token_offsets: text ids of each word, flat.
        word_unit_start, word_unit_end: units that a word overlaps, counted from the first of its row; NO_TIME if
            its time is unknown.
        keys: one hash per row of the utterance id.
    """

    units: Int[np.ndarray, " all_units"]
    unit_offsets: Int[np.ndarray, " rows1"]
    word_offsets: Int[np.ndarray, " rows1"]
    word_tokens: Int[np.ndarray, " all_word_tokens"]
    word_token_offsets: Int[np.ndarray, " words1"]
    word_unit_start: Int[np.ndarray, " words"]
    word_unit_end: Int[np.ndarray, " words"]
    keys: UInt64[np.ndarray, " rows"]
    unit_start: int
    speech_id: int
    text_id: int


def utterance_keys(ids: Iterable[str]) -> UInt64[np.ndarray, " rows"]:
    """Hash utterance ids to 64 bits (BLAKE2b), the same on every machine."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def word_unit_ranges(table: UnitTable) -> tuple[Int[np.ndarray, " words"], Int[np.ndarray, " words"]]:
    """Return the half-open range of units that overlap each word's frames, counted from the first unit of its row.

    Cutting [start, end) on the frame timeline and collapsing the cut gives the same units. A word of zero frames gets
    the unit that sounds at its time, so that a spoken word is never lost. Words without a time get NO_TIME.
    """
    unit_ends = np.cumsum(table.durations_frames, dtype=np.int64)
    row = np.repeat(np.arange(len(table)), np.diff(table.word_offsets))
    frames = np.asarray(table.frames, np.int64)
    base = np.concatenate(([0], np.cumsum(frames)))[row]
    first = np.minimum(table.word_start_frames, frames[row] - 1).astype(np.int64)
    last = np.maximum(table.word_end_frames.astype(np.int64), first + 1)
    start = np.searchsorted(unit_ends, base + first, side="right") - table.unit_offsets[row]
    end = np.searchsorted(unit_ends, base + last, side="left") + 1 - table.unit_offsets[row]
    timed = (table.word_start_frames != NO_TIME) & (table.word_end_frames != NO_TIME)
    return np.where(timed, start, NO_TIME).astype(np.int32), np.where(timed, end, NO_TIME).astype(np.int32)


def make_source(table: UnitTable, vocabulary: Vocabulary) -> InterleaveSource:
    """Prepare a table of units and words for interleaving under a joint vocabulary."""
    if vocabulary.SPEECH is None or vocabulary.TEXT is None:
        raise DataError("interleaving needs a vocabulary with text, units and markers; make one with Vocabulary.joint")
    word_tokens = vocabulary.encode_words(table.words)
    word_unit_start, word_unit_end = word_unit_ranges(table)
    return InterleaveSource(
        units=table.units,
        unit_offsets=table.unit_offsets,
        word_offsets=table.word_offsets,
        word_tokens=word_tokens.flat,
        word_token_offsets=word_tokens.offsets,
        word_unit_start=word_unit_start,
        word_unit_end=word_unit_end,
        keys=utterance_keys(table.ids),
        unit_start=vocabulary.unit_start,
        speech_id=vocabulary.SPEECH,
        text_id=vocabulary.TEXT,
    )


def span_length_weights(mean_span_words: float) -> Int[np.ndarray, " lengths"]:
    """Cumulative law of the span length: entry k is P(length <= k) * 2^30 for a Poisson law without its zero.

    The last entry is exactly 2^30; longer spans have less than 2^-31 probability.
    """
    longest = math.ceil(mean_span_words + 12 * math.sqrt(mean_span_words) + 24)
    k = np.arange(longest + 1)
    log_factorial = np.concatenate(([0.0], np.cumsum(np.log(k[1:]))))
    mass = np.exp(k * math.log(mean_span_words) - mean_span_words - log_factorial)
    mass[0] = 0.0
    total = np.cumsum(mass)
    weights = np.rint(total / total[-1] * ONE).astype(np.int64)
    return weights[: int(np.argmax(weights == ONE)) + 1]


def draw_speech_words(
    timed: Bool[np.ndarray, " words"],
    word_offsets: Int[np.ndarray, " rows1"],
    keys: UInt64[np.ndarray, " rows"],
    *,
    epoch: int,
    config: InterleaveConfig,
    seed: int,
) -> Bool[np.ndarray, " words"]:
    """Choose the words that are speech: spans until at least `speech_share` of each row's words are speech.

    The SIMS sampler draws a start uniformly over the words that are neither speech nor directly behind a span, and a
    Poisson length; it draws again when the span would run into an earlier one, and cuts the span at the end of the
    utterance. So an accepted start has weight P(length fits in front of the next span). Here start and length are
    drawn from these weights directly: one number per span, no rejection.

    Differences: a length of 0 is never drawn (it would mark nothing); a span is also cut in front of a word without a
    time; where no start is left below the share (possible above one half), words directly behind a span may start
    one too. A row whose timed words run out stays below the share.
    """
    law = span_length_weights(config.mean_span_words)
    longest = len(law) - 1
    index = np.arange(len(timed))
    row_words = np.diff(word_offsets)
    # wall[w]: the first word at or behind w that a span from w cannot cover. It never decreases along the array.
    wall = np.where(timed, np.repeat(word_offsets[1:], row_words), index)
    wall = np.minimum.accumulate(wall[::-1])[::-1]
    weight = np.where(timed, ONE, 0).astype(np.int64)
    speech = np.zeros(len(timed), bool)
    missing = np.ceil(config.speech_share * row_words - 1e-9).astype(np.int64)
    active = np.flatnonzero(row_words > 0)
    draw = 0
    while len(active):
        lengths = row_words[active]
        words = ragged_arange(word_offsets[active], lengths)
        cumulative = np.cumsum(weight[words])
        row_last = cumulative[np.cumsum(lengths) - 1]
        row_first = np.concatenate(([0], row_last[:-1]))
        mass = row_last - row_first
        if not mass.all():
            active = _reopen(active, active[mass == 0], weight, timed & ~speech, word_offsets)
            continue
        uniform = to_unit_interval(draw_bits(seed, keys[active], epoch, draw))
        target = row_first + np.minimum((uniform * mass).astype(np.int64), mass - 1)
        position = np.searchsorted(cumulative, target, side="right")
        start = words[position]
        rest = target - (cumulative[position] - weight[start])
        stop = np.minimum(start + np.searchsorted(law, rest, side="right"), wall[start])

        # Words in front of the new span now see it as their wall and need a length that fits.
        before = np.searchsorted(wall, wall[start], side="left")
        front = ragged_arange(before, start - before)
        room = np.repeat(start, start - before) - front
        weight[front] = np.where(weight[front] > 0, np.maximum(law[np.minimum(room, longest)], 1), 0)
        wall[front] = np.repeat(start, start - before)
        chosen = ragged_arange(start, stop - start)
        speech[chosen] = True
        wall[chosen] = chosen
        weight[chosen] = 0
        inside = stop < word_offsets[active + 1]
        weight[stop[inside]] = 0

        missing[active] -= stop - start
        active = active[missing[active] > 0]
        draw += 1
    return speech


def _reopen(
    active: Int[np.ndarray, " active"],
    stuck: Int[np.ndarray, " stuck"],
    weight: Int[np.ndarray, " words"],
    free: Bool[np.ndarray, " words"],
    word_offsets: Int[np.ndarray, " rows1"],
) -> Int[np.ndarray, " alive"]:
    """Let the free words of stuck rows be starts again; return the active rows that still have a start."""
    words = ragged_arange(word_offsets[stuck], word_offsets[stuck + 1] - word_offsets[stuck])
    words = words[free[words]]
    weight[words] = ONE
    alive = np.searchsorted(word_offsets, words, side="right") - 1
    return active[~np.isin(active, stuck) | np.isin(active, alive)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Maximal runs of words of one modality, in order; `first`, `last` are word numbers of the source, inclusive."""

    row: Int[np.ndarray, " segments"]
    first: Int[np.ndarray, " segments"]
    last: Int[np.ndarray, " segments"]
    is_speech: Bool[np.ndarray, " segments"]


def draw_segments(
    source: InterleaveSource, rows: Int[np.ndarray, " rows"], epoch: int, config: InterleaveConfig, seed: int
) -> Segments:
    """Draw the modality of each word and join neighbors of one modality; `row` counts within `rows`."""
    first_word = np.asarray(source.word_offsets[rows], np.int64)
    row_words = np.asarray(source.word_offsets[rows + 1], np.int64) - first_word
    words = ragged_arange(first_word, row_words)
    speech = draw_speech_words(
        np.asarray(source.word_unit_start[words]) != NO_TIME,
        offsets(row_words),
        np.asarray(source.keys[rows]),
        epoch=epoch if config.redraw_each_epoch else 0,
        config=config,
        seed=seed,
    )
    row = np.repeat(np.arange(len(rows)), row_words)
    opens = np.ones(len(words), bool)
    opens[1:] = (speech[1:] != speech[:-1]) | (row[1:] != row[:-1])
    start = np.flatnonzero(opens)
    stop = np.append(start[1:], len(words)) - 1 if len(start) else start
    return Segments(row=row[start], first=words[start], last=words[stop], is_speech=speech[start])


def interleave_batch(
    source: InterleaveSource, rows: Int[np.ndarray, " rows"], epoch: int, config: InterleaveConfig, seed: int
) -> Ragged:
    """Build the token sequences of the given rows.

    A text segment is the ids of its words. A speech segment is every unit that overlaps the frames from the start of
    its first word to the end of its last word: pauses inside are kept, sound between segments is dropped.

    Returns:
        int32 ids and offsets (rows + 1); a row without words is empty.
    """
    rows = np.asarray(rows, np.int64)
    segments = draw_segments(source, rows, epoch, config, seed)
    text_start = np.asarray(source.word_token_offsets[segments.first], np.int64)
    text_stop = np.asarray(source.word_token_offsets[segments.last + 1], np.int64)
    unit_base = np.asarray(source.unit_offsets[rows], np.int64)[segments.row]
    unit_first = unit_base + source.word_unit_start[segments.first]
    unit_stop = unit_base + source.word_unit_end[segments.last]
    begin = np.where(segments.is_speech, unit_first, text_start)
    length = np.where(segments.is_speech, unit_stop, text_stop) - begin

    markers = int(config.markers)
    out_stop = np.cumsum(length + markers)
    out_begin = out_stop - length
    tokens = np.empty(int(out_stop[-1]) if len(out_stop) else 0, np.int32)
    if markers:
        tokens[out_begin - 1] = np.where(segments.is_speech, source.speech_id, source.text_id)
    for is_speech, flat, shift in ((True, source.units, source.unit_start), (False, source.word_tokens, 0)):
        own = segments.is_speech == is_speech
        ids = np.asarray(flat[ragged_arange(begin[own], length[own])]).astype(np.int32)
        tokens[ragged_arange(out_begin[own], length[own])] = ids + np.int32(shift)
    row_tokens = np.bincount(segments.row, weights=length + markers, minlength=len(rows)).astype(np.int64)
    return Ragged(tokens, offsets(row_tokens))


@dataclass(frozen=True, slots=True, kw_only=True)
class InterleaveStats:
    """What a draw came out as; shares are over words resp. tokens, a mean of nothing is NaN."""

    utterances: int
    words: int
    speech_word_share: float
    mean_speech_runs: float
    mean_run_words: float
    speech_tokens: int
    text_tokens: int
    marker_tokens: int


def interleave_stats(
    source: InterleaveSource, rows: Int[np.ndarray, " rows"], epoch: int, config: InterleaveConfig, seed: int
) -> InterleaveStats:
    """Measure realized speech share, speech runs per utterance, words per run, and tokens by modality."""
    rows = np.asarray(rows, np.int64)
    segments = draw_segments(source, rows, epoch, config, seed)
    spoken = segments.is_speech
    words = segments.last - segments.first + 1
    units = np.asarray(source.word_unit_end[segments.last]) - np.asarray(source.word_unit_start[segments.first])
    texts = source.word_token_offsets[segments.last + 1] - source.word_token_offsets[segments.first]
    runs = int(spoken.sum())
    total = int(words.sum())
    return InterleaveStats(
        utterances=len(rows),
        words=total,
        speech_word_share=float(words[spoken].sum()) / total if total else math.nan,
        mean_speech_runs=runs / len(rows) if len(rows) else math.nan,
        mean_run_words=float(words[spoken].sum()) / runs if runs else math.nan,
        speech_tokens=int(units[spoken].sum(dtype=np.int64)),
        text_tokens=int(texts[~spoken].sum()),
        marker_tokens=len(words) if config.markers else 0,
    )
