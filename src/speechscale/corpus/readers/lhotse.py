"""Read lhotse manifests: recordings with supervisions, or cuts, as JSON lines (also .gz) or JSON lists.

Enters: a folder with recordings*.jsonl.gz and supervisions*.jsonl.gz, or one file of cuts. Leaves: an `Entry` per
supervision, with its word alignment. The one decision worth knowing: only sources of type "file" are read; commands,
addresses, transformed recordings and mixed cuts are refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechscale.corpus.readers.base import Entry, Found, Source, fault, json_line, lines_of, number
from speechscale.corpus.readers.manifests import read_whole_json
from speechscale.corpus.timing import shifted_words
from speechscale.errors import DataError
from speechscale.records import Word
from speechscale.skips import Skip

SUFFIXES = (".jsonl.gz", ".jsonl", ".json.gz", ".json")
_EXPORT = "write the audio to files (lhotse: cut.save_audio) and the manifest again"


@dataclass(frozen=True, slots=True)
class _Recording:
    """What a supervision needs to know of its recording."""

    path: str
    channels: tuple[int, ...]
    duration_s: float | None
    refused: str
    paths: tuple[tuple[int, str], ...] = ()


def lhotse_entries(source: Source) -> Iterator[Found]:
    """Stream lhotse manifests; recordings are held in memory (about 400 bytes each), all else is streamed.

    Raises:
        DataError: no manifest of a known kind; names what was looked for.

    Source: lhotse.readthedocs.io, "Representing a corpus" and "Cuts".
    """
    if source.path.is_dir():
        tables = {kind: _find(source.path, kind) for kind in ("cuts", "recordings", "supervisions")}
    else:
        kind = _kind(source.path)
        tables = {"cuts": None, "recordings": None, "supervisions": None, kind: source.path}
        if kind in ("recordings", "supervisions"):
            name, other = source.path.name, "supervisions" if kind == "recordings" else "recordings"
            partner = source.path.with_name(name.replace(kind[:-1], other[:-1]))
            tables[other] = partner if partner.is_file() and partner != source.path else None
    if tables["cuts"] is not None:
        yield from _cuts(tables["cuts"], source)
        return
    if tables["recordings"] is None and tables["supervisions"] is not None:
        raise DataError(f"{source.path}: supervisions without recordings; put the recordings manifest beside it")
    if tables["recordings"] is None:
        raise DataError(
            f"{source.path}: no cuts*.jsonl.gz and no recordings*.jsonl.gz; give the folder that holds them, or a cuts "
            "file"
        )
    recordings: dict[str, _Recording] = {}
    for row, where in _rows(tables["recordings"], source):
        if isinstance(row, Skip):
            yield row
        elif not isinstance(row.get("id"), str):
            yield fault(where, where, "a recording without an id; write it again")
        else:
            recordings[row["id"]] = _recording(row)
    if tables["supervisions"] is None:
        for id, recording in recordings.items():
            yield _entry(id, tables["recordings"].name, recording, {"channel": None}, 0.0)
        return
    yield from _supervisions(tables["supervisions"], recordings, source)


def _supervisions(path: Path, recordings: dict[str, _Recording], source: Source) -> Iterator[Found]:
    for row, where in _rows(path, source):
        if isinstance(row, Skip):
            yield row
            continue
        id = str(row.get("id", where))
        recording = recordings.get(str(row.get("recording_id")))
        if recording is None:
            yield fault(id, where, f"no recording '{row.get('recording_id')}'; add it or delete the supervision")
            continue
        try:
            yield _entry(id, where, recording, row, 0.0)
        except DataError as error:
            yield fault(id, where, str(error))


def _cuts(path: Path, source: Source) -> Iterator[Found]:
    for cut, where in _rows(path, source):
        if isinstance(cut, Skip):
            yield cut
            continue
        id = str(cut.get("id", where))
        try:
            if "tracks" in cut or cut.get("type") in ("MixedCut", "PaddingCut"):
                raise DataError(f"a {cut.get('type', 'MixedCut')} is no part of one file; {_EXPORT}")
            if not isinstance(cut.get("recording"), dict):
                raise DataError(f"the cut has no recording (features only); {_EXPORT}")
            recording = _recording(cut["recording"])
            start = number(cut.get("start"), "the cut's start") or 0.0
            length = number(cut.get("duration"), "the cut's duration")
            supervisions = cut.get("supervisions") or [{"id": id, "start": 0.0, "duration": length}]
        except DataError as error:
            yield fault(id, where, str(error))
            continue
        for row in supervisions:
            name = str(row.get("id", id))
            try:
                first = number(row.get("start"), "start") or 0.0
                last = first + (number(row.get("duration"), "duration") or 0.0)
                if first < -1e-3 or (length is not None and last > length + 1e-3):
                    raise DataError(
                        f"spans {first:.3f}..{last:.3f} s of a cut of {length} s; trim the cut to its supervisions"
                    )
                yield _entry(name, where, recording, {"channel": cut.get("channel"), **row}, start)
            except DataError as error:
                yield fault(name, where, str(error))


def _entry(id: str, where: str, recording: _Recording, row: dict[str, Any], offset_s: float) -> Entry:
    """A supervision whose times count from `offset_s` of its recording."""
    start = number(row.get("start"), "start") or 0.0
    length = number(row.get("duration"), "duration")
    first = round(start + offset_s, 6)
    channel = row.get("channel")
    if isinstance(channel, list):
        channel = channel[0] if len(channel) == 1 else None
    audio, index = recording.path, None
    if channel is None and len({path for _, path in recording.paths}) > 1:
        raise DataError("the recording has a file per channel and the item names no channel; give it a channel")
    if channel is not None and not recording.refused:
        for number_, path in recording.paths:
            if number_ == channel:
                audio = path
        own = [number_ for number_, path in recording.paths if path == audio]
        if channel not in own:
            raise DataError(f"channel {channel} of a recording with {sorted(recording.channels)}; correct it")
        index = own.index(channel) if len(own) > 1 else None
    words = _words((row.get("alignment") or {}).get("word"))
    return Entry(
        id=id,
        where=where,
        audio=audio,
        text=row.get("text") if isinstance(row.get("text"), str) else None,
        speaker=str(row.get("speaker") or ""),
        language=str(row.get("language") or ""),
        words=shifted_words(words, -start),
        start_s=first,
        end_s=None if length is None else round(first + length, 6),
        channel=index,
        refused=recording.refused,
    )


def _words(items: Any) -> tuple[Word, ...]:
    """Alignment items [symbol, start, duration(, score)]; times count as the supervision's."""
    words = []
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict):
            item = [item.get("symbol"), item.get("start"), item.get("duration"), item.get("score")]
        if not isinstance(item, list) or len(item) < 3 or not isinstance(item[0], str):
            raise DataError(f"alignment item {str(item)[:60]!r} is not [symbol, start, duration]; write it again")
        start, length = number(item[1], "a word's start"), number(item[2], "a word's duration")
        if item[0].strip():
            end = None if start is None or length is None else round(start + length, 6)
            score = number(item[3], "a word's score") if len(item) > 3 else None
            words.append(Word(text=item[0].strip(), start_s=None if end is None else start, end_s=end, score=score))
    return tuple(words)


