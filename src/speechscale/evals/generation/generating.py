"""Let a model go on from prompts, and keep what it says: units, texts, sound.

Enters: a model with its vocabulary, speech tokenizer and vocoder; prompts. Leaves: OUT/recipe.json, OUT/audio, one
`Sample` per prompt, a reason for every prompt without one.
The one decision worth knowing: prompts are generated in fixed batches of consecutive numbers, each batch from a seed of
its own, and every finished sample is kept at once: a run that was stopped goes on to the same bytes.

Source: prompts of 3 s, temperature 0.8, top-k 25, 150 new tokens, prompt and continuation vocoded as one: Slam and SIMS
(Maimon et al. 2025).
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from speechscale.decode.generate import Modality, generate
from speechscale.errors import DataError
from speechscale.evals.generation.kept import Kept
from speechscale.evals.generation.prompts import Prompt, PromptSource, cut_prompt
from speechscale.evals.generation.samples import Sample, Sampling, Speaker
from speechscale.evals.layouts import prompt_ids
from speechscale.evals.weights import weights_sha256
from speechscale.files import claim_recipe
from speechscale.progress import Progress, Watch
from speechscale.records import Utterance, dedup, offsets
from speechscale.skips import SkipLog
from speechscale.speech.audio import TARGET_RATE_HZ, write_audio
from speechscale.speech.encoders.model_files import file_sha256
from speechscale.tokens.ragged import Ragged
from speechscale.tokens.vocabulary import Vocabulary

FORMAT, FORMAT_VERSION = "speechscale generation", 1


def recipe(speaker: Speaker, source: PromptSource, sampling: Sampling) -> dict[str, Any]:
    """Everything that decides a sample, as plain JSON."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": {"name": speaker.name, "sha256": weights_sha256(speaker.model)},
        "vocabulary": speaker.vocabulary.fingerprint,
        "speech_tokenizer": None if speaker.tokenizer is None else speaker.tokenizer.fingerprint,
        "vocoder": {"sha256": speaker.vocoder_sha256, "voice": speaker.voice} if speaker.vocoder is not None else None,
        "prompts": {"kind": source.kind, "drawn": len(source.utterances), "of": source.read, "sha256": source.sha256},
        "sampling": asdict(sampling),
    }


def generate_samples(
    speaker: Speaker, source: PromptSource, sampling: Sampling, out: Path, *, watch: Watch | None = None
) -> tuple[list[Sample], SkipLog]:
    """Continue every prompt; the same call goes on after an interruption.

    Raises:
        DataError: a direction the model does not have, no usable prompt. StaleStep: `out` holds samples of another
            recipe.
    """
    speaker.check(sampling.direction)
    if source.kind == "texts" and sampling.direction[0] == "s":
        raise DataError(f"direction '{sampling.direction}' needs spoken prompts, these are texts; use ts")
    claim_recipe(out, recipe(speaker, source, sampling), "samples")
    kept, skips, samples = Kept(out / "generated.jsonl"), SkipLog(), []
    started, before = time.monotonic(), len(kept)
    for first in range(0, len(source.utterances), sampling.batch):
        numbers = range(first, min(first + sampling.batch, len(source.utterances)))
        if any(kept.get(str(number)) is None for number in numbers):
            _generate_batch(speaker, source, sampling, out, list(numbers), kept)
        for number in numbers:
            record = kept.get(str(number))
            assert record is not None
            if "skip" in record:
                skips.add(source.utterances[number].id, *record["skip"])
            else:
                samples.append(Sample.from_record(record))
        if watch is not None:
            watch(
                Progress(
                    items_done=max(0, numbers.stop - before),
                    items_kept=min(before, numbers.stop),
                    items_total=len(source.utterances),
                    audio_s=sum(sample.seconds for sample in samples),
                    wall_s=time.monotonic() - started,
                )
            )
    skips.check(read=len(source.utterances), kept=len(samples))
    skips.write(out / "skips.jsonl")
    if not samples:
        raise DataError(f"generate: none of {len(source.utterances)} prompts can be used ({skips.first()})")
    return samples, skips


def _generate_batch(
    speaker: Speaker, source: PromptSource, sampling: Sampling, out: Path, numbers: list[int], kept: Kept
) -> None:
    """Generate one batch as a whole, so that a part of it is the same when the rest was kept already."""
    prompts: dict[int, tuple[Prompt, np.ndarray]] = {}
    problems: dict[int, DataError] = {}
    for number in numbers:
        try:
            prompts[number] = _read_prompt(speaker, source, source.utterances[number], sampling)
        except DataError as error:
            problems[number] = error
    seed = int(np.random.SeedSequence((sampling.seed, numbers[0])).generate_state(1)[0])
    new = _continue(speaker, sampling, [content for _, content in prompts.values()], seed)
    said = dict(zip(prompts, new, strict=True))
    for number in numbers:
        if kept.get(str(number)) is not None:
            continue
        if number in problems:
            reason, _, remedy = str(problems[number]).rpartition("; ")
            kept.put(str(number), {"skip": [reason or remedy, remedy]})
        else:
            prompt, content = prompts[number]
            kept.put(str(number), asdict(_sample(speaker, sampling, out, number, prompt, content, said[number])))


