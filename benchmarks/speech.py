"""Measure audio -> units: python benchmarks/speech.py [--hours 20] [--workers 1] [--only encode,memory,long]

encode  a manifest of `--hours` (parts of a few real files on disk) to a folder of units: x real time per processor
        second, end to end from wav: open, decode, features, assignment, dedup, journal, Parquet.
memory  the same run's largest resident memory, over its first tenth and over the whole: flat means bounded.
long    one 3-hour wav: cut at silence, and encoded as one utterance; largest resident memory.
HuBERT, k-means, unit quality and aligners have benchmarks of their own beside this file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from speechscale.corpus.imported import write_corpus
from speechscale.progress import Progress
from speechscale.records import Utterance, Word
from speechscale.skips import SkipLog

RATE_HZ = 16_000
FILES, FILE_S = 40, 600.0
UTTERANCE_S = 12.0


def speechlike(seconds: float, seed: int) -> np.ndarray:
    """Noise of changing color and level with pauses; fast to make and as costly to encode as speech."""
    generator = np.random.default_rng(seed)
    samples = round(seconds * RATE_HZ)
    steps = samples // 1600 + 1
    level = np.repeat(generator.choice([0.0, 0.02, 0.1, 0.2], steps), 1600)[:samples]
    color = np.repeat(generator.uniform(-0.95, 0.95, steps), 1600)[:samples]
    white = generator.standard_normal(samples).astype(np.float32)
    return (level * (white + color * np.roll(white, 1))).astype(np.float32)


def manifest(hours: float, root: Path) -> Iterator[Utterance]:
    """Utterances of 12 s, each a part of one of a few files, with thirty timed words."""
    per_file = int(FILE_S / UTTERANCE_S)
    words = tuple(Word(text=f"word{k}", start_s=0.4 * k, end_s=0.4 * k + 0.3) for k in range(30))
    text = " ".join(word.text for word in words)
    for index in range(round(hours * 3600 / UTTERANCE_S)):
        start = (index // FILES) % per_file * UTTERANCE_S
        yield Utterance(
            id=f"utterance-{index:07d}",
            text=text,
            speaker=f"s{index % 50}",
            split="train",
            words=words,
            audio=f"{index % FILES}.wav",
            start_s=start,
            end_s=start + UTTERANCE_S,
        )


def tree_rss_mib() -> float:
    """Resident memory of this process and its children."""
    total = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = (entry / "status").read_text()
            parent = int(status.split("PPid:")[1].split()[0])
            if parent == os.getpid() or int(entry.name) == os.getpid():
                total += int(status.split("VmRSS:")[1].split()[0]) if "VmRSS:" in status else 0
        except (OSError, IndexError):
            continue
    return total / 1024


def encode(hours: float, workers: int, folder: Path, encoder: str, clusters: int) -> None:
    from speechscale.corpus.unit_corpus import encode_folder, fit_on_corpus

    root = folder / "audio"
    root.mkdir()
    for index in range(FILES):
        soundfile.write(root / f"{index}.wav", speechlike(FILE_S, index), RATE_HZ, subtype="PCM_16")
    began = time.perf_counter()
    utterances = manifest(hours, root)
    corpus = write_corpus(folder / "corpus", utterances, audio_root=root, info={"source": "generated"}, skips=SkipLog())
    print(f"manifest of {hours:g} h written in {time.perf_counter() - began:.1f} s")
    fit_on_corpus(corpus, encoder=encoder, clusters=clusters, hours=0.2, split="train", seed=0).save(folder / "tok")
    peaks: list[tuple[float, float]] = []
    share = [0.0]

    def watch(progress: Progress) -> None:
        share[0] = progress.items_done / progress.items_total

    def sample() -> None:
        while not over.wait(0.3):
            peaks.append((share[0], tree_rss_mib()))

    over, before, wall = threading.Event(), sum(os.times()[:4]), time.perf_counter()
    watcher = threading.Thread(target=sample)
    watcher.start()
    made = encode_folder(corpus.folder, folder / "tok", folder / "units", workers=workers, watch=watch)
    over.set()
    watcher.join()
    cpu, wall = sum(os.times()[:4]) - before, time.perf_counter() - wall
    audio_s = made.info["hours"] * 3600
    first = max((rss for part, rss in peaks if part <= 0.1), default=float("nan"))
    print(f"encode ({encoder}, {workers} workers): {audio_s / cpu:,.0f} x real time per processor second, ", end="")
    print(f"{audio_s / wall:,.0f} x wall, {made.info['kept']:,} utterances, {made.info['hours']:.1f} h")
    print(f"memory of all processes: {first:,.0f} MiB in the first tenth, {max(r for _, r in peaks):,.0f} MiB in all")


LONG = """
import sys
from pathlib import Path
from speechscale.speech.units import SpeechTokenizer
path = sys.argv[1]
if sys.argv[2] == "cut":
    from speechscale.speech.vad import split_at_silence
    found = len(list(split_at_silence(path)))
elif sys.argv[2] == "imports":
    found = 0
else:
    from speechscale.corpus.loaders import FileLoader
    from speechscale.records import Utterance
    one = Utterance(id="long", text="", speaker="s", split="train", audio=Path(path).name)
    audio = FileLoader(root=Path(path).parent).load(one).audio
    found = len(SpeechTokenizer.load(sys.argv[3]).units([audio])[0])
# VmHWM: unlike ru_maxrss it does not inherit the memory of the process that started this one.
status = Path("/proc/self/status").read_text()
print(found, int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""


def long_file(folder: Path) -> None:
    path = folder / "long.wav"
    with soundfile.SoundFile(path, "w", RATE_HZ, 1, "PCM_16") as file:
        for index in range(18):
            file.write(speechlike(600.0, index))
    for task, unit in (("imports", "-"), ("cut", "stretches"), ("encode", "frames")):
        began = time.perf_counter()
        command = [sys.executable, "-c", LONG, str(path), task, str(folder / "tok")]
        found, mib = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        print(f"3-hour file, {task}: {found} {unit}, {mib} MiB largest, {time.perf_counter() - began:.1f} s wall")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--encoder", default="mfcc")
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--only", default="encode,long")
    options = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        encode(options.hours, options.workers, Path(name), options.encoder, options.clusters)
        if "long" in options.only:
            long_file(Path(name))


if __name__ == "__main__":
    main()
