"""Measure the tokens room: python benchmarks/tokens.py [--only interleave,store,pack,load,scale]

interleave  aligned utterances (a unit table in memory) to interleaved ids, words tokenized on the way
store       units Parquet to a token store, texts to a store, bytes on disk
pack        a store to packed rows on disk: interleave, pack, write; and the whole way from Parquet
load        batches: mixed on the fly, and from packed rows; beside what a fast GPU run reads (arithmetic printed)
scale       memory of a sampler over 10^4 .. 4 x 10^7 utterances, and the time to open their index (10^10 tokens)

Figures are per second of processor time, medians. --data DIR takes the utterances of the peer (features.jsonl + meta/,
as peer_bench/synth.py writes them); --peer-json FILE is what the peer's own script printed for them: ratios are shown
then. Without --data the utterances are made here, of the same shape.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from speechscale.files import canonical_sha256
from speechscale.records import UnitTable, UnitTableBuilder
from speechscale.speech.unit_files import read_units, write_units
from speechscale.tokens.interleave import InterleaveConfig, interleave_batch, make_source
from speechscale.tokens.mixture import MixtureSampler
from speechscale.tokens.packed_rows import PackedSource
from speechscale.tokens.shards import write_packed
from speechscale.tokens.store import TokenStore, build_store
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

UNITS, RATE_HZ, BATCH = 500, 25.0, 256
SYLLABLES = ["ka", "lo", "mi", "ten", "sar", "vo", "win", "der", "pla", "nu", "est", "or", "ing", "the", "ma"]
WORDS = SYLLABLES + [a + b for a in SYLLABLES for b in SYLLABLES]
H100_FLOPS, MFU, GPUS, SMALL_PARAMS = 989e12, 0.4, 8, 0.5e9


def cpu() -> float:
    return sum(os.times()[:4])


def median(function: Callable[[], object], repeats: int = 5) -> float:
    """Median processor seconds; one run to warm up."""

    def timed() -> float:
        began = cpu()
        function()
        return cpu() - began

    timed()
    return statistics.median(timed() for _ in range(repeats))


def made_table(rows: int, seed: int = 0) -> UnitTable:
    """Utterances of 2 to 30 s, 35 words on average, 0.83 units per frame."""
    rng = np.random.default_rng(seed)
    builder = UnitTableBuilder(frame_rate_hz=RATE_HZ, num_units=UNITS)
    for row in range(rows):
        frames = int(np.clip(rng.lognormal(np.log(11.0), 0.45), 2.0, 30.0) * RATE_HZ)
        durations = 1 + rng.poisson(0.21, frames)
        durations = durations[: int(np.searchsorted(np.cumsum(durations), frames)) + 1]
        durations[-1] -= int(durations.sum()) - frames
        durations = durations[durations > 0]
        units = np.cumsum(rng.integers(1, UNITS, len(durations))) % UNITS
        ends = np.cumsum(rng.integers(4, 12, frames // 4))
        ends = ends[ends < frames]
        starts = ends - np.minimum(rng.integers(3, 8, len(ends)), np.diff(ends, prepend=0))
        words = [WORDS[i] for i in rng.integers(0, len(WORDS), len(ends))]
        add(builder, f"utterance-{row:07d}", units, durations, words, np.stack([starts, ends], axis=1))
    return builder.build()


def add(
    builder: UnitTableBuilder, id: str, units: np.ndarray, durations: np.ndarray, words: list[str], frames: np.ndarray
) -> None:
    builder.add(
        id=id,
        speaker="a",
        split="train",
        text=" ".join(words),
        units=units,
        durations_frames=durations,
        words=words,
        word_frames=frames,
    )


def peer_table(data: Path) -> UnitTable:
    """The utterances of the peer's benchmark: features.jsonl and meta/<stem>.json."""
    builder = UnitTableBuilder(frame_rate_hz=RATE_HZ, num_units=UNITS)
    for line in (data / "features.jsonl").open():
        row = json.loads(line)
        stem = Path(row["file_name"]).stem
        words = json.loads((data / "meta" / f"{stem}.json").read_text())["aligned_text"]
        durations = np.array(row["duration"])
        times = np.rint(np.array([[s, e] for _, s, e in words]) * RATE_HZ).astype(int)
        times = np.minimum(times, durations.sum())
        add(builder, stem, np.array(row["units"]), durations, [word.strip() for word, _, _ in words], times)
    return builder.build()


