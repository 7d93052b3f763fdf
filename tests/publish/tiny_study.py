"""A finished study in the layout that a run leaves: real model, units and recordings, records written by hand."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from speechscale.corpus.tables import write_utterances
from speechscale.model.folders import save_model
from speechscale.records import UnitTableBuilder, Utterance
from speechscale.speech.audio import write_audio
from speechscale.speech.unit_files import write_units
from speechscale.speech.units import SpeechTokenizer, fit_tokenizer
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer
from tests.model.peers import small

UNITS = 10
VERSIONS = {"speechscale": "0.1.0", "torch": "2.0", "espeakng-loader": "0.2.4"}
TRAIN = {
    "batch_rows": 4,
    "context": 64,
    "betas": [0.9, 0.95],
    "weight_decay": 0.1,
    "clip_norm": 1.0,
    "schedule": "cosine",
    "final_lr_fraction": 0.1,
    "warmup_fraction": 0.05,
    "warmup_tokens": None,
    "new_rows": "calibrated",
    "pack": "best_fit",
}


def vocabulary() -> Vocabulary:
    return Vocabulary.joint(build_text_tokenizer(["tom ann ran he won lost rome ."]), UNITS)


def tokenizer(folder: Path) -> SpeechTokenizer:
    noise = [np.random.default_rng(i).standard_normal(16_000).astype(np.float32) for i in range(4)]
    made = fit_tokenizer(iter(noise), encoder="mfcc", clusters=UNITS, seed=0)
    made.save(folder)
    return made


def write_record(folder: Path, steps: Path, **fields: Any) -> str:
    """A step's record, with the checksums of its files; return its fingerprint."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    name = folder.relative_to(steps).as_posix()
    record = {
        "name": name,
        "fingerprint": hashlib.sha256(name.encode()).hexdigest()[:32],
        "files": files,
        "seconds": 8.0,
        "cpu_seconds": 7.5,
        "versions": VERSIONS,
        "git_commit": "0123456789ab",
        "machine": "x86_64 Linux 2 cores",
        "finished_at": "2026-01-01T00:00:00Z",
        "inputs": {},
        **fields,
    }
    (folder / "record.json").write_text(json.dumps(record))
    return str(record["fingerprint"])


def run_row(arm: str, select: float, *, sweep: bool, rate: float) -> dict[str, Any]:
    return {
        "part": "main", "arm": arm, "size": "t", "seed": 0, "sweep": sweep, "params_total": 22_000,
        "params_non_embedding": 20_000, "budget_flops": 1e9, "flops_exact": 1e9, "flops_exact_spent": 1e9,
        "flops_6nd_total": 8e8, "flops_text_lm_exact": 5e8, "learning_rate": rate, "learning_rate_at_edge": False,
        "tokens_seen": 12_345, "steps": 50, "speech_epochs": 2.5, "speech_hours_unique": 0.01, "text_epochs": 0.5,
        "loss_speech_final": 2.043, "loss_speech_se": 0.019, "loss_select": select, "loss_text_final": 1.384,
    }  # fmt: skip


