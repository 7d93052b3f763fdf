"""Catches wrong judgments: words lost between spoken and written, failures that pass, flags on the wrong words."""

from __future__ import annotations

import numpy as np
import pytest

from speechscale.align.aligner import ALIGNERS, Found, build_aligner, failure, mean_score, put_together, unusable
from speechscale.align.normalize import normalize
from speechscale.errors import DataError


def test_times_of_spoken_words_land_on_written_ones() -> None:
    """ "1455" is three spoken words: it starts with the first, ends with the last and has the lowest score."""
    normal = normalize("In 1455, -- he")
    found = [Found(float(i), i + 1.0, 0.9 - 0.1 * i) for i in range(len(normal.spoken))]
    aligned = put_together(normal, found, low_score=0.3)
    assert [word.text for word in aligned.words] == ["In", "1455, --", "he"]
    assert (aligned.words[1].start_s, aligned.words[1].end_s) == (1.0, 4.0)
    assert aligned.words[1].score == pytest.approx(0.6)
    assert aligned.failed == ""
    assert aligned.flagged == ()


def test_a_word_without_time_never_breaks_its_utterance() -> None:
    """Half of the words are enough; the missing one is flagged and stays in the text."""
    aligned = put_together(normalize("one two three"), [Found(0, 1, 0.9), None, Found(2, 3, 0.9)], low_score=0.3)
    assert aligned.failed == ""
    assert aligned.flagged == (1,)
    assert aligned.words[1].start_s is None


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ((0.9, None, None), "only 1 of 3 words"),
        ((0.2, 0.2, 0.9), "2 of 3 words do not fit"),
        ((0.01, 0.9, 0.4), "score 0.15, at least 0.3"),
    ],
)
def test_bad_alignments_fail(scores: tuple[float | None, ...], message: str) -> None:
    """Too few words, too many low ones, or a low mean: the wrong transcript must not pass as data."""
    found = [None if score is None else Found(i, i + 1, score) for i, score in enumerate(scores)]
    assert message in put_together(normalize("one two three"), found, low_score=0.3).failed


def test_the_mean_weighs_words_by_their_length() -> None:
    """A long wrong word counts more than a short right one."""
    assert mean_score([Found(0, 3, 0.1), Found(3, 4, 1.0)]) == pytest.approx(0.1**0.75)


def test_failures_keep_the_words() -> None:
    """The user finds the words where they were, flagged, without times."""
    failed = failure(normalize("Mr. Smith"), "why; what to do")
    assert [word.text for word in failed.words] == ["Mr.", "Smith"]
    assert failed.flagged == (0, 1)


def test_unusable_audio_is_told() -> None:
    """Each kind of bad audio has its reason; good audio none."""
    assert "too short" in (unusable(np.ones(10, np.float32), 16_000, 0.1) or "")
    assert "NaN" in (unusable(np.full(16_000, np.inf, np.float32), 16_000, 0.1) or "")
    assert "silent" in (unusable(np.zeros(16_000, np.float32), 16_000, 0.1) or "")
    assert unusable(np.ones(16_000, np.float32), 16_000, 0.1) is None


def test_unknown_aligners_are_refused() -> None:
    """A typing error names the choices."""
    assert set(ALIGNERS) == {"pocketsphinx", "ctc"}
    with pytest.raises(DataError, match="choose one of: pocketsphinx, ctc"):
        build_aligner("mfa")
    with pytest.raises(DataError, match="no model was named"):
        build_aligner("ctc")


def test_settings_of_another_aligner_are_refused() -> None:
    """A model given to pocketsphinx would silently not be used."""
    pytest.importorskip("pocketsphinx")
    with pytest.raises(DataError, match="no setting 'model'"):
        build_aligner("pocketsphinx", model="x")
