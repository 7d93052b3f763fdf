"""Turn a corpus of texts into a multi-speaker, word-aligned corpus: the recipe of sTinyStories.

Enters: texts, voices, how many hours or documents. Leaves: a corpus folder (`open_corpus`) with audio/SHARD/ID.flac at
16 kHz and words with times where the engine gives them. The one decision worth knowing: what is said by whom is planned
from the texts and the seed alone, so the folder's bytes do not depend on workers, kills or restarts (as far as the
engine is deterministic), and more hours later keep what is there.

    OUT/utterances.parquet, corpus.json, skips.jsonl   the corpus
    OUT/audio/000012/ID.flac                           64 utterances per shard
    OUT/journal/000012.jsonl, speak.json               what is done, and by which recipe; needed to go on or to extend
    OUT/judge/                                         language model and dictionary of the judge, if there is one
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from speechscale.corpus.imported import Corpus, open_corpus, write_corpus
from speechscale.corpus.judge import prepare_judge
from speechscale.corpus.shard_pool import run_shards
from speechscale.corpus.speak_plan import SpeakOptions, plan_utterances
from speechscale.corpus.spoken_shards import (
    Judge,
    Line,
    ShardJob,
    ShardResult,
    audio_path,
    read_journal,
    timed_words,
    trim_shards,
)
from speechscale.corpus.texts import text_files
from speechscale.errors import DataError, StaleStep
from speechscale.files import held_alone, read_json, write_json
from speechscale.progress import Progress, Watch
from speechscale.records import NO_TIME, Utterance
from speechscale.skips import SkipLog
from speechscale.speech.audio import TARGET_RATE_HZ
from speechscale.voices.engines import Cast
from speechscale.voices.segments import EngineDown

SHARD_UTTERANCES = 64
"""Utterances per folder, journal and task of a worker."""


def speak_texts(
    texts: Path,
    out: Path,
    options: SpeakOptions,
    *,
    workers: int = 1,
    judge: Judge | None = None,
    watch: Watch | None = None,
) -> Corpus:
    """Speak a corpus of texts, or go on where an earlier run was stopped. See the module.

    Args:
        texts: a file or folder. out: the corpus folder; empty, or made by the same recipe.
        workers: processes; they never change a byte.
        judge: another judge than `options.judge`: judge(audio at 16 kHz, text) -> word error rate; importable.
        watch: told after each shard.

    Raises:
        DataError: unusable options, texts or voices; an engine that is gone; nothing could be spoken.
        StaleStep: OUT holds speech of another recipe; the message lists the differences.
    """
    texts, out = Path(texts), Path(out)
    cast = Cast(options.voices, options.voice)
    facts = cast.check()
    recipe = _recipe(texts, options, facts, judge)
    with held_alone(out, "is speaking into it"):
        if _check_folder(out, recipe, options) and not options.retry_skipped:
            return open_corpus(out)
        labels = tuple(cast.voices)
        if options.judge == "pocketsphinx" and judge is None:
            planned = plan_utterances(texts, options, labels, SkipLog())
            judge = prepare_judge(out / "judge", (part for u, _ in planned for part in u.segments))
        job = ShardJob(
            audio=out / "audio",
            journal=out / "journal",
            addresses=options.voices,
            options=options.voice,
            audio_format=options.audio_format,
            judge=judge,
            max_wer=options.max_wer,
            on_error=options.on_error,
            retry_skipped=options.retry_skipped,
        )
        try:
            _speak_all(texts, options, labels, job, cast, workers, watch)
        except EngineDown as error:
            raise DataError(str(error)) from error
        trim_shards(job, _max_samples(options))
        return _collect(texts, out, options, facts, job, recipe)


def _speak_all(
    texts: Path,
    options: SpeakOptions,
    labels: Sequence[str],
    job: ShardJob,
    cast: Cast,
    workers: int,
    watch: Watch | None,
) -> None:
    """Speak shard after shard, as many as the hours need."""
    started = time.monotonic()
    size = sum(path.stat().st_size for path in text_files(texts) if path.suffix not in (".gz", ".parquet"))
    limit = _max_samples(options)
    read: dict[int, int] = {}

    def shards() -> Iterator[tuple[int, list[Utterance]]]:
        plan = plan_utterances(texts, options, labels, SkipLog())
        for number, block in enumerate(_blocks(plan)):
            read[number] = block[-1][1]
            yield number, [utterance for utterance, _ in block]

    results: dict[int, ShardResult] = {}
    total = front = 0
    sums: Counter[str] = Counter()
    kept_share = 0.0  # what earlier runs did takes no time and must not make the rest look quick

    def finished(result: ShardResult) -> bool:
        """Take a result; whether the shards done without gap reach the wanted hours."""
        nonlocal total, front, kept_share
        results[result.number] = result
        while front in results:
            total += results[front].samples
            front += 1
        sums["new" if result.new_samples else "kept"] += result.kept + result.dropped
        sums["samples"] += result.samples
        sums["spoken"] += result.new_samples
        shares = [total / limit] if options.hours is not None else []
        if front and size and options.documents is None:
            shares.append(read[front - 1] / size)
        share = min(1.0, max(shares)) if shares else None
        if not sums["spoken"]:
            kept_share = share or 0.0
        if watch is not None:
            watch(
                Progress(
                    items_done=sums["new"],
                    items_kept=sums["kept"],
                    audio_s=sums["spoken"] / TARGET_RATE_HZ,
                    wall_s=time.monotonic() - started,
                    share=None if share is None else (share - kept_share) / max(1 - kept_share, 1e-9),
                    note=f"{sums['samples'] / TARGET_RATE_HZ / 3600:.2f} h in all",
                )
            )
        return total >= limit

    run_shards(shards(), job, cast, workers=workers, finished=finished)


@dataclass(slots=True)
class _Tally:
    """Counts of one voice."""

    utterances: int = 0
    dropped: int = 0
    samples: int = 0
    words: int = 0
    timed_words: int = 0
    errors: float = 0.0

    def facts(self, judged: bool) -> dict[str, Any]:
        seconds = self.samples / TARGET_RATE_HZ
        row: dict[str, Any] = {
            "utterances": self.utterances,
            "dropped": self.dropped,
            "hours": round(seconds / 3600, 6),
            "words": self.words,
            "timed_words": self.timed_words,
            "words_per_s": round(self.words / seconds, 3) if seconds else None,
        }
        if judged:
            row["mean_wer"] = round(self.errors / self.utterances, 4) if self.utterances else None
        return row


def _collect(
    texts: Path, out: Path, options: SpeakOptions, facts: dict[str, Any], job: ShardJob, recipe: dict[str, Any]
) -> Corpus:
    """Put plan and journals together into the corpus."""
    skips = SkipLog()
    tallies = {label: _Tally() for label in facts}
    info: dict[str, Any] = {"source": "texts", "recipe": recipe, "voices": facts, "text_licence": options.text_licence}

    def utterances() -> Iterator[Utterance]:
        planned = plan_utterances(texts, options, tuple(facts), skips)
        for number, block in enumerate(_blocks(planned)):
            lines = read_journal(job.journal, number)
            for (utterance, _), line in zip(block, lines, strict=False):
                assert utterance.id == line.id, f"journal {number} has {line.id} for {utterance.id}"
                if line.kept:
                    _count(tallies[utterance.speaker], line)
                    yield _finished(utterance, line, number, job.audio_format, options, facts)
                else:
                    tallies[utterance.speaker].dropped += 1
                    skips.add(line.id, line.reason, line.remedy)
            if len(lines) < len(block) or sum(t.samples for t in tallies.values()) >= _max_samples(options):
                return

    by_voice: dict[str, Any] = {}
    info["by_voice"] = by_voice

    def counted() -> Iterator[Utterance]:
        yield from utterances()
        judged = job.judge is not None
        by_voice.update({label: tally.facts(judged) for label, tally in tallies.items()})
        samples = sum(tally.samples for tally in tallies.values())
        info["hours"] = round(samples / TARGET_RATE_HZ / 3600, 6)
        info["words"] = sum(tally.words for tally in tallies.values())

    return write_corpus(out, counted(), audio_root=job.audio, info=info, skips=skips)


def _max_samples(options: SpeakOptions) -> float:
    return float("inf") if options.hours is None else options.hours * 3600 * TARGET_RATE_HZ


def _count(tally: _Tally, line: Line) -> None:
    tally.utterances += 1
    tally.samples += line.samples
    tally.words += len(line.times)
    tally.timed_words += sum(start != NO_TIME for start, _ in line.times)
    tally.errors += line.wer or 0.0


def _finished(
    utterance: Utterance, line: Line, number: int, audio_format: str, options: SpeakOptions, facts: dict[str, Any]
) -> Utterance:
    """The record of a spoken utterance."""
    licence = f"voice: {facts[utterance.speaker]['licence']}; text: {options.text_licence or 'not stated'}"
    return Utterance(
        id=utterance.id,
        text=utterance.text,
        speaker=utterance.speaker,
        split=utterance.split,
        words=timed_words(utterance.text.split(), line),
        segments=utterance.segments,
        audio=audio_path(number, utterance.id, audio_format),
        licence=licence,
    )


def _blocks(plan: Iterator[tuple[Utterance, int]]) -> Iterator[list[tuple[Utterance, int]]]:
    while block := list(islice(plan, SHARD_UTTERANCES)):
        yield block


def _recipe(texts: Path, options: SpeakOptions, facts: dict[str, Any], judge: Judge | None) -> dict[str, Any]:
    """Everything that decides the bytes; not how many hours, documents and workers."""
    sums = {}
    for path, name in text_files(texts).items():
        with path.open("rb") as file:
            sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    judged_by = options.judge if judge is None else f"{type(judge).__module__}.{type(judge).__qualname__}"
    return {
        "texts": sums,
        "text_format": options.texts.format,
        "text_field": options.texts.text_field,
        "id_field": options.texts.id_field,
        "max_words": options.max_words,
        "voices": {label: fact["version"] for label, fact in facts.items()},
        "voice_order": list(facts),
        "voice_per": options.voice_per,
        "seed": options.seed,
        "audio_format": options.audio_format,
        "judge": judged_by,
        # The judge's language model is made of the documents that are read.
        "judge_documents": options.documents if judged_by == "pocketsphinx" else None,
        "max_wer": options.max_wer,
        "shard_utterances": SHARD_UTTERANCES,
    }


def _check_folder(out: Path, recipe: dict[str, Any], options: SpeakOptions) -> bool:
    """Claim an empty folder for a recipe, or make sure that it holds the same; tell whether it is finished.

    Raises:
        DataError: other files are there, or more hours or documents than wanted now.
        StaleStep: another recipe.
    """
    state = out / "speak.json"
    limits = {"hours": options.hours, "documents": options.documents}
    finished = False
    if state.is_file():
        saved = read_json(state, "speech corpus", "delete the folder and run again")
        old = saved.get("recipe", {})
        changed = [
            f"{key}: {old.get(key)!r} -> {recipe.get(key)!r}"
            for key in sorted(old.keys() | recipe.keys())
            if old.get(key) != recipe.get(key)
        ]
        if changed:
            raise StaleStep(
                f"{out} holds speech of another recipe: {'; '.join(changed)[:2000]}; "
                "use another folder or delete this one"
            )
        for name, wanted in limits.items():
            before = saved.get("limits", {}).get(name)
            if wanted is not None and (before is None or before > wanted):
                was = "all" if before is None else before
                raise DataError(f"{out} holds {was} {name}, wanted are {wanted}; ask for more or use another folder")
        finished = saved.get("limits") == limits and (out / "corpus.json").is_file()
    else:
        strangers = sorted(path.name for path in out.iterdir() if not path.name.startswith(".speak.json."))
        if strangers:
            raise DataError(f"{out} has other files in it ({', '.join(strangers[:3])}); name an empty or new folder")
    for draft in out.glob(".*.tmp"):
        draft.unlink()  # What a killed run left.
    if not finished:
        (out / "corpus.json").unlink(missing_ok=True)
        write_json(state, {"recipe": recipe, "limits": limits})
    return finished