def vocabulary_of(table: UnitTable) -> Vocabulary:
    return Vocabulary.joint(build_text_tokenizer(sorted(set(table.words)), "bpe", 2000), table.num_units)


def interleave(table: UnitTable, vocabulary: Vocabulary) -> dict[str, float]:
    config, tokens = InterleaveConfig(), 0

    def run(prepared: object = None) -> None:
        nonlocal tokens
        source = prepared or make_source(table, vocabulary)
        tokens = 0
        for first in range(0, len(table), BATCH):
            rows = np.arange(first, min(first + BATCH, len(table)))
            tokens += len(interleave_batch(source, rows, 0, config, 0).flat)  # type: ignore[arg-type]

    whole, source = median(run), make_source(table, vocabulary)
    again = median(lambda: run(source))
    for name, seconds in (("aligned utterances -> ids, words tokenized", whole), ("a further epoch", again)):
        rate = f"{len(table) / seconds:10,.0f} samples/s {tokens / seconds / 1e6:8.1f} M tokens/s"
        print(f"{name:44s} {rate}")
    return {"samples": len(table) / whole, "again": len(table) / again}


def store(table: UnitTable, vocabulary: Vocabulary, work: Path) -> tuple[TokenStore, float]:
    write_units(work / "units.parquet", table, "0" * 64)
    texts = [" ".join(table.row_words(row)) for row in range(len(table))]
    whole = median(lambda: build_store(work / "s", vocabulary, table=read_units(work / "units.parquet")), 3)
    made = build_store(work / "s", vocabulary, table=table, texts=texts)
    counts = made.counts
    spoken = counts["units"] + counts["word_tokens"]
    print(f"units Parquet -> store                     {counts['units'] / whole / 1e6:12.1f} M units/s")
    speech_bytes = sum(a.nbytes for name, a in made.arrays.items() if not name.startswith("text_"))
    print(
        f"store on disk                              {speech_bytes / spoken:12.2f} bytes per unit or word token "
        f"(three streams and durations), text {made.arrays['text_tokens'].nbytes / counts['text_tokens']:.2f}"
    )
    text_only = vocabulary.text_subset()
    seconds = median(lambda: build_store(work / "t", text_only, texts=texts), 3)
    print(f"texts -> store                             {counts['text_tokens'] / seconds / 1e6:12.1f} M tokens/s")
    return made, whole


def pack(made: TokenStore, work: Path, built_s: float) -> dict[str, float]:
    found: dict[str, float] = {}
    for stream in ("interleaved", "speech", "text"):
        number = iter(range(100))

        def run(stream: str = stream, number: object = number) -> None:
            write_packed(made, stream, work / f"rows-{stream}-{next(number)}", context=2048)  # type: ignore[call-overload]

        seconds = median(run, 3)
        rows = write_packed(made, stream, work / f"rows-{stream}", context=2048)
        print(
            f"store -> packed rows on disk, {stream:12s} {rows.tokens / seconds / 1e6:12.1f} M tokens/s, "
            f"{rows.fill:.2%} full, {rows.bytes / rows.tokens:.2f} bytes a token"
        )
        found[f"pack_{stream}"] = rows.tokens / seconds
        found[f"pack_{stream}_bytes"] = rows.bytes / rows.tokens
        if stream == "interleaved":
            found["chain"] = made.documents("interleaved") / (built_s + seconds)
            print(f"units Parquet -> store -> packed rows        {found['chain']:10,.0f} samples/s")
    return found


