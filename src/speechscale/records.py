"""The nouns everybody shares: Word, Utterance, UnitTable, Item.

Enters: what readers, voices and encoders know. Leaves: immutable records that the other packages agree on.
The one decision worth knowing: times become integer frames once, where a `UnitTable` is made; nothing downstream
sees a float second again. Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int

from speechscale.errors import DataError

NO_TIME = -1
"""Frame index of a word whose time is not known."""
DEDUP_FRAMES = 32_768
"""Frames per block of `dedup_many`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One aligned word; times are seconds from the start of the utterance, None when unknown."""

    text: str
    start_s: float | None = None
    end_s: float | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One spoken item: what was said, by whom, when each word sounds.

    Args:
        segments: the pieces the voice speaks one by one (sentences); joined by blanks they are the text.
        split: "train", "select" (chooses checkpoints and learning rates), "test" or "items"; "" before the draw.
        audio: path of the file below the corpus' audio root, "TAR::MEMBER" for a file inside a tar; "" when it is
            synthesised on the fly.
        start_s, end_s: the utterance's part of that file, seconds; end None is the end of the file. Word times count
            from start_s.
        channel: the channel that holds it, from 0; None averages all.
        language: as the source names it; "" when it does not say.
    """

    id: str
    text: str
    speaker: str
    split: str
    words: tuple[Word, ...] = ()
    segments: tuple[str, ...] = ()
    audio: str = ""
    start_s: float = 0.0
    end_s: float | None = None
    channel: int | None = None
    licence: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One forced choice of an item set.

    Args:
        set: "story_cloze", "topic_cloze", "facts", "grammar", "words", or a set of a benchmark.
        prompt: shared context, empty for minimal pairs without one.
        good, bad: the two candidates that follow the prompt. All three are empty where only recordings exist.
        pair: id shared by the items that are one observation (the two of a symmetric pair, whose candidates swap roles;
            a minimal pair in several voices); errors cluster on it.
        tag: "heard", "read" (a fact that occurs in text only), another subset, or "".
        phenomenon: grammatical phenomenon, relation or topic.
        speaker: voice that speaks the item.
        good_cut_s, bad_cut_s: where the candidate begins in the recording of prompt and candidate, seconds; None: at
            the first word of the candidate, or there is no prompt.
    """

    id: str
    set: str
    prompt: str = ""
    good: str = ""
    bad: str = ""
    pair: str
    tag: str = ""
    phenomenon: str = ""
    speaker: str = ""
    good_cut_s: float | None = None
    bad_cut_s: float | None = None

    @property
    def has_text(self) -> bool:
        """Whether the words are known."""
        return bool(self.good)

    @property
    def has_prompt(self) -> bool:
        """Whether the candidates follow a prompt, spoken or written."""
        return bool(self.prompt.strip()) or self.good_cut_s is not None


def dedup(frames: Int[np.ndarray, " frames"]) -> tuple[Int[np.ndarray, " units"], Int[np.ndarray, " units"]]:
    """Collapse runs of equal units; return the units and how many frames each run lasted.

    Example: [5, 5, 7, 7, 7, 5] -> [5, 7, 5], [2, 3, 1]
    """
    if len(frames) == 0:
        return frames.astype(np.int16), np.zeros(0, np.int32)
    starts = np.flatnonzero(np.concatenate(([True], frames[1:] != frames[:-1])))
    durations = np.diff(np.append(starts, len(frames)))
    return frames[starts].astype(np.int16), durations.astype(np.int32)


def dedup_many(
    frames: Int[np.ndarray, " all_frames"], offsets: Int[np.ndarray, " rows1"]
) -> tuple[Int[np.ndarray, " all_units"], Int[np.ndarray, " all_units"], Int[np.ndarray, " rows1"]]:
    """`dedup` of many utterances at once: row i owns `frames[offsets[i]:offsets[i + 1]]`.

    Returns the flat units, their durations in frames, and the offsets of each row in them. Offsets start at 0 and end
    at len(frames); a row may be empty.

    Example: [5, 5, 5, 7], [0, 2, 4] -> [5, 5, 7], [2, 1, 1], [0, 1, 3]
    """
    assert (offsets[0], offsets[-1]) == (0, len(frames)), f"offsets {offsets[0]}..{offsets[-1]}, {len(frames)} frames"
    if len(frames) == 0:
        return np.zeros(0, np.int16), np.zeros(0, np.int32), np.zeros(len(offsets), np.int64)
    # Blocks of rows that stay in the cache: several times faster than one pass over all.
    cuts = np.unique(np.searchsorted(offsets, np.arange(0, len(frames), DEDUP_FRAMES)))
    ends = [*cuts[1:], len(offsets) - 1]
    parts = [
        _dedup_rows(frames[offsets[a] : offsets[b]], offsets[a : b + 1] - offsets[a])
        for a, b in zip(cuts, ends, strict=True)
    ]
    units, durations, counts = zip(*parts, strict=True)
    return np.concatenate(units), np.concatenate(durations), np.cumsum(np.concatenate([[0], *counts]))


def _dedup_rows(frames: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Units, durations and units per row of one block."""
    border = np.empty(len(frames) + 1, np.bool_)
    np.not_equal(frames[1:], frames[:-1], out=border[1:-1])
    border[offsets] = True
    starts = np.flatnonzero(border)
    rows = np.searchsorted(starts, offsets)
    return frames[starts[:-1]].astype(np.int16, copy=False), np.diff(starts).astype(np.int32), np.diff(rows)


