"""Catches utterances that get lost, times that are overwritten, work that is repeated or mixed up after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from speechscale.cli.align import align
from speechscale.corpus.align_workers import Job, Journal, _pool, _result, new_entry, patience_s
from speechscale.corpus.aligning import JOURNAL, align_corpus, align_file, write_alignments
from speechscale.corpus.imported import Corpus, open_corpus, write_corpus
from speechscale.errors import DataError
from speechscale.records import Utterance, Word
from speechscale.skips import SkipLog, read_skips
from speechscale.speech.audio import write_audio
from speechscale.voices.espeak import speak_shard

pytest.importorskip("pocketsphinx")
pytest.importorskip("espeakng_loader")

LINES = {
    "a": "the happy family went home slowly.",
    "b": "Father thought: 2 lions are better!",
    "c": "good books could put a full cushion",
}
SETTINGS = {"guess": "letters"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Three spoken lines; then one with another's text, one without audio, one that has times."""
    folder = tmp_path_factory.mktemp("spoken")
    shard = [
        Utterance(id=id, text=text, speaker="us-f2", split="train", segments=(text,), audio=f"{id}.wav")
        for id, text in LINES.items()
    ]
    for spoken in speak_shard(shard):
        write_audio(folder / "audio" / f"{spoken.id}.wav", spoken.audio, 16_000)
    text = "serious heroes hurry with sorry mirrors tomorrow and judge watched everything loudly"
    rows = [
        *shard,
        replace(shard[0], id="wrong", text=text),
        replace(shard[0], id="gone", audio="gone.wav"),
        replace(shard[0], id="timed", words=(Word(text="the", start_s=0.5, end_s=0.6),)),
    ]
    return write_corpus(folder, iter(rows), audio_root=folder / "audio", info={"source": "test"}, skips=SkipLog())


