"""Results as JSON: dataclasses to plain dicts.

Enters: any result of the scaling room. Leaves: dicts, lists, numbers, strings.
The one decision worth knowing: an infinite number is the string "inf" (JSON has none), so that an open end of an
interval is not taken for one that was not measured (null); fields that hold replicates are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def to_json(value: Any, *, name_infinity: bool = True) -> Any:
    """Turn a result into what `json` can write. Example: to_json(Estimate(value=1.0, ...)) -> {"value": 1.0, ...}

    Args:
        name_infinity: write "inf" and "-inf"; otherwise null, like NaN.
    """

    def inner(item: Any) -> Any:
        return to_json(item, name_infinity=name_infinity)

    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: inner(getattr(value, f.name)) for f in fields(value) if f.repr}
    if isinstance(value, Mapping):
        return {str(key): inner(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [inner(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) or not name_infinity else "inf" if value > 0 else "-inf"
    return value
