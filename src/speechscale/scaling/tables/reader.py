"""One file of runs while it is read: cells, units, what is said about it, why rows go.

Enters: a `RawTable` and the units that were given. Leaves: columns of numbers.
The one decision worth knowing: a unit comes from the caller, the heading or the cells, from one of them only; numbers
that only make sense in another unit are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from speechscale.errors import DataError
from speechscale.scaling.tables.quantities import heading_unit, read_column, read_unit
from speechscale.scaling.tables.table_files import RawTable

MILLIONS_LIKELY = {"N": (1e4, "M"), "D": (1e5, "B"), "C": (1e6, "1e18")}
"""A column without a unit whose largest number is below this is refused: nobody trains 124 parameters."""
PLAIN = ("params_total", "params_non_embedding", "tokens_seen")
"""Columns of our own studies, which may be as small as they like."""
UNSCALED = ("loss", "loss_se")
"""A heading gives these, and metrics, no unit: "loss_B" is the loss of something called B."""
WHAT = {"N": "parameters", "D": "tokens", "C": "FLOPs"}


@dataclass(slots=True)
class Reader:
    """One file while it is read: where it came from, what is said about it, why rows go."""

    path: str
    raw: RawTable
    units: Mapping[str, float]
    echoes: list[str]
    reasons: dict[int, str] = field(default_factory=dict)
    used_units: set[str] = field(default_factory=set)

    def drop(self, bad: Bool[np.ndarray, " rows"], reason: Any) -> None:
        """Note why rows go; the first reason of a row stays."""
        for position in np.flatnonzero(bad):
            self.reasons.setdefault(int(position), reason(int(position)) if callable(reason) else reason)

    def cells(self, column: str) -> list[str]:
        return list(self.raw.frame[column])

    def numbers(self, column: str, name: str) -> Float[np.ndarray, " rows"]:
        """A column as numbers in its unit; NaN where a cell is empty.

        Raises:
            DataError: a cell that is not a number; a unit given twice.
        """
        cells = self.cells(column)
        unit, said = self._unit(column, name)
        values, own, bad = read_column(cells)
        if bad:
            raise DataError(
                f"{self.path}, row {self.raw.rows[bad[0]]}, column '{column}': '{cells[bad[0]]}' is not a number with "
                f"one reading ({len(bad)} such cells); write e.g. 20.7M, 3e18 or 20,710,912, or leave it empty"
            )
        if own and unit is not None:
            raise DataError(
                f"{self.path}, column '{column}': cells name a unit and so does {said}; leave one of them out"
            )
        if unit is not None or own:
            position = int(np.argmax(np.isfinite(values)))
            value = values[position] * (unit or 1.0)
            self.echoes.append(f"column '{column}': {cells[position]} read as {value:.4g} {WHAT.get(name, name)}")
        elif name in MILLIONS_LIKELY and column not in PLAIN:
            self._refuse_unitless(column, name, values)
        return values if unit is None else values * unit

    def _unit(self, column: str, name: str) -> tuple[float | None, str]:
        for key in (name, column):
            if key in self.units:
                self.used_units.add(key)
                return self.units[key], f"--unit {key}"
        if name in UNSCALED or (name == column and name not in WHAT):
            return None, ""
        text = heading_unit(column)[1]
        return (None, "") if text is None else (read_unit(text), "its heading")

    def _refuse_unitless(self, column: str, name: str, values: np.ndarray) -> None:
        limit, unit = MILLIONS_LIKELY[name]
        good = values[np.isfinite(values)]
        if len(good) and good.max() <= limit:
            raise DataError(
                f"{self.path}, column '{column}': {WHAT[name]} from {good.min():g} to {good.max():g} and no unit; "
                f"say which, e.g. --unit {name}={unit} (--unit {name}=1 if they are meant as they stand)"
            )
