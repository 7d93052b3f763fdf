"""Judge spoken audio by recognizing it: word error rate against the text.

Enters: the texts of a corpus, then audio and text of each utterance. Leaves: a language model and a dictionary of the
corpus, and word error rates. The one decision worth knowing: free recognition with a general language model fails on
synthetic voices, so the recognizer knows a bigram model of the corpus' own texts; it repairs much, and its rates only
compare voices or find broken utterances, they are no measure of intelligibility.
Needs the extra `align` (pocketsphinx with its en-us model).
"""

from __future__ import annotations

import importlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from speechscale.align.normalize import normalize
from speechscale.align.pronounce import Pronouncer
from speechscale.errors import DataError, MissingExtra
from speechscale.files import complete_file, write_json

MAX_SENTENCES = 200_000
"""Sentences that the language model is counted on, from the first; bounds its memory."""
DISCOUNT = 0.5
BEAMS = {"beam": 1e-60, "wbeam": 1e-40, "lw": 6.5}
MODEL, DICTIONARY, READY = "words.arpa", "words.dict", "judge.json"
_VARIANT = re.compile(r"\(\d+\)$")


def prepare_judge(folder: Path, sentences: Iterable[str]) -> PocketsphinxJudge:
    """Count the language model of a corpus and write it, complete or not at all; a folder that has one is left alone.

    Args:
        sentences: texts, streamed; after MAX_SENTENCES no more are read.

    Raises:
        MissingExtra: pocketsphinx is not installed. DataError: no words.
    """
    judge = PocketsphinxJudge(folder=folder)
    judge.check()
    if (folder / READY).is_file():
        return judge
    one: Counter[str] = Counter()
    two: Counter[tuple[str, str]] = Counter()
    counted = 0
    for sentence in sentences:
        words = ["<s>", *normalize(sentence).spoken, "</s>"]
        one.update(words)
        two.update(pairwise(words))
        counted += 1
        if counted == MAX_SENTENCES:
            break
    vocabulary = sorted(one.keys() - {"<s>", "</s>"})
    if not vocabulary:
        raise DataError(f"judge {folder}: the texts have no words; give texts in English")
    folder.mkdir(parents=True, exist_ok=True)
    pronouncer = Pronouncer()
    try:
        sounds = pronouncer(vocabulary)
    finally:
        pronouncer.close()
    with complete_file(folder / DICTIONARY) as draft, draft.open("w", encoding="utf-8") as file:
        for word in vocabulary:
            for number, phones in enumerate(sounds[word].variants, start=1):
                file.write(f"{word if number == 1 else f'{word}({number})'} {phones}\n")
    with complete_file(folder / MODEL) as draft, draft.open("w", encoding="utf-8") as file:
        file.writelines(arpa_lines(one, two))
    write_json(folder / READY, {"sentences": counted, "words": len(vocabulary), "bigrams": len(two)})
    return judge


def arpa_lines(one: Counter[str], two: Counter[tuple[str, str]]) -> Iterable[str]:
    """A bigram model with absolute discounting and backoff, as ARPA text.

    P(b | a) = (n(ab) - D) / n(a) for seen pairs, else bow(a) P(b), where bow(a) makes the sum over b one.
    Source: Ney, Essen, Kneser (1994), "On structuring probabilistic dependences in stochastic language modelling".
    """
    total = sum(one.values()) - one["<s>"]
    unigram = {word: count / total for word, count in one.items() if word != "<s>"}
    followers: Counter[str] = Counter()
    seen: dict[str, list[float]] = {}
    for (first, second), _ in sorted(two.items()):
        followers[first] += 1
        seen.setdefault(first, []).append(unigram[second])
    yield f"\\data\\\nngram 1={len(one)}\nngram 2={len(two)}\n\n\\1-grams:\n"
    for word in sorted(one):
        chance = math.log10(unigram[word]) if word != "<s>" else -99.0
        left = 1.0 - math.fsum(seen.get(word, []))
        held = DISCOUNT * followers[word] / one[word]
        backoff = math.log10(held / left) if held > 0 and left > 1e-9 else 0.0
        yield f"{chance:.5f} {word} {backoff:.5f}\n"
    yield "\n\\2-grams:\n"
    for (first, second), count in sorted(two.items()):
        yield f"{math.log10((count - DISCOUNT) / one[first]):.5f} {first} {second}\n"
    yield "\n\\end\\\n"


