"""Read lhotse supervisions and cuts, and write supervisions.

Enters: .json, .jsonl or .jsonl.gz of lhotse. Leaves: segments whose words count from the start of the recording. The
one decision worth knowing: inside a cut the start of a supervision counts from the cut, but its alignment counts from
the recording (lhotse 1.33, `SupervisionSegment.with_offset` moves the start and leaves the alignment). Files in which
the alignment plainly counts from the cut - outside its supervision one way, inside the other - are read that way.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from speechscale.align.formats.entries import (
    Entry,
    Found,
    Segment,
    end_of,
    list_of,
    name_of,
    object_of,
    read_json_objects,
    seconds,
    with_text,
)
from speechscale.align.formats.settle import Losses
from speechscale.errors import DataError
from speechscale.files import complete_file

_KINDS = {None: ("word", "words"), "words": ("words", "word"), "word": ("word", "words"), "phones": ("phones", "phone")}
_SLACK_S = 0.05
"""A word may reach this far out of its supervision and still belong to it."""
_REMEDY = "write the manifest again with lhotse"


def find_lhotse(path: Path, tier: str | None = None) -> Iterator[Found]:
    """Supervisions of a manifest of supervisions or cuts.

    Args:
        tier: kind of alignment; "word" by default. Without one a supervision's text gives words without times.

    Raises:
        DataError: a manifest of recordings or features, or an item that is no supervision; names it.
    """
    for number, item in enumerate(_items(path), start=1):
        where = f"{path}, item {number}"
        if not isinstance(item, dict):
            raise DataError(f"{where}: expected a lhotse object, found {str(item)[:40]!r}; {_REMEDY}")
        name = f"{where} ('{item.get('id', '')}')"
        if "tracks" in item:
            for track in list_of(item["tracks"], name, "tracks"):
                cut = object_of(object_of(track, name, "a track").get("cut"), name, "the cut of a track")
                if "supervisions" in cut:
                    yield from _cut(cut, tier, name)
        elif "supervisions" in item:
            yield from _cut(item, tier, name)
        elif "recording_id" in item and "start" in item and "num_features" not in item:
            yield _supervision(item, tier, name)
        elif str(item.get("type", "")).startswith("Padding"):
            continue
        else:
            raise DataError(f"{name}: no supervision and no cut, so it holds no words; give the supervisions or cuts")


def write_supervisions(path: Path, segments: Sequence[Segment], duration_s: float, losses: Losses) -> None:
    """Write a SupervisionSet as .json, .jsonl or .jsonl.gz: words in the text, those with times in the alignment."""
    lines = []
    for number, segment in enumerate(segments, start=1):
        timed = [word for word in segment.words if word.start_s is not None and word.end_s is not None]
        start_s = segment.start_s or 0.0
        end_s = segment.end_s if segment.end_s is not None else duration_s
        item: dict[str, Any] = {
            "id": segment.id or (segment.recording if len(segments) == 1 else f"{segment.recording}-{number}"),
            "recording_id": segment.recording,
            "start": start_s,
            "duration": round(end_s - start_s, 8),
            "channel": _channel(segment.channel),
            "text": segment.text or " ".join(word.text for word in segment.words),
        }
        if segment.speaker:
            item["speaker"] = segment.speaker
        item["alignment"] = {"word": [_aligned(w.text, w.start_s, w.end_s, w.score) for w in timed]}
        lines.append(item)
    name = Path(path).name
    if name.endswith((".jsonl", ".jsonl.gz")):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    else:
        text = json.dumps(lines, ensure_ascii=False, indent=1) + "\n"
    with complete_file(path) as part:
        data = text.encode()
        part.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)


def _channel(name: str | None) -> int:
    return int(name) if name is not None and name.isdecimal() else 0


def _aligned(text: str, start_s: float | None, end_s: float | None, score: float | None) -> list[Any]:
    assert start_s is not None
    assert end_s is not None
    return [text, float(start_s), round(end_s - start_s, 8), score]


def _items(path: Path) -> Iterator[Any]:
    for value in read_json_objects(Path(path), "lhotse"):
        yield from value if isinstance(value, list) else (value,)


def _cut(cut: dict[str, Any], tier: str | None, where: str) -> Iterator[Found]:
    """Supervisions of a cut, moved to the start of its recording."""
    offset_s = seconds(cut.get("start"), where) or 0.0
    recording = object_of(cut.get("recording"), where, "the recording of a cut")
    for number, item in enumerate(list_of(cut["supervisions"], where, "supervisions"), start=1):
        object_of(item, f"{where}, supervision {number}", "a supervision")
        if item is None:
            continue
        name = recording.get("id") or item.get("recording_id") or str(cut.get("id"))
        yield _supervision(item, tier, f"{where}, supervision {number}", offset_s=offset_s, recording=str(name))


def _supervision(
    item: dict[str, Any], tier: str | None, where: str, *, offset_s: float = 0.0, recording: str | None = None
) -> Found:
    start_s, length_s = seconds(item.get("start"), where), seconds(item.get("duration"), where)
    if start_s is None or length_s is None:
        raise DataError(f"{where}: a supervision needs start and duration; {_REMEDY}")
    kinds = object_of(item.get("alignment"), where, "the alignment")
    found = next((kinds[kind] for kind in _KINDS.get(tier, (tier,)) if kind in kinds), None)
    text = str(item.get("text") or "")
    entries = [
        _entry(value, number, where) for number, value in enumerate(list_of(found, where, "an alignment"), start=1)
    ]
    if offset_s and _count_from_cut(entries, start_s, length_s, offset_s):
        entries = [e._replace(start_s=_plus(e.start_s, offset_s), end_s=_plus(e.end_s, offset_s)) for e in entries]
    if tier in (None, "word", "words"):
        entries = with_text(entries, text) if entries else _untimed(text.split())
    channel = item.get("channel", 0)
    return Found(
        recording=recording or str(item.get("recording_id", "")),
        id=str(item.get("id", "")),
        channel=str(channel[0] if isinstance(channel, list) and channel else channel),
        speaker=name_of(item.get("speaker")),
        start_s=_plus(start_s, offset_s),
        end_s=end_of(start_s + offset_s, length_s),
        text=text,
        entries=entries,
        where=where,
        unit="alignment item",
    )


def _entry(value: Any, number: int, where: str) -> Entry:
    """[symbol, start, duration, score?], or an object of these names as before lhotse 1.8."""
    if isinstance(value, dict):
        value = [value.get(key) for key in ("symbol", "start", "duration", "score")]
    if not isinstance(value, list) or len(value) < 3 or not isinstance(value[0], str):
        raise DataError(
            f"{where}: alignment item {number} is {str(value)[:60]}, not [symbol, start, duration]; {_REMEDY}"
        )
    name = f"{where}, alignment item {number}"
    start_s = seconds(value[1], name)
    score = seconds(value[3], name) if len(value) > 3 else None
    return Entry(value[0], start_s, end_of(start_s, seconds(value[2], name)), score, number)


def _untimed(words: Iterable[str]) -> list[Entry]:
    return [Entry(word, None, None, None, number) for number, word in enumerate(words, start=1)]


def _count_from_cut(entries: Sequence[Entry], start_s: float, length_s: float, offset_s: float) -> bool:
    """Whether all words lie in the supervision only if they count from the start of the cut."""
    spans = [(e.start_s, e.end_s) for e in entries if e.start_s is not None and e.end_s is not None]

    def inside(begin_s: float) -> bool:
        end_s = begin_s + length_s + _SLACK_S
        return all(begin_s - _SLACK_S <= start and end <= end_s for start, end in spans)

    return bool(spans) and inside(start_s) and not inside(start_s + offset_s)


def _plus(value_s: float | None, offset_s: float) -> float | None:
    return None if value_s is None else round(value_s + offset_s, 6) if offset_s else value_s