def _read_prompt(
    speaker: Speaker, source: PromptSource, utterance: Utterance, sampling: Sampling
) -> tuple[Prompt, Int[np.ndarray, " content"]]:
    """A prompt, and its units or text tokens. Raises DataError where it cannot be one."""
    tokenizer = speaker.tokenizer
    rate_hz = TARGET_RATE_HZ if tokenizer is None else tokenizer.sample_rate_hz
    prompt = cut_prompt(source, utterance, prompt_s=sampling.prompt_s, cut=sampling.cut, rate_hz=rate_hz)
    if sampling.direction[0] == "s":
        assert tokenizer is not None, "checked by Speaker.check"
        (frames,) = tokenizer.units([prompt.audio])
        content = dedup(frames)[0].astype(np.int64)
        ids = _speech_ids(speaker.vocabulary, content)
    else:
        ids = content = _text_ids(speaker.vocabulary, utterance.id, prompt.text)
    if not len(ids):
        raise DataError(f"{utterance.id}: the prompt has no token; use longer prompts")
    context = int(speaker.model.config.max_position_embeddings)
    tokens = len(prompt_ids(speaker.vocabulary, sampling.direction, ids))
    if tokens + sampling.max_new > context:
        raise DataError(
            f"{utterance.id}: a prompt of {tokens} tokens and {sampling.max_new} new ones do not fit the model's "
            f"context of {context}; use shorter prompts or a lower max_new"
        )
    return prompt, content


def _speech_ids(vocabulary: Vocabulary, units: Int[np.ndarray, " units"]) -> Int[np.ndarray, " ids"]:
    return vocabulary.speech_ids(Ragged(units, offsets([len(units)]))).flat


def _text_ids(vocabulary: Vocabulary, id: str, text: str) -> Int[np.ndarray, " ids"]:
    if not text.strip():
        raise DataError(f"{id}: the words of the prompt are not known; give texts, or a corpus with word times")
    known_case = text.lower() if vocabulary.unk_id is not None else text
    ids = vocabulary.encode_text([known_case]).flat
    unknown = int(np.count_nonzero(ids == vocabulary.unk_id)) if vocabulary.unk_id is not None else 0
    if unknown:
        raise DataError(f"{id}: {unknown} of {len(ids)} tokens are unknown to this model; use words that it knows")
    return ids


def _continue(
    speaker: Speaker, sampling: Sampling, contents: list[np.ndarray], seed: int
) -> list[tuple[np.ndarray, bool]]:
    """New units (to speech) or text ids (to text) of each prompt, and whether the model ended by itself."""
    if not contents:
        return []
    vocabulary, direction = speaker.vocabulary, sampling.direction
    settings: dict[str, Any] = {
        "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p, "seed": seed,
    }  # fmt: skip
    pieces = [_speech_ids(vocabulary, units) if direction[0] == "s" else units for units in contents]
    ids = [prompt_ids(vocabulary, direction, piece) for piece in pieces]
    modality: Modality = "text" if direction == "st" else "speech"
    new = generate(speaker.model, vocabulary, ids, max_new_tokens=sampling.max_new, modality=modality, **settings)
    rows = [np.asarray(row, np.int64) for row in new]
    return [(row if modality == "text" else vocabulary.units_of(row), len(row) < sampling.max_new) for row in rows]


def _sample(
    speaker: Speaker,
    sampling: Sampling,
    out: Path,
    number: int,
    prompt: Prompt,
    content: np.ndarray,
    new: tuple[np.ndarray, bool],
) -> Sample:
    """Give one continuation its sound, and the recording beside it its units."""
    said, ended = new
    spoken, to_text = sampling.direction[0] == "s", sampling.direction == "st"
    units = np.zeros(0, np.int64) if to_text else said
    joined = np.concatenate([content, units]) if sampling.direction == "ss" else units
    whole = ("", 0.0) if to_text else _sound(speaker, joined, out, f"audio/{number:05d}.wav")
    alone = whole
    if sampling.direction == "ss":
        alone = _sound(speaker, units, out, f"audio/{number:05d}-continuation.wav")
    reference, rest = _reference_units(speaker, prompt)
    return Sample(
        id=prompt.id,
        number=number,
        cut_s=prompt.cut_s,
        prompt_units=tuple(content.tolist()) if spoken else (),
        prompt_text=prompt.text,
        units=tuple(units.tolist()),
        text=speaker.vocabulary.decode(said.tolist()) if to_text else "",
        ended=ended,
        audio=whole[0],
        seconds=whole[1],
        continuation_audio=alone[0],
        continuation_s=alone[1],
        reference_units=tuple(reference.tolist()),
        reference_rest_units=tuple(rest.tolist()),
        reference_s=len(prompt.whole) / prompt.rate_hz,
        reference_text=prompt.whole_text,
    )


def _sound(speaker: Speaker, units: np.ndarray, out: Path, name: str) -> tuple[str, float]:
    """Write the sound of units: its name below `out` and its seconds; ("", 0) without vocoder or units."""
    if speaker.vocoder is None or len(units) == 0:
        return "", 0.0
    audio = speaker.vocoder.synthesize(units, speaker=speaker.voice)
    write_audio(out / name, audio, speaker.vocoder.sample_rate_hz)
    return name, len(audio) / speaker.vocoder.sample_rate_hz


def _reference_units(speaker: Speaker, prompt: Prompt) -> tuple[np.ndarray, np.ndarray]:
    """Units of the recording, and of what follows the cut."""
    if speaker.tokenizer is None or speaker.tokenizer.oracle or not len(prompt.whole):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    (frames,) = speaker.tokenizer.units([prompt.whole])
    rest = frames[round(prompt.cut_s * speaker.tokenizer.frame_rate_hz) :]
    return dedup(frames)[0].astype(np.int64), dedup(rest)[0].astype(np.int64)


def vocoder_sha256(path: Path) -> str:
    """Checksum of a vocoder's files, by name."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    return "+".join(f"{file.name}:{file_sha256(file)[:16]}" for file in files)
