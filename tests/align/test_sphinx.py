"""Catches alignments that fail where they should not, pass where they should not, or depend on what came before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from speechscale.align.aligner import build_aligner
from speechscale.align.formats import read_alignment
from speechscale.align.spelling import spell
from speechscale.errors import DataError
from speechscale.speech.audio import load_audio

sphinx = pytest.importorskip("speechscale.align.sphinx")
pytest.importorskip("pocketsphinx")


@pytest.fixture(scope="module")
def aligner() -> Iterator[sphinx.SphinxAligner]:
    made = build_aligner("pocketsphinx", guess="letters")
    yield made
    made.close()


@pytest.fixture(scope="module")
def clips(shared: Path) -> list[tuple[str, np.ndarray, str]]:
    """Id, audio at 16 kHz and raw transcript of the LJSpeech clips."""
    folder = shared / "data" / "dev-ljspeech"
    rows = [line.split("|") for line in (folder / "metadata.csv").read_text(encoding="utf-8").splitlines()]
    return [(id, load_audio(folder / "wavs" / f"{id}.flac").audio, raw) for id, raw, *_ in rows]


def test_human_speech_against_its_given_times(
    shared: Path, aligner: sphinx.SphinxAligner, clips: list[tuple[str, np.ndarray, str]]
) -> None:
    """Word starts within 50 ms of the Montreal aligner's for most words; a shift by a frame or a word would show."""
    errors = []
    for id, audio, raw in clips[:6]:
        aligned = aligner.align(audio, 16_000, raw)
        assert aligned.failed == ""
        assert [word.text for word in aligned.words] == raw.split()
        given, share = spell(raw, read_alignment(shared / "data" / "dev-ljspeech" / "TextGrid" / f"{id}.TextGrid"))
        assert share == 1
        errors += [abs(a.start_s - b.start_s) for a, b in zip(aligned.words, given, strict=True)]
        assert all(a.end_s <= b.start_s for a, b in zip(aligned.words, aligned.words[1:], strict=False))
        assert aligned.words[-1].end_s <= len(audio) / 16_000
    assert np.median(errors) < 0.02
    assert np.mean(np.array(errors) < 0.05) > 0.85


def test_another_files_transcript_is_refused(
    aligner: sphinx.SphinxAligner, clips: list[tuple[str, np.ndarray, str]]
) -> None:
    """A forced alignment always finds some path; the score must tell."""
    for index in (7, 10):
        aligned = aligner.align(clips[index][1], 16_000, clips[(index + 1) % len(clips)][2])
        assert "transcript" in aligned.failed
        assert aligned.flagged


def test_results_do_not_depend_on_what_came_before(clips: list[tuple[str, np.ndarray, str]]) -> None:
    """pocketsphinx carries the cepstral mean of one utterance into the next, unless told not to."""
    alone = build_aligner("pocketsphinx", guess="letters").align(clips[1][1], 16_000, clips[1][2])
    busy = build_aligner("pocketsphinx", guess="letters")
    busy.align(clips[0][1] * 0.2, 16_000, clips[0][2])
    busy.align(clips[2][1], 16_000, "xyzzy " + clips[2][2])
    assert busy.align(clips[1][1], 16_000, clips[1][2]) == alone


@pytest.mark.slow
def test_long_audio_is_aligned_in_stretches(
    aligner: sphinx.SphinxAligner, clips: list[tuple[str, np.ndarray, str]]
) -> None:
    """Two minutes with pauses: every clip's words must land in the clip; a lost anchor would shift all that follow."""
    pause = np.zeros(8_000, np.float32)
    chosen = [clips[index % len(clips)] for index in range(18)]
    audio = np.concatenate([part for _, wave, _ in chosen for part in (wave, pause)])
    assert len(audio) / 16_000 > sphinx.WHOLE_S + sphinx.STRETCH_S / 2
    aligned = aligner.align(audio, 16_000, " ".join(raw for _, _, raw in chosen))
    assert "stretches" in aligned.how
    assert aligned.failed == ""
    at, word = 0.0, 0
    for _, wave, raw in chosen:
        end = at + len(wave) / 16_000
        for _ in raw.split():
            start_s = aligned.words[word].start_s
            assert start_s is not None
            assert at - 0.3 <= start_s <= end + 0.3
            word += 1
        at = end + 0.5


