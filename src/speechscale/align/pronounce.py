"""Find how each word sounds: dictionary, rules for endings and compounds, then a guess.

Enters: spoken words (lower case, letters and apostrophes). Leaves: one or more pronunciations in ARPAbet per word, and
where they come from. The one decision worth knowing: a word never goes without a pronunciation, and every one that was
guessed from its letters is named, because an alignment is only as good as these.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from speechscale.align.phones import ARPABET, from_espeak
from speechscale.align.sounding import sound_out
from speechscale.errors import DataError, MissingExtra
from speechscale.voices.espeak_process import EngineLost, EngineProcess, Tone, engine_paths

MAX_VARIANTS = 4
MIN_PART = 3
"""Letters a part of a compound has at least."""
GUESSES = ("espeak", "letters")
_TONE = Tone(voice="en-us", rate_wpm=175, pitch=50)
_SIBILANTS = frozenset({"S", "Z", "SH", "ZH", "CH", "JH"})
_VOICELESS = frozenset({"P", "T", "K", "F", "TH", "HH"})
_ENDINGS = {
    "ly": ("L IY",),
    "ness": ("N AH S",),
    "less": ("L AH S",),
    "ful": ("F AH L",),
    "ment": ("M AH N T",),
    "er": ("ER",),
    "est": ("AH S T", "IH S T"),
    "ing": ("IH NG",),
    "in'": ("IH N",),
    "ish": ("IH SH",),
    "able": ("AH B AH L",),
    "wards": ("W ER D Z",),
}
_OPENINGS = {"un": "AH N", "re": "R IY", "non": "N AA N", "mis": "M IH S", "dis": "D IH S", "pre": "P R IY"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pronunciation:
    """Variants in ARPAbet, blank-separated; source is "dictionary", "rule", "espeak" or "letters"."""

    variants: tuple[str, ...]
    source: str

    @property
    def guessed(self) -> bool:
        return self.source in GUESSES


def wheel_dictionary() -> Path:
    """The CMU dictionary in pocketsphinx's wheel. Raises MissingExtra."""
    try:
        pocketsphinx: Any = importlib.import_module("pocketsphinx")
    except ImportError as error:
        raise MissingExtra("the pronunciation dictionary", "align") from error
    return Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"))


@lru_cache(2)
def read_dictionary(path: Path) -> Mapping[str, tuple[str, ...]]:
    """Read a dictionary in Sphinx form: "word PH PH", variants as "word(2) PH PH"; stress digits are cut.

    Raises:
        DataError: missing, or a line that names a phone outside the 39 of the CMU dictionary.
    """
    if not path.is_file():
        raise DataError(f"dictionary {path}: no such file; give a dictionary in Sphinx form or leave it out")
    known = frozenset(ARPABET)
    entries: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        word, *phones = line.split("#")[0].split() or [""]
        phones = [phone.rstrip("012") for phone in phones]
        if not word or word.startswith((";;;", "<")):
            continue
        bad = [phone for phone in phones if phone not in known]
        if bad or not phones:
            raise DataError(
                f"dictionary {path}, line {number}: '{word}' has {f'the phone {bad[0]!r}' if bad else 'no phones'}, "
                f"allowed are the 39 of the CMU dictionary; correct the line"
            )
        base = re.sub(r"\(\d+\)$", "", word)
        entries[base] = (*entries.get(base, ()), " ".join(phones))
    return entries


