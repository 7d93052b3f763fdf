"""Read the JSON of Whisper and its relatives, and write WhisperX's.

Enters: JSON of openai-whisper, WhisperX, faster-whisper, OpenAI's verbose_json or transformers' ASR pipeline. Leaves:
segments with words. The one decision worth knowing: these programs leave times out where they do not know (WhisperX on
digits and symbols); such a word keeps its place without time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from speechscale.align.formats.entries import Entry, Found, Segment, join_pieces, name_of, read_json_objects, seconds
from speechscale.align.formats.settle import Losses
from speechscale.errors import DataError
from speechscale.files import complete_file

_REMEDY = "write it again with word times"


def find_whisper(path: Path, tier: str | None = None) -> Iterator[Found]:
    """Words of all segments; a segment without words gives the words of its text without times. Raises DataError."""
    path = Path(path)
    for value in read_json_objects(path, "Whisper"):
        if isinstance(value, list):
            value = {"segments": value}
        if not isinstance(value, dict):
            raise DataError(f"{path}: expected an object with 'segments', 'words' or 'chunks'; {_REMEDY}")
        segments = value.get("segments")
        if "chunks" in value:
            yield _found(path, "chunks", value["chunks"], None)
        elif value.get("words") and not any(isinstance(s, dict) and s.get("words") for s in _listed(segments)):
            yield _found(path, "words", value["words"], None)
        elif isinstance(segments, list):
            for number, segment in enumerate(segments, start=1):
                yield _segment(path, segment, number)
        elif "word_segments" in value:
            yield _found(path, "word_segments", value["word_segments"], None)
        else:
            raise DataError(f"{path}: neither 'segments' nor 'words' nor 'chunks' in it; {_REMEDY}")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _segment(path: Path, segment: Any, number: int) -> Found:
    name = f"segment {number}"
    if isinstance(segment, list):  # a faster-whisper named tuple: id, seek, start, end, text, ...
        keys = ("id", "seek", "start", "end", "text")
        words = next((part for part in segment[5:] if isinstance(part, list) and part and _is_word(part[0])), None)
        segment = {**dict(zip(keys, segment, strict=False)), "words": words}
    if not isinstance(segment, dict):
        raise DataError(f"{path}, {name}: expected an object, found {str(segment)[:40]!r}; {_REMEDY}")
    if segment.get("words"):
        return _found(path, name, segment["words"], segment)
    text = str(segment.get("text") or "")
    return _found(path, name, [{"word": " " + word} for word in text.split()], segment)


def _is_word(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and len(value) >= 3 and isinstance(value[2], str))


def _found(path: Path, name: str, words: Any, segment: dict[str, Any] | None) -> Found:
    where = f"{path}, {name}"
    if not isinstance(words, list):
        raise DataError(f"{where}: expected a list of words, found {str(words)[:40]!r}; {_REMEDY}")
    entries, merged = join_pieces([_entry(word, f"{where}, word {n}", n) for n, word in enumerate(words, start=1)])
    segment = segment or {}
    return Found(
        recording=path.stem,
        id="" if segment.get("id") is None else str(segment["id"]),
        speaker=name_of(segment.get("speaker")),
        start_s=seconds(segment.get("start"), where),
        end_s=seconds(segment.get("end"), where),
        text=str(segment.get("text") or "").strip(),
        entries=entries,
        merged=merged,
        where=where,
        unit="word",
        phrases=name == "chunks",
    )


def _entry(word: Any, where: str, number: int) -> Entry:
    if isinstance(word, list) and _is_word(word):  # a faster-whisper named tuple: start, end, word, probability
        word = dict(zip(("start", "end", "word", "probability"), word, strict=False))
    if not isinstance(word, dict):
        raise DataError(f"{where}: expected an object, found {str(word)[:40]!r}; {_REMEDY}")
    text = word.get("word", word.get("text"))
    if not isinstance(text, str):
        raise DataError(f"{where}: has no 'word' and no 'text'; {_REMEDY}")
    pair = word.get("timestamp")
    start, end = pair if isinstance(pair, list) and len(pair) == 2 else (word.get("start"), word.get("end"))
    score = word.get("score", word.get("probability", word.get("confidence")))
    return Entry(text, seconds(start, where), seconds(end, where), seconds(score, where), number)


def write_whisperx(path: Path, segments: Sequence[Segment], duration_s: float, losses: Losses) -> None:
    """Write {"segments": [{start, end, text, words}], "word_segments": [...]}; words without time have none."""
    out = []
    for segment in segments:
        words = [_word(word.text, word.start_s, word.end_s, word.score) for word in segment.words]
        timed = [word for word in segment.words if word.start_s is not None]
        item: dict[str, Any] = {
            "start": segment.start_s if segment.start_s is not None else (timed[0].start_s if timed else 0.0),
            "end": segment.end_s if segment.end_s is not None else (timed[-1].end_s if timed else duration_s),
            "text": segment.text or " ".join(word.text for word in segment.words),
            "words": words,
        }
        if segment.speaker:
            item["speaker"] = segment.speaker
        out.append(item)
    content = {"segments": out, "word_segments": [word for item in out for word in item["words"]]}
    with complete_file(path) as part:
        part.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _word(text: str, start_s: float | None, end_s: float | None, score: float | None) -> dict[str, Any]:
    item: dict[str, Any] = {"word": text}
    if start_s is not None and end_s is not None:
        item |= {"start": float(start_s), "end": float(end_s)}
    return item if score is None else item | {"score": float(score)}
