"""Say numbers in words.

Enters: digits as text ("1,234.5", "21st", "VIII"). Leaves: lower-case words without hyphens. The one decision worth
knowing: num2words (extra `align`) makes the words; what it cannot say (very long numbers, leading zeros) is said digit
by digit, so that no digit is ever left.
"""

from __future__ import annotations

import importlib
import re
from functools import cache
from typing import Any

from speechscale.errors import DataError, MissingExtra

MAX_DIGITS = 15
"""Longer digit strings without separators are read digit by digit."""
DECIMAL_COMMA = frozenset(
    (
        *("cs", "da", "de", "es", "fi", "fr", "hu", "id", "is", "it", "lt", "lv", "nl"),
        *("no", "pl", "pt", "ro", "ru", "sk", "sl", "sr", "sv", "tr", "uk", "vi"),
    )
)
"""Languages that write 1.234,5 for what English writes as 1,234.5."""
MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_ROMAN = re.compile(r"(?=.)M{0,3}(CM|CD|D?C{0,3})(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})")
_ROMAN_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_HALVES = {2: ("half", "halves"), 4: ("quarter", "quarters")}


@cache
def _library() -> Any:
    try:
        return importlib.import_module("num2words").num2words
    except ImportError:
        raise MissingExtra("saying numbers in words (num2words)", "align") from None


def _say(value: int | str, kind: str, language: str) -> list[str]:
    """Words of num2words; `language` such as "en", "en-GB", "fr". American English drops the "and"."""
    base = language.replace("_", "-").split("-")[0].lower()
    try:
        try:
            said = _library()(value, to=kind, lang=base)
        except NotImplementedError:
            if kind == "cardinal":
                raise
            said = _library()(value, to="cardinal", lang=base)
    except NotImplementedError:
        raise DataError(f"language '{language}': num2words cannot say {value}; write numbers as words") from None
    words = [word.lower() for word in re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", said)]
    if base == "en" and not language.lower().replace("_", "-").startswith("en-gb"):
        words = [word for word in words if word != "and"]
    return words


@cache
def digits(text: str, language: str = "en") -> tuple[str, ...]:
    """Say every digit by itself. Example: "007" -> zero zero seven"""
    return tuple(word for digit in text if digit.isdigit() for word in _say(int(digit), "cardinal", language))


@cache
def cardinal(text: str, language: str = "en") -> tuple[str, ...]:
    """Say a whole number without separators. Example: "42" -> forty two; "007" -> zero zero seven"""
    if len(text) > MAX_DIGITS or (len(text) > 1 and text[0] == "0"):
        return digits(text, language)
    return tuple(_say(int(text), "cardinal", language))


@cache
def ordinal(text: str, language: str = "en") -> tuple[str, ...]:
    """Say the place in a row. Example: "21" -> twenty first"""
    if len(text) > MAX_DIGITS or (len(text) > 1 and text[0] == "0"):
        return digits(text, language)
    return tuple(_say(int(text), "ordinal", language))


@cache
def year(text: str, language: str = "en") -> tuple[str, ...]:
    """Say a year. Example: "1455" -> fourteen fifty five; "1906" -> nineteen oh six"""
    return tuple(_say(int(text), "year", language))


@cache
def number(text: str, language: str = "en") -> tuple[str, ...]:
    """Say a number with separators and decimals. Example: "1,234.05" -> one thousand ... four point zero five"""
    base = language.replace("_", "-").split("-")[0].lower()
    group, point = (".", ",") if base in DECIMAL_COMMA else (",", ".")
    if point == "." and re.fullmatch(r"\d{1,3}(\.\d{3}){2,}", text):
        group, point = point, group
    # A lone group mark that does not stand before three digits is a decimal mark of another country.
    if point not in text and re.fullmatch(rf"\d+\{group}\d+", text) and not re.search(rf"\{group}\d{{3}}$", text):
        group, point = point, group
    if group in text and not re.fullmatch(rf"\d{{1,3}}(\{group}\d{{3}})+(\{point}\d+)*", text):
        return tuple(word for part in text.split(group) if part for word in number(part, language))
    whole, *rest = text.replace(group, "").split(point)
    said = cardinal(whole, language) if whole else ()
    for part in rest:
        said += _point(language) + (digits(part, language) if len(rest) == 1 else cardinal(part, language))
    return said


@cache
def _point(language: str) -> tuple[str, ...]:
    words = _say("1.1", "cardinal", language)
    one = _say(1, "cardinal", language)
    middle = [word for word in words if word not in one]
    return tuple(middle[:1]) or ("point",)


def plural(words: tuple[str, ...]) -> tuple[str, ...]:
    """Put the last English word in the plural. Example: nineteen ninety -> nineteen nineties"""
    last = words[-1]
    if last.endswith("y") and last[-2:-1] not in "aeou":
        return (*words[:-1], last[:-1] + "ies")
    return (*words[:-1], last + ("es" if last.endswith(("x", "s", "ch")) else "s"))


def fraction(above: str, below: str, language: str = "en") -> tuple[str, ...]:
    """Say an English fraction. Example: 1/2 -> one half; 3/4 -> three quarters; 2/3 -> two thirds"""
    many = int(above) != 1
    if int(below) in _HALVES:
        return (*cardinal(above, language), _HALVES[int(below)][many])
    part = ordinal(below, language)
    return (*cardinal(above, language), *(plural(part) if many else part))


def clock(hour: str, minute: str, second: str = "", *, exact: bool, language: str = "en") -> tuple[str, ...]:
    """Say a time of day. Example: 3:45 -> three forty five; 3:05 -> three oh five; 3:00 -> three o'clock

    Args:
        exact: "o'clock" is said after a full hour (not before "p.m.").
    """
    said = cardinal(str(int(hour)), language)
    if int(minute) or second:
        oh = ("oh",) if minute[0] == "0" else ()
        said += oh + cardinal(str(int(minute)), language)
    elif exact and 1 <= int(hour) <= 12:
        said += ("o'clock",)
    return said + (cardinal(str(int(second)), language) if second else ())


def date(year_: str, month: int, day: str, language: str = "en") -> tuple[str, ...]:
    """Say a date written in digits. Example: 2020-12-25 -> december twenty fifth twenty twenty"""
    said_year = year(year_, language) if len(year_) == 4 else cardinal(year_, language)
    return (MONTHS[month - 1], *ordinal(str(int(day)), language), *said_year)


def roman(text: str) -> int | None:
    """Value of a Roman numeral in capitals, None for anything else. Example: "VIII" -> 8; "IIX" -> None"""
    if not _ROMAN.fullmatch(text):
        return None
    values = [_ROMAN_VALUES[letter] for letter in text]
    return sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0], strict=True))
