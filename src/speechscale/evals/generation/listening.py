"""What is said in generated speech, in its prompts and in the recordings beside it.

Enters: samples with their sound, a recognizer. Leaves: `Heard`, texts per sample. The one decision worth knowing: what
is not known as text is recognized, generated and reference speech by the same recognizer, and kept by the checksum of
the waveform and the recognizer's stamp, so that nothing is recognized twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.evals.generation.kept import Kept
from speechscale.evals.generation.perplexity import Span
from speechscale.evals.generation.prompts import PromptSource
from speechscale.evals.generation.samples import GenerateDirection, Sample, Speaker
from speechscale.evals.generation.transcribe import Transcriber, Transcript, transcribe
from speechscale.files import canonical_sha256
from speechscale.progress import Progress, Watch
from speechscale.speech.audio import TARGET_RATE_HZ, load_audio, resample, samples_sha256

Load = Callable[[], Float[np.ndarray, " samples"]]
NOT_MADE = "no sound was made"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Texts of one sample; a part that was not asked for is None.

    Args:
        whole: prompt and continuation. continuation: alone. prompt: alone. reference: the recording, from the start or
            from the cut on, as the span says. resynthesis, recording: for the error rates of the vocoder.
    """

    whole: Transcript | None = None
    continuation: Transcript | None = None
    prompt: Transcript | None = None
    reference: Transcript | None = None
    resynthesis: Transcript | None = None
    recording: Transcript | None = None


def listen(
    samples: Sequence[Sample],
    source: PromptSource,
    out: Path,
    transcriber: Transcriber | None,
    *,
    direction: GenerateDirection,
    span: Span,
    parts: bool = False,
    resynthesis: Speaker | None = None,
    watch: Watch | None = None,
) -> list[Heard]:
    """Recognize what the metrics need.

    Args:
        transcriber: None: only texts that are known (direction st with known prompts).
        parts: also prompt and continuation apart, which a judge reads.
        resynthesis: also recordings with known words, and their units through this vocoder.

    Raises:
        DataError: speech to recognize, but no recognizer.
    """
    kept = Kept(out / "transcripts.jsonl")
    jobs: list[tuple[int, str, Load]] = []
    found: list[dict[str, Transcript]] = [{} for _ in samples]
    for i, sample in enumerate(samples):
        for name in _wanted(sample, direction, span, parts=parts, resynthesis=resynthesis is not None):
            known = _known(sample, name, direction)
            if known is not None:
                found[i][name] = known
            elif transcriber is not None:
                jobs.append((i, name, _loader(sample, name, source, out, span, resynthesis)))
            elif name != "reference":
                raise DataError(f"generate: the {name} of '{sample.id}' is speech; name a recognizer with --asr")
    if transcriber is not None:
        stamp = canonical_sha256(transcriber.stamp())
        heard = _recognize([load for _, _, load in jobs], transcriber, stamp, kept, watch)
        for (i, name, _), transcript in zip(jobs, heard, strict=True):
            found[i][name] = transcript
    if direction != "ss":
        for i, texts in enumerate(found):
            prompt, continuation = texts["prompt"], texts["continuation"]
            text = f"{prompt.text} {continuation.text}".strip()
            found[i]["whole"] = Transcript(text=text, problem="" if text else continuation.problem)
    return [Heard(**texts) for texts in found]


def _wanted(
    sample: Sample, direction: GenerateDirection, span: Span, *, parts: bool, resynthesis: bool
) -> Iterator[str]:
    if direction != "ss":
        yield from ("prompt", "continuation")
    elif span == "whole":
        yield "whole"
    if direction == "ss" and (span != "whole" or parts):
        yield "continuation"
    if direction == "ss" and (span == "continuation" or parts):
        yield "prompt"
    if sample.reference_s:
        yield "reference"
    if resynthesis and sample.reference_text and sample.reference_units:
        yield from ("recording", "resynthesis")


def _known(sample: Sample, name: str, direction: GenerateDirection) -> Transcript | None:
    """A part whose words are known without listening, or which makes no sound."""
    if name == "prompt" and sample.prompt_text:
        return Transcript(text=sample.prompt_text)
    if name == "continuation" and direction == "st":
        return Transcript(text=sample.text, problem="" if sample.text.strip() else "no text was written")
    audio = {"whole": sample.audio, "continuation": sample.continuation_audio}.get(name)
    units = len(sample.units) + (len(sample.prompt_units) if name == "whole" else 0)
    return Transcript(text="", problem=NOT_MADE) if audio == "" and not units else None


def _loader(
    sample: Sample, name: str, source: PromptSource, out: Path, span: Span, resynthesis: Speaker | None
) -> Load:
    """Read the waveform at 16 kHz only when it is needed."""
    made = {"whole": sample.audio, "continuation": sample.continuation_audio}

    def load() -> Float[np.ndarray, " samples"]:
        if name in made:
            if not made[name]:
                raise DataError(f"generate: '{sample.id}' has units but no sound to recognize; give --vocoder DIR")
            return load_audio(out / made[name], sample_rate_hz=TARGET_RATE_HZ).audio
        if name == "resynthesis":
            assert resynthesis is not None
            assert resynthesis.vocoder is not None, "checked by the caller"
            units = np.array(sample.reference_units, np.int64)
            audio = resynthesis.vocoder.synthesize(units, speaker=resynthesis.voice)
            return resample(audio, resynthesis.vocoder.sample_rate_hz, TARGET_RATE_HZ)
        assert source.loader is not None
        audio = source.loader.load(source.utterances[sample.number]).audio
        cut = round(sample.cut_s * TARGET_RATE_HZ)
        if name == "prompt":
            return audio[:cut]
        return audio if name == "recording" or span == "whole" else audio[cut:]

    return load


def _recognize(
    loads: Sequence[Load], transcriber: Transcriber, stamp: str, kept: Kept, watch: Watch | None
) -> list[Transcript]:
    """One transcript per waveform; those that were recognized before are not shown again."""
    keys: list[str] = []
    started, audio_s = time.monotonic(), 0.0

    def fresh() -> Iterator[np.ndarray]:
        nonlocal audio_s
        asked: set[str] = set()
        for load in loads:
            waveform = load()
            audio_s += len(waveform) / TARGET_RATE_HZ
            key = f"{samples_sha256(waveform)[:32]}-{stamp[:16]}"
            keys.append(key)
            if kept.get(key) is None and key not in asked:
                asked.add(key)
                order.append(key)
                yield waveform

    order: list[str] = []
    for done, transcript in enumerate(transcribe(transcriber, fresh()), start=1):
        kept.put(order[done - 1], {"text": transcript.text, "problem": transcript.problem})
        if watch is not None:
            wall_s = time.monotonic() - started
            watch(Progress(items_done=len(keys), items_total=len(loads), audio_s=audio_s, wall_s=wall_s))
    records = [kept.get(key) for key in keys]
    return [Transcript(text=record["text"], problem=record["problem"]) for record in records if record is not None]
