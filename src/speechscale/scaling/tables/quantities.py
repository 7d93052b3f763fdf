"""Numbers as people write them: 20.7M, 300B tokens, 3e18, "N (M)".

Enters: texts of cells and headings. Leaves: floats, and what a heading says about its unit.
The one decision worth knowing: nothing is guessed. A text with two readings, or a column without a unit whose numbers
only make sense in millions, is refused with both ways out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError

SCALES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "Z": 1e21, "Y": 1e24}
_WORDS = {"thousand": 1e3, "million": 1e6, "mio": 1e6, "billion": 1e9, "trillion": 1e12}
_FLOP_PREFIXES = {"kilo": 1e3, "mega": 1e6, "giga": 1e9, "tera": 1e12, "peta": 1e15, "exa": 1e18, "zetta": 1e21}
PETAFLOP_DAY = 1e15 * 86400.0
_NOUN = r"(?:params?|parameters?|tokens?|units?|flops?|weights?)"
_PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_TIMES = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))\s*[x×*·]\s*10\s*(?:\^|\*\*)\s*([+-]?\d+)")
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:([,_])\d{3})(?:\1\d{3})*(?:\.\d+)?")
_CELL = re.compile(
    r"(?P<number>[+-]?[\d.][\d.,_]*(?:[eE][+-]?\d+)?(?:\s*[x×*·]\s*10\s*(?:\^|\*\*)\s*[+-]?\d+)?)(?P<rest>.*)"
)
_EXAMPLES = "write e.g. 20.7M, 1.5B, 300B tokens, 3e18 or 20,710,912"


def read_quantity(text: str | float) -> float:
    """Read a number with its unit. Example: "20.7M" -> 2.07e7; "300B tokens" -> 3e11; "2.1e18 FLOPs" -> 2.1e18

    Raises:
        DataError: not a number, an unknown unit, or a decimal comma ("1.234,5" has two readings).
    """
    return _read(text)[0]


def read_compute(text: str) -> float:
    """Read a compute in FLOPs. Example: "2 EFLOPs" -> 2e18

    Raises:
        DataError: not a number, or not finite and above 0.
    """
    flops = read_quantity(text)
    if not (math.isfinite(flops) and flops > 0):
        raise DataError(f"compute '{text}': must be finite and above 0 FLOPs")
    return flops


def read_unit(text: str) -> float:
    """Read a unit. Example: "M" -> 1e6; "1e18" -> 1e18; "PF-days" -> 8.64e19; "tokens" -> 1

    Raises:
        DataError: not a unit.
    """
    scale = _scale(text.strip())
    if scale is None:
        try:
            scale = _number(text.strip())
        except ValueError:
            scale = math.nan
    if not (math.isfinite(scale) and scale > 0):
        raise DataError(f"unit '{text}': allowed are K, M, B, T, EFLOPs, PF-days, a factor such as 1e18, or a word")
    return scale


def heading_unit(heading: str) -> tuple[str, str | None]:
    """Split a heading into name and unit. Example: "N (M)" -> ("N", "M"); "params_M" -> ("params", "M")

    The unit is None where the heading names none that `read_unit` knows.
    """
    text = heading.strip()
    found = re.fullmatch(r"(.*?)[\s_]*[(\[]\s*(?:in\s+)?(.+?)\s*[)\]]", text)
    if found is None:
        found = re.fullmatch(r"(.*\S)(?:_in_|\s+in\s+|,\s*)(\S+)", text)
    if found is None:
        found = re.fullmatch(r"(.*[^\s_])[\s_]+([KMBT]|[PEZ]FLOPs?|millions?|billions?|trillions?)", text)
    if found is None or not found[1].strip():
        return text, None
    try:
        scale = read_unit(found[2])
    except DataError:
        return text, None
    if not math.isclose(math.log10(scale), round(math.log10(scale))) and scale != PETAFLOP_DAY:
        return text, None  # "loss (2)" is a second column of losses
    if scale == 1.0 and found[2].strip().replace(".", "").isdecimal():
        return text, None
    return found[1].strip(), found[2].strip()


def read_column(cells: Sequence[str]) -> tuple[Float[np.ndarray, " rows"], bool, list[int]]:
    """Read the cells of a column; "" and NaN become NaN.

    Returns: numbers, whether any cell names its own unit, and the positions of unreadable cells.
    """
    texts = np.asarray(cells, dtype=object)
    values, own, bad = np.full(len(texts), np.nan), False, []
    for position, cell in enumerate(texts):
        text = cell if isinstance(cell, str) else repr(cell)
        try:
            values[position] = float(text.replace("_", "?"))  # to Python 1_2 is a number
        except ValueError:
            if not text.strip() or text.strip().lower() in _EMPTY:
                continue
            try:
                values[position], scaled = _read(text)
                own = own or scaled
            except DataError:
                bad.append(position)
    return values, own, bad


_EMPTY = frozenset({"na", "n/a", "none", "null", "-", "?"})


def _read(text: str | float) -> tuple[float, bool]:
    """The value, and whether the text carries a scale."""
    if not isinstance(text, str):
        return float(text), False
    found = _CELL.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError
        rest = found["rest"].strip()
        scale = _scale(rest)
        if scale is None:
            raise ValueError
        if scale != 1.0 and re.fullmatch(r"[+-]?\d{1,3},\d{3}", found["number"]):
            raise ValueError  # 1,234M: 1.234 or 1234 million?
        return _number(found["number"]) * scale, scale != 1.0
    except ValueError:
        pass
    raise DataError(f"'{text}' is not a number that has one reading; {_EXAMPLES}, with a decimal point")


def _number(text: str) -> float:
    """Raises ValueError where the text is not a number or has two readings."""
    if _PLAIN.fullmatch(text):
        return float(text)
    if times := _TIMES.fullmatch(text):
        return float(f"{times[1]}e{times[2]}")
    if _GROUPED.fullmatch(text):
        return float(re.sub("[,_]", "", text))
    raise ValueError(text)


def _scale(text: str) -> float | None:
    """The factor that a unit names, None if it is none."""
    if re.fullmatch(r"(?i)(pf|petaflops?|pflops?)(/s)?[\s-]*days?", text):
        return PETAFLOP_DAY
    bare = re.sub(rf"(?i)\s*{_NOUN}$", "", text).strip()
    if bare.upper() in SCALES and (bare.upper() in "KMBT" or re.search("(?i)flop", text) or bare.isupper()):
        return SCALES[bare.upper()]
    low = bare.lower()
    if low.rstrip("s") in _WORDS:
        return _WORDS[low.rstrip("s")]
    return _FLOP_PREFIXES.get(low)
