"""sWUGGY and sBLIMP in the layout of the ZeroSpeech 2021 challenge.

Enters: `lexical/dev` or `syntactic/dev`: recordings and `gold.csv`. Leaves: one `RawItem` per pair and voice.
The one decision worth knowing: a pair is found by its id (sBLIMP: type, subtype and id) and voice, never by the order
of rows, and the voices of a pair share the cluster `pair`.

Source: columns and pairing as in zerospeech/benchmarks (tasks/lm/lexical.py) and zerospeech/zerospeech2021
(lexical.py, syntactic.py): names of recordings in `gold.csv` carry neither folder nor suffix; `frequency` counts the
word in LibriSpeech, 0 is out of vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.evals.benchmarks.raw import Clip, Facts, RawItem
from speechscale.evals.benchmarks.readers.pairing import (
    Half,
    Missing,
    at_least_one,
    found_or_skipped,
    inner_name,
    list_recordings,
    pair_up,
)
from speechscale.evals.benchmarks.readers.tables import TextFile, table_rows
from speechscale.records import Item
from speechscale.skips import SkipLog

GOLD = "gold.csv"
SPLITS = ("dev", "test")
LEXICAL_COLUMNS = ("id", "filename", "voice", "frequency", "word", "correct")
SYNTACTIC_COLUMNS = ("id", "filename", "voice", "type", "subtype", "transcription", "correct")
_REMEDY = "take the gold.csv that belongs to these recordings"


def gold_folder(path: Path, part: str, split: str, facts: Facts) -> Path:
    """The folder of `gold.csv`: PATH/part/split, PATH/split, or PATH itself.

    Raises:
        DataError: no such split or folder, or no labels in it.
    """
    if split not in SPLITS:
        raise DataError(f"{facts.task}: split = '{split}', allowed are {' and '.join(SPLITS)}")
    places = [place for place in (path / part / split, path / split, path) if place.is_dir()]
    for place in places:
        if (place / GOLD).is_file():
            return place
    if not places:
        raise DataError(f"{path}: no such folder; {facts.origin}")
    if split == "test":
        raise DataError(
            f"{places[0]}: no {GOLD}: the archive of the challenge keeps the answers of the test split back; use "
            "split=dev, or the later release of the data with labels"
        )
    raise DataError(f"{places[0]}: no {GOLD}, which says what is right; {facts.origin}")


def lexical_items(folder: Path, facts: Facts, skips: SkipLog) -> Iterator[RawItem]:
    """sWUGGY: word and non-word. The texts are left out where a non-word is written like its word."""

    def build(item: str, good: Half, bad: Half, clips: list[str]) -> RawItem:
        pair, voice, word, frequency = good.value[1:]
        other = bad.value[3]
        written = bool(word) and bool(other) and word != other
        return RawItem(
            item=Item(
                id=item,
                set=facts.task,
                good=word if written else "",
                bad=other if written else "",
                pair=pair,
                tag=_vocabulary_tag(frequency, good.where),
                speaker=voice,
            ),
            good=Clip(path=clips[0]),
            bad=Clip(path=clips[1]),
        )

    def half(row: dict[str, str], where: str) -> tuple[str, tuple[str, ...]]:
        name, voice = row["id"].strip(), row["voice"].strip()
        value = inner_name(row["filename"], where), name, voice, " ".join(row["word"].split()), row["frequency"].strip()
        return _name(name, voice), value

    return _items(folder, LEXICAL_COLUMNS, half, build, facts, skips)


def syntactic_items(folder: Path, facts: Facts, skips: SkipLog) -> Iterator[RawItem]:
    """sBLIMP: grammatical and ungrammatical sentence; phenomenon is `type`, tag is `subtype`."""

    def build(item: str, good: Half, bad: Half, clips: list[str]) -> RawItem:
        pair, voice, sentence, kind, subtype = good.value[1:]
        return RawItem(
            item=Item(
                id=item,
                set=facts.task,
                good=sentence,
                bad=bad.value[3],
                pair=pair,
                tag=subtype,
                phenomenon=kind,
                speaker=voice,
            ),
            good=Clip(path=clips[0]),
            bad=Clip(path=clips[1]),
        )

    def half(row: dict[str, str], where: str) -> tuple[str, tuple[str, ...]]:
        kind, subtype, voice = row["type"].strip(), row["subtype"].strip(), row["voice"].strip()
        sentence = " ".join(row["transcription"].split())
        if not sentence:
            raise DataError(f"{where}: 'transcription' is empty, a sentence is needed; {_REMEDY}")
        pair = _name(kind, subtype, row["id"].strip())
        return _name(pair, voice), (inner_name(row["filename"], where), pair, voice, sentence, kind, subtype)

    return _items(folder, SYNTACTIC_COLUMNS, half, build, facts, skips)


def _items(
    folder: Path,
    columns: tuple[str, ...],
    half: Callable[[dict[str, Any], str], tuple[str, tuple[str, ...]]],
    build: Callable[[str, Half, Half, list[str]], RawItem],
    facts: Facts,
    skips: SkipLog,
) -> Iterator[RawItem]:
    """Pairs of gold.csv whose recordings are there; the first entry of a half's value is the recording's name."""
    gold = f"{folder.parent.name}/{folder.name}/{GOLD}"
    rows = table_rows(TextFile(path=folder / GOLD, name=gold), columns=columns, remedy=_REMEDY)
    present = list_recordings(folder)
    missing = Missing()

    def halves() -> Iterator[Half]:
        for line, row in rows:
            where = f"{gold}, line {line}"
            item, value = half(row, where)
            yield Half(item, _side(row["correct"], where), value, where)

    def built() -> Iterator[RawItem]:
        for item, good, bad in pair_up(halves(), skips, _REMEDY):
            clips = found_or_skipped((good.value[0], bad.value[0]), present, item, missing, skips, facts)
            if clips:
                yield build(item, good, bad, clips)

    return at_least_one(built(), facts, skips, missing)


def _side(correct: str, where: str) -> str:
    sides = {"1": "good", "0": "bad"}
    if correct.strip() not in sides:
        raise DataError(f"{where}: correct = '{correct}', allowed are 1 and 0; {_REMEDY}")
    return sides[correct.strip()]


def _vocabulary_tag(frequency: str, where: str) -> str:
    """'oov' where the word never occurs in LibriSpeech, 'in_vocab' where it does, '' where that is not said."""
    if not frequency:
        return ""
    try:
        count = float(frequency)
    except ValueError:
        count = -1.0
    if not 0 <= count < float("inf"):
        raise DataError(f"{where}: frequency = '{frequency}', a count is needed; {_REMEDY}")
    return "in_vocab" if count >= 1 else "oov"


def _name(*parts: str) -> str:
    """An id out of several: '/' would look like a part of the item. Example: "agreement", "7" -> "agreement-7"."""
    return "-".join(part.replace("/", "_") for part in parts if part)
