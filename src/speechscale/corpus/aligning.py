"""Align a corpus: give its words times.

Enters: a corpus folder and an aligner's name and settings. Leaves: a new corpus folder with times and scores in its
words, what could not be aligned in skips.jsonl, counts in corpus.json. The one decision worth knowing: every finished
utterance goes to a journal at once, and the corpus is written from the journal in the order of the source; so a kill
costs what was being worked on, and the same command then writes the same bytes as a run without the kill.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from speechscale.align.aligner import Aligned, build_aligner
from speechscale.align.formats import FORMATS, write_alignment
from speechscale.corpus.align_workers import Job, Journal, run_alignment
from speechscale.corpus.imported import Corpus, open_corpus, write_corpus
from speechscale.errors import DataError
from speechscale.files import canonical_sha256, read_json
from speechscale.records import Utterance, Word
from speechscale.skips import SkipLog
from speechscale.speech.audio import audio_duration_s

JOURNAL = ".aligning.jsonl"
SAY_EVERY_S = 5.0


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
    say: Callable[[str], None] = lambda line: None,
) -> AlignStats:
    """Align every utterance that has no word times; write a corpus with the same audio root.

    Repeating a finished call does no work; repeating a killed one goes on.

    Args:
        aligner, settings: name in `ALIGNERS` and its keywords.
        on_error: "skip" drops what cannot be aligned with a reason, "stop" raises at the first that is met.
        again: also align utterances that have times.
        timeout_s: patience per utterance; by default by its length.
        say: receives lines of progress.

    Raises:
        DataError: not a corpus, `out` holds something else, a setting, an utterance that cannot be aligned (on_error
            "stop"), or not one that could be.
        MissingExtra: the aligner is not installed.
    """
    if on_error not in ("skip", "stop") or workers < 1:
        raise DataError(f"aligning: on_error = '{on_error}', workers = {workers}; allowed are skip, stop; 1 or more")
    source = corpus if isinstance(corpus, Corpus) else open_corpus(Path(corpus))
    out = Path(out)
    if out.resolve() == source.folder.resolve():
        raise DataError(f"aligning: {out} is the corpus itself; choose another folder for the result")
    config = _config(aligner, settings or {})
    table = read_json(source.folder / "corpus.json", "corpus", "import it again")["utterances_sha256"]
    name = canonical_sha256({"config": config, "again": again, "corpus": table, "root": str(source.audio_root)})
    if (out / "corpus.json").exists():
        return _finished(out, name)
    journal = Journal(out / JOURNAL, name)
    job = Job(
        aligner=aligner,
        settings=tuple(sorted((settings or {}).items())),
        audio_root=str(source.audio_root),
        timeout_s=timeout_s,
    )
    try:
        _align(source, journal, job, workers=workers, on_error=on_error, again=again, say=say)
        stats = _write(source, out, journal, {"aligner": config, "again": again, "job": name})
    finally:
        journal.close()
    journal.path.unlink()
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
    return AlignStats(**saved["counts"])


def align_file(
    audio: Path, text: str, *, aligner: str, settings: Mapping[str, Any] | None = None, timeout_s: float | None = None
) -> Aligned:
    """Align one file, in a process of its own.

    Raises:
        DataError: the file cannot be read, a setting, or the aligner died or hung.
        MissingExtra: the aligner is not installed.
    """
    settings = settings or {}
    _config(aligner, settings)
    job = Job(
        aligner=aligner,
        settings=tuple(sorted(settings.items())),
        audio_root=str(audio.parent.resolve()),
        timeout_s=timeout_s,
    )
    entries: list[dict[str, Any]] = []
    utterance = Utterance(id=audio.stem, text=text, speaker="", split="", audio=audio.name)
    run_alignment(iter([utterance]), job, workers=1, finished=entries.append)
    entry = entries[0]
    if entry["failed"] and not entry["words"]:
        raise DataError(f"{audio}: {entry['failed']}")
    return Aligned(
        words=_words(entry),
        failed=entry["failed"],
        flagged=tuple(entry["flagged"]),
        guessed=tuple(entry["guessed"]),
        how=entry["how"],
        score=entry["score"],
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


def has_times(utterance: Utterance) -> bool:
    """Whether any word has a time."""
    return any(word.start_s is not None for word in utterance.words)


def _align(
    source: Corpus,
    journal: Journal,
    job: Job,
    *,
    workers: int,
    on_error: str,
    again: bool,
    say: Callable[[str], None],
) -> None:
    """Align what the journal lacks."""
    seen: set[str] = set()
    wanted = 0
    for utterance in source.utterances():
        if utterance.id in seen:
            raise DataError(f"utterance {utterance.id}: an earlier one has the same id; give every one its own id")
        seen.add(utterance.id)
        wanted += again or not has_times(utterance)
    before = len(journal.places)
    if before:
        say(f"going on: {before:,} of {wanted:,} utterances are done")
    todo = (u for u in source.utterances() if (again or not has_times(u)) and u.id not in journal.places)
    meter = _Meter(left=wanted - before, say=say)

    def finished(entry: dict[str, Any]) -> None:
        if entry["failed"] and on_error == "stop":
            raise DataError(f"utterance {entry['id']}: {entry['failed']}")
        journal.add(entry)
        meter.add(entry)

    if wanted > before:
        run_alignment(todo, job, workers=workers, finished=finished)
        meter.tell()


@dataclass(slots=True, kw_only=True)
class _Meter:
    """Progress: utterances, hours of audio per second, time left."""

    left: int
    say: Callable[[str], None]
    done: int = 0
    failed: int = 0
    audio_s: float = 0.0
    began: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)

    def add(self, entry: Mapping[str, Any]) -> None:
        self.done += 1
        self.left -= 1
        self.failed += bool(entry["failed"])
        self.audio_s += entry["audio_s"]
        if time.monotonic() - self.told >= SAY_EVERY_S:
            self.tell()

    def tell(self) -> None:
        self.told = time.monotonic()
        spent = max(self.told - self.began, 1e-3)
        left_s = self.left * spent / max(self.done, 1)
        self.say(
            f"{self.done:,} aligned ({self.failed:,} failed), {self.audio_s / 3600:.2f} h, "
            f"{self.audio_s / 3600 / spent:.4f} h/s, about {left_s:.0f} s left"
        )


def _write(source: Corpus, out: Path, journal: Journal, about: dict[str, Any]) -> AlignStats:
    """Write the corpus of what was aligned or had times, in the order of the source."""
    stats, skips, guessed = AlignStats(), SkipLog(), set[str]()
    info: dict[str, Any] = {**source.info}

    def rows() -> Iterator[Utterance]:
        for utterance in source.utterances():
            stats.read += 1
            entry = journal.get(utterance.id)
            if entry is None:
                stats.kept += 1
                yield utterance
                continue
            stats.audio_s += entry["audio_s"]
            stats.work_s += entry["work_s"]
            guessed.update(entry["guessed"])
            if entry["failed"]:
                stats.failed += 1
                reason, _, remedy = entry["failed"].rpartition("; ")
                skips.add(utterance.id, reason or remedy, remedy if reason else "correct or drop the utterance")
                continue
            stats.aligned += 1
            stats.low_score += len(entry["flagged"])
            yield _with_words(utterance, entry, stats)
        stats.guessed, stats.audio_s = len(guessed), round(stats.audio_s, 3)
        # `write_corpus` takes `info` when the rows are out. Seconds of work differ from run to run and stay out.
        info["aligning"] = {**about, "counts": {key: value for key, value in asdict(stats).items() if key != "work_s"}}

    write_corpus(out, rows(), audio_root=source.audio_root, info=info, skips=skips)
    skips.check(read=stats.read, kept=stats.aligned + stats.kept)
    return stats


def _with_words(utterance: Utterance, entry: Mapping[str, Any], stats: AlignStats) -> Utterance:
    words = _words(entry)
    stats.words += len(words)
    stats.timed += sum(word.start_s is not None for word in words)
    return replace(utterance, words=words)


def _words(entry: Mapping[str, Any]) -> tuple[Word, ...]:
    return tuple(Word(text=text, start_s=start, end_s=end, score=score) for text, start, end, score in entry["words"])
