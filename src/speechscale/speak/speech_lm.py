"""`SpeechLM`: a model with everything that lets it listen, write and speak.

Enters: a study's run, a bundle or any model folder, or a bundle's name on the hub; then recordings and texts. Leaves:
continuations in speech, text or both, likelihoods, ids. The one decision worth knowing: what belongs to the model
(vocabulary, speech tokenizer, vocoder) is found beside it, and a part that is missing is missed only by what needs it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from speechscale.decode.compiled import CompiledSteps
from speechscale.decode.generate import Continuation, continuations
from speechscale.decode.settings import Decoding, Modality
from speechscale.errors import DataError
from speechscale.model.anatomy import context_limit
from speechscale.model.stock_settings import TEMPERATURE, TOP_K
from speechscale.records import dedup
from speechscale.speak.likelihood import Likelihood, likelihood
from speechscale.speak.opening import following_ids, opening_ids
from speechscale.speak.parts import USUAL_DEDUP, USUAL_RATE_HZ, load_parts
from speechscale.speak.prompts import Prompt, Source, at_rate, prompt_of
from speechscale.speak.spoken import Spoken, new_spans
from speechscale.speak.streaming import Chunk, stream_chunks
from speechscale.speak.voice import DEFAULT_VOICE, Voice, sound_of
from speechscale.speech.units import SpeechTokenizer
from speechscale.speech.vocoders import UnitVocoder
from speechscale.tokens.vocabulary import Vocabulary

SECONDS = 4.0
"""How much new speech where nothing is said."""
TEXT_TOKENS = 60


class Opened(NamedTuple):
    """A prompt, its units (none of a text) and the ids that open the document."""

    prompt: Prompt
    units: Int[np.ndarray, " units"]
    ids: Int[np.ndarray, " ids"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpeechLM:
    """A speech language model ready to use. tokenizer, vocoder: None where there is none.

    Example:
        slm = SpeechLM.from_pretrained("runs/quick/steps/run/loss-adapted/interleaved-0.16M-2e11-s0")
        slm.continue_("x.wav", into="speech").save("y.wav")
        slm.continue_("once upon a time", into="free").text

    Args:
        units_per_second: of the speech it was trained on; turns seconds into tokens. compiled: steps to decode with.
    """

    name: str
    model: Any
    vocabulary: Vocabulary
    tokenizer: SpeechTokenizer | None = None
    vocoder: UnitVocoder | None = None
    units_per_second: float = USUAL_DEDUP * USUAL_RATE_HZ
    notes: tuple[str, ...] = ()
    compiled: CompiledSteps | None = None

    @classmethod
    def from_pretrained(
        cls,
        path_or_name: str | Path,
        *,
        tokenizer: str | Path | None = None,
        vocoder: str | Path | None = None,
        revision: str | None = None,
        device: str = "cpu",
        dtype: str = "fp32",
        compile: bool = False,
    ) -> SpeechLM:
        """Load a model and what belongs to it.

        Args:
            path_or_name: a study's run, a training run, a bundle (docs/publishing.md), or OWNER/NAME of a bundle on the
                hub. Checkpoints of others are imported first: `speechscale model import`.
            tokenizer, vocoder: folders to take instead of those beside the model (docs/vocoder.md).
            device: cpu, cuda or auto. dtype: fp32, bf16 or fp16, of the weights in memory.
            compile: compile steps when they are first needed (tens of seconds); for long work (decode/compiled.py).

        Raises:
            DataError: no model there, no vocabulary lock or a wrong one, parts that do not fit each other.
        """
        parts = load_parts(
            path_or_name, tokenizer=tokenizer, vocoder=vocoder, revision=revision, device=device, dtype=dtype
        )
        return cls(**parts, compiled=CompiledSteps(parts["model"]) if compile else None)

    # -- in and out of ids

    def units(self, sound: Source | Prompt) -> Int[np.ndarray, " units"]:
        """Deduplicated units of a recording.

        Raises:
            DataError: no speech tokenizer, oracle units, a recording shorter than a frame.
        """
        prompt = sound if isinstance(sound, Prompt) else prompt_of(sound)
        if self.tokenizer is None:
            raise DataError(
                f"{self.name}: which speech tokenizer makes this model's units is not known; give it (tokenizer=, "
                "--tokenizer DIR), or a text"
            )
        if self.tokenizer.oracle:
            raise DataError(
                f"{self.name}: its units are the speech engine's own phones (oracle), which no recording has; give a "
                "text (--text)"
            )
        (frames,) = self.tokenizer.units([at_rate(prompt, self.tokenizer.sample_rate_hz)])
        if not len(frames):
            raise DataError(
                f"prompt {prompt.source or prompt.id}: {prompt.seconds:.3g} s are shorter than one frame "
                f"({1 / self.tokenizer.frame_rate_hz:.3g} s); give a longer one"
            )
        return dedup(frames)[0].astype(np.int64)

    def encode(self, source: Source | Prompt, into: Modality = "free") -> Int[np.ndarray, " ids"]:
        """Token ids of a recording or a text as a prompt that `into` is to follow.

        Raises:
            DataError: see `units` and `opening.opening_ids`.
        """
        prompt = source if isinstance(source, Prompt) else prompt_of(source)
        content = self.units(prompt) if prompt.text is None else prompt.text
        return opening_ids(self.vocabulary, prompt.kind, content, into)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids readably. Example: "<speech> <Un12> <Un7> <text> the cat" """
        return self.vocabulary.decode(ids)

    # -- generation

    def settings(
        self,
        into: Modality,
        *,
        seconds: float | None = None,
        max_new_tokens: int | None = None,
        temperature: float = TEMPERATURE,
        top_k: int | None = TOP_K,
        **more: Any,
    ) -> Decoding:
        """Decoding settings with our defaults: temperature 0.8, top-k 25 (Slam, SIMS), 4 s of speech or 60 tokens.

        Args:
            seconds: how much speech; by the usual number of units in a second. max_new_tokens: wins over it.
            more: other fields of `Decoding`.
        """
        if seconds is not None and not 0 < seconds < math.inf:
            raise DataError(f"seconds {seconds}: give a positive number")
        if max_new_tokens is None and (into == "text" or not self.vocabulary.num_units) and seconds is None:
            max_new_tokens = TEXT_TOKENS
        if max_new_tokens is None:
            per_token = float(self.vocabulary.units_per_id().sum()) / max(1, self.vocabulary.num_speech)
            max_new_tokens = max(1, round((seconds or SECONDS) * self.units_per_second / max(1.0, per_token)))
        return Decoding(max_new_tokens=max_new_tokens, modality=into, temperature=temperature, top_k=top_k, **more)

    def continue_(
        self,
        source: Source | Prompt,
        into: Modality = "speech",
        *,
        speaker: str | None = None,
        prompt_sound: bool = True,
        **settings: Any,
    ) -> Spoken:
        """Go on from a recording or a text, once.

        Args:
            source: samples, a file, a text, or a `Prompt`; see `prompts.prompt_of`. into: "speech", "text", or "free".
            speaker: a voice of the vocoder. settings: see `settings`.
            prompt_sound: a spoken prompt is heard before the continuation, both made as one.

        Raises:
            DataError: a direction that this model does not have, a prompt too long for its context (give `window`).
        """
        asked = self.settings(into, **settings)
        voice = Voice(speaker=speaker, prompt_sound=prompt_sound)
        return self.continue_many([source], replace(asked, samples=1), voice)[0][0]

    def continue_many(
        self, sources: Sequence[Source | Prompt], settings: Decoding, voice: Voice = DEFAULT_VOICE
    ) -> list[list[Spoken]]:
        """Go on from several prompts at once, `settings.samples` times each. Errors as `continue_`."""
        prompts = [s if isinstance(s, Prompt) else prompt_of(s, id=f"p{i}") for i, s in enumerate(sources)]
        opened = [self.opened(prompt, settings) for prompt in prompts]
        return self.continue_opened(opened, settings, range(len(opened)), voice)

    def opened(self, prompt: Prompt, settings: Decoding) -> Opened:
        """A prompt, read and laid out; what can be wrong with a prompt is wrong here. Errors as `continue_`."""
        units = self.units(prompt) if prompt.text is None else np.zeros(0, np.int64)
        return Opened(prompt, units, self._opening(prompt, units, settings))

    def continue_opened(
        self, opened: Sequence[Opened], settings: Decoding, numbers: Sequence[int], voice: Voice = DEFAULT_VOICE
    ) -> list[list[Spoken]]:
        """Go on from opened prompts; a prompt draws by its number."""
        ids = [one.ids for one in opened]
        made = continuations(self.model, self.vocabulary, ids, settings, numbers, self.compiled)
        return [
            [self._spoken(one, settings, said, j, voice) for j, said in enumerate(row)]
            for one, row in zip(opened, made, strict=True)
        ]

    def stream(
        self,
        source: Source | Prompt,
        into: Modality = "speech",
        *,
        speaker: str | None = None,
        prompt_sound: bool = True,
        **settings: Any,
    ) -> Iterator[Chunk]:
        """Go on from a prompt and yield units, text and sound as they come; in all, what `continue_` gives.

        The sound of a spoken prompt comes first (`Chunk.prompt`), unless `prompt_sound` is off. Errors as `continue_`.
        """
        prompt, asked = source if isinstance(source, Prompt) else prompt_of(source), self.settings(into, **settings)
        return self.stream_opened(self.opened(prompt, asked), asked, Voice(speaker=speaker, prompt_sound=prompt_sound))

    def stream_opened(self, opened: Opened, settings: Decoding, voice: Voice = DEFAULT_VOICE) -> Iterator[Chunk]:
        """`stream` from an opened prompt."""
        asked, heard = replace(settings, samples=1), voice.heard(opened.units)
        return stream_chunks(
            self.model, self.vocabulary, opened.ids, heard, asked, self.vocoder, voice.speaker, self.compiled
        )

    def _opening(self, prompt: Prompt, units: Int[np.ndarray, " units"], settings: Decoding) -> Int[np.ndarray, " ids"]:
        content = units if prompt.text is None else prompt.text
        opening = opening_ids(self.vocabulary, prompt.kind, content, settings.modality)
        limit = settings.window or context_limit(self.model).tokens
        if settings.window is not None and len(opening) >= limit:  # the newest half of it, as later on
            head, kept = opening[: 1 + int(opening[1] in (self.vocabulary.SPEECH, self.vocabulary.TEXT))], limit // 2
            return np.concatenate([head, opening[len(opening) - (kept - len(head)) :]])
        if len(opening) + settings.max_new_tokens > limit and settings.window is None:
            raise DataError(
                f"prompt {prompt.source or prompt.id}: {len(opening)} tokens and {settings.max_new_tokens} new ones do "
                f"not fit the model's context of {limit}; use its first seconds (prompt_s=, --prompt-s), ask for less, "
                "or let a window slide over them (window=, --window)"
            )
        return opening

    def _spoken(self, opened: Opened, settings: Decoding, one: Continuation, number: int, voice: Voice) -> Spoken:
        heard = voice.heard(opened.units)
        spans, notes = tuple(new_spans(self.vocabulary, one.ids)), []
        audio, rate_hz, prompt_s = np.zeros(0, np.float32), None, 0.0
        speech = any(span.modality == "speech" for span in spans)
        if not one.ids:
            notes.append("the model ended at once and said nothing; try another seed or prompt")
        if self.vocoder is None and (speech or settings.modality == "speech"):
            notes.append("no vocoder: units and text only; name one (vocoder=, --vocoder DIR) to hear them")
        elif self.vocoder is not None and (speech or (len(heard) and settings.modality != "text")):
            sound = sound_of(spans, heard, self.vocoder, voice.speaker)
            spans, audio, rate_hz, prompt_s = sound.spans, sound.audio, sound.rate_hz, sound.prompt_s
        return Spoken(
            prompt=opened.prompt,
            prompt_units=opened.units,
            into=settings.modality,
            ids=one.ids,
            spans=spans,
            ended=one.ended,
            audio=audio,
            rate_hz=rate_hz,
            prompt_s=prompt_s,
            number=number,
            notes=(*self.notes, *notes),
        )

    # -- likelihood

    def score(self, source: Source | Prompt, given: Source | Prompt | None = None) -> Likelihood:
        """How likely a recording or a text is, alone or behind a prompt, under the full softmax.

        Example: slm.score("good.wav").nats_per_token < slm.score("bad.wav").nats_per_token

        Args:
            source: what is scored. given: what comes before it; in another modality a marker parts them.

        Raises:
            DataError: see `encode`; longer than the model's context.
        """
        said = source if isinstance(source, Prompt) else prompt_of(source)
        content = self.units(said) if said.text is None else said.text
        if given is None:
            opening, ending = np.split(opening_ids(self.vocabulary, said.kind, content, said.kind), [1])
        else:
            opening = self.encode(given, into=said.kind)
            ending = following_ids(self.vocabulary, content, opening)
        return likelihood(self.model, self.vocabulary, opening, ending, name=said.source or said.id)
