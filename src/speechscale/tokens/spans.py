"""Which cells of an utterance are speech; a cell is what spans count: a word or a sentence.

Enters: which cells can be speech, a `SpanRule` (laws of span lengths, share, first modality), hashed utterance ids.
Leaves: a mask over the cells.
The one decision worth knowing: there are two meanings of a speech share. "floor" is the SIMS sampler (spans are added
until the share is reached, so short utterances get far more); "expectation" is a renewal process that is already
running when the utterance begins, so that every cell is speech with exactly that probability.

Source: Maimon et al. 2025 (SIMS, arXiv 2504.02398) section 3; Zeng et al. 2024 (arXiv 2411.17607); Nguyen et al. 2024
(Spirit LM, arXiv 2402.05755). Equilibrium residual life: Cox 1962, "Renewal Theory", section 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, UInt64

from speechscale.errors import DataError
from speechscale.records import offsets
from speechscale.tokens.laws import ONE, SpanLaw, derive_text_law, law_weights, parse_law, residual_weights
from speechscale.tokens.ragged import draw_bits, extend_bits, ragged_arange, to_unit_interval

SPARE_BITS = np.uint64(64 - 30)
COIN = -1
"""Number of the draw that decides a row's first modality; spans are numbered from 0."""

Share = Literal["floor", "expectation"]
First = Literal["drawn", "speech", "text", "even"]


@dataclass(frozen=True, slots=True)
class SpanRule:
    """How speech and text alternate; made by `span_rule`.

    Args:
        speech: law of speech spans. text: law of text spans; None where none is used (floor, bernoulli, share 1).
        share: floor or probability of speech.
    """

    speech: SpanLaw
    text: SpanLaw | None
    share: float
    kind: Share
    first: First


@lru_cache(maxsize=1024)
def span_rule(speech_span: str, text_span: str, speech_share: float | None, share: Share, first: First) -> SpanRule:
    """Check the settings of an interleaving against each other and derive what follows from them.

    Raises:
        DataError: a setting that is not allowed, or two that contradict each other.
    """
    if share not in ("floor", "expectation"):
        raise DataError(f"interleave.share '{share}': allowed: 'floor', 'expectation'")
    if first not in ("drawn", "speech", "text", "even"):
        raise DataError(f"interleave.first '{first}': allowed: 'drawn', 'speech', 'text', 'even'")
    speech = parse_law(speech_span, "interleave.speech_span")
    if text_span:
        text = parse_law(text_span, "interleave.text_span")
        if speech_share is not None:
            raise DataError(
                f"interleave.text_span '{text_span}' and speech_share {speech_share} both set the share; "
                "leave one out (speech_share = None, or text_span = '')"
            )
        if share == "floor" or "bernoulli" in (speech.kind, text.kind):
            raise DataError(f"interleave.text_span '{text_span}': needs share 'expectation' and no bernoulli")
        return SpanRule(speech, text, speech.mean / (speech.mean + text.mean), share, first)
    if speech_share is None:
        raise DataError("interleave.speech_share is None: give a share, or a text_span from which it follows")
    if not 0 < speech_share <= 1:
        raise DataError(f"interleave.speech_share {speech_share}: give a share above 0 and at most 1")
    if speech.kind == "bernoulli" and share == "floor":
        raise DataError("interleave.speech_span 'bernoulli': needs share 'expectation'; a floor is met by spans")
    if share == "expectation" and speech_share == 1 and first in ("text", "even"):
        raise DataError(f"interleave.first '{first}': with speech_share 1 nothing is text; use 'drawn'")
    derived = share == "expectation" and speech.kind != "bernoulli" and speech_share < 1
    return SpanRule(speech, derive_text_law(speech, speech_share) if derived else None, speech_share, share, first)


def draw_speech(
    can_speak: Bool[np.ndarray, " cells"],
    cell_offsets: Int[np.ndarray, " rows1"],
    keys: UInt64[np.ndarray, " rows"],
    *,
    epoch: int,
    rule: SpanRule,
    seed: int,
    words: Int[np.ndarray, " cells"] | None = None,
) -> Bool[np.ndarray, " cells"]:
    """Choose the cells that are speech; a pure function of (seed, key, epoch) for each row.

    Args:
        can_speak: False for a cell without a time, which is never speech.
        cell_offsets: cells of row i are `cell_offsets[i]:cell_offsets[i + 1]`.
        words: of each cell, for a floor of the share of words; None: one each.
    """
    if rule.kind == "floor":
        return draw_floor(can_speak, cell_offsets, keys, epoch=epoch, rule=rule, seed=seed, words=words)
    if rule.share == 1:
        return can_speak.copy()
    spans = _draw_cells if rule.speech.kind == "bernoulli" else _draw_renewal
    return spans(cell_offsets, keys, epoch, rule, seed) & can_speak


