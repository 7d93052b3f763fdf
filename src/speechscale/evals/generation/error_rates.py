"""Word and character error rates of what a recognizer heard, and of resynthesized speech.

Enters: texts and transcripts. Leaves: error counts per sample, rates with intervals, the ratio of a vocoder's rate to
the original's own. The one decision worth knowing: both sides are normalized by `align.normalize` (lower case, numbers
as spoken, no punctuation), so that spelling is no error. Rates are sums of errors over sums of reference words.
`corpus.judge` keeps a rate of its own: it needs no extra package and judges single utterances; a test holds both equal.
Needs the extra `asr` (jiwer).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from speechscale.align.normalize import normalize
from speechscale.errors import DataError, MissingExtra
from speechscale.evals.generation.estimates import REPLICATES, Estimate, ratio_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """What separates a transcript from its reference; `reference` is the reference's length."""

    substitutions: int
    deletions: int
    insertions: int
    reference: int

    @property
    def total(self) -> int:
        return self.substitutions + self.deletions + self.insertions


def word_errors(reference: str, heard: str, language: str = "en") -> Errors:
    """Count the word errors of one transcript.

    Example: "Tom ran.", "tom runs" -> one substitution of 2

    Raises:
        MissingExtra: jiwer is not installed. DataError: the reference has no words.
    """
    return _errors(_said(reference, language), _said(heard, language), characters=False)


def character_errors(reference: str, heard: str, language: str = "en") -> Errors:
    """Count the character errors of one transcript; a blank between words is a character. Raises as `word_errors`."""
    return _errors(_said(reference, language), _said(heard, language), characters=True)


def require_jiwer() -> Any:
    """The package jiwer. Raises MissingExtra."""
    try:
        return importlib.import_module("jiwer")
    except ImportError as error:
        raise MissingExtra("counting word errors", "asr") from error


def has_words(text: str, language: str = "en") -> bool:
    """Whether anything is spoken in a text. Example: "--" -> False"""
    return bool(_said(text, language))


def error_rate(errors: Sequence[Errors], *, replicates: int = REPLICATES, seed: int = 0) -> Estimate:
    """Errors per reference word (or character) of a corpus, with an interval over its utterances."""
    return ratio_of([e.total for e in errors], [e.reference for e in errors], replicates=replicates, seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resynthesis:
    """How much a recognizer loses through units and vocoder.

    Args:
        wer_original, cer_original: the recognizer's own errors on the recordings.
        wer, cer: on the resynthesized speech. wer_ratio: wer / wer_original; None where the recordings have no error.
        without_reference: ids whose text has no words, left out.
        empty_original, empty: utterances in which nothing was heard; all their words are deletions.
    """

    wer_original: Estimate
    cer_original: Estimate
    wer: Estimate
    cer: Estimate
    wer_ratio: Estimate
    without_reference: tuple[str, ...]
    empty_original: int
    empty: int

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        names = ("wer_original", "cer_original", "wer", "cer", "wer_ratio")
        return {
            **{name: getattr(self, name).record() for name in names},
            "without_reference": list(self.without_reference),
            "empty_original": self.empty_original,
            "empty": self.empty,
        }


def resynthesis_errors(
    ids: Sequence[str],
    texts: Sequence[str],
    originals: Sequence[str],
    resynthesized: Sequence[str],
    *,
    language: str = "en",
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Resynthesis:
    """Compare transcripts of recordings and of their resynthesis with what was said.

    Raises:
        MissingExtra: jiwer is not installed. DataError: the lists differ in length, or no text has words.
    """
    if not len(ids) == len(texts) == len(originals) == len(resynthesized):
        raise DataError(
            f"resynthesis: {len(ids)} ids, {len(texts)} texts, {len(originals)} and {len(resynthesized)} transcripts; "
            "give one of each per utterance"
        )
    kept = [i for i, text in enumerate(texts) if has_words(text, language)]
    if not kept:
        raise DataError(f"resynthesis: none of {len(ids)} texts has words; give the texts that were spoken")
    words = [[word_errors(texts[i], side[i], language) for i in kept] for side in (originals, resynthesized)]
    characters = [[character_errors(texts[i], side[i], language) for i in kept] for side in (originals, resynthesized)]
    options: dict[str, int] = {"replicates": replicates, "seed": seed}
    missing = set(range(len(ids))) - set(kept)
    return Resynthesis(
        wer_original=error_rate(words[0], **options),
        cer_original=error_rate(characters[0], **options),
        wer=error_rate(words[1], **options),
        cer=error_rate(characters[1], **options),
        wer_ratio=ratio_of([e.total for e in words[1]], [e.total for e in words[0]], **options),  # equal denominators
        without_reference=tuple(ids[i] for i in sorted(missing)),
        empty_original=sum(not has_words(originals[i], language) for i in kept),
        empty=sum(not has_words(resynthesized[i], language) for i in kept),
    )


def _said(text: str, language: str) -> str:
    return " ".join(normalize(text, language).spoken)


def _errors(reference: str, heard: str, *, characters: bool) -> Errors:
    if not reference:
        raise DataError("error rate: the reference has no words; give what was said, or leave the utterance out")
    jiwer = require_jiwer()
    found = (jiwer.process_characters if characters else jiwer.process_words)(reference, heard)
    return Errors(
        substitutions=found.substitutions,
        deletions=found.deletions,
        insertions=found.insertions,
        reference=found.hits + found.substitutions + found.deletions,
    )
