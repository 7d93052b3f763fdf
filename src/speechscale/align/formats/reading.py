"""Read words and segments of any format.

Enters: a path, and which tier, recording, channel or speaker. Leaves: checked words, times from the start of the
recording. The one decision worth knowing: what a file holds decides how it is addressed; several recordings are never
mixed, and asking for one of many without naming it is an error that lists them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from speechscale.align.formats.entries import Found, Segment
from speechscale.align.formats.registry import FORMATS, sniff_format
from speechscale.align.formats.settle import Losses, Repair, settle
from speechscale.errors import DataError
from speechscale.records import Word


def read_segments(
    path: Path,
    *,
    tier: str | None = None,
    format: str = "auto",
    repair: Repair = "refuse",
    losses: Losses | None = None,
) -> Iterator[Segment]:
    """Read the segments of a file one by one: supervisions, turns, sentences; a CTM's recordings and channels.

    Word times count from the start of the recording. Arguments and errors as in `read_alignment`.
    """
    for found in _found(path, tier, format):
        yield Segment(
            recording=found.recording,
            words=tuple(settle([found], repair=repair, losses=losses)),
            id=found.id,
            channel=found.channel,
            speaker=found.speaker,
            start_s=found.start_s,
            end_s=found.end_s,
            text=found.text,
        )


def read_alignments(
    path: Path,
    format: str = "auto",
    *,
    tier: str | None = None,
    repair: Repair = "refuse",
    losses: Losses | None = None,
) -> dict[str, list[Word]]:
    """Read the words of every recording of a file; a recording of several channels (or a TextGrid of several speakers)
    gives one entry each, named RECORDING/CHANNEL.

    Segments of one recording follow each other by their start. Arguments and errors as in `read_alignment`.
    """
    return {key: settle(found, repair=repair, losses=losses) for key, found in _grouped(path, tier, format).items()}


def read_alignment(
    path: Path,
    *,
    tier: str | None = None,
    format: str = "auto",
    recording: str | None = None,
    channel: str | int | None = None,
    speaker: str | None = None,
    repair: Repair = "refuse",
    duration_s: float | None = None,
    losses: Losses | None = None,
) -> list[Word]:
    """Read the words of one recording, in order, times from its start.

    Args:
        tier: TextGrid tier by name; "phones" where a format has them; words by default.
        format: a name of `FORMATS`, or "auto".
        recording, channel, speaker: needed where the file holds several.
        repair: what to do with a bad time (negative, overlapping, no number, past the end): "refuse" the file, or
            "drop_times": the word stays without time.
        duration_s: length of the audio, to find times past its end; up to 50 ms are clipped.
        losses: is filled with what was lost or repaired.

    Returns:
        words, some perhaps without time.

    Raises:
        DataError: not readable, not of that format, several recordings and none named, or a bad time; names the item.

    Example: read_alignment(Path("a.TextGrid")) -> [Word(text="hello", start_s=0.5, end_s=1.0), ...]
    """
    groups = _grouped(path, tier, format, speaker=speaker)
    wanted = [
        key
        for key, found in groups.items()
        if (recording is None or found[0].recording == recording)
        and (channel is None or (found[0].channel or "").casefold() == str(channel).casefold())
    ]
    if len(wanted) != 1:
        asked = {"recording": recording, "channel": channel, "speaker": speaker}
        named = " and ".join(f"{name} '{value}'" for name, value in asked.items() if value is not None)
        shown = ", ".join(list(groups)[:8]) + (", ..." if len(groups) > 8 else "")
        remedy = "name one with recording=..., channel=... or tier=..., or take all with read_alignments"
        if not groups:
            raise DataError(f"{path}: no words in it; align the recording, or read its turns with read_segments")
        raise DataError(
            f"{path}: {len(wanted)} of {len(groups)} recordings fit{' ' + named if named else ''}: {shown}; {remedy}"
        )
    return settle(groups[wanted[0]], repair=repair, losses=losses, duration_s=duration_s)


def read_textgrid(path: Path, *, tier: str | None = None) -> list[Word]:
    """Read the words of one tier of a TextGrid; see `read_alignment`."""
    return read_alignment(path, tier=tier, format="textgrid")


def read_pocketsphinx(path: Path) -> list[Word]:
    """Read words as pocketsphinx writes them in JSON; see `read_alignment`."""
    return read_alignment(path, format="pocketsphinx")


def _found(path: Path, tier: str | None, format: str) -> Iterator[Found]:
    path = Path(path)
    name = sniff_format(path) if format == "auto" else format
    if name not in FORMATS:
        raise DataError(f"format '{name}' is not known; take one of {', '.join(FORMATS)}")
    if tier not in (None, "words") and not FORMATS[name].tiers:
        raise DataError(f"{path}: a {name} file holds words only, tier='{tier}' is not in it; read it without tier")
    return FORMATS[name].reader(path, None if tier == "words" and name != "textgrid" else tier)


def _grouped(path: Path, tier: str | None, format: str, *, speaker: str | None = None) -> Mapping[str, list[Found]]:
    """Parts by recording, and by channel where a recording has several."""
    parts: dict[str, dict[str | None, list[Found]]] = {}
    for found in _found(path, tier, format):
        if found.entries and (speaker is None or found.speaker == speaker):
            parts.setdefault(found.recording, {}).setdefault(found.channel, []).append(found)
    groups = {}
    for recording, channels in parts.items():
        for channel, part in channels.items():
            key = recording if len(channels) == 1 else f"{recording}/{channel}"
            starts = [_start(found) for found in part]
            if len(part) > 1 and None not in starts:
                part = [part[i] for i in sorted(range(len(part)), key=lambda i: (starts[i] or 0.0, i))]
            groups[key] = part
    return groups


def _start(found: Found) -> float | None:
    return (
        found.start_s
        if found.start_s is not None
        else next((e.start_s for e in found.entries if e.start_s is not None), None)
    )
