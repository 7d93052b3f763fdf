"""Align with a CTC model: any transformers one, of characters or phones, and our own Viterbi.

Enters: a waveform and its transcript. Leaves: `Aligned`. The one decision worth knowing: a character the model does not
know becomes a star that matches any stretch, and every gap between words may hold a stretch that is not in the text, so
that noise, repeated words and unknown letters cost their neighborhood and never the utterance.

Long audio goes through the model in windows with context on both sides; the emissions are stitched and the path is
found over all of them at once.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from speechscale.align.aligner import Aligned, Found, failure, put_together, spoken_form, unusable
from speechscale.align.alphabet import Alphabet
from speechscale.align.pronounce import Pronouncer
from speechscale.align.viterbi import STAR, STAR_PENALTY, TokenPath, align_tokens
from speechscale.errors import DataError
from speechscale.speech.audio import resample

WINDOW_S, CONTEXT_S = 30.0, 2.0
"""Audio per forward pass, and how much more it sees on each side."""
MIN_S = 0.1
BAND_STATES = 4096
"""States per frame that the search keeps for long texts: about 2,000 tokens."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_REMEDY = "give a folder or hub id of a CTC model with its tokenizer and feature extractor, weights as safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Emissions:
    """What a model says about one recording.

    Args:
        columns: log probabilities of the wanted ids, in the order asked for.
        best: of the likeliest token but blank. top: of the likeliest token, blank included.
    """

    columns: Float[np.ndarray, "frames ids"]
    best: Float[np.ndarray, " frames"]
    top: Float[np.ndarray, " frames"]