def _opens_with_speech(
    keys: UInt64[np.ndarray, " rows"], epoch: int, rule: SpanRule, seed: int
) -> Bool[np.ndarray, " rows"]:
    """Modality of each row's first cell."""
    if rule.first in ("speech", "text"):
        return np.full(len(keys), rule.first == "speech")
    chance = 0.5 if rule.first == "even" else rule.share
    return draw_bits(seed, keys, epoch, COIN) >> SPARE_BITS < np.uint64(round(chance * ONE))


def _draw_cells(
    cell_offsets: Int[np.ndarray, " rows1"], keys: UInt64[np.ndarray, " rows"], epoch: int, rule: SpanRule, seed: int
) -> Bool[np.ndarray, " cells"]:
    """Each cell on its own, the first as `rule.first` wants it."""
    lengths = np.diff(cell_offsets)
    cell = ragged_arange(np.zeros(len(lengths), np.int64), lengths)
    bits = draw_bits(seed, np.repeat(keys, lengths), epoch, cell)
    speech = bits >> SPARE_BITS < np.uint64(round(rule.share * ONE))
    if rule.first != "drawn":
        rows = np.flatnonzero(lengths)
        speech[cell_offsets[rows]] = _opens_with_speech(keys[rows], epoch, rule, seed)
    return speech


def _draw_renewal(
    cell_offsets: Int[np.ndarray, " rows1"], keys: UInt64[np.ndarray, " rows"], epoch: int, rule: SpanRule, seed: int
) -> Bool[np.ndarray, " cells"]:
    """Alternate speech and text spans along each row.

    With first "drawn" the process is stationary: the first cell lies somewhere inside a span, what is left of that
    span follows the residual law, and each cell is speech with the same probability. Otherwise a fresh span begins
    at the first cell, and the share is exact only some spans behind it.
    """
    assert rule.text is not None
    length = np.diff(cell_offsets)
    speech = np.zeros(int(cell_offsets[-1]), bool)
    opening = _opens_with_speech(keys, epoch, rule, seed)
    covered, drawn = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
    fresh = law_weights(rule.text), law_weights(rule.speech)
    rest = (residual_weights(rule.text), residual_weights(rule.speech)) if rule.first == "drawn" else fresh
    usual = (rule.speech.mean + rule.text.mean) / 2
    rows = np.flatnonzero(length)
    while len(rows):
        count = ((length[rows] - covered[rows]) / usual).astype(np.int64) + 2
        row = np.repeat(rows, count)
        number = ragged_arange(drawn[rows], count)
        bits = (draw_bits(seed, keys[row], epoch, number) >> SPARE_BITS).astype(np.int64)
        spoken = opening[row] ^ (number % 2 == 1)
        cells = np.empty(len(row), np.int64)
        for modality in (0, 1):
            for laws, own in ((rest, number == 0), (fresh, number > 0)):
                chosen = np.flatnonzero(own & (spoken == modality))
                cells[chosen] = np.searchsorted(laws[modality], bits[chosen], side="right")
        total = np.cumsum(cells)
        closing = np.cumsum(count) - 1
        stop = total + np.repeat(covered[rows] - (total[closing] - np.add.reduceat(cells, closing - count + 1)), count)
        limit = length[row]
        begin, end = np.minimum(stop - cells, limit), np.minimum(stop, limit)
        speech[ragged_arange((cell_offsets[row] + begin)[spoken], (end - begin)[spoken])] = True
        covered[rows], drawn[rows] = stop[closing], drawn[rows] + count
        rows = rows[covered[rows] < length[rows]]
    return speech


