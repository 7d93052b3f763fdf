"""Where prompt and candidate part in a recording.

Enters: items and the `UnitTable` of their recordings. Leaves: a `Cut` per candidate, or the reason why there is none.
The one decision worth knowing: the joined recording (prompt and candidate in one file) is the reference; where the
parts were also recorded apart, those stand in the directions that cross modalities, as released benchmarks do it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from speechscale.errors import DataError
from speechscale.records import NO_TIME, Item, UnitTable, dedup, expand
from speechscale.tokens.interleave import word_unit_ranges

SIDES = ("good", "bad")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Units of one spoken candidate, apart where it starts; a unit lasting across the cut is in both parts.

    Args:
        prompt, ending: everything before and after the cut.
        prompt_words, ending_words: the same from the start of the first to the end of the last word, without the
            silence around, as a spoken span is cut out for interleaving; or as recorded apart.
        ending_s, whole_s, ending_words_s: how long they last.
    """

    prompt: Int[np.ndarray, " prompt"]
    ending: Int[np.ndarray, " ending"]
    prompt_words: Int[np.ndarray, " spoken_prompt"]
    ending_words: Int[np.ndarray, " spoken_ending"]
    ending_s: float = 0.0
    whole_s: float = 0.0
    ending_words_s: float = 0.0

    @property
    def continuation(self) -> Int[np.ndarray, " rest"]:
        """The ending as it continues the prompt in one stream: without a first unit that merely goes on.

        Example: prompt [4, 5], ending [5, 7] -> [7]
        """
        return self.ending[int(len(self.prompt) > 0 and self.prompt[-1] == self.ending[0]) :]


def candidate_id(item: Item, side: str) -> str:
    """Id of the utterance that speaks one candidate. Example: "story-3/good"."""
    return f"{item.id}/{side}"


def cut_items(items: Sequence[Item], table: UnitTable) -> dict[str, Cut | str]:
    """Cut every spoken candidate; maps its `candidate_id` to the cut, or to the reason why there is none.

    Raises:
        DataError: items that `check_items` refuses, or a row that speaks other words than its item.
    """
    check_items(items, text=False)
    recordings = _Recordings(table)
    cuts: dict[str, Cut | str] = {}
    for item in items:
        for side in SIDES:
            name = candidate_id(item, side)
            cut = recordings.cut(item, side, name)
            cuts[name] = f"{name}: {cut}" if isinstance(cut, str) else cut
    return cuts


def check_items(items: Sequence[Item], *, text: bool = True) -> None:
    """Make sure that items can be told apart.

    Args:
        text: the words must be known.

    Raises:
        DataError: an id twice, no pair, an empty candidate, two equal ones.
    """
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise DataError(f"item {item.id}: the id occurs twice; ids must be unique")
        seen.add(item.id)
        if not item.pair:
            raise DataError(f"item {item.id}: it names no pair; give partners a common one, a lone item its own id")
        if not text and not item.has_text:
            continue
        if not item.good.split() or not item.bad.split():
            raise DataError(f"item {item.id}: a candidate is empty; both need at least one word")
        if item.good.split() == item.bad.split():
            raise DataError(f"item {item.id}: both candidates are '{item.good}'; they must differ")


class _Recordings:
    """Rows of a unit table by name, with the unit range of each word."""

    def __init__(self, table: UnitTable) -> None:
        self.table = table
        self.rows = {id: row for row, id in enumerate(table.ids)}
        self.first_units, self.last_units = word_unit_ranges(table)

    def cut(self, item: Item, side: str, name: str) -> Cut | str:
        if name not in self.rows:
            return "it was not spoken"
        row = self.rows[name]
        words = self.table.row_words(row)
        said = [*item.prompt.split(), *getattr(item, side).split()]
        if words and item.has_text and words != said:
            raise DataError(
                f"{name}: the unit table has the words '{' '.join(words)}', the item '{' '.join(said)}'; speak the "
                "items again"
            )
        part = slice(int(self.table.word_offsets[row]), int(self.table.word_offsets[row + 1]))
        cut_s = item.good_cut_s if side == "good" else item.bad_cut_s
        cut = cut_row(
            self.table,
            row,
            len(item.prompt.split()),
            self.first_units[part],
            self.last_units[part],
            at_frame=None if cut_s is None else round(cut_s * self.table.frame_rate_hz),
        )
        return cut if isinstance(cut, str) else self._apart(item, side, cut)

    def _apart(self, item: Item, side: str, cut: Cut) -> Cut:
        """Put in what was recorded apart."""
        prompt, ending = self.rows.get(f"{item.id}/prompt"), self.rows.get(f"{item.id}/{side}-ending")
        if prompt is None or ending is None:
            return cut
        return Cut(
            prompt=cut.prompt,
            ending=cut.ending,
            prompt_words=self.table.row_units(prompt),
            ending_words=self.table.row_units(ending),
            ending_s=cut.ending_s,
            whole_s=cut.whole_s,
            ending_words_s=float(self.table.row_durations(ending).sum()) / self.table.frame_rate_hz,
        )


