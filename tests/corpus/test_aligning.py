"""Catches utterances that get lost, times that are overwritten, work that is repeated or mixed up after a kill."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from speechscale.align.formats import read_alignment
from speechscale.align.pronounce import wheel_dictionary
from speechscale.cli.align import align
from speechscale.corpus import aligning
from speechscale.corpus.align_work import AlignWork
from speechscale.corpus.aligning import JOURNAL, AlignStats, align_corpus, align_file, write_alignments
from speechscale.corpus.imported import Corpus, open_corpus, write_corpus
from speechscale.errors import DataError, StaleStep
from speechscale.files import write_json
from speechscale.journal import skip_row
from speechscale.progress import Progress
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
WRONG = "serious heroes hurry with sorry mirrors tomorrow and judge watched everything loudly"
NOISE = "printing in the only sense"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Three spoken lines; then one with another's text, one without audio, noise, one that has times."""
    folder = tmp_path_factory.mktemp("spoken")
    shard = [
        Utterance(id=id, text=text, speaker="us-f2", split="train", segments=(text,), audio=f"{id}.wav")
        for id, text in LINES.items()
    ]
    for spoken in speak_shard(shard):
        write_audio(folder / "audio" / f"{spoken.id}.wav", spoken.audio, 16_000)
    noise = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    write_audio(folder / "audio" / "noise.wav", noise, 16_000)
    rows = [
        *shard,
        replace(shard[0], id="wrong", text=WRONG),
        replace(shard[0], id="gone", audio="gone.wav"),
        replace(shard[0], id="noise", text=NOISE, audio="noise.wav"),
        replace(shard[0], id="timed", words=(Word(text="the", start_s=0.5, end_s=0.6),)),
    ]
    return write_corpus(folder, iter(rows), audio_root=folder / "audio", info={"source": "test"}, skips=SkipLog())


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of an aligner that knows these words only: every worker reads its dictionary, and the whole one takes a while."""
    needed = {"two", *re.findall(r"[a-z]+", " ".join([*LINES.values(), WRONG, NOISE]).lower())}
    lines = wheel_dictionary().read_text("utf-8").splitlines()
    path = tmp_path_factory.mktemp("settings") / "small.dict"
    path.write_text("\n".join(line for line in lines if re.split(r"[( ]", line, maxsplit=1)[0] in needed) + "\n")
    return {"guess": "letters", "dictionary": str(path)}


@dataclass(frozen=True)
class Run:
    """An undisturbed run: its settings, result, and journal, what it told, what it returned."""

    settings: dict[str, Any]
    out: Path
    journal: Path
    told: list[Progress]
    stats: AlignStats


@pytest.fixture(scope="module")
def aligned(source: Corpus, settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, told = tmp_path_factory.mktemp("aligned"), list[Progress]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aligning.shutil, "rmtree", lambda path: shutil.move(path, folder / "journal"))
        stats = run(source, folder / "out", settings, watch=told.append)
    return Run(settings, folder / "out", folder / "journal", told, stats)


def run(source: Corpus, out: Path, settings: dict[str, Any], **options: Any) -> AlignStats:
    return align_corpus(source, out, aligner="pocketsphinx", settings=settings, **options)


def journal_in(out: Path, aligned: Run) -> dict[str, Path]:
    """A copy of the journal of the undisturbed run; the file of each utterance."""
    shutil.copytree(aligned.journal, out / JOURNAL)
    return {json.loads(path.read_bytes())["id"]: path for path in (out / JOURNAL).glob("part-*.jsonl")}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_utterance_is_aligned_kept_or_skipped(source: Corpus, aligned: Run) -> None:
    """Order, spelling and times of what is kept; a reason for what is not; the counts add up."""
    out = aligned.out
    corpus = open_corpus(out)
    rows = list(corpus.utterances())
    assert [row.id for row in rows] == ["a", "b", "c", "timed"]
    assert corpus.audio_root.resolve() == source.audio_root.resolve()
    for row in rows[:3]:
        assert " ".join(word.text for word in row.words) == row.text
        assert all(word.start_s is not None and word.score is not None for word in row.words)
    assert rows[3].words == (Word(text="the", start_s=0.5, end_s=0.6),)
    skips = {skip.id: skip for skip in read_skips(out / "skips.jsonl")}
    assert list(skips) == ["wrong", "gone", "noise"]
    assert "transcript" in skips["wrong"].reason + skips["wrong"].remedy
    assert "gone.wav" in skips["gone"].reason
    assert str(source.audio_root) not in skips["gone"].reason
    counts = corpus.info["aligning"]["counts"]
    assert (counts["read"], counts["aligned"], counts["kept"], counts["failed"]) == (7, 3, 1, 3)
    assert counts["timed"] == counts["words"] == sum(len(row.words) for row in rows[:3])
    assert corpus.info["aligning"]["aligner"]["aligner"] == "pocketsphinx"
    assert not (out / JOURNAL).exists()
    last = aligned.told[-1]
    assert (last.items_done, last.items_total, last.note) == (6, 6, "3 dropped")
    assert last.audio_s == pytest.approx(counts["audio_s"])
    assert 0 < aligned.stats.work_s < 60


def test_a_finished_job_does_no_work_again(source: Corpus, aligned: Run) -> None:
    """Repeating a finished command must not align again; another job must not overwrite it."""
    before = content(aligned.out)
    stats = run(source, aligned.out, aligned.settings)
    assert (stats.aligned, stats.work_s) == (3, 0.0)
    assert content(aligned.out) == before
    with pytest.raises(DataError, match="already holds another corpus"):
        run(source, aligned.out, {**aligned.settings, "low_score": 0.5})
    with pytest.raises(DataError, match="corpus itself"):
        run(source, source.folder, aligned.settings)


def test_a_journal_is_taken_up_and_gives_the_same_bytes(source: Corpus, aligned: Run, tmp_path: Path) -> None:
    """Finished utterances are not aligned again, a torn line is; any number of workers gives the same result."""
    files = journal_in(tmp_path, aligned)
    files["a"].unlink()
    files["b"].write_bytes(files["b"].read_bytes()[:-10])
    told: list[Progress] = []
    run(source, tmp_path, aligned.settings, watch=told.append, workers=2)
    assert (told[-1].items_done, told[-1].items_kept) == (2, 4)
    assert content(tmp_path) == content(aligned.out)


def test_a_journal_of_another_job_is_refused(source: Corpus, aligned: Run, tmp_path: Path) -> None:
    """Mixing the results of two settings would be silent."""
    journal_in(tmp_path, aligned)
    with pytest.raises(StaleStep, match=r"low_score: 0\.25 -> 0\.5"):
        run(source, tmp_path, {**aligned.settings, "low_score": 0.5})


def test_what_cost_its_worker_is_a_skip_like_any_other(source: Corpus, aligned: Run, tmp_path: Path) -> None:
    """The journal writes such rows itself, without seconds and words."""
    files = journal_in(tmp_path, aligned)
    files["b"].write_text(json.dumps(skip_row("b", "its worker died; drop it")) + "\n")
    stats = run(source, tmp_path, aligned.settings)
    assert (stats.read, stats.aligned, stats.kept, stats.failed) == (7, 2, 1, 4)
    skip = next(skip for skip in read_skips(tmp_path / "skips.jsonl") if skip.id == "b")
    assert (skip.reason, skip.remedy) == ("its worker died", "drop it")


def test_stop_stops_at_a_failure(source: Corpus, aligned: Run, tmp_path: Path) -> None:
    """With on_error stop nothing that looks like a corpus may be left, and what was done is not done again."""
    files = journal_in(tmp_path, aligned)
    for id in ("wrong", "gone", "noise"):
        files[id].unlink()
    with pytest.raises(DataError, match=r"^(wrong|gone|noise): .*--on-error skip"):
        run(source, tmp_path, aligned.settings, on_error="stop")
    assert not (tmp_path / "corpus.json").exists()
    assert files["a"].exists()


def test_a_corpus_of_which_nothing_aligns_is_refused(source: Corpus, aligned: Run, tmp_path: Path) -> None:
    """Noise never becomes data."""
    noise = [row for row in source.utterances() if row.id in ("noise", "gone")]
    corpus = write_corpus(tmp_path / "c", noise, audio_root=source.audio_root, info={}, skips=SkipLog())
    rows = [
        path.read_bytes() for id, path in journal_in(tmp_path / "spare", aligned).items() if id in ("noise", "gone")
    ]
    recipe = json.loads((aligned.journal / "recipe.json").read_text())
    write_json(tmp_path / "out" / JOURNAL / "recipe.json", {**recipe, "corpus": corpus.sha256})
    for part, row in enumerate(sorted(rows)):
        (tmp_path / "out" / JOURNAL / f"part-{part:05d}.jsonl").write_bytes(row)
    with pytest.raises(DataError, match="not one utterance"):
        run(corpus, tmp_path / "out", aligned.settings)


def test_settings_are_checked_before_any_work(source: Corpus, tmp_path: Path) -> None:
    """A wrong name must not cost a corpus of failures."""
    for bad in ({"aligner": "mfa"}, {"aligner": "pocketsphinx", "settings": {"dictionary": "none.dict"}}):
        with pytest.raises(DataError):
            align_corpus(source, tmp_path / "out", **bad)
    with pytest.raises(DataError, match="workers = 0"):
        align_corpus(source, tmp_path / "out", aligner="pocketsphinx", workers=0)
    assert not (tmp_path / "out").exists()


def test_patience_grows_with_the_recording(source: Corpus) -> None:
    """A three-hour file must not be killed after a minute, unless it was wanted so."""
    work = AlignWork(
        table=source.folder / "utterances.parquet", loader=source.loader(), aligner="pocketsphinx", settings={}
    )
    long = Utterance(id="x", text="x", speaker="", split="", audio="a.wav", start_s=0.0, end_s=10_800.0)
    assert work.patience(long) > 10_800
    assert 60 < work.patience(replace(long, end_s=None)) < 80
    assert work.patience(replace(long, end_s=None, audio="gone.wav")) == work.patience_s == 60
    assert replace(work, timeout_s=5.0).patience(long) == replace(work, timeout_s=5.0).patience_s == 5


def test_parts_are_rows_of_the_table_that_need_times(source: Corpus) -> None:
    """Parts that do not match the counts would stop every run at its end."""
    work = AlignWork(
        table=source.folder / "utterances.parquet",
        loader=source.loader(),
        aligner="pocketsphinx",
        settings={},
        rows_per_part=4,
    )
    assert [[u.id for u in work.items(part)] for part in (0, 1)] == [["a", "b", "c", "wrong"], ["gone", "noise"]]
    assert [u.id for u in replace(work, again=True).items(1)] == ["gone", "noise", "timed"]


def test_alignments_are_written_per_utterance(aligned: Run, tmp_path: Path) -> None:
    """Every utterance has a file whose words are its own; an id cannot leave the folder."""
    corpus = open_corpus(aligned.out)
    assert write_alignments(corpus, tmp_path / "grids", "textgrid") == 4
    words = read_alignment(tmp_path / "grids" / "a.TextGrid")
    assert [word.text for word in words] == LINES["a"].split()
    with pytest.raises(DataError, match="is not written"):
        write_alignments(corpus, tmp_path / "other", "docx")


@pytest.mark.slow
def test_one_file_and_the_command_line(source: Corpus, aligned: Run, tmp_path: Path) -> None:
    """One file: the words of the corpus way are written, a wrong transcript told by the exit code."""
    audio, grid = source.audio_root / "c.wav", tmp_path / "c.TextGrid"
    words = ["--dictionary", aligned.settings["dictionary"]]
    good = CliRunner().invoke(align, [str(audio), str(grid), "--text", LINES["c"], *words])
    assert good.exit_code == 0, good.output
    assert "7 of 7 words with a time" in good.output
    wanted = next(row for row in open_corpus(aligned.out).utterances() if row.id == "c").words
    assert [word.text for word in read_alignment(grid)] == [word.text for word in wanted]
    with pytest.raises(DataError, match=r"none\.wav"):
        align_file(source.audio_root / "none.wav", "a word", aligner="pocketsphinx", settings=aligned.settings)
    bad = CliRunner().invoke(
        align, [str(audio), str(grid), "--text", "judge watched everything loudly tomorrow", *words]
    )
    assert bad.exit_code == 1
    assert "failed: " in bad.output
    for arguments in ([str(audio)], [str(source.folder)]):
        told = CliRunner().invoke(align, arguments)
        assert told.exit_code == 2
        assert "Error: " in told.output


KILLED = """
import json, sys; from pathlib import Path; from speechscale.corpus.aligning import align_corpus
if __name__ == "__main__":
    align_corpus(Path(sys.argv[1]), Path(sys.argv[2]), aligner="pocketsphinx", settings=json.loads(sys.argv[3]))
"""


def test_kill_and_repeat_gives_the_same_bytes(source: Corpus, aligned: Run, tmp_path: Path) -> None:
    """kill -9 in the middle, then the same call: identical files."""
    script, out = tmp_path / "go.py", tmp_path / "out"
    script.write_text(KILLED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(source.folder), str(out), json.dumps(aligned.settings)]
    )
    deadline = time.monotonic() + 60
    while not any(path.read_bytes() for path in (out / JOURNAL).glob("part-*.jsonl")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (out / "corpus.json").exists()
    run(source, out, aligned.settings)
    assert content(out) == content(aligned.out)
