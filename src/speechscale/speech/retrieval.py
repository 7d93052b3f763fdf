"""Word retrieval: is the nearest word, by its units, the same word said by somebody else?

Enters: labeled utterances with word times. Leaves: for each query word, how right its nearest neighbor is. The one
decision worth knowing: units inside a word are deduplicated and compared by plain edit distance; among equally near
neighbors each counts its share, so the order of the corpus does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from speechscale.speech.labeled import Labeled

MAX_CANDIDATES = 4000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WordToken:
    """One spoken word: its text (casefolded, letters and digits only), who said it where, deduplicated units."""

    word: str
    speaker: str
    utterance: str
    units: Int[np.ndarray, " units"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Retrieved:
    """Share of nearest neighbors that are the same word, per query; its expected value by chance."""

    right: Float[np.ndarray, " queries"]
    chance: float


def word_tokens(utterances: Sequence[Labeled], frame_rate_hz: float) -> list[WordToken]:
    """Cut utterances into words, as `spoken_words` does, and collapse runs of equal units."""
    return [
        WordToken(word=word, speaker=utterance.speaker, utterance=utterance.id, units=collapse(frames))
        for word, utterance, frames in spoken_words(utterances, frame_rate_hz)
    ]


def spoken_words(utterances: Sequence[Labeled], frame_rate_hz: float) -> Iterator[tuple[str, Labeled, np.ndarray]]:
    """Each word (casefolded, letters and digits only), its utterance and its units per frame; empty ones left out."""
    for utterance in utterances:
        for text, start_s, end_s in utterance.words:
            frames = cut_frames(utterance.units, start_s, end_s, frame_rate_hz)
            word = "".join(character for character in text.casefold() if character.isalnum())
            if len(frames) and word:
                yield word, utterance, frames


def cut_frames(
    units: Int[np.ndarray, " frames"], start_s: float, end_s: float, frame_rate_hz: float
) -> Int[np.ndarray, " cut"]:
    """The frames whose centers lie in [start_s, end_s)."""
    first, last = (int(np.ceil(t * frame_rate_hz - 0.5)) for t in (start_s, end_s))
    return units[max(first, 0) : max(last, 0)]


def collapse(frames: Int[np.ndarray, " frames"]) -> Int[np.ndarray, " units"]:
    """Units without repetitions in a row. Example: [5, 5, 7] -> [5, 7]"""
    return frames[np.flatnonzero(np.diff(frames, prepend=-1))].astype(np.int32)


def retrieve(tokens: Sequence[WordToken], *, queries: int, seed: int, other_speakers: bool) -> Retrieved | None:
    """Look words up among other speakers (or among other utterances of their own speaker).

    Only words that can be found (the same word is among the candidates) are queries; at most MAX_CANDIDATES tokens are
    drawn to search in. None when there is no such query.
    """
    rng = np.random.default_rng([seed, int(other_speakers)])
    if len(tokens) > MAX_CANDIDATES:
        tokens = [tokens[i] for i in np.sort(rng.choice(len(tokens), MAX_CANDIDATES, replace=False))]
    if not tokens:
        return None
    words, speakers, utterances = (
        np.unique([getattr(t, name) for t in tokens], return_inverse=True)[1]
        for name in ("word", "speaker", "utterance")
    )
    padded, lengths = _padded(tokens)
    right, chances = [], []
    for query in rng.permutation(len(tokens)):
        if other_speakers:
            allowed = np.flatnonzero(speakers != speakers[query])
        else:
            allowed = np.flatnonzero((speakers == speakers[query]) & (utterances != utterances[query]))
        same = words[allowed] == words[query]
        if not same.any():
            continue
        distances = edit_distances(tokens[query].units, padded[allowed], lengths[allowed])
        right.append(float(same[distances == distances.min()].mean()))
        chances.append(float(same.mean()))
        if len(right) == queries:
            break
    return Retrieved(right=np.array(right), chance=float(np.mean(chances))) if right else None


def edit_distances(
    query: Int[np.ndarray, " units"],
    padded: Int[np.ndarray, "candidates longest"],
    lengths: Int[np.ndarray, " candidates"],
) -> Int[np.ndarray, " candidates"]:
    """Edit distance (insert, delete, replace cost 1) of one sequence to many, all at once.

    A row of the table needs its left neighbor; min over j' <= j of row[j'] + (j - j') is a running minimum of row - j.
    """
    columns = np.arange(padded.shape[1] + 1, dtype=np.int32)
    row = np.repeat(columns[None], len(padded), axis=0)
    for step, unit in enumerate(query, 1):
        new = row + 1
        np.minimum(new[:, 1:], row[:, :-1] + (padded != unit), out=new[:, 1:])
        new[:, 0] = step
        row = np.minimum.accumulate(new - columns, axis=1) + columns
    return row[np.arange(len(padded)), lengths]


def _padded(tokens: Sequence[WordToken]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(t.units) for t in tokens])
    padded = np.full((len(tokens), int(lengths.max())), -1, np.int32)
    for row, token in zip(padded, tokens, strict=True):
        row[: len(token.units)] = token.units
    return padded, lengths
