"""Interleaving: the token sequence of an utterance whose words are partly speech, partly text.

Enters: an `InterleaveSource` (words, their text ids, where they sound), row numbers, epoch, seed.
Leaves: a plan with the length of each sequence, and on demand its ids `<text> the cat <speech> units <text> ...`.
The one decision worth knowing: spans are drawn anew wherever they are needed, as a pure function of (seed, utterance
id, epoch), so that nothing about them is stored and each epoch can hear other words.

Source: Maimon et al. 2025 (SIMS, arXiv 2504.02398) section 3; Zeng et al. 2024 (arXiv 2411.17607).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt64

from speechscale.errors import DataError
from speechscale.records import NO_TIME, UnitTable, offsets
from speechscale.tokens.cuts import SENTENCE_END, WordCuts, unit_ranges, word_cuts, word_unit_ranges
from speechscale.tokens.interleave_config import InterleaveConfig, Knot
from speechscale.tokens.ragged import Ragged, draw_bits, ragged_arange
from speechscale.tokens.spans import COIN, draw_speech
from speechscale.tokens.vocabulary import Vocabulary

__all__ = [
    "InterleaveConfig",
    "InterleavePlan",
    "InterleaveSource",
    "Knot",
    "Segments",
    "draw_segments",
    "interleave_batch",
    "make_source",
    "plan_interleave",
    "utterance_keys",
    "word_unit_ranges",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class InterleaveSource:
    """Everything interleaving needs, in ragged columns; arrays may be memory maps.

    Args:
        units, unit_offsets: deduplicated units of each row, flat.
        word_offsets: words of row i are `word_offsets[i]:word_offsets[i + 1]`.
        word_tokens: text ids of the words, flat. word_token_rows: the first of each row. word_token_counts: per word.
        word_first, word_last, word_code: see `WordCuts`.
        keys: one hash per row of the utterance id.
        vocabulary: joint, so that it spells text, units and markers.
    """

    units: Int[np.ndarray, " all_units"]
    unit_offsets: Int[np.ndarray, " rows1"]
    word_offsets: Int[np.ndarray, " rows1"]
    word_tokens: Int[np.ndarray, " all_word_tokens"]
    word_token_rows: Int[np.ndarray, " rows1"]
    word_token_counts: Int[np.ndarray, " words"]
    word_first: Int[np.ndarray, " words"]
    word_last: Int[np.ndarray, " words"]
    word_code: UInt8[np.ndarray, " words"]
    keys: UInt64[np.ndarray, " rows"]
    vocabulary: Vocabulary

    @property
    def cuts(self) -> WordCuts:
        return WordCuts(self.word_first, self.word_last, self.word_code)


def utterance_keys(ids: Iterable[str]) -> UInt64[np.ndarray, " rows"]:
    """Hash utterance ids to 64 bits (BLAKE2b), the same on every machine."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def make_source(table: UnitTable, vocabulary: Vocabulary) -> InterleaveSource:
    """Prepare a table of units and words for interleaving under a joint vocabulary.

    Raises:
        DataError: no joint vocabulary, or a word of more than 65,535 tokens.
    """
    if vocabulary.SPEECH is None or vocabulary.TEXT is None:
        raise DataError("interleaving needs a vocabulary with text, units and markers; make one with Vocabulary.joint")
    word_tokens = vocabulary.encode_words(table.words)
    counts = word_tokens.lengths
    if len(counts) and counts.max() >= 1 << 16:
        word = int(counts.argmax())
        row = int(np.searchsorted(table.word_offsets, word, side="right")) - 1
        raise DataError(
            f"utterance {table.ids[row]}: word '{table.words[word][:20]}...' has {counts[word]} tokens, at most 65535 "
            "are stored; correct its text or drop it"
        )
    cuts = word_cuts(table)
    return InterleaveSource(
        units=table.units,
        unit_offsets=table.unit_offsets,
        word_offsets=table.word_offsets,
        word_tokens=word_tokens.flat,
        word_token_rows=word_tokens.offsets[table.word_offsets],
        word_token_counts=counts.astype(np.uint16),
        word_first=cuts.first,
        word_last=cuts.last,
        word_code=cuts.code,
        keys=utterance_keys(table.ids),
        vocabulary=vocabulary,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Maximal runs of words of one modality, in order.

    Args:
        row: counted within the rows that were asked for. first, last: word numbers of the source, inclusive.
        unit_start, unit_stop: half-open range of units of the row; 0, 0 for text.
    """

    row: Int[np.ndarray, " segments"]
    first: Int[np.ndarray, " segments"]
    last: Int[np.ndarray, " segments"]
    is_speech: Bool[np.ndarray, " segments"]
    unit_start: Int[np.ndarray, " segments"]
    unit_stop: Int[np.ndarray, " segments"]


def draw_segments(
    source: InterleaveSource, rows: Int[np.ndarray, " rows"], epoch: int, config: InterleaveConfig, seed: int
) -> tuple[Segments, int]:
    """Draw the modality of each word, join neighbors of one modality and cut their units.

    Returns:
        The segments, and how many words were drawn as speech but became text because their span got no unit.
    """
    if config.curriculum:
        raise DataError("interleave.curriculum: settings depend on the progress; call config.at(progress) first")
    rows = np.asarray(rows, np.int64)
    epoch = epoch if config.redraw_each_epoch else 0
    begin, stop = (np.asarray(source.word_offsets[rows + shift], np.int64) for shift in (0, 1))
    if config.level == "utterance":
        return _both_ways(source, rows, begin, stop, epoch, config, seed), 0
    row, first, last, can_speak = _cells(source, begin, stop, config.level)
    cell_offsets = np.searchsorted(row, np.arange(len(rows) + 1))
    keys = np.asarray(source.keys[rows])
    words = last - first + 1 if config.level == "sentence" else None
    speech = draw_speech(can_speak, cell_offsets, keys, epoch=epoch, rule=config.rule, seed=seed, words=words)
    runs = _join(row, first, last, speech)

    spoken = np.flatnonzero(runs.is_speech)
    own = runs.row[spoken]
    units = np.asarray(source.unit_offsets[rows + 1], np.int64) - source.unit_offsets[rows]
    runs.unit_start[spoken], runs.unit_stop[spoken] = unit_ranges(
        source.cuts,
        first_word=runs.first[spoken],
        last_word=runs.last[spoken],
        row_first_word=begin[own],
        row_stop_word=stop[own],
        row_units=units[own],
        gap=config.gap,
        boundary=config.boundary,
    )
    empty = spoken[runs.unit_stop[spoken] == runs.unit_start[spoken]]
    if config.boundary == "slamkit" or not len(empty):
        return runs, 0
    demoted = int((runs.last[empty] - runs.first[empty] + 1).sum())
    runs.is_speech[empty] = False
    runs.unit_start[empty] = runs.unit_stop[empty] = 0
    return _join(runs.row, runs.first, runs.last, runs.is_speech, runs.unit_start, runs.unit_stop), demoted


def _cells(
    source: InterleaveSource, begin: np.ndarray, stop: np.ndarray, level: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Row, first word, last word of each cell, and whether it can be speech."""
    lengths = stop - begin
    words = ragged_arange(begin, lengths)
    row = np.repeat(np.arange(len(begin)), lengths)
    timed = np.asarray(source.word_first[words]) != NO_TIME
    if level == "word":
        return row, words, words, timed
    closes = np.flatnonzero(np.asarray(source.word_code[words]) & SENTENCE_END)
    opens = np.concatenate(([0], closes[:-1] + 1)) if len(closes) else closes
    return row[opens], words[opens], words[closes], timed[opens] & timed[closes]


def _join(
    row: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    is_speech: np.ndarray,
    unit_start: np.ndarray | None = None,
    unit_stop: np.ndarray | None = None,
) -> Segments:
    """Join neighbors of one row and one modality; units, where given, are those of runs that are not joined."""
    opens = np.ones(len(row), bool)
    opens[1:] = (is_speech[1:] != is_speech[:-1]) | (row[1:] != row[:-1])
    start = np.flatnonzero(opens)
    stop = np.append(start[1:], len(row)) - 1 if len(start) else start
    return Segments(
        row=row[start],
        first=first[start],
        last=last[stop],
        is_speech=is_speech[start],
        unit_start=np.zeros(len(start), np.int64) if unit_start is None else unit_start[start],
        unit_stop=np.zeros(len(start), np.int64) if unit_stop is None else unit_stop[start],
    )


def _both_ways(
    source: InterleaveSource,
    rows: np.ndarray,
    begin: np.ndarray,
    stop: np.ndarray,
    epoch: int,
    config: InterleaveConfig,
    seed: int,
) -> Segments:
    """Each row with words twice: all its units and all its words, in the order of `config.first`."""
    worded = np.flatnonzero(stop > begin)
    if config.first in ("speech", "text"):
        speech_first = np.full(len(worded), config.first == "speech")
    else:
        speech_first = draw_bits(seed, np.asarray(source.keys[rows[worded]]), epoch, COIN) % np.uint64(2) == 0
    is_speech = np.stack([speech_first, ~speech_first], axis=1).ravel()
    row = np.repeat(worded, 2)
    units = np.asarray(source.unit_offsets[rows + 1], np.int64) - source.unit_offsets[rows]
    return Segments(
        row=row,
        first=begin[row],
        last=stop[row] - 1,
        is_speech=is_speech,
        unit_start=np.zeros(len(row), np.int64),
        unit_stop=np.where(is_speech, units[row], 0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class InterleavePlan:
    """Sequences that are drawn but not yet gathered.

    Args:
        lengths: tokens of each row, 0 for a row without words. segments: what they are made of.
        demoted_words: words that were drawn as speech but got no unit, and so became text.
        segment_begin, segment_tokens: of each segment, without its marker: the first unit or text token of the source
            (of `pieces` where there are subwords), and how many.
        pieces: ids of the speech segments where the vocabulary has subwords of units.
    """

    source: InterleaveSource
    markers: bool
    lengths: Int[np.ndarray, " rows"]
    segments: Segments
    demoted_words: int
    segment_begin: Int[np.ndarray, " segments"]
    segment_tokens: Int[np.ndarray, " segments"]
    pieces: Ragged | None

    def ids(self) -> Ragged:
        """Gather the token ids: int32, one row per row that was asked for."""
        vocabulary, is_speech = self.source.vocabulary, self.segments.is_speech
        assert vocabulary.SPEECH is not None
        assert vocabulary.TEXT is not None
        stop = np.cumsum(self.segment_tokens + int(self.markers))
        begin = stop - self.segment_tokens
        tokens = np.empty(int(stop[-1]) if len(stop) else 0, np.int32)
        if self.markers:
            tokens[begin - 1] = np.where(is_speech, vocabulary.SPEECH, vocabulary.TEXT)
        speech, shift = self.source.units, vocabulary.unit_start
        if self.pieces is not None:
            speech, shift = self.pieces.flat, 0
        for modality, flat, first_id in ((True, speech, shift), (False, self.source.word_tokens, 0)):
            own = np.flatnonzero(is_speech == modality)
            found, length = self.segment_begin[own], self.segment_tokens[own]
            index = ragged_arange(found, length)
            ids = np.add(flat[index], first_id, dtype=np.int32, casting="unsafe")
            tokens[index + np.repeat(begin[own] - found, length)] = ids
        return Ragged(tokens, offsets(self.lengths))


def plan_interleave(
    source: InterleaveSource, rows: Int[np.ndarray, " rows"], epoch: int, config: InterleaveConfig, seed: int
) -> InterleavePlan:
    """Draw the sequences of the given rows and work out their lengths, without touching their tokens.

    A text segment is the ids of its words, a speech segment the ids of its units; a marker in front of each.
    """
    rows = np.asarray(rows, np.int64)
    segments, demoted = draw_segments(source, rows, epoch, config, seed)
    begin_word = np.asarray(source.word_offsets[rows], np.int64)
    row_words = np.asarray(source.word_offsets[rows + 1], np.int64) - begin_word
    passed = offsets(np.asarray(source.word_token_counts[ragged_arange(begin_word, row_words)]))
    local = offsets(row_words)[:-1]
    to_local = (local - begin_word)[segments.row]
    text_start = passed[segments.first + to_local]
    text_stop = passed[segments.last + 1 + to_local]
    text_base = np.asarray(source.word_token_rows[rows], np.int64) - passed[local]

    speech_begin = np.asarray(source.unit_offsets[rows], np.int64)[segments.row] + segments.unit_start
    speech_tokens = segments.unit_stop - segments.unit_start
    pieces = None
    if source.vocabulary.subwords is not None:
        speech_begin, speech_tokens, pieces = _spell(source, segments.is_speech, speech_begin, speech_tokens)
    tokens = np.where(segments.is_speech, speech_tokens, text_stop - text_start)
    weights = tokens + int(config.markers)
    return InterleavePlan(
        source=source,
        markers=config.markers,
        lengths=np.bincount(segments.row, weights=weights, minlength=len(rows)).astype(np.int64),
        segments=segments,
        demoted_words=demoted,
        segment_begin=np.where(segments.is_speech, speech_begin, text_base[segments.row] + text_start),
        segment_tokens=tokens,
        pieces=pieces,
    )


def _spell(
    source: InterleaveSource, is_speech: np.ndarray, begin: np.ndarray, length: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Ragged]:
    """Spell the units of the speech segments as subwords; return begin and length of each segment in the pieces."""
    own = np.flatnonzero(is_speech)
    units = np.asarray(source.units[ragged_arange(begin[own], length[own])])
    pieces = source.vocabulary.speech_ids(Ragged(units, offsets(length[own])))
    begin, length = np.zeros_like(begin), np.zeros_like(length)
    begin[own], length[own] = pieces.offsets[:-1], pieces.lengths
    return begin, length, pieces


def interleave_batch(
    source: InterleaveSource, rows: Int[np.ndarray, " rows"], epoch: int, config: InterleaveConfig, seed: int
) -> Ragged:
    """Build the token sequences of the given rows: int32 ids; a row without words is empty."""
    return plan_interleave(source, rows, epoch, config, seed).ids()