class CtcAligner:
    """Align with a transformers CTC model.

    Args:
        model: folder or hub id. Code from the hub is never run, pickled weights are not read.
        device: "auto" (a GPU if there is one), "cpu", "cuda". dtype: "fp32" or "bf16".
        units: "characters", "phones" (ARPAbet or IPA labels), or "auto" by the vocabulary.
        language: of the text, for writing out numbers.
        stars: let speech that is not in the text stand between words and at the ends.
        star_penalty: nats per frame by which such speech costs more than the likeliest token.
        low_score: words below it are flagged, utterances below it fail. Models differ; see docs/aligning.md.
        dictionary, guess: pronunciations for phones, see `Pronouncer`.

    Raises:
        DataError: a setting, or the model cannot be loaded, is no CTC model, or has no usable vocabulary.
        MissingExtra: a phone model needs the dictionary of the extra `align`.
    """

    name = "ctc"

    def __init__(
        self,
        *,
        model: str = "",
        device: str = "auto",
        dtype: str = "fp32",
        units: str = "auto",
        language: str = "en",
        stars: bool = True,
        star_penalty: float = STAR_PENALTY,
        low_score: float = 0.1,
        window_s: float = WINDOW_S,
        dictionary: str | None = None,
        guess: str = "auto",
    ) -> None:
        for key, value, allowed in (
            ("dtype", dtype, tuple(DTYPES)),
            ("units", units, ("auto", "characters", "phones")),
            ("device", device.partition(":")[0], ("auto", "cpu", "cuda", "mps")),
        ):
            if value not in allowed:
                raise DataError(f"ctc aligner: {key} = '{value}'; allowed are {', '.join(allowed)}")
        if not model:
            raise DataError(f"ctc aligner: no model was named; {_REMEDY}")
        if not window_s >= 1:
            raise DataError(f"ctc aligner: window_s = {window_s}; at least 1 second is needed")
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self.model_id, self.dtype, self.language, self.stars = str(model), DTYPES[dtype], language, stars
        self.star_penalty, self.low_score, self.window_s = star_penalty, low_score, window_s
        self._model, self._extractor, vocabulary = load_ctc(self.model_id, self.dtype, self.device)
        self.sample_rate_hz = int(self._extractor.sampling_rate)
        self.alphabet = Alphabet.of(vocabulary, blank=int(self._model.config.pad_token_id), units=units)
        self.pronouncer: Pronouncer | None = None
        if self.alphabet.phones:
            self.pronouncer = Pronouncer(Path(dictionary) if dictionary else None, guess=guess)
        self.hop_samples = self._measure_hop()
        self._weights = getattr(self._model.config, "_commit_hash", None) or _sha256(Path(self.model_id))

    def config(self) -> dict[str, Any]:
        return {
            "aligner": self.name,
            "model": self.model_id,
            "model_class": type(self._model).__name__,
            "weights": self._weights,
            "dtype": str(self.dtype).removeprefix("torch."),
            "units": self.alphabet.kind,
            "language": self.language,
            "stars": self.stars,
            "star_penalty": self.star_penalty,
            "low_score": self.low_score,
            "window_s": self.window_s,
            "guess": self.pronouncer.guess if self.pronouncer else None,
        }

    def align(self, audio: Float[np.ndarray, " samples"], sample_rate_hz: int, text: str) -> Aligned:
        """Align one utterance of any length."""
        normal = spoken_form(text, self.language, known=self.pronouncer.entries if self.pronouncer else None)
        if isinstance(normal, Aligned):
            return normal
        if (problem := unusable(audio, sample_rate_hz, MIN_S)) is not None:
            return failure(normal, problem)
        tokens, owners, guessed = self.tokens(normal.spoken)
        audio = resample(audio, sample_rate_hz, self.sample_rate_hz)
        try:
            path, top = self._path(audio, tokens, owners)
        except DataError as error:
            return failure(normal, str(error), guessed=guessed)
        found = self._found(path, top, tokens, owners, len(normal.spoken), len(audio))
        windows = math.ceil(len(audio) / (self.window_s * self.sample_rate_hz))
        return put_together(
            normal, found, low_score=self.low_score, guessed=guessed, how=f"{windows} window{'s' * (windows > 1)}"
        )

    def tokens(self, words: Sequence[str]) -> tuple[list[int], list[int], tuple[str, ...]]:
        """Token ids, the word each belongs to, and the words that were guessed or have unknown characters."""
        tokens: list[int] = []
        owners: list[int] = []
        guessed: dict[str, None] = {}
        said = self.pronouncer(words) if self.pronouncer else {}
        for index, word in enumerate(words):
            ids = self.alphabet.sound(said[word].variants[0]) if said else self.alphabet.spell(word)
            if STAR in ids or (said and said[word].guessed):
                guessed[word] = None
            tokens += ids
            owners += [index] * len(ids)
        return tokens, owners, tuple(guessed)

    def emissions(self, audio: Float[np.ndarray, " samples"], ids: Sequence[int]) -> Emissions:
        """Run audio at `sample_rate_hz` through the model, in stitched windows; frame i starts at i * hop_samples."""
        hop = self.hop_samples
        window = max(1, round(self.window_s * self.sample_rate_hz / hop))
        context = round(CONTEXT_S * self.sample_rate_hz / hop)
        total = -(-len(audio) // hop)
        # A short rest goes with the window before it.
        starts = [start for start in range(0, total, window) if start == 0 or total - start > context]
        columns, best, top = [], [], []
        for index, start in enumerate(starts):
            last = index == len(starts) - 1
            stop = total if last else start + window
            first = max(0, start - context)
            part = audio[first * hop : len(audio) if last else (stop + context) * hop]
            logs = self._forward(part)[start - first :]
            logs = logs if last else logs[: stop - start]
            columns.append(logs[:, list(ids)].cpu().numpy())
            top.append(logs.amax(dim=1).cpu().numpy())
            logs[:, self.alphabet.blank] = -torch.inf
            best.append(logs.amax(dim=1).cpu().numpy())
        return Emissions(columns=np.concatenate(columns), best=np.concatenate(best), top=np.concatenate(top))

    def _forward(self, audio: Float[np.ndarray, " samples"]) -> torch.Tensor:
        """Log probabilities [frames, vocabulary] in float32."""
        inputs = self._extractor(audio, sampling_rate=self.sample_rate_hz, return_tensors="pt")
        inputs = {
            key: value.to(self.device, self.dtype if value.is_floating_point() else value.dtype)
            for key, value in inputs.items()
        }
        with torch.no_grad():
            return torch.log_softmax(self._model(**inputs).logits[0].float(), dim=-1)

    def _measure_hop(self) -> int:
        """Samples per frame, from the frames of two lengths, so that kernels and paddings cancel."""
        short, long = 2 * self.sample_rate_hz, 6 * self.sample_rate_hz
        noise = np.random.default_rng(0).normal(0, 0.1, long).astype(np.float32)
        frames = [len(self._forward(noise[:length])) for length in (short, long)]
        if frames[1] <= frames[0]:
            raise DataError(f"ctc aligner: model {self.model_id} gives {frames[1]} frames for 6 s of audio; {_REMEDY}")
        return round((long - short) / (frames[1] - frames[0]))

    def _path(
        self, audio: Float[np.ndarray, " samples"], tokens: list[int], owners: list[int]
    ) -> tuple[TokenPath, Float[np.ndarray, " frames"]]:
        """Best path of the tokens, and the log probability of the likeliest token in each frame."""
        delimiter = self.alphabet.delimiter
        wanted = {self.alphabet.blank, *tokens} | ({delimiter} if delimiter is not None else set())
        ids = sorted(wanted - {STAR})
        said = self.emissions(audio, ids)
        place = {token: column for column, token in enumerate(ids)} | {STAR: STAR}
        star = said.best.astype(np.float64) - self.star_penalty
        filler = star if self.stars else np.full(len(star), -np.inf)
        if delimiter is not None:
            filler = np.maximum(filler, said.columns[:, place[delimiter]])
        gaps = np.ones(len(tokens) + 1, bool)
        gaps[1:-1] = np.diff(owners) != 0
        path = align_tokens(
            said.columns,
            np.array([place[token] for token in tokens]),
            blank=place[self.alphabet.blank],
            star_gaps=gaps,
            star=star,
            filler=filler,
            band=BAND_STATES if 2 * len(tokens) > BAND_STATES else None,
        )
        return path, said.top

    def _found(
        self, path: TokenPath, top: np.ndarray, tokens: list[int], owners: list[int], words: int, samples: int
    ) -> list[Found | None]:
        """Seconds and scores of words: exp of the mean of log p(token) - log p(likeliest); stars are left out."""
        seconds = self.hop_samples / self.sample_rate_hz
        end_s = samples / self.sample_rate_hz
        sums = np.concatenate(([0.0], np.cumsum(top, dtype=np.float64)))
        lengths = path.end_frames - path.start_frames
        ratios = path.scores - (sums[path.end_frames] - sums[path.start_frames]) / lengths
        found: list[Found | None] = []
        first = np.searchsorted(owners, np.arange(words + 1))
        for start, stop in pairwise(first):
            known = [ratios[i] for i in range(start, stop) if tokens[i] != STAR]
            found.append(
                Found(
                    start_s=round(min(path.start_frames[start] * seconds, end_s), 4),
                    end_s=round(min(path.end_frames[stop - 1] * seconds, end_s), 4),
                    score=round(math.exp(float(np.mean(known))), 4) if known else 0.0,
                )
            )
        return found

    def close(self) -> None:
        """Stop the voice engine that may have been started for unknown words."""
        if self.pronouncer is not None:
            self.pronouncer.close()


def load_ctc(model: str, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any, dict[str, int]]:
    """Load model, feature extractor and vocabulary from a folder or the hub.

    Raises:
        DataError: something is missing, is pickled, or is not a CTC model.
    """
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForCTC
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        loaded = AutoModelForCTC.from_pretrained(
            model, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
        extractor = AutoFeatureExtractor.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise DataError(f"ctc aligner: model '{model}' cannot be loaded ({reason}); {_REMEDY}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    vocabulary = _vocabulary(model)
    size = int(loaded.config.vocab_size)
    if loaded.config.pad_token_id is None or not 0 <= int(loaded.config.pad_token_id) < size:
        raise DataError(f"ctc aligner: model '{model}' names no blank (config.pad_token_id); {_REMEDY}")
    if max(vocabulary.values()) >= size:
        raise DataError(
            f"ctc aligner: the tokenizer of '{model}' has ids up to {max(vocabulary.values())}, the model {size} "
            f"outputs; {_REMEDY}"
        )
    return loaded.to(device).eval(), extractor, vocabulary


def _sha256(folder: Path) -> str:
    """Hash of a folder's weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _vocabulary(model: str) -> dict[str, int]:
    """Label -> id: vocab.json of a local folder (some tokenizers need programs we do not), else the tokenizer's."""
    path = Path(model) / "vocab.json"
    if path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"ctc aligner: {path} is not readable as JSON ({error}); {_REMEDY}") from error
        if isinstance(content, dict) and content and all(type(id) is int for id in content.values()):
            return content
        # Multilingual models keep one vocabulary per language; the tokenizer knows which is set.
    from transformers import AutoTokenizer

    try:
        return dict(AutoTokenizer.from_pretrained(model, trust_remote_code=False).get_vocab())
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise DataError(f"ctc aligner: the tokenizer of '{model}' cannot be loaded ({error}); {_REMEDY}") from error