def make_study(folder: Path, *, kind: str = "storyworld") -> Path:
    """Two runs of a sweep and the chosen one of the arm `interleaved`; samples of the best."""
    steps = folder / "steps"
    lock = vocabulary()
    made = tokenizer(steps / "tokenizer" / "c-u")
    write_record(steps / "tokenizer/c-u", steps, config={}, results={"num_units": UNITS})
    said = [
        Utterance(id=f"u{i}", text="tom ran", speaker=f"v{i % 2}", split=split, licence=licence, language=language)
        for i, (split, licence, language) in enumerate(
            [("train", "CC-BY-4.0", "en-US"), ("train", "CC0-1.0", "en-GB"), ("select", "", ""), ("test", "", "")]
        )
    ]
    if kind == "storyworld":
        said = [Utterance(id=u.id, text=u.text, speaker=u.speaker, split=u.split) for u in said]
    write_utterances(steps / "corpus/c/utterances.parquet", said)
    corpus = {"kind": kind, "name": "c", "characters": 60} if kind == "storyworld" else {"kind": kind, "name": "c"}
    if kind != "storyworld":
        corpus["path"] = str(folder / "imported")
    write_record(steps / "corpus/c", steps, config={"corpus": corpus}, results={"dropped": 1})
    builder = UnitTableBuilder(frame_rate_hz=made.frame_rate_hz, num_units=UNITS)
    for number, utterance in enumerate(said):
        builder.add(
            id=utterance.id,
            speaker=utterance.speaker,
            split=utterance.split,
            text=utterance.text,
            units=np.array([1, 2, 3]),
            durations_frames=np.full(3, (number + 1) * round(made.frame_rate_hz * 1200)),
            words=[],
            word_frames=np.zeros((0, 2), np.int32),
        )
    write_units(steps / "units/c-u/000/units.parquet", builder.build(), made.fingerprint)
    corpus_print = write_record(steps / "corpus/c", steps, config={"corpus": corpus}, results={"dropped": 1})
    units_print = write_record(
        steps / "units/c-u/000", steps, config={}, results={"kept": 4, "dropped": 2}, inputs={"corpus/c": corpus_print}
    )
    text_print = write_record(
        steps / "text/c", steps, config={}, results={"text_tokens": 5000}, inputs={"corpus/c": corpus_print}
    )
    tokens_print = write_record(
        steps / "tokens/c-u",
        steps,
        config={},
        results={"units_per_second": 19.0},
        inputs={"units/c-u/000": units_print, "text/c": text_print, "corpus/c": corpus_print},
    )
    lm = {"tokens_seen": 4000, "text_epochs": 0.8, "flops_exact": 5e8, "loss_text": 1.5}
    lm_print = write_record(steps / "text_lm/c/t-lr0.01", steps, config={}, results=lm, inputs={"text/c": text_print})
    inputs = {"tokens/c-u": tokens_print, "text_lm/c/t-lr0.01": lm_print}
    prints = {}
    for seed, (name, select, sweep) in enumerate([("a-s0", 2.2, True), ("b-s0", 2.1, True), ("c-s0", 2.0, False)]):
        prints[f"run/main/{name}"] = make_run(steps, name, select, inputs, sweep=sweep, seed=seed, lock=lock)
    make_samples(steps, prints)
    study = {"name": "toy", "question": "Does it work?"}
    (folder / "study.json").write_text(json.dumps({"study": study, "parts": {}}))
    return folder


def make_run(
    steps: Path, name: str, select: float, inputs: dict[str, str], *, sweep: bool, seed: int, lock: Vocabulary
) -> str:
    run = steps / "run/main" / name
    save_model(small(lock.size, seed=seed), run / "model")
    lock.save(run / "model")
    metrics = [
        {
            "benchmark": "storyworld", "set": "facts", "tag": tag, "direction": "ss", "protocol": "speechscale",
            "estimate": estimate, "low": estimate - 0.05, "high": estimate + 0.05, "se": 0.02, "n_items": 100,
            "n_pairs": 50, "n_ties": 0, "chance": 0.5,
        }
        for tag, estimate in (("", 0.52), ("heard", 0.7))
    ]  # fmt: skip
    protocol = {"span": "ending", "end": False, "ties": 0.5, "source": "ours"}
    saved = {
        "format": "speechscale eval results",
        "format_version": 1,
        "stamp": {},
        "benchmarks": {"storyworld": {"title": "choices", "sha256": "f" * 64, "licence": "Apache-2.0"}},
        "protocols": {"speechscale": protocol},
        "metrics": metrics,
    }
    (run / "results.json").write_text(json.dumps(saved))
    config = {
        "part": "main", "arm": "interleaved", "size": "t", "start": "warm", "seed": 0, "pretrained": "", "train": TRAIN,
        "mixture": {"interleaved": 0.5, "speech": 0.4, "text": 0.1}, "supervised_units": False,
        "interleave": {"level": "word", "speech_span": "poisson(2)", "speech_share": 0.3, "markers": True},
    }  # fmt: skip
    results = {
        "row": run_row("interleaved", select, sweep=sweep, rate=0.01 * (seed + 1)),
        "loss_select": select,
        "precision": "fp32",
        "text_lm": "text_lm/c/t-lr0.01",
        "metrics": metrics,
    }
    return write_record(run, steps, config=config, results=results, inputs=inputs)


def make_samples(steps: Path, runs: dict[str, str]) -> None:
    folder = steps / "samples/main"
    folder.mkdir(parents=True)
    entries = []
    for kind in ("original", "resynthesized", "interleaved", "textless"):
        write_audio(folder / f"0-{kind}.wav", np.zeros(160, np.float32), 16_000)
        entries.append({"file": f"0-{kind}.wav", "group": "Story 1", "title": kind, "text": ""})
    (folder / "samples.json").write_text(json.dumps(entries))
    write_record(folder, steps, config={}, results={"samples": 4}, inputs=runs)
