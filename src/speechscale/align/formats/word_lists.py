"""Read and write lists of timed words: slamkit's metadata, Moshi's sidecar files, the word times of TTS engines.

Enters: JSON with [word, start, end] triples, [word, [start, end], speaker] or objects with start and end times. Leaves:
words in order. The one decision worth knowing: slamkit and TTS engines write words in pieces that hold their own
blanks; a piece without one belongs to the word before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from speechscale.align.formats.entries import (
    REALIGN,
    Entry,
    Found,
    Segment,
    join_pieces,
    joined,
    read_json_objects,
    seconds,
    with_text,
)
from speechscale.align.formats.settle import Losses
from speechscale.errors import DataError
from speechscale.files import complete_file

_TIME_KEYS = (("start_ts", "end_ts"), ("start_time", "end_time"), ("start_s", "end_s"), ("start", "end"))
_TEXT_KEYS = ("text", "word", "token")
_LISTS = ("tokens", "words", "timestamps", "word_timestamps")


def find_slamkit(path: Path, tier: str | None = None) -> Iterator[Found]:
    """Words of `aligned_text`, a list of [word, start, end]; further fields (a score) are accepted.

    Objects per word in this order of keys, as slamkit's parser takes them, are read too. Raises DataError.
    """
    path = Path(path)
    for number, value in enumerate(read_json_objects(path, "slamkit"), start=1):
        aligned = value.get("aligned_text") if isinstance(value, dict) else None
        if not isinstance(aligned, list):
            raise DataError(f"{path}, object {number}: no list 'aligned_text'; write [word, start, end] triples")
        pieces = [_triple(item, f"{path}, word {index}", index) for index, item in enumerate(aligned, start=1)]
        entries, merged = join_pieces(pieces)
        text = value.get("text")
        name = value.get("file_name")
        yield Found(
            recording=Path(name).stem if isinstance(name, str) and name else path.stem,
            entries=with_text(entries, text) if isinstance(text, str) else entries,
            text=text if isinstance(text, str) else "",
            merged=merged,
            where=str(path),
            unit="word",
        )


def _triple(item: Any, where: str, number: int) -> Entry:
    if isinstance(item, dict):
        item = list(item.values())
    if not isinstance(item, list) or len(item) < 3 or not isinstance(item[0], str):
        raise DataError(f"{where}: expected [word, start, end], found {str(item)[:60]}; {REALIGN}")
    score = item[3] if len(item) > 3 and isinstance(item[3], int | float) else None
    return Entry(item[0], seconds(item[1], where), seconds(item[2], where), score, number)


def write_slamkit(path: Path, segments: Sequence[Segment], duration_s: float, losses: Losses) -> None:
    """Write {"text", "aligned_text": [[" word", start, end], ...]}: exactly three fields and a leading blank per word.

    slamkit fails on words without time; they stand in the text only and are counted as unwritten.
    """
    words = [word for segment in segments for word in segment.words]
    timed = [word for word in words if word.start_s is not None and word.end_s is not None]
    losses.unwritten += len(words) - len(timed)
    aligned = [[" " + word.text, float(word.start_s or 0), float(word.end_s or 0)] for word in timed]
    content = {"text": " ".join(word.text for word in words), "aligned_text": aligned}
    with complete_file(path) as part:
        part.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def find_moshi(path: Path, tier: str | None = None) -> Iterator[Found]:
    """Words of `alignments`, a list of [word, [start, end], speaker], by speaker. Raises DataError."""
    path = Path(path)
    value = next(read_json_objects(path, "moshi-finetune's annotate.py"))
    items = value.get("alignments") if isinstance(value, dict) else value
    if not isinstance(items, list):
        raise DataError(f"{path}: no list 'alignments'; write [word, [start, end], speaker]")
    speakers: dict[str, list[Entry]] = {}
    for number, item in enumerate(items, start=1):
        where = f"{path}, word {number}"
        good = isinstance(item, list) and len(item) >= 2 and isinstance(item[0], str)
        if not good or not (item[1] is None or (isinstance(item[1], list) and len(item[1]) == 2)):
            raise DataError(f"{where}: expected [word, [start, end], speaker], found {str(item)[:60]}; {REALIGN}")
        start_s, end_s = (seconds(time, where) for time in item[1] or (None, None))
        speaker = str(item[2]) if len(item) > 2 and item[2] is not None else ""
        speakers.setdefault(speaker, []).append(Entry(item[0].strip(), start_s, end_s, None, number))
    for speaker, entries in speakers.items():
        yield Found(
            recording=path.stem,
            channel=speaker if len(speakers) > 1 else None,
            speaker=speaker or None,
            entries=entries,
            where=str(path),
            unit="word",
        )


def find_tts(path: Path, tier: str | None = None) -> Iterator[Found]:
    """Word times of a TTS engine, such as Kokoro's tokens {text, whitespace, start_ts, end_ts}.

    Punctuation is a token of its own there, and its time is a pause: it is joined to its word, its time is not.

    Raises:
        DataError: naming the token that has no text or a time that is no number.
    """
    path = Path(path)
    for value in read_json_objects(path, "the voice"):
        items = value
        if isinstance(value, dict):
            items = next((value[key] for key in _LISTS if isinstance(value.get(key), list)), [value])
        if not isinstance(items, list):
            raise DataError(f"{path}: no list of tokens with text and times; write the engine's word times")
        entries, pieces = _engine_words(items, path)
        yield Found(recording=path.stem, entries=entries, merged=pieces - len(entries), where=str(path), unit="token")


def _engine_words(items: list[Any], path: Path) -> tuple[list[Entry], int]:
    """Words of tokens, and how many tokens with text they were made of.

    A token belongs to the word before if no blank stands between, or if one of the two is punctuation.
    """
    words: list[Entry] = []
    pieces, apart = 0, True
    spaced = any(isinstance(item, dict) and "whitespace" in item for item in items)
    for number, item in enumerate(items, start=1):
        token = _token(item, f"{path}, token {number}", number)
        token = token._replace(text=token.text.strip())
        if not token.text:
            apart = True
            continue
        pieces += 1
        letters = _has_letters(token)
        if not letters:
            token = token._replace(start_s=None, end_s=None)
        if words and (not apart or not (letters or spaced) or not _has_letters(words[-1])):
            blank = " " if apart and spaced else ""
            words[-1] = joined(words[-1], token._replace(text=blank + token.text))
        else:
            words.append(token)
        apart = bool(item["whitespace"]) if "whitespace" in item else True
    return words, pieces


def _has_letters(entry: Entry) -> bool:
    return any(map(str.isalnum, entry.text))


def _token(item: Any, where: str, number: int) -> Entry:
    if not isinstance(item, dict):
        raise DataError(f"{where}: expected an object with text and times, found {str(item)[:40]!r}; {REALIGN}")
    text = next((item[key] for key in _TEXT_KEYS if isinstance(item.get(key), str)), None)
    if text is None:
        raise DataError(f"{where}: has no text ({', '.join(_TEXT_KEYS)}); {REALIGN}")
    start, end = next(((a, b) for a, b in _TIME_KEYS if a in item or b in item), _TIME_KEYS[0])
    return Entry(text, seconds(item.get(start), where), seconds(item.get(end), where), None, number)
