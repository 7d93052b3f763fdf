"""Say what is written with digits: amounts, money, times, dates, fractions, ranges, years.

Enters: one written word without the punctuation around it, and its neighbors. Leaves: the spoken words, or nothing when
it is no quantity as a whole. The one decision worth knowing: patterns must match the whole word, first match wins, so
that each rule can be read and tested alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from speechscale.align.normal_tables import CURRENCIES, MAGNITUDE_WORDS, MAGNITUDES, UNITS
from speechscale.align.numerals import (
    MONTHS,
    cardinal,
    clock,
    date,
    digits,
    fraction,
    number,
    ordinal,
    plural,
    year,
)

NUMBER = r"(?:\d+(?:[.,]\d+)*|\.\d+)"
_SIGNS = "".join(CURRENCIES)
_SUFFIX = r"%|[^\W\d_]{1,3}\.?|[" + _SIGNS + r"]|°[CF]?|km/h|m/s|k?m[²³]|-?[Mm]illion|-?[Bb]illion|-?[Tt]rillion"
_AMOUNT = re.compile(rf"([-+~±])?((?:US|A|C|CA|AU|NZ|HK)?[{_SIGNS}])?({NUMBER})({_SUFFIX})?")
_PHONES = {(3, 4), (3, 3, 4), (1, 3, 3, 4), (1, 3, 4)}
_DENOMINATORS = frozenset((2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 20, 32, 50, 64, 100))
"""Of fractions; other numbers with a slash (9/11, 24/7) are read one after the other."""
_TIME = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?([AaPp]\.?[Mm]\.?)?")
_SIGN_WORDS = {"-": ("minus",), "+": ("plus",), "~": ("about",), "±": ("plus", "or", "minus")}

Said = tuple[tuple[str, ...], tuple[str, ...]]
"""Words said now, and words said after the next written word ("$5 million": five | million | dollars)."""


@dataclass(frozen=True, slots=True)
class Context:
    """What stands around a written word, without punctuation; "" at the ends."""

    before: str
    after: str
    language: str

    @property
    def english(self) -> bool:
        return self.language.lower().startswith("en")


def quantity(core: str, context: Context) -> Said | None:
    """Say a word that is one quantity as a whole, None when it is not.

    Example: "$5.50" -> (five dollars and fifty cents), ()
    """
    if not any(character.isdigit() for character in core):
        return None
    rules = _ENGLISH_RULES if context.english else ()
    for pattern, rule in rules:
        if (match := pattern.fullmatch(core)) and (words := rule(match, context)) is not None:
            return words, ()
    return (_range(core, context) if context.english else None) or _amount(core, context)


def _time(match: re.Match[str], context: Context) -> tuple[str, ...] | None:
    hour, minute, second, half = match.groups()
    if int(hour) > 24 or int(minute) > 59:
        return None
    after = re.sub(r"\W", "", context.after).lower()
    exact = half is None and after not in ("am", "pm") and "o'clock" not in context.after.lower()
    return clock(hour, minute, second or "", exact=exact, language=context.language) + _half_day(half)


def _hour(match: re.Match[str], context: Context) -> tuple[str, ...] | None:
    return cardinal(str(int(match[1])), context.language) + _half_day(match[2]) if int(match[1]) <= 24 else None


def _half_day(half: str | None) -> tuple[str, ...]:
    return tuple(letter for letter in (half or "").lower() if letter.isalpha())


def _iso_date(match: re.Match[str], context: Context) -> tuple[str, ...] | None:
    if not (1 <= int(match[2]) <= 12 and 1 <= int(match[3]) <= 31):
        return None
    return date(match[1], int(match[2]), match[3], context.language)


def _slash_date(match: re.Match[str], context: Context) -> tuple[str, ...] | None:
    month, day = int(match[1]), match[2]
    if context.language.lower().replace("_", "-").startswith("en-gb") or month > 12:
        month, day = int(match[2]), match[1]
    return date(match[3], month, day, context.language) if 1 <= month <= 12 and 1 <= int(day) <= 31 else None


def _place(match: re.Match[str], context: Context) -> tuple[str, ...]:
    return ordinal(match[1].replace(",", ""), context.language)


def _decade(match: re.Match[str], context: Context) -> tuple[str, ...]:
    text = match[1]
    return plural(year(text, context.language) if len(text) == 4 else cardinal(text, context.language))


def _fraction(match: re.Match[str], context: Context) -> tuple[str, ...] | None:
    above, below = int(match[1]), int(match[2])
    if not 0 < above < below or below not in _DENOMINATORS:
        return None
    link = ("and",) if re.fullmatch(r"\d+", context.before) else ()
    return link + fraction(match[1], match[2], context.language)


def _mixed(match: re.Match[str], context: Context) -> tuple[str, ...]:
    return (*cardinal(match[1], context.language), "and", *fraction(match[2], match[3], context.language))


def _feet(match: re.Match[str], context: Context) -> tuple[str, ...]:
    feet, inches = ("foot" if match[1] == "1" else "feet"), ("inch" if match[2] == "1" else "inches")
    return (*cardinal(match[1], context.language), feet, *cardinal(match[2], context.language), inches)


def _groups(match: re.Match[str], context: Context) -> tuple[str, ...] | None:
    """Telephone and other numbers of several groups, read digit by digit."""
    parts = re.findall(r"\d+", match[0])
    if tuple(map(len, parts)) in _PHONES:
        return digits(match[0], context.language)
    return tuple(w for part in parts for w in cardinal(part, context.language)) if len(parts) > 2 else None


def _count_of(match: re.Match[str], context: Context) -> tuple[str, ...]:
    return ("number", *number(match[1], context.language))


def _power(match: re.Match[str], context: Context) -> tuple[str, ...]:
    said = number(match[1], context.language)
    if match[2] in ("2", "3"):
        return (*said, "squared" if match[2] == "2" else "cubed")
    return (*said, "to", "the", *ordinal(match[2], context.language))


def _range(core: str, context: Context) -> Said | None:
    """Say "1914-1918", "$5-10 million", "5-10%" with "to" in the middle."""
    match = re.fullmatch(r"(.*\d[^-]*)-{1,2}([^-]*\d.*)", core)
    times = [_TIME.fullmatch(part) for part in match.groups()] if match else []
    if len(times) == 2 and times[0] and times[1]:
        around = Context("", "am", context.language)  # no o'clock inside a range
        first_time, last_time = _time(times[0], around), _time(times[1], around)
        return ((*first_time, "to", *last_time), ()) if first_time and last_time else None
    parts = [_AMOUNT.fullmatch(part) for part in match.groups()] if match else []
    if len(parts) != 2 or not all(parts):
        return None
    assert match is not None
    left, right = match.groups()
    if parts[0] and parts[1] and parts[0][2] and not (parts[1][2] or parts[1][4] in CURRENCIES):
        left, right = left.removeprefix(parts[0][2]), parts[0][2] + right
    first, last = _amount(left, Context(context.before, "", context.language)), _amount(right, context)
    if re.fullmatch(r"[12]\d{3}", left) and re.fullmatch(r"0\d", right):
        last = ("oh", *cardinal(right[1], context.language)), ()
    if first is None or last is None:
        return None
    link = () if left == right else ("to",)
    return (*first[0], *link, *last[0]), last[1]


def _amount(core: str, context: Context) -> Said | None:
    """Say a number with its sign, currency, unit or magnitude."""
    match = _AMOUNT.fullmatch(core)
    if match is None:
        return None
    sign, currency, text, suffix = match.groups()
    said = _SIGN_WORDS[sign] if sign and context.english else ()
    if not context.english:
        return None if currency or suffix or sign else ((*said, *_plain(text, context)), ())
    if suffix in CURRENCIES and not currency:
        currency, suffix = suffix, None
    if currency:
        money = _money(currency, text, suffix, context)
        return money and ((*said, *money[0]), money[1])
    if suffix is None:
        return (*said, *_plain(text, context)), ()
    words = number(text, context.language)
    if suffix == "%":
        return (*said, *words, "percent"), ()
    if (unit := UNITS.get(suffix, UNITS.get(suffix.rstrip(".")))) and suffix != "M":
        return (*said, *words, *unit[text != "1"].split()), ()
    if magnitude := {"K": "thousand", "k": "thousand", "M": "million", "B": "billion", "bn": "billion"}.get(
        suffix, suffix.lower().strip("-") if suffix.lower().strip("-") in MAGNITUDE_WORDS else ""
    ):
        return (*said, *words, magnitude), ()
    return None


def _money(currency: str, text: str, suffix: str | None, context: Context) -> Said | None:
    one, many, cent, cents = CURRENCIES[currency[-1]]
    country = tuple(letter for letter in currency[:-1].lower())
    language = context.language
    if suffix is not None:
        suffix = suffix.lower().strip("-.")
        magnitude = MAGNITUDES.get(suffix, suffix)
        if magnitude not in MAGNITUDE_WORDS:
            return None
        return (*number(text, language), magnitude, *country, many), ()
    if context.after.lower() in MAGNITUDE_WORDS:
        return number(text, language), (*country, many)
    split = re.fullmatch(r"([\d,]*)\.(\d\d)", text)
    if not split or not cent:
        return (*number(text, language), *country, one if text == "1" else many), ()
    whole, part = number(split[1] or "0", language), int(split[2])
    small = (*cardinal(str(part), language), cent if part == 1 else cents) if part else ()
    if split[1].strip("0,") == "" and part:
        return small, ()
    large = (*whole, *country, one if split[1] == "1" else many)
    return ((*large, "and", *small) if small else large), ()


def _plain(text: str, context: Context) -> tuple[str, ...]:
    """Say a bare number: the day after a month, a year, or an amount."""
    if context.english and re.fullmatch(r"0?[1-9]|[12]\d|3[01]", text) and _is_month(context.before):
        return ordinal(str(int(text)), context.language)
    counted = context.after in UNITS or context.after.lower() in MAGNITUDE_WORDS or context.after.startswith("%")
    if re.fullmatch(r"[12]\d{3}", text) and int(text) < 2100 and not counted:
        return year(text, context.language)
    return number(text, context.language)


def _is_month(word: str) -> bool:
    name = word.lower()
    return word[:1].isupper() and (name in MONTHS or name in {month[:3] for month in MONTHS} or name == "sept")


_Rule = Callable[[re.Match[str], Context], tuple[str, ...] | None]
_ENGLISH_RULES: tuple[tuple[re.Pattern[str], _Rule], ...] = (
    (_TIME, _time),
    (re.compile(r"(\d{1,2})\.(\d\d)()([AaPp]\.?[Mm]\.?)"), _time),
    (re.compile(r"(\d{1,2})([AaPp]\.?[Mm]\.?)"), _hour),
    (re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})"), _iso_date),
    (re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}|\d\d)"), _slash_date),
    (re.compile(r"(\d[\d,]*)(?:st|nd|rd|th|ST|ND|RD|TH|d)"), _place),
    (re.compile(r"'?(\d{1,3}0)'?[sS]"), _decade),
    (re.compile(r"(\d{1,15})/(\d{1,15})"), _fraction),
    (re.compile(r"(\d{1,15})[ -]([1-9]\d?)/([1-9]\d?)"), _mixed),
    (re.compile(r"(\d{1,3})'(\d{1,2})\"?"), _feet),
    (re.compile(r"\(?\d+\)?(?:-\d+)+"), _groups),
    (re.compile(rf"#({NUMBER})"), _count_of),
    (re.compile(rf"({NUMBER})\^(\d{{1,3}})"), _power),
)
