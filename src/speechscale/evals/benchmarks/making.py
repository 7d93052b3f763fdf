"""The stages of preparing a benchmark: check, speak, listen, join, write.

Enters: a `Job`. Leaves: a finished benchmark folder. The one decision worth knowing: recordings that a voice made and
recordings of the source pass the same ears; only where they come from differs.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from speechscale.corpus.imported import write_corpus
from speechscale.corpus.sentences import has_speech
from speechscale.corpus.tables import write_items
from speechscale.errors import DataError
from speechscale.evals.benchmarks.benchmark import Benchmark, files_of, finish_benchmark, lines_sha256
from speechscale.evals.benchmarks.checks import check_texts, file_skip, leave_together, with_cuts
from speechscale.evals.benchmarks.hearing import hear_clips
from speechscale.evals.benchmarks.joining import write_sheets
from speechscale.evals.benchmarks.raw import RawItem, Source
from speechscale.evals.benchmarks.recordings import (
    ROLES,
    Rows,
    check_recordings,
    endings_alone,
    listens,
    make_rows,
    make_sheets,
)
from speechscale.evals.benchmarks.speaking import cast_items, speak_items
from speechscale.progress import Watch
from speechscale.records import Item
from speechscale.skips import SkipLog
from speechscale.voices.engines import Cast
from speechscale.voices.spoken import MIN_PAUSE_S

WORK = ".work"
"""Folder of what an unfinished run has done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One call of `prepare`: what was read, who speaks, where it goes."""

    source: Source
    raws: Sequence[RawItem]
    out: Path
    cast: Cast | None
    voices: dict[str, dict[str, object]]
    recipe: dict[str, Any]
    workers: int
    watch: Watch | None

    @property
    def work(self) -> Path:
        return self.out / WORK

    @property
    def audio(self) -> Path:
        return self.out / "corpus" / "audio"

    @property
    def processes(self) -> int:
        """For the journal: one worker is this process."""
        return 0 if self.workers <= 1 else self.workers

    def told(self, note: str) -> Watch | None:
        """The watcher, with the stage in its note."""
        watch = self.watch
        if watch is None:
            return None
        return lambda progress: watch(replace(progress, note=", ".join(filter(None, (note, progress.note)))))


def make(job: Job) -> Benchmark:
    """Do all stages. Raises DataError: nothing usable, or an engine that is gone."""
    skips = SkipLog(list(job.source.skips))
    raws = check_texts(job.raws, skips, split=job.recipe["split"])
    if job.recipe["pairs_together"]:
        raws = leave_together(job.raws, raws, skips)
    skips.check(read=len(job.raws), kept=len(raws), since=len(job.source.skips))
    if job.cast is not None:
        raws = [RawItem(item=item) for item in _cast(job, raws, skips)]
    planned, before = raws, len(skips)
    if job.cast is not None:
        raws = _spoken(job, job.cast, raws, skips)
    has_audio = any(getattr(raw, role) is not None for raw in raws for role in ROLES)
    rows = _recorded(job, planned, raws, skips) if has_audio else [Rows(item=raw.item) for raw in raws]
    skips.check(read=len(planned), kept=len(rows), since=before)
    if not rows:
        _give_up(job, skips)
    return _write(job, rows, skips, has_audio)


def _cast(job: Job, raws: Sequence[RawItem], skips: SkipLog) -> list[Item]:
    """The items that can be spoken, each in its voice."""
    texts, before = [], len(skips)
    for item in (raw.item for raw in raws):
        said = [text for text in (item.prompt, item.good, item.bad) if text.strip()]
        if not item.has_text:
            skips.add(item.id, "it has no text to speak", "prepare it without voices, from its recordings")
        elif silent := [text for text in said if not has_speech(text)]:
            skips.add(item.id, f"'{silent[0]}' has no letters or digits to speak", "correct its text or drop the item")
        else:
            texts.append(item)
    skips.check(read=len(raws), kept=len(texts), since=before)
    if job.recipe["pairs_together"]:
        texts = [raw.item for raw in leave_together(raws, [RawItem(item=item) for item in texts], skips)]
    return cast_items(texts, tuple(job.voices), seed=job.recipe["seed"], each_voice=job.recipe["each_voice"])


def _spoken(job: Job, cast: Cast, planned: Sequence[RawItem], skips: SkipLog) -> list[RawItem]:
    """Items with the recordings that voices made of them."""
    spoken = speak_items(
        [raw.item for raw in planned],
        job.audio,
        job.work / "speak",
        cast,
        facts=job.voices,
        skips=skips,
        workers=job.workers,
        watch=job.watch,
    )
    kept = []
    for raw in spoken:
        try:
            kept.append(with_cuts(raw))
        except DataError as error:
            file_skip(skips, raw.item.id, str(error))
    return kept


def _recorded(job: Job, planned: Sequence[RawItem], raws: Sequence[RawItem], skips: SkipLog) -> list[Rows]:
    """Hear all recordings, drop what cannot be used, write what has to be written."""
    root = job.audio if job.cast is not None else job.source.root
    if root is None:
        raise DataError(f"benchmark '{job.source.facts.task}': it has recordings but no folder they lie in; report it")
    raws = [endings_alone(raw) for raw in raws]
    wanted = {raw.item.id: listens(raw) for raw in raws}
    found = hear_clips(
        root,
        [listen for roles in wanted.values() for listen in roles.values()],
        job.work / "hear",
        made_here=job.cast is not None,
        workers=job.processes,
        watch=job.told("listening"),
    )
    heard = {id: {role: found[listen] for role, listen in roles.items()} for id, roles in wanted.items()}
    kept = []
    for raw in raws:
        try:
            check_recordings(raw, heard[raw.item.id], "" if job.cast is not None else job.source.facts.origin)
            kept.append(raw)
        except DataError as error:
            file_skip(skips, raw.item.id, str(error))
    if job.recipe["pairs_together"]:
        kept = leave_together(planned, kept, skips)
    # All recordings lie below one root: where one has to be made, the others are written beside it.
    copy = job.cast is None and any(raw.good is None for raw in kept)
    # Voices pause between sentences, as they do where they say prompt and candidate in one breath.
    pause_s: float = max(job.recipe["pause_s"], 0.0 if job.cast is None else MIN_PAUSE_S)
    sheets = {raw.item.id: make_sheets(raw, heard[raw.item.id], copy=copy, pause_s=pause_s) for raw in kept}
    written = write_sheets(
        root,
        [sheet for roles in sheets.values() for sheet in roles.values()],
        job.audio,
        job.work / "join",
        workers=job.processes,
        watch=job.told("joining"),
    )
    return [
        make_rows(raw, heard[raw.item.id], sheets[raw.item.id], written, _licence(job, raw.item.speaker))
        for raw in kept
    ]


def _licence(job: Job, speaker: str) -> str:
    terms = job.source.facts.licence
    return f"voice: {job.voices[speaker]['licence']}; text: {terms}" if speaker in job.voices else terms


def _write(job: Job, rows: Sequence[Rows], skips: SkipLog, has_audio: bool) -> Benchmark:
    """Write the folder; benchmark.json comes last."""
    items = [row.item for row in rows]
    audio_sha256 = lines_sha256(part for row in rows for part in row.sums) if has_audio else None
    info: dict[str, Any] = {
        "recipe": job.recipe,
        "voices": job.voices,
        "read": len(items) + len(skips),
        "kept": len(items),
        "dropped": len(skips),
        "remedies": skips.remedies(),
        "hours": round(sum(row.seconds for row in rows) / 3600, 6),
        "recordings": sum(len(row.utterances) for row in rows),
        "without_cut": sum(row.lacks_cut for row in rows),
        "clipped": sum(row.clipped for row in rows),
    }
    if has_audio:
        made_here = job.cast is not None or any(row.written for row in rows)
        root = job.audio if made_here else job.source.root
        assert root is not None
        if made_here:
            _tidy(job.audio, {utterance.audio for row in rows for utterance in row.utterances})
        write_corpus(
            job.out / "corpus",
            (utterance for row in rows for utterance in row.utterances),
            audio_root=root,
            info={"source": f"benchmark {job.source.facts.task}", "sha256": audio_sha256},
            skips=SkipLog(),
        )
        count, size, _ = files_of(root, (utterance.audio for row in rows for utterance in row.utterances))
        info["files"] = {"count": count, "bytes": size}
    write_items(job.out / "items.parquet", items)
    skips.write(job.out / "skips.jsonl")
    made = finish_benchmark(job.out, job.source.facts, items, audio_sha256, info)
    shutil.rmtree(job.work)
    return made


def _tidy(audio: Path, used: set[str]) -> None:
    """Delete recordings of dropped items."""
    for path in sorted(audio.rglob("*")):
        if path.is_file() and path.relative_to(audio).as_posix() not in used:
            path.unlink()
    for folder in sorted((path for path in audio.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def _give_up(job: Job, skips: SkipLog) -> NoReturn:
    """Nothing can be used: say why, and leave nothing that a mended source would have to be told apart from."""
    skips.write(job.out / "skips.jsonl")
    shutil.rmtree(job.work)
    shutil.rmtree(job.out / "corpus", ignore_errors=True)
    facts = job.source.facts
    raise DataError(
        f"benchmark '{facts.task}': not one of {len(skips)} items can be used: {skips.first() or 'none was found'}; "
        f"all reasons are in {job.out / 'skips.jsonl'}; {facts.origin or 'look at the source'}"
    )
