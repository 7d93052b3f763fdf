"""What an interleaving came out as: realised shares by length of the utterance, tokens, runs, and what was lost.

Enters: an `InterleaveSource`, row numbers, epoch, seed. Leaves: `InterleaveStats`, plain sums that can be added.
The one decision worth knowing: only sums are kept, batch by batch, so memory does not grow with the rows, and parts
counted by several workers add up to exactly the whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Int

from speechscale.records import NO_TIME
from speechscale.tokens.interleave import InterleaveConfig, InterleavePlan, InterleaveSource, plan_interleave
from speechscale.tokens.ragged import ragged_arange

LENGTH_BINS = ((1, 5), (6, 10), (11, 20), (21, 40), (41, 80), (81, 160), (161, None))
"""Words of an utterance, both ends included."""
ROWS_PER_BATCH = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class InterleaveStats:
    """Sums over utterances; `a + b` joins two parts. A mean or share of nothing is NaN.

    Args:
        utterances, words: with at least one word, and their words.
        spoken_words, written_words: words inside speech and text segments; at level "utterance" each is in both.
        speech_runs, text_runs: segments of one modality.
        speech_tokens, text_tokens, marker_tokens: as they come out, subwords of units counted as one.
        demoted_words: drawn as speech, became text because their span got no unit. lost_words: their speech span has
            no unit (boundary "slamkit" only). untimed_words: without a time.
        short_utterances: with fewer spoken words than the asked share.
        doubled_units: units that stand in two speech spans.
        bin_utterances, bin_words, bin_spoken_words: by length, see LENGTH_BINS.
    """

    utterances: int = 0
    words: int = 0
    spoken_words: int = 0
    written_words: int = 0
    speech_runs: int = 0
    text_runs: int = 0
    speech_tokens: int = 0
    text_tokens: int = 0
    marker_tokens: int = 0
    demoted_words: int = 0
    lost_words: int = 0
    untimed_words: int = 0
    short_utterances: int = 0
    doubled_units: int = 0
    bin_utterances: tuple[int, ...] = (0,) * len(LENGTH_BINS)
    bin_words: tuple[int, ...] = (0,) * len(LENGTH_BINS)
    bin_spoken_words: tuple[int, ...] = (0,) * len(LENGTH_BINS)

    def __add__(self, other: InterleaveStats) -> InterleaveStats:
        def add(name: str) -> Any:
            mine, theirs = getattr(self, name), getattr(other, name)
            return tuple(a + b for a, b in zip(mine, theirs, strict=True)) if isinstance(mine, tuple) else mine + theirs

        return InterleaveStats(**{entry.name: add(entry.name) for entry in fields(self)})

    @property
    def speech_word_share(self) -> float:
        """Share of the words that are heard."""
        return _ratio(self.spoken_words, self.words)

    @property
    def mean_speech_runs(self) -> float:
        """Speech runs per utterance."""
        return _ratio(self.speech_runs, self.utterances)

    @property
    def mean_speech_run_words(self) -> float:
        return _ratio(self.spoken_words, self.speech_runs)

    @property
    def mean_text_run_words(self) -> float:
        return _ratio(self.written_words, self.text_runs)

    def speech_share_by_length(self) -> dict[str, float]:
        """Share of the words that are heard, by words of the utterance. Example: {"1-5": 0.73, ..., "161+": 0.32}"""
        shares = map(_ratio, self.bin_spoken_words, self.bin_words)
        names = (f"{low}-{high}" if high else f"{low}+" for low, high in LENGTH_BINS)
        return dict(zip(names, shares, strict=True))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def interleave_stats(
    source: InterleaveSource, rows: Int[np.ndarray, " rows"], epoch: int, config: InterleaveConfig, seed: int
) -> InterleaveStats:
    """Draw the given rows and add up what comes out; no token is gathered."""
    rows = np.asarray(rows, np.int64)
    total = InterleaveStats()
    for begin in range(0, len(rows), ROWS_PER_BATCH):
        batch = rows[begin : begin + ROWS_PER_BATCH]
        total += count_plan(plan_interleave(source, batch, epoch, config, seed), batch, config)
    return total


def count_plan(plan: InterleavePlan, rows: Int[np.ndarray, " rows"], config: InterleaveConfig) -> InterleaveStats:
    """Count one plan of the given rows."""
    source, segments = plan.source, plan.segments
    begin = np.asarray(source.word_offsets[rows], np.int64)
    row_words = np.asarray(source.word_offsets[rows + 1], np.int64) - begin
    heard = segments.is_speech
    words = segments.last - segments.first + 1
    row_spoken = np.bincount(segments.row[heard], weights=words[heard], minlength=len(rows)).astype(np.int64)
    asked = 1.0 if config.level == "utterance" else config.rule.share
    short = row_spoken < np.ceil(asked * row_words - 1e-9)
    untimed = np.asarray(source.word_first[ragged_arange(begin, row_words)]) == NO_TIME

    lowest = np.array([low for low, _ in LENGTH_BINS])
    bins = np.searchsorted(lowest, row_words, side="right") - 1
    filled = bins >= 0

    def by_length(counts: np.ndarray) -> tuple[int, ...]:
        sums = np.bincount(bins[filled], weights=counts[filled], minlength=len(LENGTH_BINS))
        return tuple(int(count) for count in sums)

    return InterleaveStats(
        utterances=int(filled.sum()),
        words=int(row_words.sum()),
        spoken_words=int(words[heard].sum()),
        written_words=int(words[~heard].sum()),
        speech_runs=int(heard.sum()),
        text_runs=int((~heard).sum()),
        speech_tokens=int(plan.segment_tokens[heard].sum()),
        text_tokens=int(plan.segment_tokens[~heard].sum()),
        marker_tokens=len(words) if plan.markers else 0,
        demoted_words=plan.demoted_words,
        lost_words=int(words[heard & (segments.unit_stop == segments.unit_start)].sum()),
        untimed_words=int(untimed.sum()),
        short_utterances=int(short.sum()),
        doubled_units=_doubled_units(plan),
        bin_utterances=by_length(np.ones(len(rows))),
        bin_words=by_length(row_words),
        bin_spoken_words=by_length(row_spoken),
    )


def _doubled_units(plan: InterleavePlan) -> int:
    """Units that the next speech span of the same row has as well."""
    heard = plan.segments.is_speech
    row, start, stop = plan.segments.row[heard], plan.segments.unit_start[heard], plan.segments.unit_stop[heard]
    shared = np.minimum(stop[:-1], stop[1:]) - np.maximum(start[:-1], start[1:])
    return int(np.maximum(shared, 0)[row[1:] == row[:-1]].sum())
