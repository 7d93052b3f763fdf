"""The recordings of an item: are they fit to be heard by a model, and which rows do they become.

Enters: an item with its clips, and what was heard of each. Leaves: a reason to drop it, or its rows of the corpus.
The one decision worth knowing: parts that were recorded apart stay rows of their own beside the joined recording, so
that every direction uses the sound that the authors released for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from speechscale.align.formats import clip_words
from speechscale.errors import DataError
from speechscale.evals.benchmarks.checks import cut_of, text_of, words_on
from speechscale.evals.benchmarks.hearing import Heard, Listen, Unheard
from speechscale.evals.benchmarks.joining import Sheet, Written
from speechscale.evals.benchmarks.raw import Clip, RawItem
from speechscale.evals.cuts import SIDES
from speechscale.records import Item, Utterance, Word

SILENT_DBFS = -60.0
"""A recording whose loudest sample is below this is silent."""
SHORTEST_S = 0.1
ENDINGS = ("good_ending", "bad_ending")
ROLES = ("good", "bad", "prompt", *ENDINGS)
"""Clips of an item; its rows are called ID/good, ID/bad, ID/prompt, ID/good-ending, ID/bad-ending."""

HeardRoles = Mapping[str, Heard | Unheard]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The finished item and its rows; an item of text alone has none.

    Args:
        sums: what the checksum says of each row. written: whether a file was written for a row.
        clipped: written, and beyond full scale before. lacks_cut: nobody knows where the candidate begins.
    """

    item: Item
    utterances: tuple[Utterance, ...] = ()
    sums: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
    written: bool = False
    clipped: bool = False
    lacks_cut: bool = False


def endings_alone(raw: RawItem) -> RawItem:
    """Endings recorded apart of an item without prompt are simply its recordings."""
    if raw.item.has_prompt or raw.prompt is not None or raw.good is not None:
        return raw
    return replace(raw, good=raw.good_ending, bad=raw.bad_ending, good_ending=None, bad_ending=None)


def listens(raw: RawItem) -> dict[str, Listen]:
    """What has to be heard of an item, by role."""
    found: dict[str, Listen] = {}
    for role in ROLES:
        clip: Clip | None = getattr(raw, role)
        if clip is not None:
            found[role] = Listen(clip=clip, cut_s=cut_of(raw, role) if role in SIDES else None)
    return found


def check_recordings(raw: RawItem, heard: HeardRoles, origin: str) -> None:
    """Refuse an item whose recordings cannot be used. Raises DataError: 'what is wrong; remedy'."""
    _check_complete(raw, heard, origin)
    for role, clip in heard.items():
        what = f"the {role.replace('_', ' ')}"
        if isinstance(clip, Unheard):
            remedy = f"put the file there ({origin})" if clip.missing and origin else clip.remedy
            raise DataError(f"{clip.reason}; {remedy.replace('; ', ', ')}")
        if clip.peak < 10 ** (SILENT_DBFS / 20):
            raise DataError(f"silent audio, {what} peaks at {_dbfs(clip.peak)}; record it again or drop the item")
        if clip.seconds < SHORTEST_S:
            raise DataError(
                f"too short, {what} lasts {clip.seconds:.3f} s, at least {SHORTEST_S} s are needed; record it again"
            )
        if role in SIDES:
            _check_cut(raw, role, clip)
    for one, other in (SIDES, ENDINGS):
        if one in heard and _same_sound(getattr(raw, one), getattr(raw, other), heard[one], heard[other]):
            raise DataError("identical candidates, both are the same recording; give two that differ")


def make_sheets(raw: RawItem, heard: HeardRoles, *, copy: bool, pause_s: float) -> dict[str, Sheet]:
    """Files to write for an item, by role.

    Args:
        copy: write also what is there, because all recordings must lie below one root.
    """
    rates = {role: clip.rate_hz for role, clip in heard.items() if isinstance(clip, Heard)}
    sheets: dict[str, Sheet] = {}
    for role in rates if copy else ():
        sheets[role] = Sheet(clips=(getattr(raw, role),), rate_hz=rates[role])
    if raw.good is None and raw.prompt is not None:
        for side, ending in zip(SIDES, ENDINGS, strict=True):
            sheets[side] = Sheet(
                clips=(raw.prompt, getattr(raw, ending)),
                rate_hz=max(rates["prompt"], rates[ending]),
                pause_s=pause_s,
            )
    return sheets


