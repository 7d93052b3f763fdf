"""Tell formats by their content.

Enters: the text of a file. Leaves: the name of its format, or None. The one decision worth knowing: every test looks at
what the reader will need (keys, columns, numbers in their places), so that a recognized file can be read.
"""

from __future__ import annotations

import json
import re
from typing import Any

from speechscale.align.formats.mfa import CSV_COLUMNS
from speechscale.align.formats.nist import RTTM_TYPES


def sniff_json(text: str) -> str | None:
    """Format of a text that begins as JSON does; of several objects the first decides."""
    try:
        value: Any = json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(value, list) and isinstance(first, list):
        return "moshi" if len(first) > 1 and isinstance(first[1], list) else None
    if not isinstance(first, dict):
        return None
    keys = set(first)
    if keys & {"start_ts", "start_time"}:
        return "tts"
    if keys & {"supervisions", "tracks"} or {"recording_id", "start"} <= keys or {"sources", "sampling_rate"} <= keys:
        return "lhotse"
    if isinstance(value, list):
        return "whisperx" if keys >= {"start", "end"} and keys & {"words", "text"} else None
    if isinstance(first.get("w"), list):
        return "pocketsphinx"
    for key, name in (("aligned_text", "slamkit"), ("alignments", "moshi"), ("tiers", "mfa-json")):
        if key in keys:
            return name
    inner: dict[str, Any] = next(
        (first[key][0] for key in ("tokens", "words", "timestamps") if _objects(first.get(key))), {}
    )
    if set(inner) & {"start_ts", "start_time"}:
        return "tts"
    if _objects(first.get("segments")) or keys & {"word_segments", "chunks"} or _objects(first.get("words")):
        return "whisperx"
    return "whisperx" if first.get("segments") == [] else None


def _objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def sniff_lines(text: str, suffix: str) -> str | None:
    """Format of lines of fields, by the first 50 that are no comments; `suffix` settles CTM or STM."""
    lines = [
        line for line in text[:100_000].splitlines() if line.strip() and not line.lstrip().startswith((";;", "#"))
    ][:50]
    rows = [line.split() for line in lines]
    if not rows:
        return {".ctm": "ctm", ".stm": "stm", ".rttm": "rttm"}.get(suffix)
    if {cell.strip().lower() for cell in lines[0].split(",")} >= set(CSV_COLUMNS[:4]):
        return "mfa-csv"
    if all(len(row) >= 8 and row[0] in RTTM_TYPES for row in rows):
        return "rttm"
    if all(len(row) >= 10 and row[1:8:2] == ["S", "T", "A", "L"] for row in rows):
        return "matchseg"
    words = suffix in (".ctm", ".stm") or any(not _number(field) for row in rows for field in (row[0], *row[4:]))
    ctm = words and all(5 <= len(row) <= 9 and _number(row[2]) and _number(row[3]) for row in rows)
    stm = words and all(len(row) >= 5 and _number(row[3]) and _number(row[4]) for row in rows)
    if ctm or stm:
        return "stm" if stm and (not ctm or suffix == ".stm") else "ctm"
    if all(len(row) == 4 and _number(row[2]) and _number(row[3]) for row in rows):
        return "kaldi-segments"
    if all(re.fullmatch(r"\S+( \S+ \d+ ;)* \S+ \d+( ;)?", line.strip()) for line in lines) and ";" in lines[0]:
        return "kaldi-lengths"
    labels = any(not _number(field) for row in rows for field in row[2:])
    if labels and all(len(row) >= 2 and _number(row[0]) and _number(row[1]) for row in rows):
        return "labels"
    return None


def _number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return field == "*"
    return True
