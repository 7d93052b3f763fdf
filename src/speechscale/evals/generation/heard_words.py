"""Words of speech that has no transcript, with the times at which they sound.

Enters: a recognizer (`transcribe`), a waveform of any rate. Leaves: `WordsHeard`, and files of words beside a
recording. The one decision worth knowing: these are the recognizer's words, not what a model meant to say; times lie
inside the audio and in order, and a recognizer that has none gives words without times and says so, never guessed ones.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from speechscale.align.formats.registry import FORMATS
from speechscale.align.formats.writing import write_alignment
from speechscale.errors import DataError
from speechscale.evals.generation.transcribe import (
    PipelineTranscriber,
    PocketsphinxTranscriber,
    Transcriber,
    problem_of,
)
from speechscale.records import Word
from speechscale.speech.audio import TARGET_RATE_HZ, resample

SPHINX_FRAME_S = 0.01
NO_TIMES = "{} gives no times of words: they have none"


@dataclass(frozen=True, slots=True, kw_only=True)
class WordsHeard:
    """The words of one waveform, in order.

    Args:
        words: seconds from its start, None where the recognizer gives none; score in [0, 1], None where there is none.
        by: the recognizer. note: why there are no words, or no times; "" otherwise.
    """

    words: tuple[Word, ...]
    by: str
    note: str = ""

    def records(self) -> list[dict[str, Any]]:
        """The words that have times, as a sample's record holds them."""
        return [
            {"text": word.text, "start_s": word.start_s, "end_s": word.end_s}
            for word in self.words
            if word.start_s is not None
        ]


def words_heard(recognizer: Transcriber, audio: Float[np.ndarray, " samples"], rate_hz: int) -> WordsHeard:
    """Recognize the words of a waveform and when they sound.

    Example: words_heard(open_transcriber("pocketsphinx", folder=..., texts=...), audio, 16_000).words
        -> (Word(text="the", start_s=0.03, end_s=0.11, score=0.72), ...)

    Args:
        audio: mono, [-1, 1]. Silence and clips under 0.1 s are not shown to the recognizer and have no words.

    Raises:
        DataError: samples that are NaN or infinite. MissingExtra: when the recognizer was opened, see there.
    """
    by = str(recognizer.stamp()["asr"])
    heard = resample(np.asarray(audio, np.float32), rate_hz, TARGET_RATE_HZ) if len(audio) else np.asarray(audio)
    if problem := problem_of(heard):
        return WordsHeard(words=(), by=by, note=problem)
    if isinstance(recognizer, PocketsphinxTranscriber):
        found = _by_pocketsphinx(recognizer, heard)
    elif isinstance(recognizer, PipelineTranscriber):
        found = _by_pipeline(recognizer, heard)
    else:
        found = _untimed(recognizer([heard])[0])
    words = in_order(found, duration_s=len(audio) / rate_hz)
    note = "" if words else "nothing was recognized"
    if any(word.start_s is None for word in words):
        note = NO_TIMES.format(by)
    return WordsHeard(words=words, by=by, note=note)


def in_order(words: Iterable[Word], *, duration_s: float) -> tuple[Word, ...]:
    """Words with their times moved inside the audio and behind the word before; a millisecond is the grid.

    Example: (0.5, 0.9), (0.8, 1.3) in 1.2 s of audio -> (0.5, 0.9), (0.9, 1.2)
    """
    end = math.floor(1000 * duration_s + 1e-6) / 1000
    reached, settled = 0.0, []
    for word in words:
        if word.start_s is None or word.end_s is None:
            settled.append(Word(text=word.text))
            continue
        start_s = min(max(round(word.start_s, 3), reached), end)
        reached = min(max(round(word.end_s, 3), start_s), end)
        settled.append(Word(text=word.text, start_s=start_s, end_s=reached, score=word.score))
    return tuple(settled)


def write_words(
    recording: Path, words: Sequence[Word], *, duration_s: float, formats: Sequence[str] = ("textgrid",)
) -> list[Path]:
    """Write words beside a recording, one file per format; return the files.

    Example: write_words(Path("audio/p0-0.wav"), heard.words, duration_s=4.2) -> [Path("audio/p0-0.TextGrid")]

    Args:
        formats: those that `align.formats` writes: textgrid, ctm, rttm, lhotse, whisperx, slamkit.

    Raises:
        DataError: a format that is not written, two that would be one file, words out of order or past the end.
    """
    files = [recording.with_suffix(FORMATS[name].suffixes[0] if name in FORMATS else "") for name in formats]
    if len(set(files)) < len(files):
        raise DataError(
            f"{recording}: two of the formats {', '.join(formats)} have one suffix; write one of them, the other "
            "into another folder"
        )
    for file, name in zip(files, formats, strict=True):
        write_alignment(file, words, duration_s=duration_s, format=name, recording=recording.stem)
    return files


def _by_pocketsphinx(recognizer: PocketsphinxTranscriber, audio: np.ndarray) -> list[Word]:
    return [
        Word(text=text, start_s=start * SPHINX_FRAME_S, end_s=stop * SPHINX_FRAME_S, score=round(score, 4))
        for text, start, stop, score in recognizer.judge.hear_times(audio)
    ]


def _by_pipeline(recognizer: PipelineTranscriber, audio: np.ndarray) -> list[Word]:
    kind = recognizer.pipe.type
    if kind == "ctc":
        return _by_ctc(recognizer.pipe, audio)
    if kind == "seq2seq_whisper" and getattr(recognizer.pipe.model.generation_config, "alignment_heads", None):
        with warnings.catch_warnings():  # transformers warns where a text has a single token
            warnings.filterwarnings("ignore", r"std\(\): degrees of freedom")
            chunks = recognizer.heard(audio, timestamps="word").get("chunks", [])
        return [_chunk(chunk["text"].strip(), *chunk["timestamp"]) for chunk in chunks if chunk["text"].strip()]
    return _untimed(recognizer([audio])[0])


def _by_ctc(pipe: Any, audio: np.ndarray) -> list[Word]:
    """The likeliest label of each frame, as in the transcript; a word's score is the mean probability of its frames."""
    import torch

    inputs = pipe.feature_extractor(audio, sampling_rate=TARGET_RATE_HZ, return_tensors="pt")
    with torch.inference_mode():
        logits = pipe.model(**{name: value.to(pipe.device) for name, value in inputs.items()}).logits[0].float()
    chances, labels = torch.softmax(logits, dim=-1).max(dim=-1)
    found = pipe.tokenizer.decode(labels.cpu(), output_word_offsets=True)
    if isinstance(found, str):  # a tokenizer that keeps no count of frames
        return _untimed(found)
    # Frames start a hop apart; models that do not name it have as good as equally many over the whole.
    hop_s = getattr(pipe.model.config, "inputs_to_logits_ratio", len(audio) / len(labels)) / TARGET_RATE_HZ
    words = []
    for entry in found["word_offsets"]:
        start, stop = int(entry["start_offset"]), int(entry["end_offset"])
        score = round(float(chances[start:stop].mean()), 4)
        words.append(Word(text=entry["word"], start_s=start * hop_s, end_s=stop * hop_s, score=score))
    return words


def _chunk(text: str, start_s: float | None, end_s: float | None) -> Word:
    """Whisper leaves the end of what was cut off unknown."""
    return Word(text=text, start_s=start_s, end_s=start_s if end_s is None else end_s)


def _untimed(text: str) -> list[Word]:
    return [Word(text=word) for word in text.split()]