def make_rows(
    raw: RawItem, heard: HeardRoles, sheets: Mapping[str, Sheet], written: Mapping[Sheet, Written], licence: str
) -> Rows:
    """The rows of an item, in the order of `ROLES`."""
    cuts: dict[str, Any] = {}
    utterances: list[Utterance] = []
    sums: list[dict[str, Any]] = []
    seconds = 0.0
    for role in ROLES:
        sheet = sheets.get(role)
        if sheet is None and role not in heard:
            continue
        clip: Clip = getattr(raw, role) if sheet is None else Clip(path=written[sheet].path)
        if sheet is not None and len(sheet.clips) > 1:
            cuts[f"{role}_cut_s"] = written[sheet].cut_s
        row = _utterance(raw, role, clip, licence)
        utterances.append(row)
        seconds += _seconds(heard[role]) if sheet is None else written[sheet].seconds
        sums.append(
            {
                "id": row.id,
                "clips": list(_clip_sums(raw, role, heard)),
                "pause_s": 0.0 if sheet is None else sheet.pause_s,
                "words": [[word.text, word.start_s, word.end_s] for word in row.words],
            }
        )
    return Rows(
        item=replace(raw.item, **cuts),
        utterances=tuple(utterances),
        sums=tuple(sums),
        seconds=seconds,
        written=bool(sheets),
        clipped=bool(sheets) and any(isinstance(clip, Heard) and clip.peak > 1 for clip in heard.values()),
        lacks_cut=raw.item.has_prompt and not cuts and any(cut_of(raw, side) is None for side in SIDES),
    )


def _check_complete(raw: RawItem, heard: HeardRoles, origin: str) -> None:
    remedy = f"complete the data ({origin.replace('; ', ', ')})" if origin else "give all of them"
    if not heard:
        raise DataError(f"it has no recording, others have; {remedy}")
    for one, other in (SIDES, ENDINGS):
        if (one in heard) != (other in heard):
            lacks = (other if one in heard else one).replace("_", " ")
            raise DataError(f"the recording of the {lacks} is missing; {remedy}")
    if "good" not in heard and "good_ending" not in heard:
        raise DataError(f"the recordings of its candidates are missing; {remedy}")
    if "good" not in heard and "prompt" not in heard:
        raise DataError(f"the recording of the prompt is missing, its endings were recorded apart; {remedy}")
    if (raw.item.good_cut_s is None) != (raw.item.bad_cut_s is None) and not raw.item.prompt.strip():
        raise DataError("only one candidate says where it begins; give both times")


def _check_cut(raw: RawItem, side: str, heard: Heard) -> None:
    cut_s = cut_of(raw, side)
    words: Sequence[Word] = words_on(raw, side)
    if cut_s is not None:
        if not (math.isfinite(cut_s) and cut_s > 0):
            raise DataError(f"the prompt is empty, the {side} candidate begins at {cut_s:g} s; correct the time")
        if heard.seconds - cut_s < SHORTEST_S:
            raise DataError(
                f"the ending is empty, the {side} candidate begins at {cut_s:.3f} s of {heard.seconds:.3f} s; "
                "correct the time or record it again"
            )
        for peak, place in ((heard.prompt_peak, "before"), (heard.ending_peak, "behind")):
            if peak < 10 ** (SILENT_DBFS / 20):
                raise DataError(
                    f"silent audio, the {side} recording peaks at {_dbfs(peak)} {place} {cut_s:.3f} s; correct the "
                    "time or record it again"
                )
    try:
        clip_words(words, heard.seconds)
    except DataError as error:
        raise DataError(f"{side} recording: {error}; align it again") from error


def _same_sound(one: Clip | None, other: Clip | None, heard_one: Heard | Unheard, heard_other: Heard | Unheard) -> bool:
    assert one is not None
    assert other is not None
    assert isinstance(heard_one, Heard)
    assert isinstance(heard_other, Heard)
    parts = [(c.start_s, c.end_s, c.channel, h.sha256) for c, h in ((one, heard_one), (other, heard_other))]
    return parts[0] == parts[1]


def _utterance(raw: RawItem, role: str, clip: Clip, licence: str) -> Utterance:
    item = raw.item
    if role in SIDES:
        text = text_of(item, role)
        words = words_on(raw, role) if getattr(raw, role) is not None else ()
    else:
        text, words = (item.prompt if role == "prompt" else getattr(item, role.removesuffix("_ending"))), ()
    return Utterance(
        id=f"{item.id}/{role.replace('_', '-')}",
        text=text,
        speaker=item.speaker,
        split="items",
        words=words or tuple(Word(text=word) for word in text.split()),
        audio=clip.path,
        start_s=clip.start_s,
        end_s=clip.end_s,
        channel=clip.channel,
        licence=licence,
    )


def _clip_sums(raw: RawItem, role: str, heard: HeardRoles) -> Iterator[list[Any]]:
    """Checksums of what a row is made of: bytes of files, with their range."""
    sources = (role,) if getattr(raw, role) is not None else ("prompt", f"{role}_ending")
    for source in sources:
        clip, found = getattr(raw, source), heard[source]
        assert isinstance(found, Heard)
        yield [found.sha256, clip.start_s, clip.end_s, clip.channel]


def _seconds(heard: Heard | Unheard) -> float:
    assert isinstance(heard, Heard)
    return heard.seconds


def _dbfs(peak: float) -> str:
    return f"{20 * math.log10(peak):.0f} dBFS" if peak else "digital zero"