def _recording(row: dict[str, Any]) -> _Recording:
    sources = row.get("sources")
    refused = ""
    paths: list[tuple[int, str]] = []
    if row.get("transforms"):
        refused = f"the recording '{row.get('id')}' is transformed ({str(row['transforms'])[:60]}); {_EXPORT}"
    for part in sources if isinstance(sources, list) else []:
        kind, place = part.get("type"), part.get("source")
        if kind != "file" or not isinstance(place, str):
            what = f" '{' '.join(place.split())[:60]}'" if isinstance(place, str) else ""
            never = "commands are never run" if kind == "command" else "only files are read"
            refused = refused or f"the recording's source is a {kind}{what}, {never}; {_EXPORT}"
        else:
            paths += [(int(channel), place) for channel in part.get("channels") or [0]]
    if not paths and not refused:
        refused = f"the recording '{row.get('id')}' names no source; {_EXPORT}"
    several = len({path for _, path in paths}) > 1
    if several:
        paths.sort()
    return _Recording(
        path=paths[0][1] if paths else "",
        channels=tuple(channel for channel, _ in paths),
        duration_s=number(row.get("duration"), "duration"),
        refused=refused,
        paths=tuple(paths),
    )


def _rows(path: Path, source: Source) -> Iterator[tuple[dict[str, Any] | Skip, str]]:
    """Rows of JSON lines or of a JSON list."""
    name = path.name
    if ".jsonl" not in name:
        content = read_whole_json(path, name)
        rows = enumerate(content if isinstance(content, list) else [content], start=1)
        for index, row in rows:
            where = f"{name}, item {index}"
            good = isinstance(row, dict)
            yield (row if good else fault(where, where, "no JSON object; write it again")), where
        return
    for line, data in lines_of(path, name, source.meter):
        where = f"{name}, line {line}"
        if isinstance(data, Skip):
            yield data, where
            continue
        try:
            row = json_line(data)
            good = isinstance(row, dict)
            yield (row if good else fault(where, where, "no JSON object; write it again")), where
        except DataError as error:
            yield fault(where, where, str(error)), where


def _find(folder: Path, kind: str) -> Path | None:
    """The only manifest of a kind in a folder. Raises DataError if there are several."""
    stem = kind[:-1]
    found = sorted(p for p in folder.iterdir() if stem in p.name.casefold() and p.name.endswith(SUFFIXES))
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise DataError(f"{folder}: several {kind} manifests ({names}); give the file to read instead of the folder")
    return found[0] if found else None


def _kind(path: Path) -> str:
    """What a manifest file holds, by the keys of its first row."""
    row = first_row(path)
    if row is None:
        raise DataError(f"{path}: no rows; give a lhotse manifest")
    if "sources" in row:
        return "recordings"
    return "supervisions" if "recording_id" in row and "recording" not in row else "cuts"


def first_row(path: Path) -> dict[str, Any] | None:
    """The first JSON object of a manifest, None when there is none or it is no JSON."""
    try:
        if ".jsonl" in path.name:
            for _, data in lines_of(path, path.name):
                row = None if isinstance(data, Skip) else json_line(data)
                return row if isinstance(row, dict) else None
            return None
        content = read_whole_json(path, path.name)
        row = content[0] if isinstance(content, list) and content else content
        return row if isinstance(row, dict) else None
    except (DataError, json.JSONDecodeError):
        return None