def test_numbers_and_unknown_words_come_back_as_written(
    aligner: sphinx.SphinxAligner, clips: list[tuple[str, np.ndarray, str]]
) -> None:
    """Spoken tokens are many, written words few; the guess is named."""
    id, audio, raw = clips[6]
    assert id == "LJ001-0007"
    aligned = aligner.align(audio, 16_000, raw)
    number = next(word for word in aligned.words if "1455" in word.text)
    assert number.start_s is not None
    assert 0.7 < number.end_s - number.start_s < 2.5
    odd = aligner.align(clips[1][1], 16_000, "in being comparatively muddirn.")
    assert odd.guessed == ("muddirn",)
    assert odd.words[-1].text == "muddirn."


@pytest.mark.parametrize(
    ("audio", "text", "message"),
    [
        (np.zeros(16_000, np.float32), "--", "no words"),
        (np.zeros(16_000, np.float32), "", "no words"),
        (np.zeros(0, np.float32), "a word", "too short"),
        (np.zeros(1, np.float32), "a word", "too short"),
        (np.full(16_000, np.nan, np.float32), "a word", "NaN"),
        (np.zeros(16_000, np.float32), "a word", "silent"),
        (np.full(3_200, 0.1, np.float32), "many more words than fit into a fifth of a second of audio", "transcript"),
    ],
)
def test_what_cannot_be_aligned_fails_with_a_reason(
    aligner: sphinx.SphinxAligner, audio: np.ndarray, text: str, message: str
) -> None:
    """Bad input must fail its utterance, not crash the process; the words stay, without times."""
    aligned = aligner.align(audio, 16_000, text)
    assert message in aligned.failed
    assert "; " in aligned.failed
    assert all(word.start_s is None for word in aligned.words)


def test_silence_and_noise_get_no_good_score(aligner: sphinx.SphinxAligner) -> None:
    """A confident alignment of nothing would pass as data. One sample keeps silence from being refused as such."""
    noise = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    for audio in (np.eye(1, 32_000, 20_000, dtype=np.float32)[0], noise):
        assert aligner.align(audio, 16_000, "printing in the only sense").failed


def test_a_dictionary_of_ones_own(tmp_path: Path, clips: list[tuple[str, np.ndarray, str]]) -> None:
    """The user's pronunciations must reach decoder and report; a wrong file is told at once."""
    path = tmp_path / "own.dict"
    path.write_text("in IH N\nbeing B IY IH NG\ncomparatively K AH M P EH R AH T IH V L IY\n")
    made = build_aligner("pocketsphinx", dictionary=str(path), guess="letters")
    aligned = made.align(clips[1][1], 16_000, clips[1][2])
    assert aligned.failed == ""
    assert aligned.guessed == ("modern",)
    with pytest.raises(DataError, match="no such file"):
        build_aligner("pocketsphinx", dictionary=str(tmp_path / "none"), guess="letters")


def test_quiet_places_and_settled_words() -> None:
    """The cut must fall into the pause, and words near the end of a stretch are left to the next."""
    pcm = np.full(16_000 * 20, 1000, np.int16)
    pcm[16_000 * 14 : 16_000 * 15] = 3
    assert 14.0 <= sphinx.quiet_place(pcm, 16_000 * 18) / 16_000 <= 15.0
    words = [(0, 50, 1.0), (60, 100, 1.0), (200, 300, 1.0), (310, 400, 1.0), (900, 990, 1.0)]
    assert sphinx.settled(words, 10.0) == words[:4]
    assert sphinx.settled(words, 7.0) == words[:2]
    assert sphinx.settled([(500, 980, 1.0)], 10.0) == []
