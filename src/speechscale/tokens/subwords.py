"""Subwords of units: pieces of several units, as words of text have pieces of several letters.

Enters: rows of units. Leaves: rows of piece numbers, and the units back without loss. On disk one JSON file.
The one decision worth knowing: piece numbers 0..num_units-1 are the single units and merged pieces follow, so every
sequence can be spelled, rare units included; encoding needs only `tokenizers`, whoever trained the pieces.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer, models

from speechscale.errors import DataError
from speechscale.files import canonical_sha256, complete_file, read_versioned
from speechscale.records import offsets
from speechscale.tokens.ragged import Ragged, gather_rows

Kind = Literal["unigram", "bpe"]
KINDS = ("unigram", "bpe")
FORMAT, FORMAT_VERSION = "speechscale subwords", 1
ALPHABETS = ((0x0100, 0x0700), (0x3400, 0x6C00), (0xF0000, 0xFFFE))
"""First code point and size of the ranges that stand for units; no blanks, no surrogates. Short in UTF-8 is fast."""
ENCODE_CHUNK_UNITS = 1 << 20
_REMEDY = "train the subwords again"


@dataclass(frozen=True, kw_only=True)
class Subwords:
    """Pieces of units; make one with `train_subwords` or `load`.

    Args:
        pieces: the merged pieces as units, two or more each; piece number `num_units + i` is `pieces[i]`.
        scores: unigram: log probability of every piece, single units first.
        merges: bpe: the two piece numbers that each merge joins, first merge first.
        record: how they were trained; does not change what they are.
    """

    kind: Kind
    num_units: int
    pieces: tuple[tuple[int, ...], ...] = field(repr=False)
    scores: tuple[float, ...] = field(default=(), repr=False)
    merges: tuple[tuple[int, int], ...] = field(default=(), repr=False)
    record: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise DataError(f"subwords: {problem}; {_REMEDY}")

    def _problem(self) -> str:
        if self.kind not in KINDS:
            return f"kind '{self.kind}' is unknown; allowed: {', '.join(KINDS)}"
        if not 1 <= self.num_units <= ALPHABETS[-1][1]:
            return f"{self.num_units} units; allowed are 1..{ALPHABETS[-1][1]}"
        if any(len(piece) < 2 or not 0 <= min(piece) <= max(piece) < self.num_units for piece in self.pieces):
            return f"a merged piece needs two or more units below {self.num_units}"
        if len(set(self.pieces)) != len(self.pieces):
            return "a merged piece occurs twice"
        if self.kind == "unigram":
            good = len(self.scores) == self.size and all(map(math.isfinite, self.scores)) and not self.merges
            return "" if good else f"{self.size} unigram pieces need as many finite scores and no merges"
        if self.scores or any(not 0 <= number < self.size for pair in self.merges for number in pair):
            return f"bpe needs no scores, and merges of pieces 0..{self.size - 1}"
        made = {self.units(left) + self.units(right) for left, right in self.merges}
        return "" if made == set(self.pieces) else "its merges make other pieces than it lists"

    @property
    def size(self) -> int:
        """Number of pieces, single units included."""
        return self.num_units + len(self.pieces)

    def units(self, piece: int) -> tuple[int, ...]:
        """The units of one piece number."""
        return (piece,) if piece < self.num_units else self.pieces[piece - self.num_units]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what decides an encoding."""
        return canonical_sha256({name: getattr(self, name) for name in _CONTENT})

    @cached_property
    def units_per_piece(self) -> Int[np.ndarray, "size"]:
        return np.array([1] * self.num_units + [len(piece) for piece in self.pieces], np.int32)

    @cached_property
    def _table(self) -> Ragged:
        """The units of every piece."""
        flat = np.array([*range(self.num_units), *chain.from_iterable(self.pieces)], np.int32)
        return Ragged(flat, offsets(self.units_per_piece))

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        names = [to_texts(np.array(self.units(piece)), [0], self.num_units)[0] for piece in range(self.size)]
        if self.kind == "unigram":
            return Tokenizer(models.Unigram(list(zip(names, self.scores, strict=True)), None, False))
        merges = [(names[left], names[right]) for left, right in self.merges]
        return Tokenizer(models.BPE({name: index for index, name in enumerate(names)}, merges))

    def encode(self, units: Ragged) -> Ragged:
        """Cut rows of units into pieces; returns int32 piece numbers, one row per row.

        Raises:
            DataError: a unit that is not in 0..num_units-1.
        """
        starts = np.asarray(units.offsets, np.int64)
        check_units(units.flat[starts[0] : starts[-1]], self.num_units)
        cuts = np.searchsorted(starts[:-1], np.arange(starts[0], starts[-1], ENCODE_CHUNK_UNITS))
        chunks, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
        for first, stop in pairwise(np.unique([0, *cuts, len(starts) - 1]).tolist()):
            texts = to_texts(units.flat[starts[first] : starts[stop]], starts[first:stop], self.num_units)
            rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
            lengths.append(np.fromiter(map(len, rows), np.int64, len(rows)))
            chunks.append(np.fromiter(chain.from_iterable(rows), np.int32, int(lengths[-1].sum())))
        flat = np.concatenate(chunks)
        assert self.units_per_piece[flat].sum() == starts[-1] - starts[0], "the tokenizers library dropped units"
        return Ragged(flat, offsets(np.concatenate(lengths)))

    def decode(self, pieces: Ragged) -> Ragged:
        """Spell rows of piece numbers; the inverse of `encode`. Raises DataError for a number out of range."""
        flat = pieces.flat[pieces.offsets[0] : pieces.offsets[-1]]
        spelled = self.spell(flat)
        ends = np.concatenate(([0], np.cumsum(self.units_per_piece[flat], dtype=np.int64)))
        return Ragged(spelled, ends[np.asarray(pieces.offsets, np.int64) - int(pieces.offsets[0])])

    def spell(self, pieces: Int[np.ndarray, " pieces"]) -> Int[np.ndarray, " units"]:
        """The units of piece numbers, flat. Raises DataError for a number out of range."""
        if len(pieces) and (pieces.min() < 0 or pieces.max() >= self.size):
            raise DataError(f"pieces run {pieces.min()}..{pieces.max()}, the subwords have 0..{self.size - 1}")
        return gather_rows(self._table, pieces).flat

    def __getstate__(self) -> dict[str, Any]:
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    def save(self, path: Path | str) -> None:
        """Write one JSON file."""
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, "fingerprint": self.fingerprint}
        content |= self.__getstate__()
        with complete_file(Path(path)) as draft:
            draft.write_text(json.dumps(content, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> Subwords:
        """Read and verify a saved file. Raises DataError if it is missing, damaged or of another format."""
        path = Path(path)
        saved = read_versioned(path, "subwords", _REMEDY, format=FORMAT, version=FORMAT_VERSION)
        try:
            made = cls(
                kind=saved["kind"],
                num_units=saved["num_units"],
                pieces=tuple(tuple(map(int, piece)) for piece in saved["pieces"]),
                scores=tuple(map(float, saved["scores"])),
                merges=tuple((int(left), int(right)) for left, right in saved["merges"]),
                record=dict(saved["record"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"subwords {path}: {error}; {_REMEDY}") from error
        if made.fingerprint != saved.get("fingerprint"):
            raise DataError(f"subwords {path}: its content does not fit its fingerprint; {_REMEDY} or restore it")
        return made


_CONTENT = ("kind", "num_units", "pieces", "scores", "merges")


def alphabet_start(num_units: int) -> int:
    """Code point that stands for unit 0."""
    return next(start for start, size in ALPHABETS if num_units <= size)


def to_texts(flat: Int[np.ndarray, " units"], starts: Sequence[int] | np.ndarray, num_units: int) -> list[str]:
    """One character per unit; text i begins at `starts[i] - starts[0]` and ends where the next begins."""
    codes = np.asarray(flat, np.int64) + alphabet_start(num_units)
    text = codes.astype("<u4").tobytes().decode("utf-32-le")
    borders = [*(np.asarray(starts) - starts[0]).tolist(), len(text)]
    return [text[first:stop] for first, stop in pairwise(borders)]


def check_units(units: Int[np.ndarray, " units"], num_units: int) -> None:
    """Raise DataError if a unit is out of range."""
    if len(units) and (units.min() < 0 or units.max() >= num_units):
        raise DataError(
            f"subwords: units run {units.min()}..{units.max()}, allowed are 0..{num_units - 1}; another tokenizer?"
        )
