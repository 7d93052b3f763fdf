"""What an aligner is: audio and a transcript in, the transcript's words with times out.

Enters: a waveform and the text as people write it. Leaves: `Aligned`: every written word, spelled as in the text, with
start, end and score, or without when it could not be found. The one decision worth knowing: scores lie in [0, 1],
calibrated so that `low_score` parts the right transcript from another file's; what lies below is told, never hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from speechscale.align.normalize import Normalized, merge_times, normalize
from speechscale.errors import DataError
from speechscale.records import Word

MIN_ALIGNED_SHARE = 0.5
"""An utterance of which fewer spoken words were found counts as failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aligned:
    """The words of one transcript on the time axis.

    Args:
        words: spelled as in the text; times in seconds, None where the word was not found.
        failed: "" or "what is wrong; what to do"; the words are then not to be trusted.
        flagged: indices of words with a score below the aligner's `low_score`, or without time.
        guessed: spoken words whose pronunciation was guessed, or with letters the model does not know.
        how: what it took: the pass and beams, or the windows.
        score: of all words together, by their length in frames.
    """

    words: tuple[Word, ...]
    failed: str = ""
    flagged: tuple[int, ...] = ()
    guessed: tuple[str, ...] = ()
    how: str = ""
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One spoken word on the time axis: seconds and score; frames weigh it against the others."""

    start_s: float
    end_s: float
    score: float


class Aligner(Protocol):
    """A way to align. Results depend on the audio, the text and the settings only, never on earlier calls.

    `low_score` is the flag for words and the least score of an utterance; `config()` names all that can change a time.
    """

    name: str
    low_score: float

    def align(self, audio: Float[np.ndarray, " samples"], sample_rate_hz: int, text: str) -> Aligned:
        """Align one utterance; never raises for what the data holds. Raises MissingExtra or DataError for settings."""
        ...

    def config(self) -> dict[str, Any]: ...

    def close(self) -> None:
        """Stop helpers that were started; the aligner is not used again."""
        ...


def _pocketsphinx(**settings: Any) -> Aligner:
    from speechscale.align.sphinx import SphinxAligner

    return SphinxAligner(**settings)


def _ctc(**settings: Any) -> Aligner:
    from speechscale.align.ctc import CtcAligner

    return CtcAligner(**settings)


ALIGNERS: dict[str, Callable[..., Aligner]] = {"pocketsphinx": _pocketsphinx, "ctc": _ctc}
"""Name -> factory taking that aligner's settings as keywords."""


def build_aligner(name: str, **settings: Any) -> Aligner:
    """Make an aligner by name. Raises DataError: unknown name or setting; and what its constructor raises."""
    if name not in ALIGNERS:
        raise DataError(f"aligner '{name}': not known; choose one of: {', '.join(ALIGNERS)}")
    try:
        return ALIGNERS[name](**settings)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        setting = str(error).rpartition(" argument ")[2]
        raise DataError(f"aligner '{name}': it has no setting {setting}; see docs/aligning.md") from error


def spoken_form(text: str, language: str, *, known: Container[str] | None) -> Normalized | Aligned:
    """Normalize a transcript; one that cannot be, or has nothing to say, is a failure. Raises MissingExtra."""
    try:
        normal = normalize(text, language, known=known)
    except DataError as error:
        return failure(Normalized(tuple(text.split()), (), ()), str(error))
    if not normal.spoken:
        return failure(normal, "the transcript has no words to align; write what is said")
    return normal


def unusable(audio: Float[np.ndarray, " samples"], sample_rate_hz: int, min_s: float) -> str | None:
    """What is wrong with a waveform, or None."""
    if len(audio) < min_s * sample_rate_hz:
        return f"the audio of {len(audio)} samples is too short for a word; record it again or drop it"
    if not np.isfinite(audio).all():
        return "the audio has NaN or infinite samples; export it again or drop it"
    if not audio.any():
        return "the audio is silent (all zeros); record it again or drop it"
    return None


def failure(normal: Normalized, reason: str, *, guessed: Sequence[str] = (), how: str = "") -> Aligned:
    """An utterance that could not be aligned: its words without times."""
    words = tuple(Word(text=word) for word in normal.raw)
    return Aligned(
        words=words, failed=reason, flagged=tuple(range(len(words))), guessed=tuple(guessed), how=how, score=None
    )


def put_together(
    normal: Normalized,
    found: Sequence[Found | None],
    *,
    low_score: float,
    score: float | None = None,
    guessed: Sequence[str] = (),
    how: str = "",
) -> Aligned:
    """Put the spoken words' times on the written words and judge them.

    Args:
        found: one entry per spoken word, in order. score: of the whole; by default the geometric mean of the words'
            scores, weighted by their lengths.
    """
    assert len(found) == len(normal.spoken), f"{len(found)} times for {len(normal.spoken)} spoken words"
    spoken = [
        Word(text=text) if hit is None else Word(text=text, start_s=hit.start_s, end_s=hit.end_s, score=hit.score)
        for text, hit in zip(normal.spoken, found, strict=True)
    ]
    words = merge_times(normal, spoken)
    hits = [hit for hit in found if hit is not None]
    if score is None and hits:
        score = mean_score(hits)
    share = len(hits) / max(len(found), 1)
    failed = ""
    if share < MIN_ALIGNED_SHARE:
        failed = f"only {len(hits)} of {len(found)} words were found in the audio; check that the transcript is its own"
    elif score is not None and score < low_score:
        failed = (
            f"the transcript does not fit the audio (score {score:.2f}, at least {low_score:g} is needed); "
            f"give the transcript of this file"
        )
    elif 2 * (low := sum(hit.score < low_score for hit in hits)) > len(hits):
        failed = f"{low} of {len(hits)} words do not fit the audio; give the transcript of this file"
    flagged = [i for i, word in enumerate(words) if word.start_s is None or (word.score or 0.0) < low_score]
    return Aligned(words=words, failed=failed, flagged=tuple(flagged), guessed=tuple(guessed), how=how, score=score)


def mean_score(hits: Sequence[Found]) -> float:
    """Geometric mean of scores, weighted by the words' lengths."""
    weights = [max(hit.end_s - hit.start_s, 1e-3) for hit in hits]
    logs = [math.log(max(hit.score, 1e-9)) for hit in hits]
    return math.exp(sum(w * s for w, s in zip(weights, logs, strict=True)) / sum(weights))
