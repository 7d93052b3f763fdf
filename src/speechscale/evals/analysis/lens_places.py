"""Where words sound among the tokens a model hears, on the frame timeline.

Enters: the words of one utterance (frames, a number for the first text token of each), the frames of its speech tokens.
Leaves: which speech token is heard at which time of which word: inside it, some tokens before or behind it, and so many
frames after its start or end.
The one decision worth knowing: a time outside a word belongs to the nearest occurrence of its token, and to none where
two are equally near, so that one word is not credited with its repetition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """One utterance as the lens sees it.

    Args:
        row: of the unit table. ids: what the model reads, the opening first. opening: tokens of it that are no speech.
        token_of_frame: speech token (from 0, without the opening) that sounds at each frame.
        words: number of each word in its row. codes: column of its first text token. starts, ends: frames, half open.
        first: it is the first word of the utterance that begins with this text token.
    """

    row: int
    ids: Int[np.ndarray, " tokens"]
    opening: int
    token_of_frame: Int[np.ndarray, " frames"]
    words: Int[np.ndarray, " words"]
    codes: Int[np.ndarray, " words"]
    starts: Int[np.ndarray, " words"]
    ends: Int[np.ndarray, " words"]

    @property
    def tokens(self) -> int:
        """Speech tokens."""
        return len(self.ids) - self.opening

    @property
    def first(self) -> np.ndarray:
        first = np.zeros(len(self.codes), bool)
        first[np.unique(self.codes, return_index=True)[1]] = True
        return first


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """(word, token, bin) triples: at this token the word is at this place of an axis."""

    word: Int[np.ndarray, " pairs"]
    token: Int[np.ndarray, " pairs"]
    bin: Int[np.ndarray, " pairs"]

    def count(self, bins: int) -> Float[np.ndarray, " bins"]:
        """Pairs in each bin."""
        return np.bincount(self.bin, minlength=bins).astype(np.float64)

    def total(self, values: Float[np.ndarray, "tokens words"], bins: int) -> Float[np.ndarray, " bins"]:
        """Sum of the pairs' values in each bin."""
        return np.bincount(self.bin, weights=values[self.token, self.word], minlength=bins)


def inside(spoken: Spoken) -> Float[np.ndarray, "words tokens"]:
    """Share of each word's frames that each token sounds. Rows sum to 1.

    Example: a word of four frames, three of token 0 and one of token 1 -> [.75, .25]
    """
    shares = np.zeros((len(spoken.words), spoken.tokens))
    for share, start, end in zip(shares, spoken.starts, spoken.ends, strict=True):
        share += np.bincount(spoken.token_of_frame[start:end], minlength=spoken.tokens) / (end - start)
    return shares


def nearest(spoken: Spoken, word: int, frames: Int[np.ndarray, " frames"]) -> np.ndarray:
    """Whether this word is nearer to each frame than any other word with the same first token."""
    others = np.flatnonzero(spoken.codes == spoken.codes[word])
    starts, lasts = spoken.starts[others][:, None], spoken.ends[others][:, None] - 1
    distance = np.maximum(np.maximum(starts - frames, frames - lasts), 0)  # (occurrences, frames)
    own = distance[others == word][0]
    return (distance[others != word] > own).all(axis=0)


def relative_pairs(spoken: Spoken, *, around: int, bins: int) -> Pairs:
    """Places in words: `around` tokens before, `bins` equal parts of its time, `around` tokens behind.

    Every word counts once in every part, by the frame that sounds in the middle of it; before and behind each token
    counts once, and its middle frame says whose it is.
    """
    middles = _middles(spoken)
    within, parts = np.arange(bins), []
    for word, (start, end) in enumerate(zip(spoken.starts, spoken.ends, strict=True)):
        frames = start + (2 * within + 1) * (end - start) // (2 * bins)
        parts.append((word, spoken.token_of_frame[frames], around + within))
        opens, closes = spoken.token_of_frame[start], spoken.token_of_frame[end - 1]
        steps = np.arange(1, around + 1)
        for tokens, place in ((opens - steps, around - steps), (closes + steps, around + bins + steps - 1)):
            there = (tokens >= 0) & (tokens < spoken.tokens)
            tokens, place = tokens[there], place[there]
            kept = nearest(spoken, word, middles[tokens])
            parts.append((word, tokens[kept], place[kept]))
    return _pairs(parts)


def lag_pairs(spoken: Spoken, *, reach: int, end: bool) -> Pairs:
    """Frames before and after the start (or end) of words; bin `reach` is the first frame of (or behind) the word."""
    total = len(spoken.token_of_frame)
    parts = []
    for word in range(len(spoken.words)):
        zero = int((spoken.ends if end else spoken.starts)[word])
        frames = np.arange(max(zero - reach, 0), min(zero + reach + 1, total))
        frames = frames[nearest(spoken, word, frames)]
        parts.append((word, spoken.token_of_frame[frames], frames - zero + reach))
    return _pairs(parts)


def _middles(spoken: Spoken) -> np.ndarray:
    borders = np.searchsorted(spoken.token_of_frame, np.arange(spoken.tokens + 1))
    return (borders[:-1] + borders[1:] - 1) // 2


def _pairs(parts: list[tuple[int, np.ndarray, np.ndarray]]) -> Pairs:
    return Pairs(
        word=np.repeat([part[0] for part in parts], [len(part[1]) for part in parts]),
        token=np.concatenate([part[1] for part in parts]),
        bin=np.concatenate([part[2] for part in parts]),
    )
