"""Decide whether an entry can be used.

Enters: `Entry`, as a source says it. Leaves: `Utterance` whose audio lies below the audio root, whose range lies in the
file and whose words lie in the range, or a `Skip` with the reason. The one decision worth knowing: a path is followed
before it is believed: '..', links and absolute paths that leave the audio root are refused by name.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from speechscale.align.formats import END_TOLERANCE_S
from speechscale.align.spelling import spell
from speechscale.corpus.readers.base import TAR_MARK, Entry, Ids, fault
from speechscale.corpus.timing import fitted_words
from speechscale.corpus.transcripts import clean_text
from speechscale.errors import DataError
from speechscale.records import Utterance, Word
from speechscale.skips import Skip
from speechscale.speech.audio import audio_info, stream_audio
from speechscale.speech.audio_files import find_source, is_cut, truncated

MIN_DURATION_S = 0.1
"""Less cannot hold a word."""
MIN_MATCH_SHARE = 0.5
"""Below this share of matching tokens the word times belong to another text."""
REMEMBERED_FILES = 4096
_PLACEHOLDERS = ("{data_root}/", "$data_root/")
_REMOTE = ("://", "s3:", "gs:", "pipe:")
_UNCLEAN = re.compile("[\x00-\x1f\ud800-\udfff]")
_REALIGN = "give the alignment of this text, or import with --words none"


@dataclass(frozen=True, slots=True)
class AudioFacts:
    """What a header says: seconds, samples per second, channels."""

    duration_s: float
    sample_rate_hz: int
    channels: int


@dataclass(slots=True)
class AudioFiles:
    """Audio below one root: safe paths and headers, the last ones remembered.

    Args:
        root: where relative paths start. strip: what is cut from the front of the source's paths.
    """

    root: Path
    strip: str = ""
    _home: Path = field(init=False)
    _folders: OrderedDict[str, str] = field(default_factory=OrderedDict)
    _facts: OrderedDict[str, AudioFacts | str] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self._home = Path(self.root).resolve()

    def locate(self, audio: str) -> str:
        """The path below the root, in POSIX form. Raises DataError: nothing named, remote, or outside the root."""
        path, mark, member = audio.partition(TAR_MARK)
        shown = path
        if self.strip and path.startswith(self.strip):
            path = path[len(self.strip) :].lstrip("/")
        for placeholder in _PLACEHOLDERS:
            path = path.removeprefix(placeholder)
        # A corpus has few folders and many files: a folder is followed once, a file only asked whether it is a link.
        folder, slash, name = path.rpartition("/")
        if not name or "\0" in path:
            raise DataError("no audio file is named; add its path or delete the item")
        if any(sign in path for sign in _REMOTE):
            raise DataError(f"audio '{shown}' is not a local file; download it and name the copy")
        if name == ".." or ".." in PurePosixPath(folder).parts:
            raise DataError(f"audio '{shown}' has '..' in its path; write it from the audio root on (--audio-root)")
        below = self._folders.get(folder + slash)
        if below is None:
            below = self._below(Path(folder + slash), shown)
            _remember(self._folders, folder + slash, below)
        place = below + name
        full = os.path.join(self._home, place)  # noqa: PTH118 - this line runs for every utterance
        if os.path.islink(full) and not Path(full).resolve().is_relative_to(self._home):  # noqa: PTH114
            raise DataError(f"audio '{place}' is a link that leads out of the audio root; copy the file there")
        return place + mark + member

    def _below(self, folder: Path, shown: str) -> str:
        """A folder's path below the root, ending in '/' unless it is the root. Raises DataError if it is not below."""
        real = (self._home / folder).resolve()
        if not folder.is_absolute() and not real.is_relative_to(self._home):
            raise DataError(
                f"audio '{shown}' lies behind a link that leads out of the audio root; copy the files there"
            )
        named = next((base for base in (self.root, self._home) if folder.is_relative_to(base)), None)
        if folder.is_absolute() and (not real.is_relative_to(self._home)):
            raise DataError(
                f"audio '{shown}' is not below the audio root; give --audio-root, or cut the front with --strip"
            )
        if folder.is_absolute():
            folder = folder.relative_to(named) if named else real.relative_to(self._home)
        return "" if folder == Path() else f"{folder.as_posix()}/"

    def facts(self, audio: str) -> AudioFacts:
        """Header of a located file. Raises DataError; paths in messages are below the root."""
        known = self._facts.get(audio)
        if known is None:
            try:
                info = audio_info(self.path(audio))
                if is_cut(source := find_source(self.path(audio)), info.container):
                    raise truncated(source, info.frames)
                known = AudioFacts(info.duration_s, info.sample_rate_hz, info.channels)
            except (DataError, OSError) as error:
                known = str(error).replace(f"{self._home}{os.sep}", "")
            _remember(self._facts, audio, known)
        if isinstance(known, str):
            raise DataError(known)
        return known

    def path(self, audio: str) -> Path:
        """Full path of a located file, 'x.tar::member' included."""
        return self._home / audio


