"""Align with pocketsphinx: offline, the English model of its wheel.

Enters: a waveform and its transcript. Leaves: `Aligned`. The one decision worth knowing: a quick pass with narrow beams
decides the easy cases; what fails or scores low goes through passes that compute every senone, with ever wider beams,
where the score parts a hard voice from a wrong transcript. Audio beyond `WHOLE_S` is aligned stretch by stretch: each
stretch may end after any word of a text window, and the next one starts in a pause that was found.

This is C code: run it in a process of its own (`speechscale.corpus.aligning` does).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from speechscale.align.aligner import Aligned, Found, failure, put_together, spoken_form, unusable
from speechscale.align.pronounce import Pronouncer, Pronunciation
from speechscale.errors import DataError, MissingExtra
from speechscale.speech.audio import TARGET_RATE_HZ, resample

FRAME_S = 0.01
WHOLE_S = 90.0
"""Audio up to this length is aligned in one piece."""
STRETCH_S, SEARCH_S, MARGIN_S = 60.0, 10.0, 4.0
"""Length of a stretch; where at its end the quietest place is looked for; words that end in the last MARGIN_S of a
stretch are left to the next one."""
MIN_S = 0.05
LOG_BASE = 1e-4
"""pocketsphinx gives scores as exp(LOG_BASE * frames' summed score)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One try: beam for states, phones and words; whether every senone is computed; how its scores are read.

    `middle` and `width` turn the mean score per frame into [0, 1]: 1 / (1 + exp((middle - mean) / width)). Calibrated
    on dev-ljspeech and 16 espeak voices, right and swapped transcripts (docs/aligning.md).
    """

    name: str
    beam: float
    all_senones: bool
    middle: float
    width: float
    accept: float

    def score(self, mean: float) -> float:
        return 1 / (1 + math.exp(min((self.middle - mean) / self.width, 60.0)))


PASSES = (
    Pass(name="beam 1e-48", beam=1e-48, all_senones=False, middle=-30.0, width=5.0, accept=0.5),
    Pass(name="beam 1e-120, all senones", beam=1e-120, all_senones=True, middle=-70.0, width=10.0, accept=0.2),
    Pass(name="beam 1e-300, all senones", beam=1e-300, all_senones=True, middle=-70.0, width=10.0, accept=0.0),
)
"""The first pass whose score reaches `accept` wins; the last one is taken as it is."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one pass found: (start frame, end frame, score) per word of the chain it covered, and its mean score."""

    words: list[tuple[int, int, float]]
    score: float
    used: Pass


@dataclass(slots=True)
class _Track:
    """Where the stretches of a long recording stand."""

    found: list[Found] = field(default_factory=list)
    passes: list[str] = field(default_factory=list)
    stretches: int = 0
    lost_s: float | None = None


class SphinxAligner:
    """Force-align English with pocketsphinx.

    Args:
        dictionary: pronunciations in Sphinx form; by default the CMU dictionary of the wheel.
        guess: how unknown words are pronounced, see `Pronouncer`.
        low_score: words below it are flagged, utterances below it fail.

    Raises:
        MissingExtra: pocketsphinx is not installed.
        DataError: the dictionary cannot be used.
    """

    name = "pocketsphinx"

    def __init__(self, *, dictionary: str | None = None, guess: str = "auto", low_score: float = 0.25) -> None:
        try:
            self._library: Any = importlib.import_module("pocketsphinx")
        except ImportError as error:
            raise MissingExtra("aligning with pocketsphinx", "align") from error
        self._dictionary = dictionary
        self.pronouncer = Pronouncer(Path(dictionary) if dictionary else None, guess=guess)
        self.low_score = low_score
        self._decoders: dict[bool, Any] = {}

    def config(self) -> dict[str, Any]:
        return {
            "aligner": self.name,
            "version": importlib.metadata.version("pocketsphinx"),
            "dictionary": self._dictionary or "wheel",
            "guess": self.pronouncer.guess,
            "low_score": self.low_score,
            "passes": [used.name for used in PASSES],
        }

    def align(self, audio: Float[np.ndarray, " samples"], sample_rate_hz: int, text: str) -> Aligned:
        """Align one utterance of any length."""
        normal = spoken_form(text, "en", known=self.pronouncer.entries)
        if isinstance(normal, Aligned):
            return normal
        if (problem := unusable(audio, sample_rate_hz, MIN_S)) is not None:
            return failure(normal, problem)
        audio = resample(audio, sample_rate_hz, TARGET_RATE_HZ)
        pcm = np.clip(np.rint(audio * 32_767), -32_768, 32_767).astype(np.int16)
        said = self.pronouncer(normal.spoken)
        guessed = tuple(word for word, how in said.items() if how.guessed)
        chain = [(word, said[word]) for word in normal.spoken]
        duration_s = len(pcm) / TARGET_RATE_HZ
        if duration_s <= WHOLE_S:
            piece = self._passes(pcm, chain, open_end=False)
            if piece is None:
                reason = f"no pass reached the end of the transcript in {duration_s:.1f} s of audio"
                return failure(normal, f"{reason}; check that the transcript is its own", guessed=guessed)
            found: list[Found | None] = [_found(*word, 0.0, duration_s) for word in piece.words]
            return put_together(
                normal, found, low_score=self.low_score, score=piece.score, guessed=guessed, how=piece.used.name
            )
        track = self._stretches(pcm, chain)
        found = [*track.found, *[None] * (len(chain) - len(track.found))]
        how = f"{track.stretches} stretches; " + ", ".join(dict.fromkeys(track.passes))
        if track.lost_s is not None:
            how += f"; lost at {track.lost_s:.1f} s"
        return put_together(normal, found, low_score=self.low_score, guessed=guessed, how=how)

    def _stretches(self, pcm: Int[np.ndarray, " samples"], chain: Sequence[tuple[str, Pronunciation]]) -> _Track:
        """Align a long recording from left to right, STRETCH_S at a time; stop where nothing fits."""
        track, at, tries = _Track(), 0, 1
        total = len(pcm)
        while len(track.found) < len(chain):
            word, left = len(track.found), total - at
            rest = chain[word:]
            last = left <= WHOLE_S * TARGET_RATE_HZ
            stop = total if last else quiet_place(pcm, at + round(tries * STRETCH_S * TARGET_RATE_HZ))
            reach = len(rest)
            if not last:
                # Half again as many words as this much of the rest would hold on average, and some.
                reach = min(reach, 20 + math.ceil(1.5 * tries * len(rest) * (stop - at) / left))
            piece = self._passes(pcm[at:stop], rest[:reach], open_end=not last)
            if piece is None or piece.score < self.low_score:
                if last or tries == 4:
                    track.lost_s = at / TARGET_RATE_HZ
                    break
                tries *= 2
                continue
            track.stretches += 1
            track.passes.append(piece.used.name)
            kept = piece.words if last else settled(piece.words, (stop - at) / TARGET_RATE_HZ)
            offset_s, end_s = at / TARGET_RATE_HZ, total / TARGET_RATE_HZ
            track.found += [_found(*hit, offset_s, end_s) for hit in kept]
            if last:
                break
            # Go on in the middle of the pause behind the last word kept; without words, skip what holds none.
            if kept:
                behind = piece.words[len(kept)][0] if len(kept) < len(piece.words) else kept[-1][1]
                at += round((kept[-1][1] + behind) / 2 * FRAME_S * TARGET_RATE_HZ)
            else:
                at = stop - round(MARGIN_S * TARGET_RATE_HZ)
            tries = 1
        return track

    def _passes(
        self, pcm: Int[np.ndarray, " samples"], chain: Sequence[tuple[str, Pronunciation]], *, open_end: bool
    ) -> _Piece | None:
        """Try beam after beam; return the first piece that is good enough, or the best."""
        best: _Piece | None = None
        for used in PASSES:
            piece = self._pass(pcm, chain, used, open_end)
            if piece is not None and (best is None or piece.score > best.score or best.used.accept > 0.2):
                best = piece
            if best is not None and best.score >= best.used.accept:
                break
        return best

    def _pass(
        self, pcm: Int[np.ndarray, " samples"], chain: Sequence[tuple[str, Pronunciation]], used: Pass, open_end: bool
    ) -> _Piece | None:
        """One forced alignment; None when no path reaches an end of the grammar."""
        decoder = self._decoder(used)
        for word, said in chain:
            if decoder.lookup_word(word) is None:
                for number, phones in enumerate(said.variants, start=1):
                    decoder.add_word(word if number == 1 else f"{word}({number})", phones, update=False)
        end = len(chain)
        arcs: list[tuple[Any, ...]] = [(i, i + 1, 1.0, word) for i, (word, _) in enumerate(chain)]
        if open_end:
            arcs += [(i, end, 1.0) for i in range(end)]
        try:
            decoder.add_fsg("text", decoder.create_fsg("text", 0, end, arcs))
            decoder.activate_search("text")
            decoder.reinit_feat()  # Or it carries noise statistics and cepstral mean of one utterance into the next.
            decoder.start_utt()
            decoder.process_raw(pcm.tobytes(), full_utt=True)
            decoder.end_utt()
            segments = decoder.seg()
        except (RuntimeError, ValueError) as error:
            raise DataError(f"pocketsphinx refused the utterance ({error}); check text and audio") from error
        if segments is None:
            return None
        words = [s for s in segments if not s.word.startswith(("<", "[", "(NULL"))]
        names = [re.sub(r"\(\d+\)$", "", s.word) for s in words]
        if names != [word for word, _ in chain[: len(names)]] or (not open_end and len(names) != end):
            return None
        if not words:
            return _Piece([], 1.0, used) if open_end else None
        frames = [s.end_frame + 1 - s.start_frame for s in words]
        sums = [math.log(max(s.ascore, 1e-300)) / LOG_BASE for s in words]
        scored = [
            (s.start_frame, s.end_frame + 1, used.score(total / count))
            for s, total, count in zip(words, sums, frames, strict=True)
        ]
        return _Piece(scored, used.score(sum(sums) / sum(frames)), used)

    def _decoder(self, used: Pass) -> Any:
        """The decoder of a pass with its beams set; one for quick passes, one that computes every senone."""
        if used.all_senones not in self._decoders:
            settings: dict[str, Any] = {"dict": self._dictionary} if self._dictionary else {}
            self._decoders[used.all_senones] = self._library.Decoder(
                lm=None,
                loglevel="FATAL",
                bestpath=False,
                compallsen=used.all_senones,
                maxhmmpf=-1,
                **settings,
            )
        decoder = self._decoders[used.all_senones]
        for key in ("beam", "pbeam", "wbeam"):
            decoder.config[key] = used.beam
        return decoder

    def close(self) -> None:
        """Stop the voice engine that may have been started for unknown words."""
        self.pronouncer.close()


def quiet_place(pcm: Int[np.ndarray, " samples"], target: int) -> int:
    """The middle of the quietest 0.2 s in the SEARCH_S before `target`, a sample index."""
    target = min(target, len(pcm))
    block = round(0.05 * TARGET_RATE_HZ)
    start = max(0, target - round(SEARCH_S * TARGET_RATE_HZ))
    count = (target - start) // block
    if count < 4:
        return target
    part = pcm[start : start + count * block].astype(np.float32).reshape(count, block)
    energy = np.convolve((part**2).mean(axis=1), np.ones(4), "valid")
    return start + (int(energy.argmin()) + 2) * block


def settled(words: Sequence[tuple[int, int, float]], length_s: float) -> list[tuple[int, int, float]]:
    """The words of an open-ended stretch that stay: up to the longest pause among the last ten before MARGIN_S."""
    limit = (length_s - MARGIN_S) / FRAME_S
    count = sum(end <= limit for _, end, _ in words)
    if count == 0:
        return []
    gaps = [
        (words[i + 1][0] - words[i][1] if i + 1 < len(words) else 0, i + 1) for i in range(max(0, count - 10), count)
    ]
    return list(words[: max(gaps)[1]])


def _found(start: int, end: int, score: float, offset_s: float, limit_s: float) -> Found:
    """Frames to seconds, inside the audio."""
    return Found(
        start_s=min(round(offset_s + start * FRAME_S, 4), limit_s),
        end_s=min(round(offset_s + end * FRAME_S, 4), limit_s),
        score=round(score, 4),
    )