class PocketsphinxJudge:
    """judge(audio at 16 kHz, text) -> word error rate, the same whatever was judged before.

    The recognizer starts at the first call and does not travel to other processes; the folder does.
    """

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder
        self._decoder: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_decoder": None}

    def check(self) -> None:
        """Raise MissingExtra when pocketsphinx is not installed."""
        try:
            importlib.import_module("pocketsphinx")
        except ImportError as error:
            raise MissingExtra("judging speech by recognizing it", "align") from error

    def hear(self, audio: Float[np.ndarray, " samples"]) -> list[str]:
        """Recognize the words of an utterance."""
        found = self._decode(audio).hyp()
        return [] if found is None else found.hypstr.split()

    def hear_times(self, audio: Float[np.ndarray, " samples"]) -> list[tuple[str, int, int, float]]:
        """The words of `hear`: text, first frame of 10 ms, the one behind the last, posterior probability."""
        decoder = self._decode(audio)
        if decoder.hyp() is None:
            return []
        segments = [(_VARIANT.sub("", one.word), one) for one in decoder.seg()]
        return [
            (word, one.start_frame, one.end_frame + 1, min(float(one.prob), 1.0))
            for word, one in segments
            if word[:1] not in "<[+"
        ]

    def _decode(self, audio: Float[np.ndarray, " samples"]) -> Any:
        if self._decoder is None:
            self._decoder = self._start()
        decoder = self._decoder
        # Means of the cepstra adapt from utterance to utterance; they begin anew, so that order never matters.
        decoder.reinit_feat()
        decoder.start_utt()
        decoder.process_raw(_pcm(audio), no_search=False, full_utt=True)
        decoder.end_utt()
        return decoder

    def __call__(self, audio: Float[np.ndarray, " samples"], text: str) -> float:
        return word_error_rate(normalize(text).spoken, self.hear(audio))

    def _start(self) -> Any:
        sphinx: Any = importlib.import_module("pocketsphinx")
        try:
            return sphinx.Decoder(
                hmm=sphinx.get_model_path("en-us/en-us"),
                lm=str(self.folder / MODEL),
                dict=str(self.folder / DICTIONARY),
                logfn="/dev/null",
                **BEAMS,
            )
        except (RuntimeError, ValueError) as error:
            raise DataError(f"judge {self.folder}: cannot start ({error}); delete the folder and run again") from error


def word_error_rate(reference: Sequence[str], heard: Sequence[str]) -> float:
    """Substitutions, deletions and insertions per reference word; above 1 when more was heard than said.

    Example: ["a", "b", "c", "d"], ["a", "x", "d"] -> 0.5
    """
    if not reference:
        return float(len(heard) > 0)
    row = np.arange(len(heard) + 1)
    target = np.asarray(heard, object)
    for line, word in enumerate(reference, start=1):
        swap = row[:-1] + (target != word)
        drop = row[1:] + 1
        best = np.concatenate(([line], np.minimum(swap, drop)))
        # Insertions run along the row: best[j] = min over i <= j of best[i] + j - i.
        steps = np.arange(len(best))
        row = np.minimum.accumulate(best - steps) + steps
    return float(row[-1]) / len(reference)


def _pcm(audio: Float[np.ndarray, " samples"]) -> bytes:
    return np.clip(np.rint(audio * 32_767), -32_768, 32_767).astype("<i2").tobytes()
