"""Training of subwords: unigram by SentencePiece, BPE by `tokenizers`.

Enters: sequences of units. Leaves: `Subwords`. The one decision worth knowing: SentencePiece is given its seed pieces.
Left alone, 0.2.3 searches bytes, and what it finds depends on the characters that stand for the units: on the same
0.4 million units 7,170 seeds with three-byte characters and 219,648 with two-byte ones, 2.19 and 2.63 units per piece.
"""

from __future__ import annotations

import heapq
import io
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, trainers

from speechscale.errors import DataError, MissingExtra
from speechscale.records import offsets
from speechscale.tokens.ragged import Ragged, draw_bits
from speechscale.tokens.subwords import ALPHABETS, KINDS, Kind, Subwords, alphabet_start, check_units, to_texts

LONGEST_PIECE = 16
MAX_UNITS = 5_000_000
"""Units trained on at most, about 70 hours of speech at 20 units per second."""
LONGEST_ROW = 4096
"""Longer sequences are cut for training: SentencePiece adds up their likelihood in single precision."""
SEED_PIECES = 1_000_000
UNSEEN_PENALTY = 10.0
"""A unit that never occurs scores so much below the rarest piece, as SentencePiece scores unknown characters."""

SENTENCEPIECE: dict[str, Any] = {
    "model_type": "unigram",
    "hard_vocab_limit": False,
    "character_coverage": 1.0,
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "split_by_unicode_script": False,
    "split_by_number": False,
    "split_by_whitespace": False,
    "max_sentence_length": 4 * LONGEST_ROW + 4,
    "num_threads": 1,
    "unk_id": 0,
    "bos_id": -1,
    "eos_id": -1,
    "pad_id": -1,
    "minloglevel": 2,
}
"""Units are no text: nothing is normalized, split or left out."""


def train_subwords(
    sequences: Iterable[np.ndarray],
    kind: Kind | str,
    size: int,
    num_units: int,
    seed: int = 0,
    *,
    longest_piece: int = LONGEST_PIECE,
    max_units: int = MAX_UNITS,
) -> Subwords:
    """Learn pieces of units; the same sequences and seed give the same pieces.

    Args:
        sequences: rows of units, read once; memory holds at most about `max_units` of them.
        kind: "unigram" (SentencePiece) or "bpe".
        size: pieces, single units included (5,000 in Cuervo and Marxer 2024).
        num_units: units are 0..num_units-1; each is a piece even if it never occurs.
        seed: chooses the sequences where there are more than `max_units` units.
        longest_piece: units in a piece at most.

    Raises:
        DataError: unknown kind, a unit out of range, no units, a size that is too small or cannot be reached.
        MissingExtra: unigram without sentencepiece.
    """
    if kind not in KINDS:
        raise DataError(f"subwords of kind '{kind}' are unknown; allowed: {', '.join(KINDS)}")
    if not 1 <= num_units <= ALPHABETS[-1][1]:
        raise DataError(f"subwords: {num_units} units; allowed are 1..{ALPHABETS[-1][1]}")
    if size <= num_units:
        raise DataError(f"subwords: size {size} counts the {num_units} single units too; give more than {num_units}")
    if longest_piece < 2 or max_units < 1:
        raise DataError(
            f"subwords: pieces of at most {longest_piece} units from {max_units} units; give 2 and 1 or more"
        )
    rows, drawn = _sample(sequences, num_units, max_units, seed)
    if not len(rows.flat):
        raise DataError("subwords: the sequences hold no unit; give a corpus with units")
    record = {**drawn, "size": size, "seed": seed, "longest_piece": longest_piece, "max_units": max_units}
    train = _train_unigram if kind == "unigram" else _train_bpe
    made = train(rows, size, num_units, longest_piece, record)
    if made.size != size:
        raise DataError(
            f"subwords '{kind}': size {size} cannot be reached from {len(rows.flat)} units, they give {made.size}; "
            "give more units or a smaller size"
        )
    return made


def _sample(
    sequences: Iterable[np.ndarray], num_units: int, max_units: int, seed: int
) -> tuple[Ragged, dict[str, int | str]]:
    """A random choice of whole sequences of at most `max_units` units, in their order; always at least one."""
    kept: list[tuple[int, int, np.ndarray]] = []
    held = read = read_units = 0
    for read, sequence in enumerate(sequences, start=1):
        check_units(sequence, num_units)
        read_units += len(sequence)
        heapq.heappush(kept, (-int(draw_bits(seed, read)[0]), read, np.asarray(sequence, np.int32)))
        held += len(sequence)
        while held > max_units and len(kept) > 1:
            held -= len(heapq.heappop(kept)[2])
    chosen = [row for _, _, row in sorted(kept, key=lambda entry: entry[1])]
    parts = [row[first : first + LONGEST_ROW] for row in chosen for first in range(0, len(row), LONGEST_ROW)]
    flat = np.concatenate([np.zeros(0, np.int32), *parts])
    drawn: dict[str, int | str] = {
        "sequences_read": read,
        "units_read": read_units,
        "sequences_used": len(chosen),
        "units_used": held,
    }
    return Ragged(flat, offsets([len(part) for part in parts])), drawn


