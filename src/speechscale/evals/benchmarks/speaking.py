"""Items of text alone are spoken by voices.

Enters: items and voices. Leaves: `RawItem`s whose clips are FLAC files at 16 kHz, with word times where the engine
gives them. The one decision worth knowing: an engine that tells when words sound speaks prompt and candidate in one
breath, sentence by sentence; any other speaks them apart, so that the cut is known all the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speechscale.corpus.sentences import cut_long, split_sentences
from speechscale.corpus.shard_pool import run_shards
from speechscale.corpus.speak_plan import MAX_SEGMENT_WORDS
from speechscale.corpus.spoken_shards import Line, ShardJob, ShardResult, audio_path, read_journal, timed_words
from speechscale.errors import DataError
from speechscale.evals.benchmarks.raw import Clip, RawItem
from speechscale.evals.layouts import item_utterances
from speechscale.progress import Progress, Watch
from speechscale.records import Item, Utterance, Word
from speechscale.skips import SkipLog
from speechscale.speech.audio import TARGET_RATE_HZ
from speechscale.voices.engines import Cast
from speechscale.voices.segments import EngineDown

SHARD_UTTERANCES = 64
FORMAT = "flac"
JOINED = ("good", "bad")
APART = ("prompt", "good_ending", "bad_ending")


def voice_segments(text: str) -> list[str]:
    """What a voice says in one piece: sentences, cut where they are very long."""
    return [part for sentence in split_sentences(text) for part in cut_long(sentence, MAX_SEGMENT_WORDS)]


def cast_items(items: Sequence[Item], labels: Sequence[str], *, seed: int = 0, each_voice: bool = False) -> list[Item]:
    """Give every item its voice: pairs take turns from voice number `seed` on, or every voice speaks every item.

    Example: pairs p, q, r and voices a, b -> p by a, q by b, r by a; with `each_voice` "p1/a", "p1/b", "q1/a", ...
    """
    if each_voice:
        return [replace(item, id=f"{item.id}/{label}", speaker=label) for item in items for label in labels]
    turns = {pair: turn for turn, pair in enumerate(dict.fromkeys(item.pair for item in items))}
    return [replace(item, speaker=labels[(turns[item.pair] + seed) % len(labels)]) for item in items]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One utterance of an item: which item, which of its clips."""

    number: int
    role: str
    utterance: Utterance


def speak_items(
    items: Sequence[Item],
    audio: Path,
    journal: Path,
    cast: Cast,
    *,
    facts: Mapping[str, Mapping[str, Any]],
    skips: SkipLog,
    workers: int = 1,
    watch: Watch | None = None,
) -> list[RawItem]:
    """Speak items into `audio`; the same call goes on after an interruption.

    Args:
        items: checked, each with a label of the cast as its speaker. facts: of the cast, from `Cast.check`.

    Raises:
        DataError: an engine that is gone.
    """
    parts = [
        part
        for number, item in enumerate(items)
        for part in _parts(number, item, bool(facts[item.speaker]["word_times"]))
    ]
    shards = [parts[first : first + SHARD_UTTERANCES] for first in range(0, len(parts), SHARD_UTTERANCES)]
    job = ShardJob(
        audio=audio,
        journal=journal,
        addresses=tuple(_address(cast, label) for label in cast.voices),
        options=cast.options,
        audio_format=FORMAT,
    )
    try:
        run_shards(
            ((number, [part.utterance for part in shard]) for number, shard in enumerate(shards)),
            job,
            cast,
            workers=max(workers, 1),
            finished=_teller(watch, len(parts)),
        )
    except EngineDown as error:
        raise DataError(str(error)) from error
    clips: dict[int, dict[str, Any]] = {}
    broken: dict[int, Line] = {}
    for number, shard in enumerate(shards):
        for part, line in zip(shard, read_journal(journal, number), strict=True):
            assert part.utterance.id == line.id, f"journal {number} has {line.id} for {part.utterance.id}"
            if not line.kept:
                broken.setdefault(part.number, line)
                continue
            found = clips.setdefault(part.number, {})
            found[part.role] = Clip(path=audio_path(number, line.id, FORMAT))
            if part.role in JOINED:
                found[f"{part.role}_words"] = timed_words(part.utterance.text.split(), line)
    spoken = []
    for number, item in enumerate(items):
        if number in broken:
            skips.add(item.id, broken[number].reason, broken[number].remedy)
        else:
            spoken.append(RawItem(item=item, **clips[number]))
    return spoken


def _parts(number: int, item: Item, word_times: bool) -> list[_Part]:
    """The utterances of an item, named by number, because ids of other people may be no file names."""
    if word_times or not item.prompt.strip():
        made = item_utterances([item], voice_segments)
        texts = dict(zip(JOINED, ((utterance.text, utterance.segments) for utterance in made), strict=True))
    else:
        said = (item.prompt, item.good, item.bad)
        texts = {role: (text, tuple(voice_segments(text))) for role, text in zip(APART, said, strict=True)}
    return [
        _Part(
            number=number,
            role=role,
            utterance=Utterance(
                id=f"{number:07d}-{role}",
                text=text,
                speaker=item.speaker,
                split="items",
                words=tuple(Word(text=word) for word in text.split()),
                segments=segments,
            ),
        )
        for role, (text, segments) in texts.items()
    ]


def _address(cast: Cast, label: str) -> str:
    found = cast.voices[label]
    return f"{found.engine}:{found.voice}"


def _teller(watch: Watch | None, total: int) -> Any:
    """What is told after each shard; it never says that it is enough."""
    began, sums = time.monotonic(), {"new": 0, "kept": 0, "samples": 0}

    def finished(result: ShardResult) -> bool:
        sums["new" if result.new_samples else "kept"] += result.kept + result.dropped
        sums["samples"] += result.new_samples
        if watch is not None:
            watch(
                Progress(
                    items_done=sums["new"],
                    items_kept=sums["kept"],
                    items_total=total,
                    audio_s=sums["samples"] / TARGET_RATE_HZ,
                    wall_s=time.monotonic() - began,
                    note="speaking",
                )
            )
        return False

    return finished
