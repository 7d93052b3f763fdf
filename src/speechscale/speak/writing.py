"""Continuations of many prompts on disk.

Enters: a `SpeechLM`, prompts, settings. Leaves: OUT/recipe.json, samples.jsonl, audio/, skips.jsonl, index.html. The
one decision worth knowing: a prompt draws by its number, whatever stands beside it, and is kept as soon as it is done:
the same command goes on after a stop, to the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speechscale.decode.settings import Decoding
from speechscale.errors import DataError
from speechscale.evals.generation.heard_words import words_heard, write_words
from speechscale.evals.generation.kept import Kept
from speechscale.evals.generation.transcribe import Transcriber
from speechscale.evals.weights import weights_sha256
from speechscale.files import claim_recipe, complete_file, held_alone
from speechscale.progress import Progress, Watch
from speechscale.report.samples_page import samples_page
from speechscale.skips import SkipLog
from speechscale.speak.prompts import Waiting
from speechscale.speak.speech_lm import SpeechLM
from speechscale.speak.spoken import Spoken
from speechscale.speak.voice import Voice
from speechscale.speech.audio import write_audio

FORMAT, FORMAT_VERSION = "speechscale samples", 1
BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to write.

    Args:
        speaker: of the vocoder. recognizer: hears words and their times in what was spoken; None: no words.
        batch: prompts at once. page: write index.html.
    """

    speaker: str | None = None
    recognizer: Transcriber | None = None
    batch: int = BATCH
    page: bool = True


def write_samples(
    slm: SpeechLM,
    prompts: Sequence[Waiting],
    settings: Decoding,
    out: Path,
    wanted: Wanted | None = None,
    *,
    watch: Watch | None = None,
) -> tuple[list[dict[str, Any]], SkipLog]:
    """Continue every prompt and keep what comes; the same call goes on after an interruption.

    A batch that was cut short is made again as a whole, since rounding depends a little on what stands beside a prompt.

    Returns:
        The lines of samples.jsonl, and the prompts without one, each with its reason.

    Raises:
        DataError: no prompt can be used, or another process writes into `out`. StaleStep: `out` holds samples of
            another recipe.
    """
    with held_alone(out, "is generating into it"):
        return _written(slm, prompts, settings, out, wanted or Wanted(), watch)


def _written(
    slm: SpeechLM, prompts: Sequence[Waiting], settings: Decoding, out: Path, wanted: Wanted, watch: Watch | None
) -> tuple[list[dict[str, Any]], SkipLog]:
    claim_recipe(out, _recipe(slm, prompts, settings, wanted), "samples")
    kept, skips, records = Kept(out / "kept.jsonl"), SkipLog(), []
    started, before = time.monotonic(), len(kept)
    for first in range(0, len(prompts), wanted.batch):
        numbers = range(first, min(first + wanted.batch, len(prompts)))
        missing = {number for number in numbers if not _is_whole(kept.get(str(number)), out)}
        if missing:
            _make(slm, prompts, numbers, missing, settings, wanted, out, kept)
        for number in numbers:
            entry = kept.get(str(number))
            assert entry is not None
            if "skip" in entry:
                skips.add(prompts[number].id, *entry["skip"])
            else:
                records += entry["records"]
        if watch is not None:
            done = numbers.stop
            watch(
                Progress(
                    items_done=max(0, done - before),
                    items_kept=min(before, done),
                    items_total=len(prompts),
                    audio_s=sum(record["seconds"] for record in records),
                    wall_s=time.monotonic() - started,
                )
            )
    skips.check(read=len(prompts), kept=len({record["prompt"]["id"] for record in records}))
    skips.write(out / "skips.jsonl")
    if not records:
        raise DataError(f"none of {len(prompts)} prompts can be used ({skips.first()})")
    records = json.loads(json.dumps(records, sort_keys=True))  # as they come back from a stop
    _write(out, records, slm, wanted)
    return records, skips