def cut_row(
    table: UnitTable,
    row: int,
    prompt_words: int,
    first_units: Int[np.ndarray, " words"],
    last_units: Int[np.ndarray, " words"],
    *,
    at_frame: int | None = None,
) -> Cut | str:
    """Cut one row in front of the word numbered `prompt_words`, or say why that is not possible.

    Args:
        first_units, last_units: half-open unit range of each word of the row (see `word_unit_ranges`); none where only
            the sound is known.
        at_frame: cut here instead of at the word's start.
    """
    units, durations = table.row_units(row), table.row_durations(row)
    frames, rate_hz = int(durations.sum()), table.frame_rate_hz
    has_prompt = prompt_words > 0 or at_frame is not None
    timed = len(first_units) > prompt_words and (prompt_words > 0 or not has_prompt)
    edges = [0, prompt_words - 1, prompt_words, -1] if prompt_words else [0, -1]
    if timed and (first_units[edges] == NO_TIME).any():
        if has_prompt and at_frame is None:
            return "a word at the edge of prompt or candidate has no time"
        timed = False
    if not has_prompt:
        spoken = units[first_units[0] : last_units[-1]] if timed else units
        return _whole(units, spoken, durations, first_units, last_units, rate_hz, timed=timed)
    if at_frame is None and not timed:
        return "where the candidate starts is not known: no word times and no cut time"
    cut_frame = int(table.row_word_frames(row)[prompt_words, 0]) if at_frame is None else at_frame
    if not 0 < cut_frame < frames:
        return f"the candidate starts at frame {cut_frame} of {frames}, one side has no audio"
    prompt, ending = cut_units(units, durations, cut_frame)
    ending_words_frames = frames - cut_frame
    prompt_part, ending_part = prompt, ending
    if timed:
        prompt_part = units[first_units[0] : last_units[prompt_words - 1]]
        ending_part = units[first_units[prompt_words] : last_units[-1]]
        ending_words_frames = int(durations[first_units[prompt_words] : last_units[-1]].sum())
    cut = Cut(
        prompt=prompt,
        ending=ending,
        prompt_words=prompt_part,
        ending_words=ending_part,
        ending_s=(frames - cut_frame) / rate_hz,
        whole_s=frames / rate_hz,
        ending_words_s=ending_words_frames / rate_hz,
    )
    return cut if len(cut.continuation) else "the candidate adds no unit to the prompt"


def _whole(
    units: Int[np.ndarray, " units"],
    spoken: Int[np.ndarray, " spoken"],
    durations: Int[np.ndarray, " units"],
    first_units: Int[np.ndarray, " words"],
    last_units: Int[np.ndarray, " words"],
    rate_hz: float,
    *,
    timed: bool,
) -> Cut:
    """A candidate without prompt."""
    seconds = float(durations.sum()) / rate_hz
    inner = float(durations[first_units[0] : last_units[-1]].sum()) / rate_hz if timed else seconds
    return Cut(
        prompt=units[:0],
        ending=units,
        prompt_words=units[:0],
        ending_words=spoken,
        ending_s=seconds,
        whole_s=seconds,
        ending_words_s=inner,
    )


def cut_units(
    units: Int[np.ndarray, " units"], durations_frames: Int[np.ndarray, " units"], cut_frame: int
) -> tuple[Int[np.ndarray, " before"], Int[np.ndarray, " after"]]:
    """Cut deduplicated units at a frame. Example: [5, 7], [2, 3], frame 3 -> [5, 7], [7]"""
    frames = expand(units, durations_frames)
    return dedup(frames[:cut_frame])[0], dedup(frames[cut_frame:])[0]
