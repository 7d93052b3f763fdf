"""Align a corpus: give its words times.

Enters: a corpus folder and an aligner's name and settings. Leaves: a new corpus folder with times and scores in its
words, what could not be aligned in skips.jsonl, counts in corpus.json. The one decision worth knowing: utterances go
through the journal one by one (`speechscale.journal`), and the corpus is written from it in the order of the source; so
a kill, a crash in C code or a hanging file costs one utterance, and the same command then writes the same bytes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from speechscale.align.aligner import Aligned, build_aligner
from speechscale.align.formats import FORMATS, write_alignment
from speechscale.corpus.align_work import AlignWork, words_of
from speechscale.corpus.imported import Corpus, open_corpus, write_corpus
from speechscale.corpus.loaders import FileLoader
from speechscale.corpus.tables import check_ids, count_utterances, write_utterances
from speechscale.errors import DataError
from speechscale.files import canonical_sha256
from speechscale.journal import read_part, run_parts
from speechscale.progress import Watch
from speechscale.records import Utterance
from speechscale.skips import SkipLog
from speechscale.speech.audio import audio_duration_s

JOURNAL = ".journal"
PART_UTTERANCES = 64


@dataclass(slots=True, kw_only=True)
class AlignStats:
    """What aligning did.

    Args:
        read: utterances; aligned: with new times; kept: had times before; failed: dropped.
        words, timed, low_score: words of the aligned utterances, those with a time, those flagged.
        guessed: distinct words whose pronunciation was guessed, or whose letters the model lacks.
        audio_s: length of what was aligned or failed. work_s: time spent on it, all workers together.
    """

    read: int = 0
    aligned: int = 0
    kept: int = 0
    failed: int = 0
    words: int = 0
    timed: int = 0
    low_score: int = 0
    guessed: int = 0
    audio_s: float = 0.0
    work_s: float = 0.0

    def lines(self) -> list[str]:
        """For people."""
        rate = f", {self.audio_s / self.work_s:.0f} times real time per worker" if self.work_s > 0 else ""
        return [
            f"{self.read:,} utterances: {self.aligned:,} aligned, {self.kept:,} had times, {self.failed:,} failed",
            f"{self.words:,} words, {100 * self.timed / max(self.words, 1):.1f} % with a time, {self.low_score:,} with "
            f"a low score, {self.guessed:,} different words guessed",
            f"{self.audio_s / 60:.1f} minutes of audio{rate}",
        ]


def align_corpus(
    corpus: Path | Corpus,
    out: Path,
    *,
    aligner: str,
    settings: Mapping[str, Any] | None = None,
    workers: int = 1,
    on_error: str = "skip",
    again: bool = False,
    timeout_s: float | None = None,
    watch: Watch | None = None,
) -> AlignStats:
    """Align every utterance that has no word times; write a corpus with the same audio root.

    Repeating a finished call does no work; repeating a killed one goes on.

    Args:
        aligner, settings: name in `ALIGNERS` and its keywords.
        on_error: "skip" drops what cannot be aligned with a reason, "stop" raises at the first that is met.
        again: also align utterances that have times.
        timeout_s: patience per utterance; by default by its length.

    Raises:
        DataError: not a corpus, `out` holds something else, a setting, an utterance that cannot be aligned (on_error
            "stop"), or not one that could be.
        StaleStep: `out` holds the unfinished work of another corpus or other settings.
        MissingExtra: the aligner is not installed.
    """
    if on_error not in ("skip", "stop") or workers < 1:
        raise DataError(f"aligning: on_error = '{on_error}', workers = {workers}; allowed are skip, stop; 1 or more")
    source = corpus if isinstance(corpus, Corpus) else open_corpus(Path(corpus))
    out, settings = Path(out), dict(settings or {})
    if out.resolve() == source.folder.resolve():
        raise DataError(f"aligning: {out} is the corpus itself; choose another folder for the result")
    config = _config(aligner, settings)
    origin = {"again": again, "corpus": source.sha256, "root": str(source.audio_root)}
    job = canonical_sha256({"config": config, **origin})
    if (out / "corpus.json").exists():
        return _finished(out, job)
    table = source.folder / "utterances.parquet"
    check_ids(table)
    total = count_utterances(table)
    work = AlignWork(
        table=table,
        loader=source.loader(),
        aligner=aligner,
        settings=settings,
        rows_per_part=min(PART_UTTERANCES, max(1, total // PART_UTTERANCES)),  # a small corpus keeps all workers busy
        again=again,
        timeout_s=timeout_s,
    )
    parts = [0] * -(-total // work.rows_per_part)
    for row, utterance in enumerate(source.utterances()):
        parts[row // work.rows_per_part] += work.needs(utterance)
    run_parts(
        work,
        parts,
        out / JOURNAL,
        recipe={**config, **origin, "rows_per_part": work.rows_per_part},
        workers=workers,
        patience_s=work.patience_s,
        stop_on_skip=on_error == "stop",
        watch=watch,
    )
    about = {"aligner": config, "again": again, "job": job}
    stats = _write(source, out, work, len(parts), about)
    shutil.rmtree(out / JOURNAL)
    return stats


def _config(aligner: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Build the aligner once, so that a wrong setting is told before any work."""
    made = build_aligner(aligner, **settings)
    try:
        return made.config()
    finally:
        made.close()


