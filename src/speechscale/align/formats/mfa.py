"""Read the JSON and CSV of the Montreal Forced Aligner, and praatio's JSON of a TextGrid.

Enters: {"tiers": ...} or rows Begin,End,Label,Type,Speaker. Leaves: words of the chosen tier. The one decision worth
knowing: both are TextGrids in other clothes and are read by the same rules for tiers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechscale.align.formats.entries import REALIGN, Entry, Found, list_of, read_json_objects, read_text, seconds
from speechscale.align.formats.textgrid import Interval, Tier, found_in_tiers
from speechscale.errors import DataError

CSV_COLUMNS = ("begin", "end", "label", "type", "speaker")


def find_mfa_json(path: Path, tier: str | None = None) -> Iterator[Found]:
    """Words of {"tiers": {NAME: {"entries": [[start, end, label], ...]}}} or of a list of tiers with names."""
    path = Path(path)
    value = next(read_json_objects(path, "the aligner"))
    tiers = value.get("tiers") if isinstance(value, dict) else None
    if isinstance(tiers, list):
        tiers = {str(item.get("name")): item for item in tiers if isinstance(item, dict)}
    if not isinstance(tiers, dict):
        raise DataError(f"{path}: no 'tiers'; write it again with the aligner")
    found = [_tier(path, str(name), item) for name, item in tiers.items() if _is_interval_tier(item)]
    yield from found_in_tiers(found, tier, path)


def _is_interval_tier(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type", item.get("class", "interval")) in ("interval", "IntervalTier")


def _tier(path: Path, name: str, item: dict[str, Any]) -> Tier:
    intervals = []
    for number, entry in enumerate(list_of(item.get("entries"), f"{path}, tier '{name}'", "entries"), start=1):
        where = f"{path}, tier '{name}', interval {number}"
        if not isinstance(entry, list) or len(entry) != 3:
            raise DataError(f"{where}: expected [start, end, label], found {str(entry)[:60]}; {REALIGN}")
        start_s, end_s = seconds(entry[0], where), seconds(entry[1], where)
        if start_s is None or end_s is None:
            raise DataError(f"{where}: has no time; {REALIGN}")
        intervals.append(Interval(start_s, end_s, str(entry[2])))
    return Tier(name, tuple(intervals))


def find_mfa_csv(path: Path, tier: str | None = None) -> Iterator[Found]:
    """Words of a CSV with the columns Begin, End, Label, Type and Speaker; `tier` is a type, "words" by default."""
    path = Path(path)
    reader = csv.reader(io.StringIO(read_text(path)))
    header = [name.strip().lower() for name in next(reader, [])]
    if not set(CSV_COLUMNS[:4]) <= set(header):
        raise DataError(f"{path}: the columns are {', '.join(header)}; expected Begin, End, Label, Type, Speaker")
    speakers: dict[str, list[Entry]] = {}
    types: set[str] = set()
    for number, row in enumerate(reader, start=2):
        if not row:
            continue
        where = f"{path}, line {number}"
        if len(row) != len(header):
            raise DataError(f"{where}: {len(row)} fields, the header has {len(header)}; {REALIGN}")
        cells = dict(zip(header, row, strict=True))
        types.add(cells["type"])
        if cells["type"] == (tier or "words"):
            times = seconds(cells["begin"], where), seconds(cells["end"], where)
            speakers.setdefault(cells.get("speaker", ""), []).append(Entry(cells["label"], *times, None, number))
    if not speakers:
        raise DataError(f"{path}: no row of type '{tier or 'words'}'; types are {', '.join(sorted(types)) or 'none'}")
    for speaker, entries in speakers.items():
        yield Found(
            recording=path.stem,
            channel=speaker if len(speakers) > 1 else None,
            speaker=speaker or None,
            entries=entries,
            where=str(path),
            unit="line",
        )
