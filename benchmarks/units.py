"""Quality and speed of units, before and after: python benchmarks/units.py [--shared ../shared] [--clusters 50 100 200]

Fits on stories of the training voices; judges on unseen voices (other stories) and, where the folder is given, on
recordings of people: LJSpeech (phones of the Montreal Forced Aligner), spoken digits of three speakers, and five
LibriVox sentences. Every row at equal numbers of units on equal audio; 95 % intervals; speed is CPU time on one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from speechscale.align.formats import textgrid_tiers
from speechscale.corpus.stories import stories, story_text
from speechscale.corpus.world import WorldConfig, build_world
from speechscale.records import Utterance
from speechscale.speech.audio import TARGET_RATE_HZ, load_audio, write_audio
from speechscale.speech.information import Estimate
from speechscale.speech.labeled import Labeled, TimedLabel
from speechscale.speech.quality import Quality, measure
from speechscale.speech.units import SpeechTokenizer, fit_tokenizer
from speechscale.voices.espeak import VOICES, speak_shard
from speechscale.voices.labeled_speech import labeled_speech

COLUMNS = (
    "units", "k", "scored on", "PNMI (chance)", "phone purity", "speaker information", "retrieval, others (same)",
    "units/s", "shift peak ms",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A waveform at 16 kHz and what is said when."""

    id: str
    speaker: str
    audio: np.ndarray
    phones: tuple[TimedLabel, ...] = ()
    words: tuple[TimedLabel, ...] = ()


def spoken(split: str, voices: Sequence[str], count: int) -> list[Clip]:
    told = stories(build_world(WorldConfig()), count, split=split, channel="speech", seed=0)
    shard = [
        Utterance(id=s.id, text=story_text(s), speaker=voices[i % len(voices)], split=split, segments=s.segments)
        for i, s in enumerate(told)
    ]
    speakers = {u.id: u.speaker for u in shard}

    def seconds(spans: Sequence[tuple[str, int, int]]) -> tuple[TimedLabel, ...]:
        return tuple((label, a / TARGET_RATE_HZ, b / TARGET_RATE_HZ) for label, a, b in spans if b > a)

    return [
        Clip(id=s.id, speaker=speakers[s.id], audio=s.audio, phones=seconds(s.phones), words=seconds(s.words))
        for s in speak_shard(shard)
    ]


def people(data: Path) -> dict[str, list[Clip]]:
    """The human recordings below shared/data."""
    lj = []
    for path in sorted((data / "dev-ljspeech" / "wavs").glob("*.flac")):
        tiers = {
            tier.name: tier for tier in textgrid_tiers(data / "dev-ljspeech" / "TextGrid" / f"{path.stem}.TextGrid")
        }
        timed = {
            name: tuple((i.label, i.start_s, i.end_s) for i in tiers[name].intervals if i.end_s > i.start_s)
            for name in ("phones", "words")
        }
        words = tuple(word for word in timed["words"] if word[0])
        lj.append(Clip(id=path.stem, speaker="lj", audio=load_audio(path).audio, phones=timed["phones"], words=words))
    digits = []
    for path in sorted((data / "dev-fsdd" / "recordings").glob("*.wav")):
        digit, speaker, _ = path.stem.split("_")
        audio = load_audio(path).audio
        word = (digit, 0.0, len(audio) / TARGET_RATE_HZ)
        digits.append(Clip(id=path.stem, speaker=speaker, audio=audio, words=(word,)))
    librivox = []
    for path in sorted((data / "dev-librivox-aligned").glob("*.phone.json")):
        entries = [phone for word in json.loads(path.read_text())["w"] for phone in word["w"]]
        phones = tuple((p["t"], p["b"], p["b"] + p["d"]) for p in entries)
        audio = load_audio(path.with_name(path.name.replace(".phone.json", ".wav"))).audio
        librivox.append(Clip(id=path.stem, speaker="librivox", audio=audio, phones=phones))
    return {"LJSpeech": lj, "digits, 3 people": digits, "LibriVox": librivox}


def judge(tokenizer: SpeechTokenizer, clips: Sequence[Clip]) -> Quality:
    units = tokenizer.units([clip.audio for clip in clips])
    labeled = [
        Labeled(id=clip.id, speaker=clip.speaker, units=own, phones=clip.phones, words=clip.words)
        for clip, own in zip(clips, units, strict=True)
        if len(own)
    ]
    return measure(labeled, frame_rate_hz=tokenizer.frame_rate_hz, num_units=tokenizer.num_units)


def row(encoder: str, clusters: int, where: str, quality: Quality) -> str:
    def short(figure: Estimate | None) -> str:
        if figure is None:
            return ""
        return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"

    chance = f" ({quality.pnmi.chance:.2f})" if quality.pnmi and quality.pnmi.chance is not None else ""
    same = f" ({quality.retrieval_same.value:.2f})" if quality.retrieval_same else ""
    peak = ""
    if quality.shift:
        peak = f"{quality.shift.peak_ms:+.0f} [{quality.shift.peak_low_ms:+.0f}, {quality.shift.peak_high_ms:+.0f}]"
    cells = (
        encoder, str(clusters), where, short(quality.pnmi) + chance, short(quality.phone_purity),
        short(quality.speaker_information), short(quality.retrieval_other) + same,
        f"{quality.units_per_second.value:.1f}", peak,
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def speed(tokenizer: SpeechTokenizer, clips: Sequence[Clip], repeats: int = 3) -> float:
    """Times real time from 16 kHz wav files to units, median."""
    seconds = sum(len(clip.audio) for clip in clips) / TARGET_RATE_HZ
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.wav" for number in range(len(clips))]
        for path, clip in zip(paths, clips, strict=True):
            write_audio(path, clip.audio, TARGET_RATE_HZ)
        for _ in range(repeats + 1):
            before = time.process_time()
            for path in paths:
                tokenizer.units([load_audio(path).audio])
            rates.append(seconds / (time.process_time() - before))
    return statistics.median(rates[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--clusters", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--encoders", nargs="+", default=["mfcc", "adapted", "phonetic-supervised"])
    parser.add_argument("--voices", type=int, default=4, help="training voices")
    parser.add_argument("--stories", type=int, default=96, help="stories to fit on, about 7 s each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name, voice in VOICES.items() if not voice.held_out][: options.voices]
    train = spoken("train", names, options.stories)
    sets = {"unseen voices": spoken("test", [name for name, voice in VOICES.items() if voice.held_out], 64)}
    if (options.shared / "data").is_dir():
        sets |= people(options.shared / "data")
    print(f"fitted on {sum(len(c.audio) for c in train) / TARGET_RATE_HZ / 3600:.2f} h of {len(names)} voices\n")
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    notes = []
    for encoder in options.encoders:
        arrays: dict[str, np.ndarray] | None = None
        for clusters in options.clusters:
            before = time.process_time()
            tokenizer = fit_tokenizer(
                [clip.audio for clip in train],
                encoder=encoder,
                encoder_tensors=arrays,
                clusters=clusters,
                seed=options.seed,
                labeled=labeled_speech,
            )
            if arrays is None:
                fitted = time.process_time() - before
                pace = speed(tokenizer, sets["unseen voices"])
                notes.append(f"{encoder}: fitted in {fitted:.1f} s of CPU, wav to units at {pace:,.0f} x real time")
            arrays = dict(tokenizer.encoder_tensors) or None
            for where, clips in sets.items():
                print(row(encoder, clusters, where, judge(tokenizer, clips)), flush=True)
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
