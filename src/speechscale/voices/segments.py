"""Speak utterances segment by segment, whatever the engine.

Enters: utterances and a function that speaks one segment in one voice. Leaves: `Spoken` in order, and a reason for
every utterance that cannot be spoken. The one decision worth knowing: each distinct (voice, segment) is spoken once and
remembered, which is sound because a segment's audio depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from speechscale.errors import DataError
from speechscale.records import Utterance
from speechscale.voices.spoken import Spoken, check_spoken, join_segments
from speechscale.voices.word_events import has_letters
from speechscale.voices.worker_process import EngineLost

CACHE_SEGMENTS = 1024
"""Segments remembered within a shard, about 0.1 MB each."""

OnError = Callable[[str, str], None]
"""Called with (id, what is wrong; remedy)."""


class EngineDown(DataError):
    """The whole engine cannot go on (server gone, key refused): never a reason to drop one utterance."""


def speak_by_segment(
    utterances: Iterable[Utterance],
    speak_segment: Callable[[str, str], Spoken],
    *,
    on_error: OnError | None = None,
    cache_segments: int = CACHE_SEGMENTS,
) -> Iterator[Spoken]:
    """Speak and join the segments of each utterance; a lost engine process costs one retry.

    Args:
        speak_segment: called with (speaker, segment).
        on_error: receives (id, "reason; remedy") of each utterance that cannot be spoken, which is then left out.
        cache_segments: 0 for engines that never say the same thing twice alike.

    Raises:
        EngineDown: the engine is gone for good. DataError: without `on_error`, the first utterance that fails.
    """
    speak_once = lru_cache(cache_segments)(speak_segment) if cache_segments else speak_segment
    for utterance in utterances:
        try:
            spoken = _speak_utterance(utterance, speak_once)
        except EngineDown:
            raise
        except DataError as error:
            if on_error is None:
                raise DataError(f"utterance {utterance.id}: {error}") from error
            on_error(utterance.id, str(error))
            continue
        yield spoken


def check_segments(utterance: Utterance) -> None:
    """Refuse what no engine can say. Raises DataError."""
    if not utterance.segments:
        raise DataError("it has no segments to speak; give it at least one sentence")
    for segment in utterance.segments:
        if not has_letters(segment):
            raise DataError(f"segment '{segment}' has no letters or digits; correct its text or drop the utterance")


def printable_words(segment: str) -> list[str]:
    """The words of a segment with control characters, which engines read as commands, replaced by blanks.

    One character stands for one, so that text positions and the number of words stay.
    """
    return ["".join(letter if letter.isprintable() else " " for letter in word) for word in segment.split()]


def _speak_utterance(utterance: Utterance, speak_once: Callable[[str, str], Spoken]) -> Spoken:
    check_segments(utterance)
    try:
        parts = [speak_once(utterance.speaker, segment) for segment in utterance.segments]
    except EngineLost:
        try:
            parts = [speak_once(utterance.speaker, segment) for segment in utterance.segments]
        except EngineLost as error:
            raise DataError(f"the voice engine {error}, twice; simplify its text or drop the utterance") from error
    spoken = join_segments(utterance.id, parts)
    check_spoken(spoken, " ".join(utterance.segments).split())
    return spoken