def _remember(memory: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    memory[key] = value
    if len(memory) > REMEMBERED_FILES:
        memory.popitem(last=False)


@dataclass(slots=True, kw_only=True)
class Admission:
    """The checks every entry goes through.

    Args:
        text: "required" skips items without transcript, "optional" keeps them, "none" drops all transcripts.
        words: "auto" keeps the source's word times, "none" drops them.
        check: "header" opens each audio file, "decode" also decodes the utterance's part (truncation, NaN, silence),
            "none" believes the source.
        licence, language, speaker: for items that have none of their own.
    """

    files: AudioFiles
    ids: Ids = "stem"
    text: Literal["required", "optional", "none"] = "required"
    words: Literal["auto", "none"] = "auto"
    check: Literal["header", "decode", "none"] = "header"
    licence: str = ""
    language: str = ""
    speaker: str = ""

    def admit(self, entry: Entry) -> Utterance | Skip:
        """The utterance, its split as the source says it, or why it cannot be used."""
        name = self.name(entry)
        try:
            _check_names(name, entry.speaker)
            if entry.refused:
                raise DataError(entry.refused)
            audio = self.files.locate(entry.audio)
            start_s, end_s, duration_s, channel = self._range(entry, audio)
            text = self._text(entry)
            words = self._words(entry, text, duration_s)
            if self.check == "decode":
                self._decode(audio, start_s, end_s, channel)
        except (DataError, OSError) as error:
            return fault(name, entry.where, str(error))
        return Utterance(
            id=name,
            text=text,
            speaker=entry.speaker or self.speaker,
            split=entry.split,
            words=words,
            audio=audio,
            start_s=start_s,
            end_s=end_s,
            channel=channel,
            licence=entry.licence or self.licence,
            language=entry.language or self.language,
        )

    def name(self, entry: Entry) -> str:
        """The item's id, or one made from its audio and range."""
        if entry.id:
            return entry.id
        path = PurePosixPath(entry.audio.rpartition(TAR_MARK)[2])
        name = path.stem if self.ids == "stem" else path.with_suffix("").as_posix() if path.name else ""
        first = entry.start_s if entry.start_sample is None else entry.start_sample
        last = entry.end_s if entry.end_sample is None else entry.end_sample
        if not first or not name:
            return name or entry.where
        scale = 1000 if entry.start_sample is None else 1
        return f"{name}-{round(first * scale):08d}" + ("" if last is None else f"-{round(last * scale):08d}")

    def _range(self, entry: Entry, audio: str) -> tuple[float, float | None, float | None, int | None]:
        """Start, end (None: of the file), length of the utterance where known, channel (None: the only one)."""
        start, end, total, channel = entry.start_s, entry.end_s, entry.duration_s, entry.channel
        in_samples = entry.start_sample is not None or entry.end_sample is not None
        facts = None
        if in_samples or (self.check != "none" and (total is None or channel is not None)):
            facts = self.files.facts(audio)
            total = facts.duration_s
        if facts and in_samples:
            start = (entry.start_sample or 0) / facts.sample_rate_hz
            end = None if entry.end_sample is None else entry.end_sample / facts.sample_rate_hz
        if start < 0 or (end is not None and end <= start):
            raise DataError(f"its range {start:g}..{end:g} s is empty or negative; correct the times")
        if total is not None:
            if start >= total or (end is not None and end > total + END_TOLERANCE_S):
                shown = "the end" if end is None else f"{end:.3f}"
                raise DataError(
                    f"its range {start:.3f}..{shown} s ends outside the audio, which lasts {total:.3f} s; "
                    "correct the times or copy the audio again"
                )
            if end is not None and end > total - 0.5 * END_TOLERANCE_S:
                end = None
        if facts and channel is not None:
            if not 0 <= channel < facts.channels:
                raise DataError(f"channel {channel} of audio with {facts.channels} channels; correct the channel")
            channel = None if facts.channels == 1 else channel
        last = total if end is None else end
        duration = None if last is None else last - start
        if duration is not None and duration < MIN_DURATION_S:
            raise DataError(f"{duration:.4f} s of audio are too short to hold a word; record it again or drop it")
        return start, end, duration, channel

    def _text(self, entry: Entry) -> str:
        if self.text == "none":
            return ""
        if entry.text is None and entry.words:
            return clean_text(" ".join(word.text for word in entry.words), "word times")
        if entry.text is None or (self.text == "optional" and not entry.text.strip()):
            if self.text == "optional":
                return ""
            raise DataError("no transcript; add it, or import with --text optional")
        try:
            entry.text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"the transcript is not UTF-8 at character {error.start}; convert it (iconv -f latin1 -t utf-8, if it "
                "is Latin-1)"
            ) from error
        return clean_text(entry.text, "transcript")

    def _words(self, entry: Entry, text: str, duration_s: float | None) -> tuple[Word, ...]:
        if self.text == "none":
            return ()
        if self.words == "none" or not entry.words:
            return tuple(Word(text=word) for word in text.split())
        words = fitted_words(entry.words, duration_s)
        if not text or [word.text for word in words] == text.split():
            return words
        spelled, share = spell(text, words)
        if share < MIN_MATCH_SHARE:
            raise DataError(f"its word times match {share:.0%} of the transcript; {_REALIGN}")
        return spelled

    def _decode(self, audio: str, start_s: float, end_s: float | None, channel: int | None) -> None:
        blocks = stream_audio(
            self.files.path(audio), sample_rate_hz=None, start_s=start_s, end_s=end_s, channel=channel
        )
        try:
            sounds = [bool(block.any()) for block in blocks]
        except DataError as error:
            raise DataError(str(error).replace(f"{self.files.root.resolve()}{os.sep}", "")) from error
        if not any(sounds):
            raise DataError("all samples are zero; record it again or drop it")


def _check_names(*names: str) -> None:
    for name in names:
        if _UNCLEAN.search(name):
            raise DataError(f"the name {name!a} is not clean UTF-8 text; rename it")