def draw_floor(
    can_speak: Bool[np.ndarray, " cells"],
    cell_offsets: Int[np.ndarray, " rows1"],
    keys: UInt64[np.ndarray, " rows"],
    *,
    epoch: int,
    rule: SpanRule,
    seed: int,
    words: Int[np.ndarray, " cells"] | None = None,
) -> Bool[np.ndarray, " cells"]:
    """Add spans until at least `rule.share` of each row's words are speech; a cell has `words` of them, or one.

    The SIMS sampler draws a start uniformly over the cells that are neither speech nor directly behind a span, and a
    length; it draws again when the span would run into an earlier one, and cuts the span at the end of the
    utterance. So an accepted start has weight P(length fits in front of the next span). Here start and length are
    drawn from these weights directly: one number per span, no rejection.

    Differences: a length of 0 is never drawn (it would mark nothing); a span is also cut in front of a cell without a
    time; where no start is left below the share (possible above one half), cells directly behind a span may start
    one too. A row whose cells run out stays below the share, as does one whose only cells are a first one kept text.
    """
    law = law_weights(rule.speech)
    longest = len(law) - 1
    fits = np.maximum(law, 1)
    index = np.arange(len(can_speak))
    row_cells = np.diff(cell_offsets)
    can_speak, waiting = _fix_first(can_speak, cell_offsets, keys, epoch, rule, seed)
    # wall[c]: the first cell at or behind c that a span from c cannot cover. It never decreases along the array.
    wall = np.repeat(cell_offsets[1:], row_cells)
    if not can_speak.all():
        wall = np.minimum.accumulate(np.where(can_speak, wall, index)[::-1])[::-1]
    weight = np.where(can_speak, ONE, 0).astype(np.int64)
    speech = np.zeros(len(can_speak), bool)
    passed = cell_offsets[0] + np.arange(len(can_speak) + 1) if words is None else offsets(words)
    missing = np.ceil(rule.share * (passed[cell_offsets[1:]] - passed[cell_offsets[:-1]]) - 1e-9).astype(np.int64)
    active = np.flatnonzero(row_cells > 0)
    named = draw_bits(seed, keys, epoch)
    draw = 0
    while len(active):
        lengths = row_cells[active]
        cells = index if draw == 0 and lengths.sum() == len(index) else ragged_arange(cell_offsets[active], lengths)
        weights = weight[cells]
        if waiting is not None and draw == 0:
            weights[waiting[cells]] = 0
        cumulative = np.cumsum(weights)
        row_last = cumulative[np.cumsum(lengths) - 1]
        row_first = np.concatenate(([0], row_last[:-1]))
        mass = row_last - row_first
        if not mass.all():
            active = _reopen(active, active[mass == 0], weight, can_speak & ~speech, cell_offsets)
            continue
        uniform = to_unit_interval(extend_bits(named[active], draw))
        target = row_first + np.minimum((uniform * mass).astype(np.int64), mass - 1)
        position = np.searchsorted(cumulative, target, side="right")
        start = cells[position]
        rest = target - (cumulative[position] - weights[position])
        stop = np.minimum(start + np.searchsorted(law, rest, side="right"), wall[start])

        speech[ragged_arange(start, stop - start)] = True
        missing[active] -= passed[stop] - passed[start]
        going = missing[active] > 0
        active, start, stop = active[going], start[going], stop[going]

        # Cells in front of the new span now see it as their wall and need a length that fits.
        before = np.searchsorted(wall, wall[start], side="left")
        front = ragged_arange(before, start - before)
        span = np.repeat(start, start - before)
        weight[front] = np.where(weight[front] > 0, fits[np.minimum(span - front, longest)], 0)
        wall[front] = span
        chosen = ragged_arange(start, stop - start)
        wall[chosen] = chosen
        weight[chosen] = 0
        inside = stop < cell_offsets[active + 1]
        weight[stop[inside]] = 0
        draw += 1
    return speech


def _fix_first(
    can_speak: Bool[np.ndarray, " cells"],
    cell_offsets: Int[np.ndarray, " rows1"],
    keys: UInt64[np.ndarray, " rows"],
    epoch: int,
    rule: SpanRule,
    seed: int,
) -> tuple[Bool[np.ndarray, " cells"], Bool[np.ndarray, " cells"] | None]:
    """Bar the first cell of rows that open with text; mark the cells that wait for a first span at the first cell."""
    if rule.first == "drawn":
        return can_speak, None
    rows = np.flatnonzero(np.diff(cell_offsets))
    spoken = _opens_with_speech(keys[rows], epoch, rule, seed)
    can_speak = can_speak.copy()
    can_speak[cell_offsets[rows[~spoken]]] = False
    rows = rows[spoken]
    rows = rows[can_speak[cell_offsets[rows]]]
    waiting = np.zeros(len(can_speak), bool)
    waiting[ragged_arange(cell_offsets[rows] + 1, cell_offsets[rows + 1] - cell_offsets[rows] - 1)] = True
    return can_speak, waiting


def _reopen(
    active: Int[np.ndarray, " active"],
    stuck: Int[np.ndarray, " stuck"],
    weight: Int[np.ndarray, " cells"],
    free: Bool[np.ndarray, " cells"],
    cell_offsets: Int[np.ndarray, " rows1"],
) -> Int[np.ndarray, " alive"]:
    """Let the free cells of stuck rows be starts again; return the active rows that still have a start."""
    cells = ragged_arange(cell_offsets[stuck], cell_offsets[stuck + 1] - cell_offsets[stuck])
    cells = cells[free[cells]]
    weight[cells] = ONE
    alive = np.searchsorted(cell_offsets, cells, side="right") - 1
    return active[~np.isin(active, stuck) | np.isin(active, alive)]
