"""Characters: what is a letter, what is a digit, what is neither.

Enters: written words in any script. Leaves: words with plain quotes, dashes and digits, and their pieces. The one
decision worth knowing: compatibility forms (ligatures, full width, circled digits) are replaced first, so that the
rules behind see one spelling of everything.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

_SAME = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛ʼʹ′＇´`", "'"),
        **dict.fromkeys("“”„‟″«»＂", '"'),
        **dict.fromkeys("‐‑‒–−﹣－⁃", "-"),
        **dict.fromkeys("—―⸺", "--"),
        **dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff\ufe0f", ""),
        "⁄": "/",
        "∕": "/",
        "…": "...",
    }
)
_LATIN = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "ß": "ss", "đ": "d", "ð": "d", "ł": "l", "þ": "th", "ı": "i", "ħ": "h", "ŋ": "ng"}
)
_KEPT = "²³"
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789", strict=True))
_PLURAL = re.compile(r"(?<=[^\W\d_])\((e?s)\)")
_MARKUP = re.compile(r"<\|?/?[^\W\d][\w-]*/?\|?>")


@cache
def _pieces_pattern() -> re.Pattern[str]:
    marks = [chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code)).startswith("M")]
    letter = rf"(?:[^\W\d_²³]|[{''.join(marks)}])"
    return re.compile(rf"\d+(?:[.,]\d+)*|'?{letter}+(?:'{letter}+)*'?|\S")


def clean_word(word: str) -> str:
    """Replace look-alikes and compatibility forms; markup such as <eos> goes. The result may hold blanks.

    Example: "“ﬁve”" -> '"five"'; "2½" -> "2 1/2"; "10⁶" -> "10^6"; "word¹" -> "word"
    """
    word = _raised(_PLURAL.sub(r"\1", _MARKUP.sub(" ", word.translate(_SAME))))
    out = []
    for index, character in enumerate(word):
        if character in _KEPT:
            out.append(character)
        elif unicodedata.category(character) == "No" and "\u2044" in unicodedata.normalize("NFKC", character):
            blank = " " if index and word[index - 1].isdigit() else ""
            out.append(blank + unicodedata.normalize("NFKC", character).replace("\u2044", "/"))
        else:
            out.append(character)
    plain = "".join(c if c in _KEPT else unicodedata.normalize("NFKC", c) for c in out)
    plain = unicodedata.normalize("NFC", plain).translate(_SAME)
    return "".join(_digit(character) for character in plain).strip()


def _raised(word: str) -> str:
    """Powers become "^6"; notes at the end of a word go; a square or cube behind letters stays."""

    def replaced(match: re.Match[str]) -> str:
        before, text = match.string[: match.start()][-1:], "".join(_RAISED[c] for c in match[0])
        if before.isdigit():
            return "^" + text
        return match[0] if match[0] in _KEPT else ""

    return re.sub(f"[{''.join(_RAISED)}]+", replaced, word)


def _digit(character: str) -> str:
    if character in _KEPT or character.isascii():
        return character
    value = unicodedata.digit(character, None)
    if value is not None:
        return str(value)
    return " " if unicodedata.category(character) == "No" else character


def pieces(core: str) -> list[str]:
    """Cut a word into numbers, runs of letters (with inner apostrophes) and single other characters.

    Example: "MP3's" -> MP, 3, 's; "AT&T" -> AT, &, T
    """
    return _pieces_pattern().findall(core)


def fold(word: str, strip_accents: bool) -> str:
    """Lower-case a run of letters; for look-up in an English dictionary Latin letters lose their accents.

    Example: "Café" -> "cafe"; "Œuvre" -> "oeuvre"
    """
    lower = unicodedata.normalize("NFC", word.lower())
    if not strip_accents:
        return lower
    out = []
    for character in lower.translate(_LATIN):
        base = unicodedata.normalize("NFD", character)
        out.append(base[0] if base[0].isascii() else character)
    return "".join(c for c in out if not "\u0300" <= c <= "\u036f")


def is_shouted(words: Sequence[str]) -> bool:
    """Whether a text is written in capitals throughout, as LibriSpeech's transcripts are."""
    lengthy = [word for word in words if sum(character.isalpha() for character in word) > 1]
    return len(lengthy) >= 3 and sum(word.isupper() for word in lengthy) > 0.8 * len(lengthy)