def load(made: TokenStore, work: Path) -> None:
    per_token = 6 * SMALL_PARAMS
    need = GPUS * H100_FLOPS * MFU / per_token
    print(
        f"need: {GPUS} GPUs x {H100_FLOPS:.3g} FLOP/s x {MFU} / (6 x {SMALL_PARAMS:.1g} FLOPs a token) = "
        f"{need / 1e6:.2f} M tokens/s (0.5B parameters on 8 H100)"
    )
    shares = {"speech": 1, "text": 1, "interleaved": 1}
    packed = [
        PackedSource(write_packed(made, stream, work / f"rows-{stream}", context=2048), 0) for stream in sorted(shares)
    ]
    for name, sampler in (
        ("mixed on the fly", MixtureSampler.of_store(made, shares, 2048, 0)),
        ("from packed rows", MixtureSampler(packed, shares)),
    ):
        for world in (1, 8):

            def run(sampler: MixtureSampler = sampler, world: int = world) -> None:
                for _ in islice(sampler.batches(64, rank=0, world=world), 60):
                    pass

            seconds = median(run, 3)
            rate = sampler.tokens_seen / seconds
            print(
                f"batches of 64 x 2048, {name}, rank 1 of {world}  {rate / 1e6:8.1f} M tokens/s of the run = "
                f"{rate / need:.0f} x the need, {sampler.stats().fill:.2%} full"
            )


UNITS_EACH, WORDS_EACH, UNITS_A_WORD = 260, 36, 7
WORD_COLUMNS = ("tokens", "token_counts", "first", "last", "code")


def big_column(name: str, entries: np.ndarray) -> np.ndarray:
    """Entries of a column of a store whose utterances are all alike."""
    word = entries % WORDS_EACH
    return {
        "unit_offsets": entries * UNITS_EACH,
        "word_offsets": entries * WORDS_EACH,
        "word_token_rows": entries * WORDS_EACH,
        "word_token_counts": entries * 0 + 1,
        "word_first": UNITS_A_WORD * word,
        "word_last": UNITS_A_WORD * (word + 1),
        "frames": entries * 0 + 300,
        "id_offsets": entries * 0,
    }.get(name, entries)


