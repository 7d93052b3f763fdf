"""Make an `Entry` from a row of named columns, whoever named them.

Enters: a dict from a JSON line, a CSV row or a tar member. Leaves: `Entry`, or a `DataError` that names the column. The
one decision worth knowing: known column names are tried in a fixed order, and what the user maps comes before all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from speechscale.corpus.readers.base import Entry, number
from speechscale.corpus.splits import canonical_split
from speechscale.corpus.timing import shifted_words
from speechscale.errors import DataError
from speechscale.records import Word

COLUMNS: dict[str, tuple[str, ...]] = {
    "audio": ("audio", "audio_filepath", "audio_path", "wav_path", "wav_filename", "wav", "path", "file", "file_name",
              "filename", "audio_file"),
    "text": ("text", "sentence", "transcript", "transcription", "normalized_text", "raw_text", "wrd", "trans"),
    "duration": ("duration", "duration_s", "audio_duration", "length"),
    "start": ("offset", "start", "start_s", "start_time", "begin"),
    "end": ("end", "end_s", "end_time", "stop"),
    "speaker": ("speaker", "speaker_id", "spk_id", "spk", "client_id", "speaker_name"),
    "id": ("id", "ID", "utt_id", "utterance_id", "uid", "key", "__key__", "segment_id"),
    "language": ("lang", "language", "locale", "lang_id"),
    "split": ("split", "subset", "partition"),
    "channel": ("channel",),
    "licence": ("licence", "license"),
    "words": ("aligned_text", "alignment", "alignments", "word_times", "words"),
}  # fmt: skip
"""Our name -> the names it goes by, first match first."""
_START = ("start", "start_s", "start_time", "b", "begin", "xmin")
_END = ("end", "end_s", "end_time", "xmax")
_WORD = ("word", "text", "t", "symbol", "label")
_SCORE = ("score", "probability", "confidence", "conf", "p")


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Raise DataError for a column that we do not have."""
    for ours in mapping:
        if ours not in COLUMNS:
            raise DataError(f"--map {ours}={mapping[ours]}: '{ours}' is not one of {', '.join(COLUMNS)}; correct it")


def entry_of(row: Mapping[str, Any], where: str, mapping: Mapping[str, str], *, id: str = "") -> Entry:
    """Read one row.

    Args:
        mapping: our column -> theirs; a mapped column that the row lacks is an error.
        id: used when the row has none.

    Raises:
        DataError: no audio column, or a value of the wrong kind; "what is wrong; remedy".
    """

    def value(ours: str) -> Any:
        if ours in mapping:
            if mapping[ours] not in row:
                raise DataError(f"no column '{mapping[ours]}' for {ours}; its columns are {_names(row)}")
            return row[mapping[ours]]
        return next((row[name] for name in COLUMNS[ours] if row.get(name) not in (None, "")), None)

    audio, start_sample, end_sample = _audio(value("audio"), row)
    start = number(value("start"), "start") or 0.0
    end, duration = number(value("end"), "end"), number(value("duration"), "duration")
    if end is None and duration is not None and start_sample is None:
        end = round(start + duration, 6)
    channel = value("channel")
    words = words_of(value("words"))
    text = value("text")
    if text is None and isinstance(row.get("words"), str):
        text = row["words"]
    if text is not None and not isinstance(text, str):
        raise DataError(f"the transcript is a {type(text).__name__}, a text is needed; correct it or use --map text=..")
    return Entry(
        id=str(value("id") or id),
        where=where,
        audio=audio,
        text=text,
        speaker=_text(value("speaker")),
        split=canonical_split(_text(value("split"))),
        language=_text(value("language")),
        licence=_text(value("licence")),
        words=shifted_words(words, -start) if _absolute(words, start, end) else words,
        start_s=start,
        end_s=end,
        start_sample=start_sample,
        end_sample=end_sample,
        channel=None if channel is None else _whole(channel, "channel"),
    )


def words_of(value: Any) -> tuple[Word, ...]:
    """Words from a list of [word, start, end(, score)] or of {word, start, end, score}; else none.

    Times may be missing or null: the word then has no time. Raises DataError for entries of another kind.
    """
    if not isinstance(value, list):
        return ()
    words = []
    for index, item in enumerate(value):
        if isinstance(item, list | tuple) and 1 <= len(item) <= 4 and isinstance(item[0], str):
            item = dict(zip(("word", "start", "end", "score"), item, strict=False))
        if not isinstance(item, dict) or not isinstance(text := _first(item, _WORD), str):
            raise DataError(f"word {index} is {str(item)[:60]!r}, not [word, start, end]; correct it")
        start, end = number(_first(item, _START), "a word's start"), number(_first(item, _END), "a word's end")
        if end is None and start is not None and (length := number(item.get("duration"), "duration")) is not None:
            end = round(start + length, 6)
        timed = start is not None and end is not None
        score = _first(item, _SCORE)
        if text.strip():
            words.append(
                Word(
                    text=" ".join(text.split()),
                    start_s=start if timed else None,
                    end_s=end if timed else None,
                    score=float(score) if isinstance(score, int | float) and not isinstance(score, bool) else None,
                )
            )
    return tuple(words)


def _absolute(words: Iterable[Word], start: float, end: float | None) -> bool:
    """Whether word times count from the start of the file instead of the utterance: all lie inside its range."""
    times = [word for word in words if word.start_s is not None and word.end_s is not None]
    if not times or start <= 0:
        return False
    first, last = times[0].start_s or 0.0, times[-1].end_s or 0.0
    return first >= start - 0.01 and (end is None or last > end - start + 0.05)


def _audio(value: Any, row: Mapping[str, Any]) -> tuple[str, int | None, int | None]:
    """Path, and first and last sample for speechbrain's {"file", "start", "stop"}."""
    if isinstance(value, dict):
        path, start, stop = value.get("file", value.get("path")), value.get("start"), value.get("stop")
        if not isinstance(path, str):
            raise DataError(f"the audio {str(value)[:60]} names no single file; give one path per item")
        first, last = (None if part is None else _whole(part, "an audio range") for part in (start, stop))
        return path, first, last
    if value is None:
        raise DataError(f"no audio column; its columns are {_names(row)}: map one with --map audio=NAME")
    if not isinstance(value, str):
        raise DataError(f"the audio is {str(value)[:40]!r}, a path is needed; give one path per item")
    return value, None, None


def _first(item: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((item[name] for name in names if item.get(name) is not None), None)


def _whole(value: Any, what: str) -> int:
    result = number(value, what)
    if result is None or result != int(result) or result < 0:
        raise DataError(f"{what} is {str(value)[:40]!r}, a whole number from 0 is needed; correct it")
    return int(result)


def _text(value: Any) -> str:
    return "" if value is None else " ".join(str(value).split())


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(str(name) for name in list(row)[:20]) or "none"
