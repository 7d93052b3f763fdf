"""From speech to text, by whatever recognizes it.

Enters: waveforms at 16 kHz. Leaves: `Transcript`s, one per waveform, in order. The one decision worth knowing: silence
and clips too short to hold a word are never shown to a recognizer: they have an empty transcript and a reason, because
recognizers such as Whisper invent words there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from speechscale.corpus.judge import PocketsphinxJudge, prepare_judge
from speechscale.errors import DataError
from speechscale.evals.weights import weights_sha256
from speechscale.files import canonical_sha256, read_json
from speechscale.speech.audio import TARGET_RATE_HZ
from speechscale.speech.encoders.model_files import file_sha256

SHORTEST_S = 0.1
SILENT_PEAK = 1e-3
"""Waveforms that never leave this (-60 dB of full scale) are silence."""
LONG_S = 30.0
"""Whisper hears this much at once; longer clips ask it for time stamps, by which it goes on."""


class Transcriber(Protocol):
    """What recognizes speech: waveforms at 16 kHz in, one text each out, in order."""

    def stamp(self) -> dict[str, Any]:
        """What decides a transcript, as plain JSON."""
        ...

    def __call__(self, waveforms: Sequence[Float[np.ndarray, " samples"]]) -> list[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """What was heard. problem: why a transcript is empty ("" where words were heard)."""

    text: str
    problem: str = ""


def transcribe(
    transcriber: Transcriber, waveforms: Iterable[Float[np.ndarray, " samples"]], *, batch: int = 8
) -> Iterator[Transcript]:
    """Recognize waveforms one after the other, `batch` at a time; silence is not shown to the recognizer.

    Raises:
        DataError: samples that are NaN or infinite, or a recognizer that loses a waveform.
    """
    held: list[np.ndarray] = []
    for waveform in waveforms:
        held.append(waveform)
        if len(held) == batch:
            yield from _recognize(transcriber, held)
            held = []
    if held:
        yield from _recognize(transcriber, held)


def _recognize(transcriber: Transcriber, waveforms: Sequence[np.ndarray]) -> Iterator[Transcript]:
    problems = [problem_of(waveform) for waveform in waveforms]
    heard = iter(transcriber([w for w, problem in zip(waveforms, problems, strict=True) if not problem]))
    for problem in problems:
        text = "" if problem else next(heard, None)
        if text is None:
            raise DataError("the recognizer gave fewer texts than it got waveforms; use another one")
        text = text.strip()
        yield Transcript(text=text, problem=problem or ("" if text else "nothing was recognized"))


def problem_of(waveform: Float[np.ndarray, " samples"]) -> str:
    """Why a waveform has no words, or "". Example: zeros -> "silence" """
    if len(waveform) < SHORTEST_S * TARGET_RATE_HZ:
        return f"shorter than {SHORTEST_S:g} s"
    if not np.isfinite(waveform).all():
        raise DataError("a waveform to recognize holds NaN or infinite samples; make it again or drop it")
    return "silence" if float(np.abs(waveform).max()) <= SILENT_PEAK else ""


class PocketsphinxTranscriber:
    """Recognize offline with a bigram model of given texts (`corpus.judge`).

    It knows the words of these texts only and prefers their order, so it repairs what it hears: its texts are likelier
    than what was said. Compare models by it, on equal texts; never take its numbers beside those of another recognizer.

    Args:
        folder: the language model is kept here. texts: what it is counted on, where the folder has none yet.

    Raises:
        MissingExtra: pocketsphinx is not installed. DataError: no words, or a folder made from other texts.
    """

    def __init__(self, folder: Path, texts: Iterable[str]) -> None:
        self.judge: PocketsphinxJudge = prepare_judge(folder, texts)

    def stamp(self) -> dict[str, Any]:
        counts = read_json(self.judge.folder / "judge.json", "recognizer", "delete its folder and run again")
        texts = {name: file_sha256(self.judge.folder / name) for name in ("words.arpa", "words.dict")}
        return {
            "asr": "pocketsphinx",
            "version": version("pocketsphinx"),
            "language_model": {**counts, "sha256": canonical_sha256(texts)},
        }

    def __call__(self, waveforms: Sequence[Float[np.ndarray, " samples"]]) -> list[str]:
        return [" ".join(self.judge.hear(waveform)) for waveform in waveforms]


class PipelineTranscriber:
    """Recognize with any transformers speech-recognition model: Whisper, wav2vec 2.0, ...

    Safetensors only, no code from outside. Greedy, one waveform at a time, so that a transcript does not depend on its
    neighbors.

    Args:
        name: a folder with config, processor and safetensors, or a hub name such as "openai/whisper-large-v3-turbo".
        language: told to models that ask for one (Whisper with many languages); None lets them guess.

    Raises:
        DataError: nothing there that can be read.
    """

    def __init__(self, name: Path | str, *, device: str = "cpu", language: str | None = None) -> None:
        folder = Path(name)
        self.name, self.language = folder.resolve().name if folder.is_dir() else str(name), language
        try:
            self.pipe = _pipeline(str(name), device, {"local_files_only": folder.is_dir()})
        except Exception as error:  # the hub's client, os, json and transformers each raise their own
            raise DataError(
                f"speech recognizer '{name}' cannot be read ({str(error).strip().partition(chr(10))[0]}); give a "
                "folder with config.json, its processor and *.safetensors, or a hub name that can be reached"
            ) from error
        self.sha256 = weights_sha256(self.pipe.model)  # also of the hub's, where a name may come to mean others

    def stamp(self) -> dict[str, Any]:
        return {
            "asr": self.name,
            "sha256": self.sha256,
            "language": self.language,
            "version": version("transformers"),
        }

    def __call__(self, waveforms: Sequence[Float[np.ndarray, " samples"]]) -> list[str]:
        return [self._text(waveform) for waveform in waveforms]

    def _text(self, waveform: Float[np.ndarray, " samples"]) -> str:
        return str(self.heard(waveform)["text"])

    def heard(self, waveform: Float[np.ndarray, " samples"], *, timestamps: bool | str = False) -> dict[str, Any]:
        """What the pipeline says of one waveform. timestamps: "word" asks Whisper for the times of words."""
        options: dict[str, Any] = {}
        if self.pipe.type == "seq2seq_whisper":
            settings: dict[str, Any] = {"do_sample": False, "num_beams": 1}
            if self.language is not None and getattr(self.pipe.model.generation_config, "is_multilingual", False):
                settings |= {"language": self.language, "task": "transcribe"}
            options["generate_kwargs"] = settings
            if len(waveform) > LONG_S * TARGET_RATE_HZ:
                options["return_timestamps"] = True
        if timestamps:
            options["return_timestamps"] = timestamps
        audio = {"raw": np.ascontiguousarray(waveform, np.float32), "sampling_rate": TARGET_RATE_HZ}
        found: dict[str, Any] = self.pipe(audio, **options)
        return found


def _pipeline(name: str, device: str, options: dict[str, Any]) -> Any:
    """The pipeline around a model that we load ourselves, so that its files hold no code."""
    import torch
    from transformers import (
        AutoConfig,
        AutomaticSpeechRecognitionPipeline,
        AutoModelForCTC,
        AutoModelForSpeechSeq2Seq,
        AutoProcessor,
    )
    from transformers.models.auto.modeling_auto import MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING

    config = AutoConfig.from_pretrained(name, trust_remote_code=False, **options)
    kind: Any = AutoModelForSpeechSeq2Seq if type(config) in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING else AutoModelForCTC
    model = kind.from_pretrained(
        name, config=config, trust_remote_code=False, use_safetensors=True, dtype=torch.float32, **options
    )
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=False, **options)
    return AutomaticSpeechRecognitionPipeline(
        model=model.eval(),
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
        device=torch.device(device),
    )


def open_transcriber(
    name: str,
    *,
    folder: Path,
    texts: Iterable[str] | None = None,
    device: str = "cpu",
    language: str | None = None,
) -> Transcriber:
    """The recognizer that `--asr NAME` means: "pocketsphinx", or a transformers model by folder or hub name.

    Args:
        folder: where pocketsphinx keeps its language model. texts: what it is counted on.

    Raises:
        DataError: pocketsphinx without texts, or a model that cannot be read.
    """
    if name != "pocketsphinx":
        return PipelineTranscriber(name, device=device, language=language)
    if texts is None:
        raise DataError("pocketsphinx: needs texts to count its language model on; give --asr-texts FILE")
    return PocketsphinxTranscriber(folder, texts)
