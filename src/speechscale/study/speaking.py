"""The steps that make sound: a vocoder for the study's units, and audio samples for the report.

Enters: corpus, speech tokenizer, vocoder, runs. Leaves: a vocoder folder; wav files with captions.
The one decision worth knowing: the vocoder is trained on one voice, so every sample sounds like that voice.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from speechscale.corpus.encode import encode_corpus
from speechscale.corpus.tables import read_utterances
from speechscale.decode.generate import continue_units
from speechscale.errors import DataError
from speechscale.model.slm import load_model
from speechscale.records import UnitTable, Utterance
from speechscale.skips import SkipLog
from speechscale.speech.audio import TARGET_RATE_HZ, write_audio
from speechscale.speech.units import SpeechTokenizer
from speechscale.speech.vocoder import train_vocoder
from speechscale.speech.vocoders import UnitVocoder, open_vocoder
from speechscale.study.spec import Vocoder as VocoderSection
from speechscale.study.stages import corpus_of, loader_of
from speechscale.study.steps import read_record, write_json
from speechscale.tokens.vocabulary import Vocabulary

PROMPT_S = 2.5
CONTINUE_S = 4.0


def make_vocoder(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Train a unit-to-mel network on the first training voices' audio and write its folder."""
    section = VocoderSection.model_validate(config["vocoder"])
    tokenizer = SpeechTokenizer.load(_input(inputs, "tokenizer/"))
    utterances = list(read_utterances(_input(inputs, "corpus/") / "utterances.parquet"))
    voices = target_voices(utterances, section.voices)
    chosen = [u for u in utterances if u.split == "train" and u.speaker in voices]
    table, audio = _encoded(config, chosen, tokenizer, section.hours)
    vocoder = train_vocoder(table, audio, seed=config["seed"], steps=section.steps)
    vocoder.save(out / "vocoder")
    return {"voices": voices, **vocoder.training}


def target_voices(utterances: Iterable[Utterance], count: int) -> list[str]:
    """The voices the vocoder learns: the first by name of the training voices."""
    return sorted({u.speaker for u in utterances if u.split == "train"})[:count]


def _input(inputs: Mapping[str, Path], prefix: str) -> Path:
    (path,) = (path for name, path in inputs.items() if name.startswith(prefix))
    return path


def _encoded(
    config: Mapping[str, Any], utterances: Iterable[Utterance], tokenizer: SpeechTokenizer, hours: float
) -> tuple[UnitTable, list[np.ndarray]]:
    """Units and waveforms of the first utterances, up to `hours` of audio."""
    audio: dict[str, np.ndarray] = {}
    limit = hours * 3600 * TARGET_RATE_HZ
    loader = loader_of(corpus_of(dict(config)))

    def enough(source: Iterable[Utterance]) -> Iterable[Utterance]:
        for utterance in source:
            if sum(len(a) for a in audio.values()) >= limit:
                return
            yield utterance

    def keep(id: str, waveform: np.ndarray) -> None:
        audio[id] = waveform

    table = encode_corpus(
        enough(utterances),
        tokenizer,
        loader=loader,
        skips=SkipLog(),
        keep_audio=1_000_000,
        on_audio=keep,
        shard_utterances=16,
        batch_s=30.0,
    )
    return table, [audio[id] for id in table.ids]


def make_samples(config: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Write, for a few held-out stories: the original, its resynthesis, and each arm's continuation of its opening."""
    section = VocoderSection.model_validate(config["vocoder"])
    if not any(name.startswith("vocoder/") for name in inputs) or not _runs(inputs):
        write_json(out / "samples.json", [])
        return {"samples": 0, "note": "no vocoder or no run to listen to"}
    tokenizer = SpeechTokenizer.load(_input(inputs, "tokenizer/"))
    vocoder = open_vocoder(_input(inputs, "vocoder/") / "vocoder")
    utterances = list(read_utterances(_input(inputs, "corpus/") / "utterances.parquet"))
    voices = target_voices(utterances, section.voices)
    held_out = [u for u in utterances if u.split == "test"]
    held_out.sort(key=lambda u: u.speaker not in voices)
    chosen = held_out[: section.samples]
    table, audio = _encoded(config, chosen, tokenizer, 1.0)
    entries = []
    for row, waveform in enumerate(audio):
        group = f"Held-out story {row + 1}, {table.speakers[row]}"
        text = table.texts[row]
        entries.append(_write(out, f"{row}-original", waveform, TARGET_RATE_HZ, group, "original", text))
        speaker = table.speakers[row] if table.speakers[row] in vocoder.speakers else None
        rate_hz = vocoder.sample_rate_hz
        sound = vocoder.synthesize(table.row_units(row), table.row_durations(row), speaker)
        title = "resynthesized from units and durations"
        entries.append(_write(out, f"{row}-resynthesized", sound, rate_hz, group, title, text))
        prompt = opening_units(table, row, PROMPT_S)
        for arm, folder in _best_runs(inputs).items():
            sound = continuation(folder, prompt, vocoder, speaker, seed=config["seed"] + row)
            title = f"{arm}: first {PROMPT_S:g} s as prompt, then generated"
            entries.append(_write(out, f"{row}-{arm}", sound, rate_hz, group, title, ""))
    write_json(out / "samples.json", entries)
    return {"samples": len(entries)}


def opening_units(table: UnitTable, row: int, seconds: float) -> np.ndarray:
    """Units of the first seconds of an utterance, at least one."""
    ends = np.cumsum(table.row_durations(row))
    return table.row_units(row)[: max(1, int(np.searchsorted(ends, seconds * table.frame_rate_hz)))]


def continuation(run: Path, prompt: np.ndarray, vocoder: UnitVocoder, speaker: str | None, *, seed: int) -> np.ndarray:
    """Audio of a prompt of units and what a run's model makes of it."""
    model, vocabulary = load_model(run / "model"), Vocabulary.load(run / "model")
    room = model.config.max_position_embeddings - len(prompt) - 1
    if room < 1:
        raise DataError(f"a prompt of {len(prompt)} units leaves no room in a context of {room + len(prompt) + 1}")
    wanted = min(room, round(CONTINUE_S * 19))
    (new,) = continue_units(model, vocabulary, [prompt], max_new_units=wanted, temperature=0.8, top_k=25, seed=seed)
    return vocoder.synthesize(np.concatenate([prompt, np.asarray(new, prompt.dtype)]), speaker=speaker)


def _runs(inputs: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    records = {name: read_record(path) for name, path in inputs.items() if name.startswith("run/")}
    return {
        name: record["results"]["row"]
        for name, record in records.items()
        if record is not None and record["results"].get("loss_select") is not None
    }


def _best_runs(inputs: Mapping[str, Path]) -> dict[str, Path]:
    """Per arm the run with the lowest selection loss."""
    rows = sorted(_runs(inputs).items(), key=lambda entry: entry[1]["loss_select"])
    best: dict[str, Path] = {}
    for name, row in rows:
        best.setdefault(row["arm"], inputs[name])
    return dict(itertools.islice(sorted(best.items()), 4))


def _write(out: Path, stem: str, sound: np.ndarray, rate_hz: int, group: str, title: str, text: str) -> dict[str, str]:
    write_audio(out / f"{stem}.wav", sound, rate_hz)
    return {"file": f"{stem}.wav", "group": group, "title": title, "text": text}