def _recipe(slm: SpeechLM, prompts: Sequence[Waiting], settings: Decoding, wanted: Wanted) -> dict[str, Any]:
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(json.dumps([prompt.id, prompt.sha256()]).encode())
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": {"name": slm.name, "sha256": weights_sha256(slm.model)},
        "vocabulary": slm.vocabulary.fingerprint,
        "speech_tokenizer": None if slm.tokenizer is None else slm.tokenizer.fingerprint,
        "vocoder": None if slm.vocoder is None else _vocoder_stamp(slm.vocoder),
        "speaker": wanted.speaker,
        "recognizer": None if wanted.recognizer is None else wanted.recognizer.stamp(),
        "prompts": {"count": len(prompts), "sha256": digest.hexdigest()},
        "settings": asdict(settings),
    }


def _vocoder_stamp(vocoder: Any) -> list[str]:
    return [type(vocoder).__name__, weights_sha256(vocoder.network)]


def _is_whole(entry: dict[str, Any] | None, out: Path) -> bool:
    """Whether a prompt is done and its sound still there."""
    if entry is None or "skip" in entry:
        return entry is not None
    paths = [path for record in entry["records"] for path in (record["audio"], record["prompt"]["audio"]) if path]
    return all((out / path).is_file() for path in paths)


def _make(
    slm: SpeechLM,
    prompts: Sequence[Waiting],
    numbers: Sequence[int],
    missing: set[int],
    settings: Decoding,
    wanted: Wanted,
    out: Path,
    kept: Kept,
) -> None:
    """Continue a batch and keep those that are missing; a prompt that cannot be used leaves its reason."""
    usable = []
    for number in numbers:
        try:
            usable.append((number, slm.opened(prompts[number].read(), settings)))
        except DataError as error:
            reason, _, remedy = str(error).rpartition("; ")
            if number in missing:
                kept.put(str(number), {"skip": [reason or remedy, remedy]})
    if not usable:
        return
    opened = [one for _, one in usable]
    made = slm.continue_opened(opened, settings, [n for n, _ in usable], Voice(speaker=wanted.speaker))
    for (number, _), row in zip(usable, made, strict=True):
        if number in missing:
            kept.put(str(number), {"records": [_kept(out, one, settings, wanted) for one in row]})


def _kept(out: Path, one: Spoken, settings: Decoding, wanted: Wanted) -> dict[str, Any]:
    """Write the sound of one continuation and describe it."""
    id, audio, prompt_audio = f"{one.prompt.id}-{one.number}", "", ""
    if one.prompt.audio is not None:
        prompt_audio = f"audio/{one.prompt.id}-prompt.wav"
        if one.number == 0:
            write_audio(out / prompt_audio, one.prompt.audio, one.prompt.rate_hz)
    if len(one.audio):
        audio = f"audio/{id}.wav"
        one.save(out / audio)
    record = one.record(
        id=id, audio=audio, prompt_audio=prompt_audio, seed=settings.seed, settings=_shown_settings(settings)
    )
    if audio and wanted.recognizer is not None and one.rate_hz is not None:
        heard = words_heard(wanted.recognizer, one.audio, one.rate_hz)
        record |= {"words": heard.records(), "words_by": heard.by}
        record["notes"] += [heard.note] if heard.note else []
        if record["words"]:
            timed = [word for word in heard.words if word.start_s is not None]
            write_words(out / audio, timed, duration_s=one.seconds)
    return record


def _shown_settings(settings: Decoding) -> dict[str, Any]:
    hidden = ("seed", "modality")
    return {key: value for key, value in asdict(settings).items() if key not in hidden and value is not None}


def _write(out: Path, records: list[dict[str, Any]], slm: SpeechLM, wanted: Wanted) -> None:
    with complete_file(out / "samples.jsonl") as draft:
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if wanted.page:
        facts = {"model": slm.name, "parameters": f"{slm.model.num_parameters():,}"}
        page = samples_page(records, out, title=f"What {slm.name} says", facts=facts)
        with complete_file(out / "index.html") as draft:
            draft.write_text(page, encoding="utf-8")