class Pronouncer:
    """Pronounce words; close it when it may have started a voice engine.

    Args:
        dictionary: file in Sphinx form; by default the one in pocketsphinx's wheel.
        guess: "espeak", "letters", or "auto": espeak where the extra `voices` is installed.

    Raises:
        DataError, MissingExtra: dictionary or engine cannot be used.
    """

    def __init__(self, dictionary: Path | None = None, *, guess: str = "auto", timeout_s: float = 30.0) -> None:
        if guess not in (*GUESSES, "auto"):
            raise DataError(f"guess = '{guess}'; allowed are auto, {', '.join(GUESSES)}")
        self.entries = read_dictionary(Path(dictionary) if dictionary is not None else wheel_dictionary())
        self.guess = guess
        if guess != "letters":
            try:
                engine_paths()
                self.guess = "espeak"
            except (MissingExtra, DataError):
                if guess == "espeak":
                    raise
                self.guess = "letters"
        self._engine = EngineProcess(timeout_s) if self.guess == "espeak" else None
        self._guessed: dict[str, Pronunciation] = {}

    def __call__(self, words: Sequence[str]) -> dict[str, Pronunciation]:
        """Pronounce each distinct word. Example: ["dog"] -> {"dog": D AO G from the dictionary}"""
        found: dict[str, Pronunciation] = {}
        unknown: list[str] = []
        for word in dict.fromkeys(words):
            if variants := self.entries.get(word):
                found[word] = Pronunciation(variants=variants, source="dictionary")
            elif derived := self.derive(word):
                found[word] = Pronunciation(variants=derived, source="rule")
            else:
                unknown.append(word)
        return {**found, **self._guess(unknown)}

    def close(self) -> None:
        """Stop the voice engine, if it runs."""
        if self._engine is not None:
            self._engine.stop()

    def derive(self, word: str) -> tuple[str, ...]:
        """Pronounce by rule from words of the dictionary; () when no rule fits."""
        plain = plain_letters(word)
        if plain != word and (variants := self.entries.get(plain)):
            return variants
        for rule in (self._possessive, self._past, self._ending, self._opening, self._compound):
            if made := rule(plain):
                return tuple(dict.fromkeys(made))[:MAX_VARIANTS]
        return ()

    def _possessive(self, word: str) -> list[str]:
        """woman's, Dickens', marshes, flurries: the base and s, z or a syllable."""
        bases = [word[:-2]] if word.endswith("'s") else [word[:-1]] if word.endswith("s'") else []
        if word.endswith("s'") and (whole := self.entries.get(word[:-1])):
            return list(whole) + [_with_s(base) for base in whole]
        if word.endswith("s") and not word.endswith(("'s", "ss")):
            bases = [word[:-1], *([word[:-2]] if word.endswith("es") else [])]
            bases += [word[:-3] + "y"] if word.endswith("ies") else []
        return [_with_s(base) for name in bases if len(name) > 1 for base in self.entries.get(name, ())]

    def _past(self, word: str) -> list[str]:
        if not word.endswith("ed") or len(word) < 5:
            return []
        stem = word[:-2]
        names = [stem, word[:-1], *([stem[:-1]] if stem[-1] == stem[-2] else [])]
        names += [stem[:-1] + "y"] if stem.endswith("i") else []
        return [_with_d(base) for name in names for base in self.entries.get(name, ())]

    def _ending(self, word: str) -> list[str]:
        for ending, sounds in _ENDINGS.items():
            stem = word.removesuffix(ending)
            if stem == word or len(stem) < MIN_PART:
                continue
            names = [stem, stem + "e", *([stem[:-1]] if stem[-1] == stem[-2] else [])]
            names += [stem[:-1] + "y"] if stem.endswith("i") else []
            for name in names:
                if bases := self.entries.get(name):
                    return [f"{base} {sound}" for base in bases for sound in sounds]
        return []

    def _opening(self, word: str) -> list[str]:
        for opening, sound in _OPENINGS.items():
            rest = word.removeprefix(opening)
            if rest != word and len(rest) > MIN_PART and (bases := self.entries.get(rest)):
                return [f"{sound} {base}" for base in bases]
        return []

    def _compound(self, word: str) -> list[str]:
        """Two known parts, the shorter as long as possible. Example: hearthrug -> hearth + rug"""
        cuts = [(min(at, len(word) - at), at) for at in range(MIN_PART, len(word) - MIN_PART + 1)]
        for _, at in sorted(cuts, key=lambda cut: (-cut[0], -cut[1])):
            left, right = self.entries.get(word[:at]), self.entries.get(word[at:])
            if left and right:
                return [f"{a} {b}" for a in left[:2] for b in right[:2]]
        return []

    def _guess(self, words: Sequence[str]) -> dict[str, Pronunciation]:
        new = [word for word in words if word not in self._guessed]
        spelled: list[list[str]] = [[] for _ in new]
        if self._engine is not None and new:
            spelled = self._spell([plain_letters(word) for word in new])
        for word, labels in zip(new, spelled, strict=True):
            phones = from_espeak(labels)
            source = "espeak" if phones else "letters"
            phones = phones or list(sound_out(plain_letters(word))) or ["AH"]
            self._guessed[word] = Pronunciation(variants=(" ".join(phones),), source=source)
        return {word: self._guessed[word] for word in words}

    def _spell(self, words: list[str]) -> list[list[str]]:
        """The engine's labels; none for any word when the engine was lost twice, and the letters have to do."""
        assert self._engine is not None
        for _ in range(2):
            with suppress(EngineLost, DataError):
                return self._engine.spell(_TONE, tuple(words))
        return [[] for _ in words]


def plain_letters(word: str) -> str:
    """Lower case without accents and outer apostrophes. Example: "Zoë's" -> "zoe's" """
    bare = "".join(c for c in unicodedata.normalize("NFKD", word.casefold()) if not unicodedata.combining(c))
    return bare if bare.endswith("s'") else bare.strip("'")


def _with_s(phones: str) -> str:
    last = phones.split()[-1]
    return f"{phones} {'IH Z' if last in _SIBILANTS else 'S' if last in _VOICELESS else 'Z'}"


def _with_d(phones: str) -> str:
    last = phones.split()[-1]
    voiceless = last in _VOICELESS or last in ("S", "SH", "CH")
    return f"{phones} {'IH D' if last in ('T', 'D') else 'T' if voiceless else 'D'}"
