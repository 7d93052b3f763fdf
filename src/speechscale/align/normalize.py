"""Write text as it is spoken, and find the way back.

Enters: a transcript as people write it: "Dr. Smith paid $5.50 in 1455." Leaves: lower-case words of letters and
apostrophes, and for each the written word it belongs to. The one decision worth knowing: the map goes from every spoken
word to one written word and never runs backwards, so that times found for the spoken words can be put on the written
ones; what is silent ("--") is joined to its neighbor and never becomes a word without time.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from speechscale.align.letters import clean_word, fold, is_shouted, pieces
from speechscale.align.normal_tables import (
    ABBREVIATIONS,
    BEFORE_DIGITS,
    CAPITAL_SOUNDS,
    CURRENCIES,
    INITIALISMS,
    NOT_ALONE,
    ONLY_CAPITALIZED,
    REGNAL_NAMES,
    ROMAN_CUES,
    SYMBOLS,
    UNITS,
    WITHOUT_PERIOD,
)
from speechscale.align.numerals import cardinal, number, ordinal, roman
from speechscale.align.quantities import NUMBER, Context, quantity
from speechscale.errors import DataError
from speechscale.records import Word

_EDGES = re.compile(r"""^[\s"'(\[{*_<>|`]*(.*?)([\s"')\]}*_~<>|`,;:!?.]*)$""", re.DOTALL)
_SEPARATORS = (r"-+", r"/+", r"""\.{2,}|[;!?|\\,:()\[\]{}"*_`~^<>\s]+""", r"\.(?=\D)")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]?")
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|\S+@\S+\.\S+|[\w.-]+\.(?:com|org|net|edu|gov|io|uk|de|fr)(?:/\S*)?")
_ADDRESS_WORDS = {".": "dot", "/": "slash", "@": "at", "-": "dash", "_": "underscore"}
_CLIPPED = frozenset(("'tis", "'twas", "'twere", "'twill", "'em", "'cause", "'til", "'bout", "'neath", "'gainst"))