def expand(units: Int[np.ndarray, " units"], durations: Int[np.ndarray, " units"]) -> Int[np.ndarray, " frames"]:
    """Undo `dedup`. Example: [5, 7], [2, 1] -> [5, 5, 7]"""
    return np.repeat(units, durations)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitTable:
    """Units of many utterances in ragged columns; row i owns `offsets[i]:offsets[i + 1]` of the flat arrays.

    Args:
        ids, speakers, splits, texts: one entry per utterance.
        units: deduplicated units, flat. durations_frames: frames each unit lasted, flat.
        unit_offsets: (utterances + 1).
        words: flat word texts. word_start_frames, word_end_frames: half-open frame range, NO_TIME when unknown.
        word_offsets: (utterances + 1).
        frame_rate_hz: frames per second. num_units: units are in [0, num_units).
    """

    ids: list[str]
    speakers: list[str]
    splits: list[str]
    texts: list[str]
    units: Int[np.ndarray, " all_units"]
    durations_frames: Int[np.ndarray, " all_units"]
    unit_offsets: Int[np.ndarray, " rows1"]
    words: list[str]
    word_start_frames: Int[np.ndarray, " all_words"]
    word_end_frames: Int[np.ndarray, " all_words"]
    word_offsets: Int[np.ndarray, " rows1"]
    frame_rate_hz: float
    num_units: int

    def __len__(self) -> int:
        return len(self.ids)

    def row_units(self, row: int) -> Int[np.ndarray, " units"]:
        return self.units[self.unit_offsets[row] : self.unit_offsets[row + 1]]

    def row_durations(self, row: int) -> Int[np.ndarray, " units"]:
        return self.durations_frames[self.unit_offsets[row] : self.unit_offsets[row + 1]]

    def row_words(self, row: int) -> list[str]:
        return self.words[self.word_offsets[row] : self.word_offsets[row + 1]]

    def row_word_frames(self, row: int) -> Int[np.ndarray, "words 2"]:
        part = slice(self.word_offsets[row], self.word_offsets[row + 1])
        return np.stack([self.word_start_frames[part], self.word_end_frames[part]], axis=1)

    @property
    def frames(self) -> Int[np.ndarray, " rows"]:
        """Frames of each utterance."""
        sums = np.concatenate(([0], np.cumsum(self.durations_frames, dtype=np.int64)))
        return sums[self.unit_offsets[1:]] - sums[self.unit_offsets[:-1]]

    @property
    def hours(self) -> float:
        return float(self.durations_frames.sum(dtype=np.int64)) / self.frame_rate_hz / 3600

    def take(self, rows: Iterable[int]) -> UnitTable:
        """A table of the chosen rows, in the given order."""
        builder = UnitTableBuilder(frame_rate_hz=self.frame_rate_hz, num_units=self.num_units)
        for row in rows:
            builder.add(
                id=self.ids[row],
                speaker=self.speakers[row],
                split=self.splits[row],
                text=self.texts[row],
                units=self.row_units(row),
                durations_frames=self.row_durations(row),
                words=self.row_words(row),
                word_frames=self.row_word_frames(row),
            )
        return builder.build()

    def split(self, name: str) -> UnitTable:
        """The rows of one split, in order."""
        return self.take(i for i, split in enumerate(self.splits) if split == name)


