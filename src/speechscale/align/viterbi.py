"""Find the best path of a token sequence through the frames of a CTC model.

Enters: log probabilities [frames, vocabulary] and token ids. Leaves: for every token its frames and score. The one
decision worth knowing: a stretch of anything is not a token of its own but another way through a gap: where a star is
allowed, a gap's cost is the cheaper of blank and star, so that stars are optional and add no states.

States: gap, token, gap, token, ..., gap (2 L + 1). From frame to frame a path stays, steps to the next state, or skips
the gap between two different tokens (Graves et al. 2006, eq. 6-7, with max for sum). Ties: stay before step before
skip, and the last gap before the last token.

Memory: 2 bits per state and frame. A 30 s utterance (1,500 frames, 500 tokens) takes 0.4 MB; an hour at 50 frames per
second with 50,000 tokens would take 4.5 GB, and with `band=4096` takes 184 MB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from speechscale.errors import DataError

STAR = -1
"""Token id that matches any stretch of at least one frame (a character that the model does not know)."""
STAR_PENALTY = 4.0
"""Nats per frame that a star costs beyond the best token of the frame."""
_BLOCK = 16
"""Frames between two moves of the band."""
_NEVER = -np.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPath:
    """The best path.

    Args:
        score: sum of log probabilities along the path.
        token_at: index of the token that each frame belongs to, -1 in gaps.
        start_frames, end_frames: half-open range of each token.
        scores: mean log probability of each token over its frames.
    """

    score: float
    token_at: Int[np.ndarray, " frames"]
    start_frames: Int[np.ndarray, " tokens"]
    end_frames: Int[np.ndarray, " tokens"]
    scores: Float[np.ndarray, " tokens"]


def frames_needed(tokens: Int[np.ndarray, " tokens"]) -> int:
    """The fewest frames that hold the tokens: one each, and a blank between equal neighbors."""
    tokens = np.asarray(tokens, np.int64)
    return len(tokens) + int(((tokens[1:] == tokens[:-1]) & (tokens[1:] != STAR)).sum())


def star_costs(
    log_probs: Float[np.ndarray, "frames vocabulary"], *, blank: int, penalty: float = STAR_PENALTY
) -> Float[np.ndarray, " frames"]:
    """Log probability of a star in each frame: the best token except blank, less a penalty."""
    others = np.delete(np.asarray(log_probs), blank, axis=1)
    return np.asarray(others.max(axis=1) - penalty, np.float64)


def align_tokens(
    log_probs: Float[np.ndarray, "frames vocabulary"],
    tokens: Int[np.ndarray, " tokens"],
    *,
    blank: int,
    star_gaps: Bool[np.ndarray, " gaps"] | None = None,
    star: Float[np.ndarray, " frames"] | None = None,
    filler: Float[np.ndarray, " frames"] | None = None,
    band: int | None = None,
) -> TokenPath:
    """Find the path with the highest score.

    Args:
        tokens: vocabulary ids, or `STAR`; never `blank`.
        star_gaps: tokens + 1 flags: where any stretch may stand (before the first token, between, behind the last).
        star: log probability of a star per frame; by default `star_costs(log_probs, blank=blank)`.
        filler: what a flagged gap may cost instead of a blank; by default `star` (a model with word delimiters has
            these there as well).
        band: this many states per frame (at least 64), around the best one; the path is then the best inside the
            band. A band that loses every path is doubled until it holds one. None keeps all states and is exact.

    Raises:
        DataError: no tokens, ids outside the vocabulary, NaN, too few frames, or no path of finite score.
    """
    log_probs, tokens = np.asarray(log_probs), np.asarray(tokens, np.int64)
    _check(log_probs, tokens, blank)
    gaps = np.zeros(len(tokens) + 1, bool) if star_gaps is None else np.asarray(star_gaps, bool)
    assert len(gaps) == len(tokens) + 1, f"{len(tokens)} tokens have {len(tokens) + 1} gaps, got {len(gaps)} flags"
    star = star_costs(log_probs, blank=blank) if star is None else np.asarray(star, np.float64)
    grid = _Grid(log_probs, tokens, gaps, star, star if filler is None else np.asarray(filler, np.float64), blank)
    width = grid.states if band is None else min(max(band, 4 * _BLOCK), grid.states)
    while True:
        score, states = grid.search(width)
        if states is not None or width == grid.states:
            break
        width = min(2 * width, grid.states)
    if states is None:
        raise DataError(
            f"aligning: no path of {len(tokens)} tokens through {len(log_probs)} frames has a finite score; "
            f"check that the model gives every token a probability"
        )
    return grid.path(score, states)


def _check(log_probs: np.ndarray, tokens: np.ndarray, blank: int) -> None:
    frames, vocabulary = log_probs.shape
    if len(tokens) == 0:
        raise DataError("aligning: the text has no tokens; give at least one")
    bad = tokens[((tokens < 0) & (tokens != STAR)) | (tokens >= vocabulary) | (tokens == blank)]
    if len(bad):
        raise DataError(
            f"aligning: token id {bad[0]}, allowed are 0..{vocabulary - 1} without the blank {blank}; "
            f"use the tokenizer of this model"
        )
    if np.isnan(log_probs).any():
        raise DataError("aligning: the model gave NaN; check the audio, or use fp32")
    need = frames_needed(tokens)
    if frames < need:
        raise DataError(
            f"aligning: {frames} frames cannot hold {len(tokens)} tokens, which need {need} (one each, and a blank "
            f"between repeats); check that the transcript is its own"
        )


class _Grid:
    """States, their costs and the search over them."""

    def __init__(
        self,
        log_probs: np.ndarray,
        tokens: np.ndarray,
        gaps: np.ndarray,
        star: np.ndarray,
        filler: np.ndarray,
        blank: int,
    ) -> None:
        self.log_probs, self.tokens, self.star, self.filler = log_probs, tokens, star, filler
        self.frames, self.states = len(log_probs), 2 * len(tokens) + 1
        self.columns = np.full(self.states, blank, np.int64)
        self.columns[1::2] = np.where(tokens == STAR, blank, tokens)
        self.only_star = np.zeros(self.states, bool)
        self.only_star[1::2] = tokens == STAR
        self.or_star = np.zeros(self.states, bool)
        self.or_star[::2] = gaps
        # A gap can be skipped between different tokens; two stars in a row need no gap either.
        self.no_skip = np.ones(self.states, bool)
        self.no_skip[3::2] = (tokens[1:] == tokens[:-1]) & (tokens[1:] != STAR)

    def costs(self, start: int, stop: int, low: int, high: int) -> Float[np.ndarray, "block states"]:
        """Log probabilities of states low..high in frames start..stop."""
        block = self.log_probs[start:stop][:, self.columns[low:high]].astype(np.float64)
        only, maybe = np.flatnonzero(self.only_star[low:high]), np.flatnonzero(self.or_star[low:high])
        block[:, only] = self.star[start:stop, None]
        block[:, maybe] = np.maximum(block[:, maybe], self.filler[start:stop, None])
        return block

    def search(self, width: int) -> tuple[float, np.ndarray | None]:
        """Best score and state per frame, `width` states at a time; None where no path ends inside the band."""
        low, lows = 0, []
        best = np.full(width + 2, _NEVER)  # Two states below the band, never reached, so that shifts need no cases.
        packed: list[np.ndarray] = []
        for start in range(0, self.frames, _BLOCK):
            stop = min(start + _BLOCK, self.frames)
            move = self._low(best[2:], low, start, width) - low if start else 0
            if move:
                best[2:-move], best[-move:] = best[2 + move :].copy(), _NEVER
                low += move
            lows.append(low)
            choices = np.zeros((stop - start, width), np.uint8)
            costs, no_skip = self.costs(start, stop, low, low + width), self.no_skip[low : low + width]
            for row in range(stop - start):
                if start + row == 0:
                    best[2:4] = 0.0
                else:
                    skip = np.where(no_skip, _NEVER, best[:-2])
                    step, stay = best[1:-1], best[2:].copy()
                    choice = choices[row]
                    choice[step > stay] = 1
                    np.maximum(stay, step, out=stay)
                    choice[skip > stay] = 2
                    np.maximum(stay, skip, out=best[2:])
                best[2:] += costs[row]
            packed.append(_pack(choices))
        return self._trace(best[2:], low, lows, packed, width)

    def _low(self, best: np.ndarray, low: int, start: int, width: int) -> int:
        """Lowest state to keep before frame `start`: the best one in the middle, and the end still in reach."""
        if width == self.states or not np.isfinite(best).any():
            return low
        center = low + int(best.argmax()) - width // 2
        reach = self.states - 2 - 2 * (self.frames - start)
        return min(max(low, center, reach), self.states - width, low + width // 2)

    def _trace(
        self, best: np.ndarray, low: int, lows: list[int], packed: list[np.ndarray], width: int
    ) -> tuple[float, np.ndarray | None]:
        if low + width != self.states:
            return _NEVER, None
        state = self.states - 1 if best[-1] >= best[-2] else self.states - 2
        score = float(best[state - low])
        if not np.isfinite(score):
            return _NEVER, None
        states = np.empty(self.frames, np.int64)
        for index in range(len(packed) - 1, -1, -1):
            choices = _unpack(packed[index], width)
            start, bottom = index * _BLOCK, lows[index]
            for row in range(min(_BLOCK, self.frames - start) - 1, -1, -1):
                states[start + row] = state
                state -= int(choices[row, state - bottom])
        return score, states

    def path(self, score: float, states: np.ndarray) -> TokenPath:
        """Token ranges and scores from the state of each frame."""
        token_at = np.where(states % 2 == 1, states // 2, -1)
        frames = np.flatnonzero(token_at >= 0)
        owners = token_at[frames]
        count = len(self.tokens)
        starts = frames[np.searchsorted(owners, np.arange(count), "left")]
        ends = frames[np.searchsorted(owners, np.arange(count), "right") - 1] + 1
        costs = np.asarray(self.log_probs[frames, self.columns[states[frames]]], np.float64)
        costs = np.where(self.only_star[states[frames]], self.star[frames], costs)
        scores = np.bincount(owners, costs, count) / (ends - starts)
        return TokenPath(score=score, token_at=token_at, start_frames=starts, end_frames=ends, scores=scores)


def _pack(choices: np.ndarray) -> np.ndarray:
    """Four choices (0, 1, 2) to a byte."""
    padded = np.pad(choices, ((0, 0), (0, -choices.shape[1] % 4)))
    return padded[:, 0::4] | padded[:, 1::4] << 2 | padded[:, 2::4] << 4 | padded[:, 3::4] << 6


def _unpack(packed: np.ndarray, width: int) -> np.ndarray:
    wide = np.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)], axis=2)
    return wide.reshape(len(packed), -1)[:, :width]
