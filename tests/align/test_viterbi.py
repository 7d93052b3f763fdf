"""Catches a path that is not the best one, breaks CTC's rules, or differs between runs, bands and machines."""

from __future__ import annotations

from itertools import groupby, product

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from speechscale.align.viterbi import STAR, align_tokens, frames_needed, star_costs
from speechscale.errors import DataError

BLANK = 0


@st.composite
def problems(draw: st.DrawFn, *, stars: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log probabilities of at most 6 frames, at most 3 tokens of a vocabulary of 3, and where stars may stand."""
    ids = st.integers(1, 2) | (st.just(STAR) if stars else st.nothing())
    tokens = np.array(draw(st.lists(ids, min_size=1, max_size=3)), np.int64)
    frames = draw(st.integers(frames_needed(tokens), 6))
    # Few distinct values, so that ties occur.
    values = st.sampled_from([-0.5, -1.0, -2.0, -3.25]) if draw(st.booleans()) else st.floats(-9, 0, width=32)
    cells = draw(st.lists(values, min_size=3 * frames, max_size=3 * frames))
    gaps = draw(st.lists(st.booleans(), min_size=len(tokens) + 1, max_size=len(tokens) + 1))
    return np.array(cells).reshape(frames, 3), tokens, np.array(gaps) & stars


def collapse(labels: tuple[int, ...]) -> list[int]:
    """CTC's own rule: drop repeats, then blanks."""
    return [label for label, _ in groupby(labels) if label != BLANK]


def best_labeling(log_probs: np.ndarray, tokens: np.ndarray) -> float:
    """The reference: every sequence of labels, kept if it reads as the tokens."""
    frames, vocabulary = log_probs.shape
    return max(
        sum(log_probs[t, label] for t, label in enumerate(labels))
        for labels in product(range(vocabulary), repeat=frames)
        if collapse(labels) == list(tokens)
    )


def best_cut(log_probs: np.ndarray, tokens: np.ndarray, gaps: np.ndarray, penalty: float) -> float:
    """The reference with stars: every way to cut the frames into gap, token, gap, ..., gap."""
    frames, count = len(log_probs), len(tokens)
    star = np.array([max(row[1:]) - penalty for row in log_probs])
    best = -np.inf
    for cut in product(range(frames + 1), repeat=2 * count):
        if list(cut) != sorted(cut):
            continue
        edges = [0, *cut, frames]
        score = 0.0
        for part in range(2 * count + 1):
            start, end = edges[part], edges[part + 1]
            rows, index = slice(start, end), part // 2
            if part % 2:
                token = tokens[index]
                score += -np.inf if start == end else (star if token == STAR else log_probs[:, token])[rows].sum()
            else:
                inner = 0 < index < count
                if inner and start == end and tokens[index - 1] == tokens[index] != STAR:
                    score = -np.inf
                cost = np.maximum(log_probs[:, BLANK], star) if gaps[index] else log_probs[:, BLANK]
                score += cost[rows].sum()
        best = max(best, score)
    return best


@given(problems(stars=False))
@settings(max_examples=150, deadline=None)
def test_the_score_is_that_of_the_best_labeling(problem: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """A wrong transition (repeats without blank, a skipped token) would beat or miss the enumeration."""
    log_probs, tokens, _ = problem
    path = align_tokens(log_probs, tokens, blank=BLANK)
    assert path.score == pytest.approx(best_labeling(log_probs, tokens), abs=1e-9)
    labels = tuple(BLANK if index < 0 else int(tokens[index]) for index in path.token_at)
    assert collapse(labels) == list(tokens)
    assert sum(log_probs[t, label] for t, label in enumerate(labels)) == pytest.approx(path.score, abs=1e-9)


@given(problems(stars=True), st.sampled_from([0.0, 0.5, 4.0]))
@settings(max_examples=60, deadline=None)
def test_stars_cost_what_they_should(problem: tuple[np.ndarray, np.ndarray, np.ndarray], penalty: float) -> None:
    """A star that is free, forced, or allowed in a gap without the flag would show in the score."""
    log_probs, tokens, gaps = problem
    star = star_costs(log_probs, blank=BLANK, penalty=penalty)
    path = align_tokens(log_probs, tokens, blank=BLANK, star_gaps=gaps, star=star)
    assert path.score == pytest.approx(best_cut(log_probs, tokens, gaps, penalty), abs=1e-9)


@given(problems(stars=True))
@settings(max_examples=60, deadline=None)
def test_ranges_and_scores_follow_from_the_path(problem: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Ranges must be the frames of each token, without holes; scores the mean cost of these frames."""
    log_probs, tokens, gaps = problem
    path = align_tokens(log_probs, tokens, blank=BLANK, star_gaps=gaps)
    star = star_costs(log_probs, blank=BLANK)
    for index, token in enumerate(tokens):
        start, end = path.start_frames[index], path.end_frames[index]
        assert start < end
        assert (path.token_at[start:end] == index).all()
        assert (path.token_at == index).sum() == end - start
        costs = star[start:end] if token == STAR else log_probs[start:end, token]
        assert path.scores[index] == pytest.approx(costs.mean(), abs=1e-9)
    assert (path.start_frames[1:] >= path.end_frames[:-1]).all()


def peaked(seed: int, frames: int, count: int, vocabulary: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log probabilities in which a known token sequence stands out; also the frame where each token peaks."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, vocabulary, count)
    at = np.sort(rng.choice(np.arange(1, frames, 2), count, replace=False))
    logits = rng.normal(0, 1, (frames, vocabulary))
    logits[:, BLANK] += 4
    logits[at, tokens] += 9
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), tokens, at


def test_planted_tokens_are_found_where_they_are() -> None:
    """A shift by one frame, or a state off by one, would show."""
    log_probs, tokens, at = peaked(0, 400, 60)
    path = align_tokens(log_probs, tokens, blank=BLANK)
    assert ((path.start_frames <= at) & (at < path.end_frames)).all()


@pytest.mark.parametrize("band", [64, 100, 200])
def test_a_band_finds_the_same_path(band: int) -> None:
    """A band that moves wrongly loses the path; this one has room and must give the exact answer."""
    log_probs, tokens, _ = peaked(1, 3000, 500)
    exact, banded = (align_tokens(log_probs, tokens, blank=BLANK, band=width) for width in (None, band))
    assert banded.score == exact.score
    assert (banded.token_at == exact.token_at).all()


def late_tokens() -> tuple[np.ndarray, np.ndarray]:
    """Eighty tokens that sit in the last eighty of 400 frames, behind silence."""
    tokens = np.array([1, 2] * 40)
    log_probs = np.full((400, 3), -5.0)
    log_probs[:320, BLANK] = -0.1
    log_probs[np.arange(320, 400), tokens] = -0.1
    return log_probs, tokens


def test_a_band_keeps_the_end_in_reach() -> None:
    """A band that follows the best state only would still wait at the first token when the frames run out."""
    log_probs, tokens = late_tokens()
    path = align_tokens(log_probs, tokens, blank=BLANK, band=8)
    assert path.start_frames.tolist() == list(range(320, 400))


def test_a_band_that_lost_every_path_is_widened() -> None:
    """A decoy draws the band to the end of the text early; giving up would lose the utterance."""
    log_probs, tokens = late_tokens()
    log_probs[:160, 1:], log_probs[:320, BLANK] = -0.1, -5.0
    log_probs[320:] = -np.inf
    log_probs[np.arange(320, 400), tokens] = -0.1
    path = align_tokens(log_probs, tokens, blank=BLANK, band=64)
    assert path.start_frames[1:].tolist() == list(range(321, 400))


def test_ties_take_the_same_way_every_time() -> None:
    """Equal costs everywhere: the stated order decides, so the first token starts as late as it can."""
    path = align_tokens(np.full((5, 3), -1.0), np.array([1, 2]), blank=BLANK)
    again = align_tokens(np.full((5, 3), -1.0, np.float32), np.array([1, 2]), blank=BLANK)
    assert path.token_at.tolist() == again.token_at.tolist()
    assert path.score == -5.0


def test_a_star_swallows_what_is_not_in_the_text() -> None:
    """Speech before the first word must not pull the first token forward."""
    log_probs, tokens, at = peaked(2, 300, 40)
    known, behind = tokens[20:], at[20:]
    gaps = np.zeros(21, bool)
    gaps[0] = True
    star = star_costs(log_probs, blank=BLANK, penalty=1.0)
    path = align_tokens(log_probs, known, blank=BLANK, star_gaps=gaps, star=star)
    assert (path.start_frames == behind).all()
    without = align_tokens(log_probs, known, blank=BLANK)
    assert path.score > without.score


@pytest.mark.parametrize(
    ("frames", "tokens", "message"),
    [
        (2, [1, 1], "which need 3"),
        (4, [1, 2, 1, 2, 1], "which need 5"),
        (4, [], "no tokens"),
        (4, [3], "token id 3, allowed are 0..2"),
        (4, [0], "without the blank 0"),
        (4, [-7], "token id -7"),
    ],
)
def test_what_cannot_be_aligned_is_told(frames: int, tokens: list[int], message: str) -> None:
    """A wrong input must name what is needed instead of giving a path."""
    with pytest.raises(DataError, match=message):
        align_tokens(np.full((frames, 3), -1.0), np.array(tokens, np.int64), blank=BLANK)


def test_nan_and_impossible_scores_are_refused() -> None:
    """NaN compares false everywhere and would give an arbitrary path."""
    log_probs = np.full((4, 3), -1.0)
    log_probs[2, 1] = np.nan
    with pytest.raises(DataError, match="NaN"):
        align_tokens(log_probs, np.array([1]), blank=BLANK)
    with pytest.raises(DataError, match="no path"):
        align_tokens(np.array([[0.0, -np.inf]] * 3), np.array([1]), blank=BLANK)
