"""Columns of a form of law, from a table of runs.

Enters: a `RunTable` and the columns a form reads. Leaves: arrays by the form's short names.
The one decision worth knowing: what a table does not say is refused by name; nothing is assumed to be 0 but the tokens
of a modality that the table has no column for while it has one of the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.scaling.tables.run_table import Role, RunTable

_MIXED: dict[str, Role] = {
    "D_speech": "tokens_speech",
    "D_text": "tokens_text",
    "D_interleaved": "tokens_interleaved",
}


def columns_of(table: RunTable, wanted: Sequence[str]) -> dict[str, Float[np.ndarray, " runs"]]:
    """Collect N, D, U (unique tokens), T (text tokens of the TextLM), warm, D_speech, D_text, D_interleaved.

    Example: columns_of(table, ("N", "D", "U"))["U"] -> unique tokens; from epochs where only these are given

    Raises:
        DataError: the table has no such column, or an entry of it is empty.
    """
    return {name: _column(table, name) for name in wanted}


def _column(table: RunTable, name: str) -> Float[np.ndarray, " runs"]:
    if name == "N":
        return table.params
    if name == "D":
        return table.tokens
    if name == "U":
        unique, epochs = table.numbers("unique_tokens"), table.numbers("epochs")
        # a run of less than an epoch has seen what it has seen, whatever the size of the corpus
        values = np.where(np.isfinite(unique), unique, table.tokens / np.maximum(epochs, 1.0))
        return _complete(table, np.minimum(values, table.tokens), "unique_tokens (or epochs)")
    if name == "T":
        if "text_lm_tokens" not in table.extras:
            _complete(table, np.full(len(table), np.nan), "text_lm_tokens")
        tokens = table.numbers("text_lm_tokens")
        return np.where(np.isfinite(tokens), tokens, 0.0)
    if name == "warm":
        return (_complete(table, table.numbers("warm"), "warm") > 0).astype(float)
    role = _MIXED[name]
    if role not in table.extras and any(other in table.extras for other in _MIXED.values()):
        return np.zeros(len(table))
    return _complete(table, table.numbers(role), role)


def _complete(table: RunTable, values: np.ndarray, role: str) -> Float[np.ndarray, " runs"]:
    missing = np.flatnonzero(~np.isfinite(values))
    if len(missing) == len(values):
        raise DataError(
            f"table {table.name}: this law reads {role}; name its column with --col {role.split()[0]}=COLUMN"
        )
    if len(missing):
        raise DataError(f"table {table.name}: {role} of run {missing[0]} is empty ({len(missing)} such runs)")
    return values
