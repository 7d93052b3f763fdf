"""How far subwords compress: pieces per unit, lengths and use of pieces, by split.

Enters: `Subwords` and rows of units with their splits. Leaves: `Compression` per split, JSON and a table. The one
decision worth knowing: counts add up batch by batch, so a corpus of any size is measured in the memory of one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int

from speechscale.tokens.ragged import Ragged, gather_rows
from speechscale.tokens.subwords import Subwords

CUERVO_UNITS_PER_PIECE = 1.73
"""500 HuBERT units at 25 Hz, runs collapsed, 5,000 unigram pieces: 10.89 billion units, 6.31 billion pieces.

Source: Cuervo and Marxer 2024, Table 1.
"""
ALL = "all"


@dataclass(slots=True)
class Compression:
    """What one split became. `usage`: how often each piece occurs."""

    subwords: Subwords
    sequences: int = 0
    usage: Int[np.ndarray, " pieces"] = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, pieces: Ragged) -> None:
        """Count encoded rows."""
        self.sequences += len(pieces.offsets) - 1
        counts = np.bincount(pieces.flat, minlength=self.subwords.size)
        self.usage = counts if not len(self.usage) else self.usage + counts

    @property
    def pieces(self) -> int:
        return int(self.usage.sum())

    @property
    def units(self) -> int:
        return int((self.usage * self.subwords.units_per_piece).sum()) if len(self.usage) else 0

    def to_json(self) -> dict[str, Any]:
        """The figures; a ratio of nothing is None."""
        lengths, total = self.subwords.units_per_piece, self.pieces
        by_length = np.bincount(lengths, weights=self.usage) if total else np.zeros(0)
        return {
            "sequences": self.sequences,
            "units": self.units,
            "pieces": total,
            "units_per_piece": self.units / total if total else None,
            "pieces_per_unit": total / self.units if total else None,
            "merged_share": int(self.usage[lengths > 1].sum()) / total if total else None,
            "share_by_length": {str(n): by_length[n] / total for n in np.flatnonzero(by_length).tolist()},
            "pieces_by_use": self._by_use(),
        }

    def _by_use(self) -> dict[str, int]:
        """How many pieces occur 0 times, 1-9 times, 10-99 times and so on; the parts add up to all pieces."""
        usage = self.usage if len(self.usage) else np.zeros(self.subwords.size, np.int64)
        classes = np.where(usage == 0, -1, np.floor(np.log10(np.maximum(usage, 1)) + 1e-12)).astype(int)
        counts = {f"{10**k}-{10 ** (k + 1) - 1}": int((classes == k).sum()) for k in range(classes.max(initial=-1) + 1)}
        return {"0": int((classes == -1).sum()), **counts}


@dataclass(slots=True)
class CompressionReport:
    """Compression of each split and of all."""

    subwords: Subwords
    splits: dict[str, Compression] = field(default_factory=dict)

    def add(self, units: Ragged, splits: Sequence[str]) -> None:
        """Encode rows of units and count them under their splits.

        Raises:
            DataError: a unit that the subwords do not have.
        """
        pieces = self.subwords.encode(units)
        names = np.array(splits, object)
        for name in sorted(set(splits)):
            rows = np.flatnonzero(names == name)
            self.splits.setdefault(name, Compression(self.subwords)).add(gather_rows(pieces, rows))
        self.splits.setdefault(ALL, Compression(self.subwords)).add(pieces)

    def to_json(self) -> dict[str, Any]:
        return {name: part.to_json() for name, part in sorted(self.splits.items())}

    def text(self) -> str:
        """A table of the splits, then how often the pieces are used."""
        lines = [f"{'split':<10}{'units':>14}{'pieces':>14}{'units/piece':>13}{'pieces/unit':>13}{'merged':>9}"]
        for name, row in self.to_json().items():
            if row["pieces"]:
                lines.append(
                    f"{name:<10}{row['units']:>14,}{row['pieces']:>14,}{row['units_per_piece']:>13.3f}"
                    f"{row['pieces_per_unit']:>13.3f}{row['merged_share']:>9.1%}"
                )
        whole = self.splits[ALL].to_json()
        lengths = ", ".join(f"{length}: {share:.1%}" for length, share in whole["share_by_length"].items())
        used = ", ".join(f"{times}: {count:,}" for times, count in whole["pieces_by_use"].items())
        return "\n".join(
            [
                *lines,
                f"pieces by length in units: {lengths}",
                f"pieces by times used: {used}",
                f"compare: {CUERVO_UNITS_PER_PIECE} units per piece with 500 HuBERT units, 5,000 pieces (Cuervo 2024)",
            ]
        )