@dataclass(frozen=True, slots=True)
class Normalized:
    """Written words, spoken words, and the index of the written word each spoken one belongs to.

    `" ".join(raw)` is the text with single blanks. `raw_index` is as long as `spoken`, never falls, and names every
    written word at least once, unless nothing in the text is spoken.
    """

    raw: tuple[str, ...]
    spoken: tuple[str, ...]
    raw_index: tuple[int, ...]

    def __iter__(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Pairs of a written word and its spoken words."""
        said: list[list[str]] = [[] for _ in self.raw]
        for word, index in zip(self.spoken, self.raw_index, strict=True):
            said[index].append(word)
        return iter([(word, tuple(words)) for word, words in zip(self.raw, said, strict=True)])


def normalize(text: str, language: str = "en", *, known: Container[str] | None = None) -> Normalized:
    """Turn written text into spoken words.

    English: numbers, ordinals, years, decimals, percent, money, times, dates, fractions, ranges, Roman numerals after a
    cue, abbreviations, symbols, units, initialisms, addresses; accents are folded. Other languages: numbers (as far as
    num2words knows the language), a few symbols, lower case; accents stay.

    Args:
        language: "en" (American), "en-GB" (keeps the "and" of numbers, day before month) or another language's code.
        known: words of a pronunciation dictionary, lower case. Capitals that it lacks ("NCAA") are then read letter by
            letter; without it only common initialisms and those without a vowel are.

    Raises:
        MissingExtra: the text has digits and num2words is not installed.
        DataError: digits in a language that num2words does not know.

    Example: "In 1455, $5" -> raw (In, 1455,, $5), spoken (in, fourteen, fifty, five, five, dollars), (0, 1, 1, 1, 2, 2)

    Source: the normalized column and the abbreviation table of LJSpeech for what readers say.
    """
    written = text.split()
    speaker = _Speaker([clean_word(word) for word in written], language, known, is_shouted(written))
    raw: list[str] = []
    spoken: list[str] = []
    raw_index: list[int] = []
    silent: list[str] = []
    for word, said in zip(written, speaker.all(), strict=True):
        if not said:
            if raw:
                raw[-1] += " " + word
            else:
                silent.append(word)
            continue
        raw.append(" ".join([*silent, word]))
        silent = []
        spoken += said
        raw_index += [len(raw) - 1] * len(said)
    return Normalized(tuple(raw) or ((" ".join(silent),) if silent else ()), tuple(spoken), tuple(raw_index))


def merge_times(normalized: Normalized, spoken_words: Sequence[Word]) -> tuple[Word, ...]:
    """Put the times of spoken words on the written ones: start of the first, end of the last, lowest score.

    A written word whose first or last spoken word has no time has none. Texts of `spoken_words` are not looked at.

    Raises:
        DataError: the number of words differs from the number of spoken words.

    Example: "1455" with fourteen 0-1, fifty 1-2, five 2-3 -> 1455 0-3
    """
    if len(spoken_words) != len(normalized.spoken):
        raise DataError(
            f"times for {len(spoken_words)} words, but {len(normalized.spoken)} are spoken; "
            f"give one Word per spoken word"
        )
    parts: list[list[Word]] = [[] for _ in normalized.raw]
    for word, index in zip(spoken_words, normalized.raw_index, strict=True):
        parts[index].append(word)
    return tuple(_merged(text, words) for text, words in zip(normalized.raw, parts, strict=True))


def _merged(text: str, words: Sequence[Word]) -> Word:
    scores = [word.score for word in words if word.score is not None]
    score = min(scores) if scores else None
    start_s, end_s = (words[0].start_s, words[-1].end_s) if words else (None, None)
    if start_s is None or end_s is None:
        return Word(text=text, score=score)
    return Word(text=text, start_s=start_s, end_s=end_s, score=score)


def _opened(core: str, word: str) -> str:
    """Give a clipped word ("'tis") the apostrophe back that looked like a quote."""
    return "'" + core if "'" + core.lower() in _CLIPPED and "'" + core in word else core


class _Speaker:
    """Say the words of one text one after the other; each sees its neighbors."""

    def __init__(self, words: Sequence[str], language: str, known: Container[str] | None, shouted: bool) -> None:
        self.words, self.language, self.known, self.shouted = words, language, known, shouted
        self.english = language.lower().startswith("en")
        self.symbols = SYMBOLS.get(language.replace("_", "-").split("-")[0].lower(), {})
        split = [_EDGES.fullmatch(word) for word in words]
        self.cores = [_opened(match[1], word) if match else "" for match, word in zip(split, words, strict=True)]
        self.tails = [match[2] if match else "" for match in split]

    def all(self) -> Iterator[list[str]]:
        """Spoken words of each written word, in order."""
        owed: tuple[str, ...] = ()
        for index in range(len(self.words)):
            said, later = self._say(index)
            yield [*said, *owed]
            owed = later

    def _core(self, index: int) -> str:
        return self.cores[index] if 0 <= index < len(self.cores) else ""

    def _say(self, index: int) -> tuple[list[str], tuple[str, ...]]:
        core = self.cores[index]
        context = Context(self._core(index - 1), self._core(index + 1), self.language)
        if (said := quantity(core, context)) is not None:
            return list(said[0]), said[1]
        if self.english:
            for rule in (self._alone, self._abbreviation, self._roman):
                if words := rule(index):
                    return words, ()
        return self._parts(core, context), ()

    def _alone(self, index: int) -> list[str]:
        """Signs and units that stand between or behind numbers: "3 - 5", "5 km", "a < b"."""
        word, before, after = self.words[index], self._core(index - 1), self._core(index + 1)
        if word in ("-", "--") and before[-1:].isdigit() and after[:1].isdigit():
            return ["minus" if "=" in self.words[index + 2 : index + 3] else "to"]
        if word in ("<", ">") and before and after:
            return ["less" if word == "<" else "greater", "than"]
        core = self.cores[index]
        if before[-1:].isdigit() and core.lower() in ("am", "pm"):
            return list(core.lower())
        if core in UNITS and core not in NOT_ALONE and re.fullmatch(rf"[-+]?{NUMBER}", before):
            return UNITS[core][before != "1"].split()
        return []

    def _abbreviation(self, index: int) -> list[str]:
        core, possessive = re.fullmatch(r"(.*?)(\.?'s)?", self.cores[index]).groups()  # type: ignore[union-attr]
        name, period = core.lower(), self.tails[index].startswith(".") or (possessive or "").startswith(".")
        before, after = self._core(index - 1), self._core(index + 1)
        if name == "&c":
            return ["et", "cetera"]
        if name in BEFORE_DIGITS and period and after[:1].isdigit():
            return [BEFORE_DIGITS[name]]
        bare = core[:1].isupper() and (name in WITHOUT_PERIOD or (name == "st" and after[:1].isupper()))
        if name not in ABBREVIATIONS or not (period or (bare and not (self.shouted and name == "st"))):
            return []
        if name in ONLY_CAPITALIZED and not core[:1].isupper():
            return []
        follows = before[:1].isupper() or before[:1].isdigit()
        if name in ("st", "dr") and follows and not after[:1].isupper() and not self.shouted:
            return ["street" if name == "st" else "drive"]
        words = ABBREVIATIONS[name].split()
        return [*words[:-1], words[-1] + "'s"] if possessive else words

    def _roman(self, index: int) -> list[str]:
        core = self.cores[index].removesuffix("'s")
        value = roman(core)
        if value is None:
            return []
        before = self._core(index - 1)
        cue = before.lower() if before[:1].isupper() else ""
        plain = len(core) > 1 and not set(core) - set("IVX")
        if cue in REGNAL_NAMES and core != "I" and (plain or core in ("V", "X")) and not self._ends(index - 1):
            said = ["the", *ordinal(str(value), self.language)]
        elif plain or (
            cue in ROMAN_CUES and (len(core) > 1 or (core in "VX") or (core == "I" and self._clear_one(index)))
        ):
            said = list(cardinal(str(value), self.language))
        else:
            return []
        return [*said[:-1], said[-1] + "'s"] if self.cores[index].endswith("'s") else said

    def _clear_one(self, index: int) -> bool:
        """Whether an "I" is the numeral: punctuation or the end follows it, or a heading like "Chapter I"."""
        last = index + 1 == len(self.words)
        cue = self._core(index - 1).lower()
        world_war = cue == "war" and self._core(index - 2).lower() == "world"
        return last or bool(self.tails[index]) or world_war or cue in ("chapter", "volume", "canto")

    def _ends(self, index: int) -> bool:
        return any(mark in self.tails[index] for mark in ".,;:!?")

    def _parts(self, core: str, context: Context) -> list[str]:
        """Say a word by its parts: dashes, slashes and stray punctuation divide."""
        if self.english and _ADDRESS.fullmatch(core):
            return self._address(core)
        if _INITIALS.fullmatch(core) and len(core) > 1:
            return [fold(letter, self.english) for letter in core if letter.isalpha()]
        for separator in _SEPARATORS:
            parts = [part for part in re.split(separator, core) if part]
            if parts != [core]:
                said = []
                for place, part in enumerate(parts):
                    if place and separator == "/+" and self.english and parts[0][0] in CURRENCIES and part.isalpha():
                        said.append("per")
                    around = Context("", "", self.language)
                    whole = quantity(part, around)
                    said += [*whole[0], *whole[1]] if whole is not None else self._parts(part, around)
                return said
        return [word for piece in pieces(core) for word in self._piece(piece, core)]

    def _piece(self, piece: str, core: str) -> list[str]:
        if piece[0].isdecimal() or (piece[0] == "." and len(piece) > 1):
            return list(number(piece, self.language))
        if piece[-1].isalpha() or len(piece) > 1:
            return self._letters(piece, mixed=any(character.isdigit() or character == "&" for character in core))
        if piece == "#" and self.english:
            return ["hashtag"] if core.startswith("#") and len(core) > 1 else []
        if piece == "²" or piece == "³":
            return ["squared" if piece == "²" else "cubed"] if self.english and core[-1] == piece else []
        return self.symbols.get(piece, "").split()

    def _letters(self, piece: str, *, mixed: bool) -> list[str]:
        """Say a run of letters: a word, or its letters one by one."""
        word = piece if piece.lower() in _CLIPPED else piece.strip("'")
        match = re.fullmatch(r"([A-Z]{2,5})('?s)?", word)
        if match and self.english and self._spelled(match[1], mixed):
            letters = list(match[1].lower())
            return [*letters[:-1], letters[-1] + ("'s" if match[2] else "")]
        said = fold(word, self.english)
        return [said] if said else []

    def _spelled(self, capitals: str, mixed: bool) -> bool:
        if capitals in CAPITAL_SOUNDS:
            return False
        if not set(capitals) & set("AEIOUY"):
            return True
        if self.shouted:
            return False
        if capitals in INITIALISMS or (mixed and len(capitals) <= 3):
            return True
        return self.known is not None and capitals.lower() not in self.known

    def _address(self, core: str) -> list[str]:
        said: list[str] = []
        for piece in pieces(core.split("://")[-1].rstrip("/")):
            if piece == "www":
                said += ["w", "w", "w"]
            elif piece[0].isdecimal():
                said += number(piece, self.language)
            elif piece[-1].isalpha():
                said.append(fold(piece, self.english))
            elif piece in _ADDRESS_WORDS:
                said.append(_ADDRESS_WORDS[piece])
        return said
