"""Small unit tables and vocabularies for the tests of the token modules."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from speechscale.records import NO_TIME, UnitTable, UnitTableBuilder
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

WORDS = ("the", "cat", "dog", "sat", "ran", "home", "jam", "likes", "tom", "ann")
NUM_UNITS = 20


def random_table(
    rows: int, *, seed: int = 0, most_words: int = 60, untimed: float = 0.0, zero_length: float = 0.0
) -> UnitTable:
    """Utterances of 1..most_words random words with pauses, deduplicated units and, if asked, awkward words."""
    rng = np.random.default_rng(seed)
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=NUM_UNITS)
    for row in range(rows):
        count = int(rng.integers(1, most_words + 1))
        length = rng.integers(1, 8, count) * (rng.random(count) >= zero_length)
        pause = rng.integers(0, 4, count)
        end = np.cumsum(length + pause)
        frames = int(end[-1]) + int(rng.integers(1, 4))
        durations = rng.integers(1, 4, frames)
        durations = durations[: int(np.searchsorted(np.cumsum(durations), frames)) + 1]
        durations[-1] -= int(durations.sum()) - frames
        units = np.cumsum(rng.integers(1, NUM_UNITS, len(durations))) % NUM_UNITS
        times = np.stack([end - length, end], axis=1)
        times[rng.random(count) < untimed] = NO_TIME
        words = [WORDS[i] for i in rng.integers(0, len(WORDS), count)]
        builder.add(
            id=f"utterance-{row}",
            speaker="a",
            split="train",
            text=" ".join(words),
            units=units,
            durations_frames=durations,
            words=words,
            word_frames=times,
        )
    return builder.build()


@pytest.fixture(scope="session")
def make_table() -> Callable[..., UnitTable]:
    return random_table


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    """Joint vocabulary of ten words and twenty units."""
    return Vocabulary.joint(build_text_tokenizer([" ".join(WORDS) + "."], "words", 100), NUM_UNITS)