def big_store(folder: Path, vocabulary: Vocabulary, utterances: int) -> None:
    """A store of so many utterances without its bulk: units, durations and word tokens are holes in sparse files."""
    build_store(folder, vocabulary, table=made_table(64))
    meta = json.loads((folder / "meta.json").read_text())
    per_row = {"units": UNITS_EACH, "durations": UNITS_EACH}
    per_row |= {name: WORDS_EACH for name in meta["columns"] if name.startswith("word_") and name[5:] in WORD_COLUMNS}
    for name, column in meta["columns"].items():
        if name in ("id_bytes", "skips", "text_tokens", "text_offsets"):
            continue
        dtype, length = np.dtype(column["dtype"]), utterances * per_row.get(name, 1) + ("_offsets" in name)
        length += name == "word_token_rows"
        with (folder / f"{name}.bin").open("wb") as file:
            if name in ("units", "durations", "word_tokens"):
                file.truncate(length * dtype.itemsize)
            for first in range(0, 0 if name in ("units", "durations", "word_tokens") else length, 1 << 20):
                entries = np.arange(first, min(first + (1 << 20), length), dtype=np.int64)
                file.write(big_column(name, entries).astype(dtype).tobytes())
        column["length"] = length
        column["chunks"] = ["0" * 64] * -(-length * dtype.itemsize // column["chunk_bytes"])
    meta["counts"] |= {name: utterances for name in meta["counts"] if name.endswith("_documents") and name[0] != "t"}
    meta["counts"] |= {"units": utterances * UNITS_EACH, "frames": utterances * 300}
    del meta["index_sha256"]
    meta["index_sha256"] = canonical_sha256(meta)
    (folder / "meta.json").write_text(json.dumps(meta))


CHILD = """
import resource, sys, time
from itertools import islice
from pathlib import Path
from speechscale.tokens.mixture import MixtureSampler
from speechscale.tokens.store import TokenStore
from speechscale.tokens.vocabulary import Vocabulary
folder = Path(sys.argv[1])
vocabulary = Vocabulary.load(folder / "vocabulary")
began = time.perf_counter()
store = TokenStore.open(folder / "store", vocabulary, verify=False)
opened = time.perf_counter() - began
streams = ("speech", "interleaved") if vocabulary.has_text else ("speech",)
sampler = MixtureSampler.of_store(store, dict.fromkeys(streams, 1), 2048, 0)
for _ in islice(sampler.batches(16), 200):
    pass
sampler.stats()
anonymous = sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
print(opened, anonymous / 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def scale(work: Path) -> None:
    joint = vocabulary_of(made_table(64))
    for utterances in (10**4, 10**5, 10**6, 10**7, 4 * 10**7):
        folder = work / "big"
        vocabulary = joint if utterances <= 10**6 else Vocabulary.textless(UNITS)
        vocabulary.save(folder / "vocabulary")
        big_store(folder / "store", vocabulary, utterances)
        out = subprocess.run([sys.executable, "-c", CHILD, str(folder)], check=True, capture_output=True, text=True)
        opened, anonymous, peak = map(float, out.stdout.split())
        print(
            f"{utterances:12,} utterances, {utterances * UNITS_EACH / 1e9:7.3f} G units, "
            f"{'speech and interleaved' if vocabulary.has_text else 'speech'}: open {opened * 1e3:6.1f} ms, "
            f"200 batches: {anonymous:5.0f} MiB of its own, {peak:6.0f} MiB with the pages of the maps"
        )
        shutil.rmtree(folder)


def against(ours: dict[str, float], told: dict[str, Any]) -> None:
    """Ratios to the peer's figures of the same utterances, per processor second on this machine."""
    to_ids = told["interleave"]["to_ids"]["samples_per_cpu_s"]
    prepare, dataset = (told[name]["interleaved"] for name in ("prepare", "dataset"))
    steps = 1 / (1 / prepare["samples_per_cpu_s"] + 1 / dataset["samples_per_cpu_s"])
    disk = told["dataset"]["interleaved"]["bytes_per_token"]
    print(f"peer: load {told['load1']}")
    if "samples" in ours:
        print(
            f"  to ids {to_ids:,.0f} samples/s: ours {ours['samples'] / to_ids:.1f} x, further epochs "
            f"{ours['again'] / to_ids:.1f} x"
        )
    if "pack_interleaved" in ours:
        unit, mixed = (told["dataset"][kind]["tokens_per_cpu_s"] for kind in ("unit", "interleaved"))
        print(
            f"  tokens.jsonl -> dataset {unit / 1e6:.2f} (units), {mixed / 1e6:.2f} (interleaved) M tokens/s: "
            f"ours from the store {ours['pack_speech'] / unit:.1f} x, {ours['pack_interleaved'] / mixed:.1f} x"
        )
        print(
            f"  features -> tokens.jsonl -> dataset {steps:,.0f} samples/s: ours from Parquet over the store "
            f"{ours['chain'] / steps:.1f} x"
        )
        print(
            f"  disk {disk['cache']:.1f} bytes a token (all it leaves), {disk['final']:.1f} (the last file): ours "
            f"{ours['pack_interleaved_bytes']:.2f} (rows)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="interleave,store,pack,load,scale")
    parser.add_argument("--utterances", type=int, default=10_000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--peer-json", type=Path)
    given = parser.parse_args()
    wanted = set(given.only.split(","))
    print(f"load {os.getloadavg()[0]:.1f}; per second of processor time, medians")
    table = peer_table(given.data) if given.data else made_table(given.utterances)
    vocabulary = vocabulary_of(table)
    print(f"{len(table):,} utterances, {len(table.units):,} units, {len(table.words):,} words, {table.hours:.1f} h")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        ours: dict[str, float] = {}
        if "interleave" in wanted:
            ours |= interleave(table, vocabulary)
        if {"store", "pack", "load"} & wanted:
            made, built_s = store(table, vocabulary, work)
        if "pack" in wanted:
            ours |= pack(made, work, built_s)
        if "load" in wanted:
            load(made, work)
        if "scale" in wanted:
            scale(work)
    if given.peer_json:
        against(ours, json.loads(given.peer_json.read_text()))


if __name__ == "__main__":
    main()