def unit_row_problem(
    units: Int[np.ndarray, " units"],
    durations_frames: Int[np.ndarray, " units"],
    words: Sequence[str],
    word_frames: Int[np.ndarray, "words 2"],
    num_units: int,
) -> str:
    """Say what is wrong with one utterance's units and words ("what; remedy"), or "" if nothing is."""
    if len(units) == 0:
        return "it has no units (audio shorter than one frame); drop it"
    if len(units) != len(durations_frames) or durations_frames.min() < 1:
        return f"{len(units)} units need as many durations of at least one frame; re-encode it"
    if units.min() < 0 or units.max() >= num_units:
        return f"unit ids run {units.min()}..{units.max()}, allowed 0..{num_units - 1}; wrong tokenizer?"
    if len(words) != len(word_frames):
        return f"{len(words)} words have {len(word_frames)} times; realign it"
    frames = int(durations_frames.sum())
    timed = np.flatnonzero(word_frames[:, 0] != NO_TIME) if len(words) else np.zeros(0, np.int64)
    starts, ends = (word_frames[timed, 0], word_frames[timed, 1]) if len(timed) else (timed, timed)
    late = np.flatnonzero((ends > frames) | (starts < 0) | (ends < starts))
    disorder = np.flatnonzero(starts[1:] < ends[:-1])
    if len(late):
        word = int(timed[late[0]])
        return (
            f"word {word} ('{words[word]}') spans frames {word_frames[word, 0]}..{word_frames[word, 1]}, "
            f"the audio has {frames}; realign it or drop it"
        )
    if len(disorder):
        word = int(timed[disorder[0] + 1])
        return f"word {word} ('{words[word]}') starts before the one before it ends; realign it or drop it"
    return ""


@dataclass(slots=True, kw_only=True)
class UnitTableBuilder:
    """Collect utterances one by one, checking each, then `build()` the table."""

    frame_rate_hz: float
    num_units: int
    _rows: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        *,
        id: str,
        speaker: str,
        split: str,
        text: str,
        units: Int[np.ndarray, " units"],
        durations_frames: Int[np.ndarray, " units"],
        words: Sequence[str],
        word_frames: Int[np.ndarray, "words 2"],
    ) -> None:
        """Add one utterance.

        Raises:
            DataError: no units, a unit id out of range, a duration below one frame, a word outside the audio or
                words out of order.
        """
        problem = unit_row_problem(units, durations_frames, words, word_frames, self.num_units)
        if problem:
            raise DataError(f"utterance {id}: {problem}")
        self._rows.append(
            {
                "id": id,
                "speaker": speaker,
                "split": split,
                "text": text,
                "units": np.asarray(units, np.int16),
                "durations": np.asarray(durations_frames, np.int32),
                "words": list(words),
                "word_frames": np.asarray(word_frames, np.int32).reshape(-1, 2),
            }
        )

    def build(self) -> UnitTable:
        rows = self._rows
        word_frames = np.concatenate([r["word_frames"] for r in rows] or [np.zeros((0, 2), np.int32)])
        return UnitTable(
            ids=[r["id"] for r in rows],
            speakers=[r["speaker"] for r in rows],
            splits=[r["split"] for r in rows],
            texts=[r["text"] for r in rows],
            units=np.concatenate([r["units"] for r in rows] or [np.zeros(0, np.int16)]),
            durations_frames=np.concatenate([r["durations"] for r in rows] or [np.zeros(0, np.int32)]),
            unit_offsets=offsets([len(r["units"]) for r in rows]),
            words=[word for r in rows for word in r["words"]],
            word_start_frames=word_frames[:, 0],
            word_end_frames=word_frames[:, 1],
            word_offsets=offsets([len(r["words"]) for r in rows]),
            frame_rate_hz=self.frame_rate_hz,
            num_units=self.num_units,
        )


def offsets(lengths: Sequence[int] | Int[np.ndarray, " rows"]) -> Int[np.ndarray, " rows1"]:
    """Ragged offsets of the given lengths. Example: [2, 0, 3] -> [0, 2, 2, 5]"""
    return np.concatenate(([0], np.cumsum(np.asarray(lengths, np.int64)))).astype(np.int64)


def concat_tables(tables: Sequence[UnitTable]) -> UnitTable:
    """Join tables of one tokenizer, in order. Raises DataError if frame rates or unit counts differ."""
    kinds = {(t.frame_rate_hz, t.num_units) for t in tables}
    if len(kinds) != 1:
        raise DataError(f"unit tables of different tokenizers cannot be joined: (frame_rate_hz, num_units) = {kinds}")
    frame_rate_hz, num_units = next(iter(kinds))

    def join(name: str) -> list[str]:
        return [entry for table in tables for entry in getattr(table, name)]

    def shift(name: str) -> np.ndarray:
        return offsets(np.concatenate([np.diff(getattr(table, name)) for table in tables]))

    return UnitTable(
        ids=join("ids"),
        speakers=join("speakers"),
        splits=join("splits"),
        texts=join("texts"),
        units=np.concatenate([t.units for t in tables]),
        durations_frames=np.concatenate([t.durations_frames for t in tables]),
        unit_offsets=shift("unit_offsets"),
        words=join("words"),
        word_start_frames=np.concatenate([t.word_start_frames for t in tables]),
        word_end_frames=np.concatenate([t.word_end_frames for t in tables]),
        word_offsets=shift("word_offsets"),
        frame_rate_hz=frame_rate_hz,
        num_units=num_units,
    )
