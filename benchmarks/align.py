"""Measure the aligners: python benchmarks/align.py [--data ../shared/data] [--model CTC_FOLDER] [--swaps 3]

Prints one table row per aligner and set: errors of word starts against given times, failures, how many swapped
transcripts were detected, and speed in CPU time of one thread. Make a CTC model with benchmarks/small_ctc.py.
Sets: dev-ljspeech (human; given times are the Montreal aligner's), dev-librivox-aligned (human; given times are
pocketsphinx's own, so pocketsphinx agrees with itself there), espeak (16 voices; given times are the engine's events).
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from speechscale.align.aligner import Aligner, build_aligner
from speechscale.align.formats import read_alignment
from speechscale.align.spelling import spell, tokens_of
from speechscale.corpus.stories import stories, story_text
from speechscale.corpus.world import WorldConfig, build_world
from speechscale.records import Utterance, Word
from speechscale.speech.audio import load_audio
from speechscale.voices.espeak import VOICES, speak_shard

RATE_HZ = 16_000


@dataclass(frozen=True)
class Clip:
    """One recording with given word times."""

    id: str
    audio: np.ndarray
    text: str
    given: tuple[Word, ...]


def ljspeech(folder: Path) -> list[Clip]:
    rows = csv.reader((folder / "metadata.csv").open(encoding="utf-8"), delimiter="|", quoting=csv.QUOTE_NONE)
    return [
        Clip(
            row[0],
            load_audio(folder / "wavs" / f"{row[0]}.flac").audio,
            row[1],
            tuple(read_alignment(folder / "TextGrid" / f"{row[0]}.TextGrid")),
        )
        for row in rows
    ]


def librivox(folder: Path) -> list[Clip]:
    return [
        Clip(
            path.stem,
            load_audio(path).audio,
            path.with_suffix(".txt").read_text(encoding="utf-8").strip(),
            tuple(read_alignment(path.with_suffix(".json"))),
        )
        for path in sorted(folder.glob("*.wav"))
    ]


def espeak(count: int) -> list[Clip]:
    """Stories in all voices, with the engine's own times."""
    told = list(stories(build_world(WorldConfig()), count, split="test", channel="speech", seed=7))
    names = list(VOICES)
    shard = [
        Utterance(
            id=f"{names[i % len(names)]}-{i}",
            text=story_text(story),
            speaker=names[i % len(names)],
            split="test",
            segments=story.segments,
        )
        for i, story in enumerate(told)
    ]
    clips = []
    for utterance, spoken in zip(shard, speak_shard(shard), strict=True):
        given = tuple(Word(text=text, start_s=a / RATE_HZ, end_s=b / RATE_HZ) for text, a, b in spoken.words)
        clips.append(Clip(utterance.id, spoken.audio, utterance.text, given))
    return clips


def start_errors(clip: Clip, words: tuple[Word, ...]) -> list[float]:
    """Differences of word starts, seconds, for words that both sides have; matched by the transcript's spelling."""
    given = dict(enumerate(spell(clip.text, clip.given)[0]))
    ours = dict(enumerate(spell(clip.text, words)[0]))
    return [
        float(ours[i].start_s - given[i].start_s)  # type: ignore[operator]
        for i in given
        if i in ours
        and tokens_of(ours[i].text) == tokens_of(given[i].text)
        and ours[i].start_s is not None
        and given[i].start_s is not None
    ]


def measure(name: str, aligner: Aligner, label: str, clips: list[Clip], swaps: int) -> None:
    """Print the row of one aligner on one set."""
    errors: list[float] = []
    scores: list[float] = []
    failed = words = flagged = 0
    aligner.align(clips[0].audio, RATE_HZ, clips[0].text)  # Loads what is loaded once.
    began = time.process_time()
    for clip in clips:
        aligned = aligner.align(clip.audio, RATE_HZ, clip.text)
        failed += bool(aligned.failed)
        words += len(aligned.words)
        flagged += len(aligned.flagged)
        scores.append(aligned.score or 0.0)
        errors += start_errors(clip, aligned.words) if not aligned.failed else []
    spent = time.process_time() - began
    seconds = sum(len(clip.audio) for clip in clips) / RATE_HZ
    size = np.abs(errors) if errors else np.array([np.nan])
    wrong = [
        aligner.align(clip.audio, RATE_HZ, clips[(i + shift) % len(clips)].text)
        for shift in range(1, min(swaps, len(clips) - 1) + 1)
        for i, clip in enumerate(clips)
    ]
    detected = sum(bool(aligned.failed) for aligned in wrong)
    best_wrong = max((aligned.score or 0.0 for aligned in wrong), default=float("nan"))
    print(
        f"| {name} | {label} | {failed}/{len(clips)} | {len(errors)}/{words} | {1000 * np.median(size):.0f} | "
        f"{1000 * np.quantile(size, 0.9):.0f} | {1000 * np.median(errors or [np.nan]):+.0f} | "
        f"{100 * np.mean(size < 0.05):.0f} | {100 * np.mean(size < 0.1):.0f} | {100 * flagged / max(words, 1):.1f} | "
        f"{min(scores):.2f} | {detected}/{len(wrong)} | {best_wrong:.2f} | {seconds / spent:.0f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", help="CTC model folder; without it pocketsphinx only")
    parser.add_argument("--aligner", choices=["pocketsphinx", "ctc"])
    parser.add_argument("--swaps", type=int, default=3, help="wrong transcripts per clip")
    parser.add_argument("--espeak", type=int, default=32, help="espeak utterances")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sets: dict[str, list[Clip]] = {}
    if (options.data / "dev-ljspeech").is_dir():
        sets["dev-ljspeech"] = ljspeech(options.data / "dev-ljspeech")
        sets["dev-librivox-aligned"] = librivox(options.data / "dev-librivox-aligned")
    if options.espeak:
        sets["espeak"] = espeak(options.espeak)
    aligners: dict[str, Aligner] = {}
    if options.aligner != "ctc":
        aligners["pocketsphinx"] = build_aligner("pocketsphinx")
    if options.model and options.aligner != "pocketsphinx":
        aligners["ctc"] = build_aligner("ctc", model=options.model)
    print("| aligner | set | failed | words matched | median ms | p90 ms | bias ms | < 50 ms % | < 100 ms % |", end=" ")
    print("flagged % | lowest score | swaps detected | highest swapped score | x real time |")
    print("|---" * 14 + "|")
    for name, aligner in aligners.items():
        for label, clips in sets.items():
            measure(name, aligner, label, clips, options.swaps)
        aligner.close()


if __name__ == "__main__":
    main()
