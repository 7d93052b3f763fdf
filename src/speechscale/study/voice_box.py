"""Let a run of a finished study speak: a prompt of speech or text in, a wav out.

Enters: the folder of a run step, a wav or a text. Leaves: audio of what the model says.
The one decision worth knowing: everything needed (speech tokenizer, vocoder) is found through the run's own record:
a run's folder is all a user names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechscale.decode.generate import continue_units, generate
from speechscale.errors import DataError
from speechscale.evals.layouts import prompt_ids
from speechscale.model.slm import load_model
from speechscale.records import dedup
from speechscale.speech.audio import load_audio
from speechscale.speech.units import SpeechTokenizer
from speechscale.speech.vocoders import open_vocoder
from speechscale.study.located import locate
from speechscale.tokens.vocabulary import Vocabulary

USUAL_UNITS_PER_SECOND = 19.0
"""Where the speech a model was trained on is not known; HuBERT units at 25 Hz, deduplicated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What came out. prompt_units is empty for a text prompt. rate_hz: of the audio."""

    audio: np.ndarray
    rate_hz: int
    prompt_units: np.ndarray
    new_units: np.ndarray


def say(
    run: Path,
    *,
    prompt: Path | None = None,
    text: str | None = None,
    seconds: float = 4.0,
    temperature: float = 0.8,
    top_k: int | None = 25,
    seed: int = 0,
    vocoder: Path | None = None,
    speaker: str | None = None,
) -> Said:
    """Continue a recording or a text in speech.

    Args:
        run: folder of a run step of a study with a vocoder, e.g. runs/quick/steps/run/PART/ARM-SIZE-...; see `locate`.
        prompt: audio to go on from. text: words to go on from; exactly one of the two.
        vocoder: another one than the study's (docs/vocoder.md). speaker: one of its voices, by default the first.

    Raises:
        DataError: not a run's folder, a study without vocoder, oracle units with an audio prompt, a textless model with
            a text prompt, a prompt that leaves no room in the model's context.
    """
    if (prompt is None) == (text is None):
        raise DataError("give exactly one of --prompt (audio) and --text")
    located = locate(run, vocoder=vocoder)
    vocabulary = located.load_vocabulary()
    if not vocabulary.num_units:
        raise DataError(f"{run}: this run has no speech (a text arm); choose a run of another arm")
    if located.vocoder is None:
        raise DataError(
            f"no vocoder for {run}; set [vocoder] enabled = true and run the study again, or name one with --vocoder"
        )
    tokenizer, sound = SpeechTokenizer.load(located.need_tokenizer()), open_vocoder(located.vocoder)
    model = load_model(located.folder)
    spoken = np.zeros(0, np.int64) if prompt is None else _heard(prompt, tokenizer)
    opening = len(spoken) if text is None else len(vocabulary.encode_text([text]).flat) + 2
    room = model.config.max_position_embeddings - opening - 2
    if room < 1:
        raise DataError(f"the prompt has {opening} tokens, the model's context {room + opening + 2}; use a shorter one")
    wanted = min(room, max(1, round(seconds * (located.units_per_second or USUAL_UNITS_PER_SECOND))))
    if text is None:
        (new,) = continue_units(
            model, vocabulary, [spoken], max_new_units=wanted, temperature=temperature, top_k=top_k, seed=seed
        )
    else:
        new = _from_text(model, vocabulary, text, wanted, temperature, top_k, seed)
    units = np.concatenate([spoken, np.asarray(new, np.int64)])
    if not len(units):
        raise DataError("the model ended at once and said nothing; try another --seed or prompt")
    audio = sound.synthesize(units, speaker=speaker)
    return Said(audio=audio, rate_hz=sound.sample_rate_hz, prompt_units=spoken, new_units=np.asarray(new))


def _heard(prompt: Path, tokenizer: SpeechTokenizer) -> np.ndarray:
    if tokenizer.oracle:
        raise DataError(
            "this run's units are the speech engine's own phones (oracle), which no recording has; use --text"
        )
    (frames,) = tokenizer.units([load_audio(prompt, sample_rate_hz=tokenizer.sample_rate_hz).audio])
    if not len(frames):
        raise DataError(f"{prompt}: shorter than one frame ({1 / tokenizer.frame_rate_hz:.3g} s); give a longer prompt")
    return dedup(frames)[0].astype(np.int64)


def _from_text(
    model: object, vocabulary: Vocabulary, text: str, wanted: int, temperature: float, top_k: int | None, seed: int
) -> np.ndarray:
    if vocabulary.SPEECH is None:
        raise DataError(
            "this run has no text vocabulary (a textless arm); use --prompt, or a run of an interleaved arm"
        )
    words = vocabulary.encode_text([text.lower() if vocabulary.unk_id is not None else text]).flat
    unknown = int(np.count_nonzero(words == vocabulary.unk_id)) if vocabulary.unk_id is not None else 0
    if not len(words) or unknown:
        raise DataError(
            f"'{text}': {unknown} of {len(words)} tokens are unknown to this model; use words of its stories"
        )
    (ids,) = generate(
        model,
        vocabulary,
        [prompt_ids(vocabulary, "ts", words)],
        max_new_tokens=wanted,
        modality="speech",
        temperature=temperature,
        top_k=top_k,
        seed=seed,
    )
    return vocabulary.units_of(np.asarray(ids, np.int64))[:wanted]