@pytest.fixture(scope="module")
def aligned(source: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    out = tmp_path_factory.mktemp("aligned") / "out"
    said: list[str] = []
    align_corpus(source, out, aligner="pocketsphinx", settings=SETTINGS, say=said.append)
    return out, said


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_utterance_is_aligned_kept_or_skipped(source: Corpus, aligned: tuple[Path, list[str]]) -> None:
    """Order, spelling and times of what is kept; a reason for what is not; the counts add up."""
    out, said = aligned
    corpus = open_corpus(out)
    rows = list(corpus.utterances())
    assert [row.id for row in rows] == ["a", "b", "c", "timed"]
    assert corpus.audio_root.resolve() == source.audio_root.resolve()
    for row in rows[:3]:
        assert " ".join(word.text for word in row.words) == row.text
        assert all(word.start_s is not None and word.score is not None for word in row.words)
    assert rows[3].words == (Word(text="the", start_s=0.5, end_s=0.6),)
    skips = {skip.id: skip for skip in read_skips(out / "skips.jsonl")}
    assert "transcript" in skips["wrong"].reason + skips["wrong"].remedy
    assert "gone.wav" in skips["gone"].reason
    assert str(source.audio_root) not in skips["gone"].reason
    counts = corpus.info["aligning"]["counts"]
    assert (counts["read"], counts["aligned"], counts["kept"], counts["failed"]) == (6, 3, 1, 2)
    assert counts["timed"] == counts["words"] == sum(len(row.words) for row in rows[:3])
    assert corpus.info["aligning"]["aligner"]["aligner"] == "pocketsphinx"
    assert "left" in said[-1]
    assert not (out / JOURNAL).exists()


def test_a_finished_job_does_no_work_again(source: Corpus, aligned: tuple[Path, list[str]]) -> None:
    """Repeating a finished command must not align again; another job must not overwrite it."""
    out, _ = aligned
    before = content(out)
    stats = align_corpus(source, out, aligner="pocketsphinx", settings=SETTINGS)
    assert (stats.aligned, stats.work_s) == (3, 0.0)
    assert content(out) == before
    with pytest.raises(DataError, match="already holds another corpus"):
        align_corpus(source, out, aligner="pocketsphinx", settings={**SETTINGS, "low_score": 0.5})
    with pytest.raises(DataError, match="corpus itself"):
        align_corpus(source, source.folder, aligner="pocketsphinx", settings=SETTINGS)


def test_a_journal_is_taken_up_and_gives_the_same_bytes(
    source: Corpus, aligned: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """Finished utterances are not aligned again, a torn line is; the result is that of an undisturbed run."""
    name = json.loads((aligned[0] / "corpus.json").read_text())["info"]["aligning"]["job"]
    out = tmp_path / "out"
    first = next(iter(open_corpus(aligned[0]).utterances()))
    words = [[word.text, word.start_s, word.end_s, word.score] for word in first.words]
    audio_s = json.loads((aligned[0] / "corpus.json").read_text())["info"]["aligning"]["counts"]["audio_s"]
    journal = Journal(out / JOURNAL, name)
    # Lengths as the other run measured them; only "a" is taken from here.
    lengths = {spoken.id: round(len(spoken.audio) / 16_000, 3) for spoken in speak_shard(list(source.utterances())[:1])}
    journal.add(new_entry(first, words=words, audio_s=lengths["a"]))
    journal.close()
    with (out / JOURNAL).open("ab") as file:
        file.write(b'{"id": "b", "words": [')
    said: list[str] = []
    align_corpus(source, out, aligner="pocketsphinx", settings=SETTINGS, say=said.append, workers=2)
    assert said[0] == "going on: 1 of 5 utterances are done"
    assert content(out) == content(aligned[0])
    assert audio_s > 0


def test_a_journal_of_another_job_is_refused(source: Corpus, tmp_path: Path) -> None:
    """Mixing the results of two settings would be silent."""
    Journal(tmp_path / JOURNAL, "another").close()
    with pytest.raises(DataError, match="unfinished work of another"):
        align_corpus(source, tmp_path, aligner="pocketsphinx", settings=SETTINGS)


def test_stop_stops_at_a_failure(source: Corpus, tmp_path: Path) -> None:
    """With on_error stop nothing that looks like a corpus may be left."""
    with pytest.raises(DataError, match=r"utterance (wrong|gone)"):
        align_corpus(source, tmp_path / "out", aligner="pocketsphinx", settings=SETTINGS, on_error="stop")
    assert not (tmp_path / "out" / "corpus.json").exists()


def test_settings_are_checked_before_any_work(source: Corpus, tmp_path: Path) -> None:
    """A wrong name must not cost a corpus of failures."""
    for bad in ({"aligner": "mfa"}, {"aligner": "pocketsphinx", "settings": {"dictionary": "none.dict"}}):
        with pytest.raises(DataError):
            align_corpus(source, tmp_path / "out", **bad)
    with pytest.raises(DataError, match="workers = 0"):
        align_corpus(source, tmp_path / "out", aligner="pocketsphinx", workers=0)
    assert not (tmp_path / "out").exists()


def test_a_worker_that_dies_or_hangs_costs_its_utterance() -> None:
    """C code can crash; the pool must go on and say what happened."""
    job = Job(aligner="pocketsphinx", settings=(), audio_root=".", timeout_s=1.0)
    utterance = Utterance(id="x", text="x", speaker="", split="")
    with _pool(1) as pool:
        died = _result(job, utterance, pool.schedule(os._exit, args=(3,)))
        hung = _result(job, utterance, pool.schedule(time.sleep, args=(30,), timeout=1.0))
        assert pool.schedule(abs, args=(-4,)).result() == 4
    assert "the aligner died (exit code 3); " in died["failed"]
    assert "no answer within 1 s; " in hung["failed"]


def test_patience_grows_with_the_recording(source: Corpus) -> None:
    """A three-hour file must not be killed after a minute."""
    job = Job(aligner="pocketsphinx", settings=(), audio_root=str(source.audio_root))
    long = Utterance(id="x", text="x", speaker="", split="", audio="a.wav", start_s=0.0, end_s=10_800.0)
    assert patience_s(job, long) > 10_800
    assert 60 < patience_s(job, replace(long, end_s=None)) < 80


@pytest.mark.slow
def test_one_file(source: Corpus) -> None:
    """The single-file way gives the same words as the corpus way; a missing file is told."""
    found = align_file(source.audio_root / "a.wav", LINES["a"], aligner="pocketsphinx", settings=SETTINGS)
    assert " ".join(word.text for word in found.words) == LINES["a"]
    assert found.failed == ""
    with pytest.raises(DataError, match=r"none\.wav"):
        align_file(source.audio_root / "none.wav", "a word", aligner="pocketsphinx", settings=SETTINGS)


def test_alignments_are_written_per_utterance(aligned: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Every utterance has a file whose words are its own; an id cannot leave the folder."""
    corpus = open_corpus(aligned[0])
    assert write_alignments(corpus, tmp_path / "grids", "textgrid") == 4
    from speechscale.align.formats import read_alignment

    words = read_alignment(tmp_path / "grids" / "a.TextGrid")
    assert [word.text for word in words] == LINES["a"].split()
    with pytest.raises(DataError, match="is not written"):
        write_alignments(corpus, tmp_path / "other", "docx")


@pytest.mark.slow
def test_the_command_line(source: Corpus, tmp_path: Path) -> None:
    """One file: words are written, a wrong transcript is told by the exit code; missing arguments by a message."""
    audio, grid = source.audio_root / "c.wav", tmp_path / "c.TextGrid"
    good = CliRunner().invoke(align, [str(audio), str(grid), "--text", LINES["c"]])
    assert good.exit_code == 0, good.output
    assert "7 of 7 words with a time" in good.output
    assert grid.is_file()
    bad = CliRunner().invoke(align, [str(audio), str(grid), "--text", "judge watched everything loudly tomorrow"])
    assert bad.exit_code == 1
    assert "failed: " in bad.output
    for arguments in ([str(audio)], [str(source.folder)]):
        told = CliRunner().invoke(align, arguments)
        assert told.exit_code == 2
        assert "Error: " in told.output


@pytest.mark.slow
def test_kill_and_repeat_gives_the_same_bytes(source: Corpus, aligned: tuple[Path, list[str]], tmp_path: Path) -> None:
    """kill -9 in the middle, then the same command: identical files, and no worker left behind."""
    out = tmp_path / "out"
    program = (
        "import sys; from pathlib import Path; from speechscale.corpus.aligning import align_corpus\n"
        "if __name__ == '__main__':\n"
        "    source, out = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "    align_corpus(source, out, aligner='pocketsphinx', settings={'guess': 'letters'})\n"
    )
    script = tmp_path / "go.py"
    script.write_text(program)
    command = [sys.executable, str(script), str(source.folder), str(out)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (out / JOURNAL).exists() and (out / JOURNAL).read_bytes().count(b"\n") >= 2:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "corpus.json").exists()
    subprocess.run(command, check=True, timeout=100)
    assert content(out) == content(aligned[0])


def test_noise_never_becomes_data(tmp_path: Path) -> None:
    """A corpus of which nothing aligns is refused with the first reasons."""
    write_audio(
        tmp_path / "audio" / "n.wav", np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32), 16_000
    )
    row = Utterance(id="n", text="printing in the only sense", speaker="s", split="train", audio="n.wav")
    corpus = write_corpus(tmp_path / "c", [row], audio_root=tmp_path / "audio", info={}, skips=SkipLog())
    with pytest.raises(DataError, match="not one utterance"):
        align_corpus(corpus, tmp_path / "out", aligner="pocketsphinx", settings=SETTINGS)
