"""Read pocketsphinx's JSON and its -matchseg lines.

Enters: JSON objects {"b": begin, "d": duration, "p": score, "t": text, "w": [words]} or lines of segment ends. Leaves:
words in order. The one decision worth knowing: pronunciation numbers "(2)" are cut; <sil>, [NOISE] and the like are
silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechscale.align.formats.entries import REALIGN, Entry, Found, end_of, read_json_objects, read_text
from speechscale.errors import DataError

FRAME_S = 0.01
_VARIANT = re.compile(r"\(\d+\)$")
_REMEDY = "write it again with pocketsphinx"


def find_sphinx(path: Path, tier: str | None = None) -> Iterator[Found]:
    """Words of pocketsphinx JSON; several objects on lines of their own (one per stretch of speech) follow each other.

    Args:
        tier: "phones" reads the phones inside the words (`-phone_align`).
    """
    path = Path(path)
    entries: list[Entry] = []
    for number, line in enumerate(read_json_objects(path, "pocketsphinx"), start=1):
        words = line.get("w") if isinstance(line, dict) else None
        if not isinstance(words, list):
            raise DataError(
                f"{path}: object {number} has no word list 'w'; expected pocketsphinx JSON with keys b, d, p, t, w "
                f"(a .json of another kind beside the audio: move it away, or read with alignments='none')"
            )
        for index, word in enumerate(words, start=1):
            where = f"{path}, entry {index} of 'w'"
            parts = word.get("w", ()) if tier == "phones" and isinstance(word, dict) else (word,)
            entries += [_entry(part, where, len(entries) + place) for place, part in enumerate(parts, start=1)]
    if tier == "phones" and not entries:
        raise DataError(f"{path}: no phones inside the words; align with phones (-phone_align yes), or read the words")
    yield Found(recording=path.stem.removesuffix(".phone"), entries=entries, where=str(path), unit="interval")


def _entry(value: Any, where: str, number: int) -> Entry:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object with b, d and t, found {str(value)[:40]!r}; {_REMEDY}")
    times = [value.get("b"), value.get("d")]
    if not all(isinstance(t, int | float) and not isinstance(t, bool) for t in times) or not isinstance(
        value.get("t"), str
    ):
        raise DataError(f"{where}: needs numbers b and d and a text t, found {str(value)[:80]}; {REALIGN}")
    score = value.get("p")
    start_s = float(value["b"])
    return Entry(
        _VARIANT.sub("", value["t"]).strip(),
        start_s,
        end_of(start_s, float(value["d"])),
        float(score) if isinstance(score, int | float) else None,
        number,
    )


def find_matchseg(path: Path, tier: str | None = None) -> Iterator[Found]:
    """Words of `-matchseg` lines: "UTT S n T n A n L n", then start frame, two scores and word; at last the end frame.

    Frames of 10 ms. Scores are log likelihoods, not probabilities, and are left out.
    """
    for number, line in enumerate(read_text(Path(path)).splitlines(), start=1):
        if not (fields := line.split()):
            continue
        where = f"{path}, line {number}"
        name, rest = fields[0], fields[9:]
        starts, words = rest[0::4], rest[3::4]
        if len(fields) < 10 or fields[1::2][:4] != ["S", "T", "A", "L"] or len(rest) % 4 != 1 or not _frames(starts):
            raise DataError(
                f"{where}: not a line of -matchseg (UTT S n T n A n L n FRAME SCORE SCORE WORD ... FRAME); {_REMEDY}"
            )
        times = [round(int(frame) * FRAME_S, 6) for frame in starts]
        entries = [
            Entry(_VARIANT.sub("", word), start_s, end_s, None, index)
            for index, (word, start_s, end_s) in enumerate(zip(words, times, times[1:], strict=False), start=1)
        ]
        yield Found(recording=name, entries=entries, where=where, unit="word")


def _frames(fields: list[str]) -> bool:
    return all(field.isdecimal() for field in fields)