def _finished(out: Path, name: str) -> AlignStats:
    """The counts of a finished job. Raises DataError: another corpus is there."""
    saved = open_corpus(out).info.get("aligning", {})
    if saved.get("job") != name:
        raise DataError(f"aligning: {out} already holds another corpus; choose another folder, or remove it")
    shutil.rmtree(out / JOURNAL, ignore_errors=True)  # of a run that was killed at its very end
    return AlignStats(**saved["counts"])


def align_file(
    audio: Path, text: str, *, aligner: str, settings: Mapping[str, Any] | None = None, timeout_s: float | None = None
) -> Aligned:
    """Align one file, in a process of its own.

    Raises:
        DataError: the file cannot be read, a setting, or the aligner died or hung.
        MissingExtra: the aligner is not installed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = AlignWork(
            table=folder / "utterances.parquet",
            loader=FileLoader(root=audio.parent.resolve()),
            aligner=aligner,
            settings=dict(settings or {}),
            timeout_s=timeout_s,
        )
        write_utterances(work.table, [Utterance(id=audio.stem, text=text, speaker="", split="", audio=audio.name)])
        run_parts(work, [1], folder, recipe={}, patience_s=work.patience_s)
        row = read_part(folder, 0)[0]
    failed = "; ".join(row.get("skip", []))
    if failed and not row.get("words"):
        raise DataError(f"{audio}: {failed}")
    return Aligned(
        words=words_of(row),
        failed=failed,
        flagged=tuple(row["flagged"]),
        guessed=tuple(row["guessed"]),
        how=row["how"],
        score=row["score"],
    )


def write_alignments(corpus: Corpus, folder: Path, format: str) -> int:
    """Write the words of each utterance to FOLDER/ID.suffix, times from the utterance's start; return their number.

    Raises:
        DataError: a format that is not written, an id that leads out of the folder, or words past the audio.
    """
    entry = FORMATS.get(format)
    if entry is None or entry.writer is None:
        raise DataError(
            f"format '{format}' is not written; take one of "
            f"{', '.join(name for name, known in FORMATS.items() if known.writer is not None)}"
        )
    count = 0
    for utterance in corpus.utterances():
        path = folder / f"{utterance.id}{entry.suffixes[0]}"
        if not path.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"utterance {utterance.id}: its id leads out of {folder}; rename it")
        end_s = utterance.end_s
        if end_s is None:
            end_s = audio_duration_s(corpus.loader().path(utterance))
        reached_s = max((word.end_s for word in utterance.words if word.end_s is not None), default=0.0)
        # Headers and decoded samples may differ by the rounding of a resampler.
        length_s = max(end_s - utterance.start_s, reached_s)
        write_alignment(path, utterance.words, duration_s=length_s, format=format, speaker=utterance.speaker or None)
        count += 1
    return count


def _write(source: Corpus, out: Path, work: AlignWork, parts: int, about: dict[str, Any]) -> AlignStats:
    """Write the corpus of what was aligned or had times, in the order of the source."""
    stats, skips, guessed = AlignStats(), SkipLog(), set[str]()
    info: dict[str, Any] = {**source.info}
    rows = (row for part in range(parts) for row in read_part(out / JOURNAL, part))

    def utterances() -> Iterator[Utterance]:
        for utterance in source.utterances():
            stats.read += 1
            if not work.needs(utterance):
                stats.kept += 1
                yield utterance
                continue
            row = next(rows)
            assert row["id"] == utterance.id, f"row of '{row['id']}' came where '{utterance.id}' was due"
            stats.audio_s += row.get("seconds", 0.0)
            stats.work_s += row.get("work_s", 0.0)
            guessed.update(row.get("guessed", []))
            if "skip" in row:
                stats.failed += 1
                skips.add(utterance.id, *row["skip"])
                continue
            words = words_of(row)
            stats.aligned += 1
            stats.low_score += len(row["flagged"])
            stats.words += len(words)
            stats.timed += sum(word.start_s is not None for word in words)
            yield replace(utterance, words=words)
        stats.guessed, stats.audio_s = len(guessed), round(stats.audio_s, 3)
        # `write_corpus` takes `info` when the rows are out. Seconds of work differ from run to run and stay out.
        info["aligning"] = {**about, "counts": {key: value for key, value in asdict(stats).items() if key != "work_s"}}

    write_corpus(out, utterances(), audio_root=source.audio_root, info=info, skips=skips)
    skips.check(read=stats.read, kept=stats.aligned + stats.kept)
    return stats
