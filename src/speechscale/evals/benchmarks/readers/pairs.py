"""Any list of pairs, one JSON object per line.

Enters: a JSON-lines file and the folder its recordings lie in. Leaves: `RawItem`s. The one decision worth knowing: the
file is read strictly; a key we do not know, a field of the wrong type or half an item is refused by line and field,
because a misspelled optional field would change scores without a word.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.evals.benchmarks.raw import Clip, Facts, RawItem
from speechscale.evals.benchmarks.readers.pairing import at_least_one, below
from speechscale.evals.benchmarks.readers.tables import TextFile, json_rows
from speechscale.records import Item, Word
from speechscale.settings import nearest
from speechscale.skips import SkipLog

TEXTS = ("prompt", "good", "bad")
LABELS = ("id", "set", "pair", "phenomenon", "tag", "speaker")
RECORDINGS = ("good_audio", "bad_audio", "prompt_audio", "good_ending_audio", "bad_ending_audio")
CUTS = ("good_cut_s", "bad_cut_s")
FIELDS = (*LABELS, *TEXTS, *RECORDINGS, *CUTS, "words")


def pair_items(file: TextFile, root: Path, facts: Facts, skips: SkipLog) -> Iterator[RawItem]:
    """Items of a list of pairs, in order; whether their recordings are there is seen when they are heard.

    Raises:
        DataError: a line that is not of this form; names line and field.
    """
    seen: set[str] = set()

    def items() -> Iterator[RawItem]:
        for line, row in json_rows(file):
            item = _raw_item(row, line, root, f"{file.name}, line {line}", facts)
            if item.item.id in seen:
                raise DataError(f"{file.name}, line {line}: id '{item.item.id}' comes twice; ids must be unique")
            seen.add(item.item.id)
            yield item

    return at_least_one(items(), facts, skips)


def _raw_item(row: dict[str, Any], line: int, root: Path, where: str, facts: Facts) -> RawItem:
    for name in row:
        if name not in FIELDS:
            raise DataError(f"{where}: field '{name}' is not known{nearest(name, FIELDS)}")
    texts = {name: " ".join(_text(row, name, where).split()) for name in TEXTS}
    labels = {name: _text(row, name, where).strip() for name in LABELS}
    clips = {name: Clip(path=below(root, row[name], where)) for name in RECORDINGS if _text(row, name, where)}
    cuts = {name: _second(row[name], name, where) for name in CUTS if row.get(name) is not None}
    words = _words(row.get("words"), where)
    _check(texts, clips, cuts, words, where)
    id = (labels["id"] or str(line)).replace("/", "_")
    return RawItem(
        item=Item(
            id=id,
            set=labels["set"] or facts.task,
            pair=labels["pair"] or id,
            phenomenon=labels["phenomenon"],
            tag=labels["tag"],
            speaker=labels["speaker"],
            good_cut_s=cuts.get("good_cut_s"),
            bad_cut_s=cuts.get("bad_cut_s"),
            **texts,
        ),
        good=clips.get("good_audio"),
        bad=clips.get("bad_audio"),
        prompt=clips.get("prompt_audio"),
        good_ending=clips.get("good_ending_audio"),
        bad_ending=clips.get("bad_ending_audio"),
        good_words=words["good"],
        bad_words=words["bad"],
    )


def _text(row: dict[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if name in ("id", "pair") and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{where}: '{name}' is {value!r}, a text is needed; correct the line")
    return value or ""


def _second(value: Any, name: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise DataError(f"{where}: '{name}' is {value!r}, seconds of at least 0 are needed; correct the line")
    return float(value)


def _words(value: Any, where: str) -> dict[str, tuple[Word, ...]]:
    """Word times: {"good": [["he", 0.1, 0.3], ...], "bad": [...]}."""
    found: dict[str, tuple[Word, ...]] = {"good": (), "bad": ()}
    if value is None:
        return found
    if not isinstance(value, dict) or set(value) != set(found):
        raise DataError(f"{where}: 'words' needs a list of [text, start_s, end_s] for good and one for bad")
    for side, entries in value.items():
        if not isinstance(entries, list) or not entries:
            raise DataError(f"{where}: 'words' of {side} is not a list of [text, start_s, end_s]")
        found[side] = tuple(_word(entry, f"words of {side}, number {k}", where) for k, entry in enumerate(entries))
    return found


def _word(entry: Any, name: str, where: str) -> Word:
    if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[0], str) or not entry[0].strip():
        raise DataError(f"{where}: '{name}' is {entry!r}, [text, start_s, end_s] is needed; correct the line")
    if entry[1] is None and entry[2] is None:
        return Word(text=entry[0])
    start_s, end_s = (_second(value, name, where) for value in entry[1:])
    if end_s < start_s:
        raise DataError(f"{where}: '{name}' ends at {end_s} s before it starts at {start_s} s; correct the line")
    return Word(text=entry[0], start_s=start_s, end_s=end_s)


def _check(
    texts: dict[str, str],
    clips: dict[str, Clip],
    cuts: dict[str, float],
    words: dict[str, tuple[Word, ...]],
    where: str,
) -> None:
    """Whole items only: both sides of everything, and something to choose from."""
    for first, second, what in (
        (bool(texts["good"]), bool(texts["bad"]), "good and bad"),
        ("good_audio" in clips, "bad_audio" in clips, "good_audio and bad_audio"),
        ("good_ending_audio" in clips, "bad_ending_audio" in clips, "good_ending_audio and bad_ending_audio"),
        ("good_cut_s" in cuts, "bad_cut_s" in cuts, "good_cut_s and bad_cut_s"),
    ):
        if first != second:
            raise DataError(f"{where}: only one of {what} is given; give both or none")
    joined, apart = "good_audio" in clips, "good_ending_audio" in clips
    if not (texts["good"] or joined or apart):
        raise DataError(f"{where}: no candidates; give good and bad, or good_audio and bad_audio, or both endings")
    if texts["prompt"] and not texts["good"]:
        raise DataError(f"{where}: 'prompt' has a text, 'good' and 'bad' have none; give all three or no text")
    if apart != ("prompt_audio" in clips) and not joined:
        raise DataError(f"{where}: prompt_audio and both ending recordings belong together; give all three")
    if (cuts or words["good"]) and not joined:
        raise DataError(f"{where}: cuts and words are of good_audio and bad_audio, which are not given")
    for side in ("good", "bad"):
        said = f"{texts['prompt']} {texts[side]}".split()
        if words[side] and texts[side] and [word.text for word in words[side]] != said:
            raise DataError(f"{where}: 'words' of {side} are not the words of prompt and {side}; write them alike")