def _train_unigram(rows: Ragged, size: int, num_units: int, longest_piece: int, record: dict[str, Any]) -> Subwords:
    try:
        import sentencepiece
    except ImportError as error:
        raise MissingExtra("training unigram subwords", "subwords") from error

    start, model = alphabet_start(num_units), io.BytesIO()
    seen = np.unique(rows.flat).tolist()
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds.tsv"
        _write_seeds(seeds, rows, longest_piece, num_units)
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(to_texts(rows.flat, rows.offsets[:-1], num_units)),
                model_writer=model,
                vocab_size=size - (num_units - len(seen)) + 1,  # without units that do not occur, with its <unk>
                required_chars="".join(chr(start + unit) for unit in seen),
                max_sentencepiece_length=longest_piece,
                seed_sentencepieces_file=str(seeds),
                seed_sentencepiece_size=SEED_PIECES + num_units,
                **SENTENCEPIECE,
            )
        except RuntimeError as error:
            raise DataError(
                f"subwords 'unigram': SentencePiece cannot learn from {len(rows.flat)} units: {error}; give more units"
            ) from error
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    scored = {processor.id_to_piece(i): processor.get_score(i) for i in range(1, processor.get_piece_size())}
    merged = [name for name in scored if len(name) > 1]
    unseen = min(scored.values(), default=0.0) - UNSEEN_PENALTY
    singles = [scored.get(chr(start + unit), unseen) for unit in range(num_units)]
    return Subwords(
        kind="unigram",
        num_units=num_units,
        pieces=tuple(tuple(ord(character) - start for character in name) for name in merged),
        scores=(*singles, *(scored[name] for name in merged)),
        record={**record, "trainer": f"sentencepiece {sentencepiece.__version__}"},
    )


def _train_bpe(rows: Ragged, size: int, num_units: int, longest_piece: int, record: dict[str, Any]) -> Subwords:
    from tokenizers import __version__

    start = alphabet_start(num_units)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        initial_alphabet=[chr(start + unit) for unit in range(num_units)],
        max_token_length=longest_piece + 1,  # it merges what is shorter than this
        show_progress=False,
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.train_from_iterator(to_texts(rows.flat, rows.offsets[:-1], num_units), trainer)
    pairs = json.loads(tokenizer.to_str())["model"]["merges"]
    number = {chr(start + unit): unit for unit in range(num_units)}
    merges = []
    for left, right in pairs:
        merges.append((number[left], number[right]))
        number.setdefault(left + right, len(number))
    return Subwords(
        kind="bpe",
        num_units=num_units,
        pieces=tuple(tuple(ord(character) - start for character in name) for name in list(number)[num_units:]),
        merges=tuple(merges),
        record={**record, "trainer": f"tokenizers {__version__}"},
    )


def _write_seeds(path: Path, rows: Ragged, longest: int, num_units: int) -> None:
    """Write the repeated runs of units that SentencePiece starts from: text, tab, count."""
    text, starts, lengths, counts = repeated_runs(rows, longest)
    order = np.lexsort((starts, -(lengths * counts)))[:SEED_PIECES]
    characters = to_texts(np.maximum(text - 1, 0), [0], num_units)[0]
    with path.open("w", encoding="utf-8") as file:
        for start, length, count in zip(*(column[order].tolist() for column in (starts, lengths, counts)), strict=True):
            file.write(f"{characters[start : start + length]}\t{count}\n")


def repeated_runs(rows: Ragged, longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Runs of 2..longest units that occur twice or more and that something different follows (or that are longest).

    Returns the text (units plus 1, a 0 behind each row), and of each run its start there, its length and its count.
    These are the inner nodes of the suffix tree, cut at `longest`, as SentencePiece's paper takes them.
    """
    text, left = _with_ends(rows)
    order = _suffix_order(text, longest)
    shared = _shared_prefix(text, left, order, longest)
    found = []
    for length in range(2, longest + 1):
        inside = shared >= length
        groups = np.flatnonzero(~inside)
        counts = np.diff(np.append(groups, len(text)))
        least = np.minimum.reduceat(np.where(inside, shared, longest + 1), groups)
        chosen = least == length
        found.append((order[groups[chosen]], np.full(chosen.sum(), length), counts[chosen]))
    starts, lengths, counts = (np.concatenate(column) for column in zip(*found, strict=True))
    return text, starts, lengths, counts


def _with_ends(rows: Ragged) -> tuple[np.ndarray, np.ndarray]:
    """Units plus 1 with a 0 behind each row, and how many units each position has left in its row."""
    lengths = rows.lengths
    text = np.zeros(len(rows.flat) + len(lengths), np.int64)
    text[np.arange(len(rows.flat)) + np.repeat(np.arange(len(lengths)), lengths)] = rows.flat.astype(np.int64) + 1
    ends = np.flatnonzero(text == 0)
    return text, np.repeat(ends, np.diff(ends, prepend=-1)) - np.arange(len(text))


def _suffix_order(text: np.ndarray, longest: int) -> np.ndarray:
    """Positions sorted by the `longest` symbols that begin there or more, by doubling."""
    rank, width = text, 1
    while width < longest:
        behind = np.zeros_like(rank)
        behind[:-width] = rank[width:]
        _, rank = np.unique(rank * (rank.max() + 1) + behind, return_inverse=True)
        width *= 2
    return np.argsort(rank, kind="stable")


def _shared_prefix(text: np.ndarray, left: np.ndarray, order: np.ndarray, longest: int) -> np.ndarray:
    """Symbols that each sorted position shares with the one before it, inside both rows, `longest` at most."""
    shared = np.zeros(len(text), np.int64)
    one, two = order[:-1], order[1:]
    most = np.minimum(np.minimum(left[one], left[two]), longest)
    going = np.arange(len(one))
    for depth in range(longest):
        going = going[most[going] > depth]
        going = going[text[one[going] + depth] == text[two[going] + depth]]
        shared[going + 1] = depth + 1
    return shared
