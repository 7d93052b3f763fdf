"""Read Kaldi data directories: wav.scp, text, utt2spk, segments, reco2dur, utt2lang.

Enters: a data directory. Leaves: an `Entry` per line of segments (or of wav.scp), and a skip for every line of text
that has none. The one decision worth knowing: commands in wav.scp are never run; a pipe that only prints one audio file
is read as that file, any other is refused by name.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from speechscale.corpus.readers.base import Entry, Found, Source, fault, lines_of, number, required_file
from speechscale.errors import DataError
from speechscale.skips import Skip

_RUN_IT = "commands are never run; write its output to files once and name these"
_SHELL = re.compile(r"[;&$`<>()\\*?\[\]{}!\n]|\|.*\|")
_OFFSET = re.compile(r":\d+$")


@dataclass(frozen=True, slots=True)
class Program:
    """A command that prints one audio file: its options without and with a value, and those it needs."""

    flags: frozenset[str] = frozenset()
    valued: frozenset[str] = frozenset()
    needed: frozenset[str] = frozenset()


PROGRAMS = {
    "cat": Program(),
    "flac": Program(
        flags=frozenset({"-c", "-d", "-s", "-F", "--decode", "--stdout", "--silent", "-cd", "-dc", "-cds", "-dcs"})
        | frozenset({"-csd", "-sdc", "-scd", "-dsc", "--totally-silent"}),
    ),
    "sph2pipe": Program(flags=frozenset({"-p"}), valued=frozenset({"-f", "-c"})),
    "sox": Program(flags=frozenset({"-G", "-V0", "-V1", "-V2"}), valued=frozenset({"-t", "-r", "-b", "-e"})),
}
"""The only commands whose input file is read instead: they change container, rate or sample type, nothing else."""


def kaldi_entries(source: Source) -> Iterator[Found]:
    """Stream a data directory; lines are matched by id and stay in the order of segments (or wav.scp).

    Files sorted alike, as Kaldi demands, need no memory but the recordings of wav.scp; others are held until matched.

    Raises:
        DataError: no wav.scp.

    Source: kaldi-asr.org/doc/data_prep.html
    """
    root = source.path
    required_file(root / "wav.scp", f"{root}/wav.scp", "give a Kaldi data directory")
    columns = {
        name: _Column(root / name, source) for name in ("text", "utt2spk", "utt2lang") if (root / name).is_file()
    }
    segments = root / "segments"
    lines = _segments(root, source) if segments.is_file() else _recordings(root, source)
    for found in lines:
        if isinstance(found, Skip):
            for column in columns.values():
                column.pop(found.id)
            yield found
            continue
        try:
            text, speaker, language = (
                columns[name].pop(found.id) if name in columns else None for name in ("text", "utt2spk", "utt2lang")
            )
        except DataError as error:
            yield fault(found.id, found.where, str(error))
            continue
        yield Entry(
            id=found.id,
            where=found.where,
            audio=found.audio,
            text=text,
            speaker=speaker or "",
            language=language or "",
            start_s=found.start_s,
            end_s=found.end_s,
            channel=found.channel,
            refused=found.refused,
        )
    if "text" in columns:
        driver = "segments" if segments.is_file() else "wav.scp"
        for id, line in columns["text"].leftovers():
            yield fault(id, f"text, line {line}", f"no line '{id}' in {driver}; add it or delete the text")


def _recordings(root: Path, source: Source) -> Iterator[Found]:
    """One entry per line of wav.scp."""
    for line in lines_of(root / "wav.scp", "wav.scp", source.meter):
        found = _pair(line, "wav.scp")
        if isinstance(found, Skip):
            yield found
            continue
        id, value = found
        audio, channel, refused = readable_file(value)
        yield Entry(id=id, where=f"wav.scp, line {line[0]}", audio=audio, channel=channel, refused=refused)


def _segments(root: Path, source: Source) -> Iterator[Found]:
    """One entry per line of segments: utterance, recording, start, end (-1: the recording's end)."""
    recordings: dict[str, tuple[str, int | None, str]] = {}
    faults = []
    for line in lines_of(root / "wav.scp", "wav.scp", source.meter):
        found = _pair(line, "wav.scp")
        if isinstance(found, Skip):
            faults.append(found)
        else:
            recordings[found[0]] = readable_file(found[1])
    yield from faults
    for line in lines_of(root / "segments", "segments", source.meter):
        found = _pair(line, "segments")
        if isinstance(found, Skip):
            yield found
            continue
        id, cells, where = found[0], found[1].split(), f"segments, line {line[0]}"
        try:
            if len(cells) != 3:
                raise DataError(f"{len(cells) + 1} cells; write 'utterance recording start end'")
            start, end = number(cells[1], "its start"), number(cells[2], "its end")
            if cells[0] not in recordings:
                raise DataError(f"no recording '{cells[0]}' in wav.scp; add it or delete the segment")
        except DataError as error:
            yield fault(id, where, str(error))
            continue
        audio, channel, refused = recordings[cells[0]]
        yield Entry(
            id=id,
            where=where,
            audio=audio,
            start_s=start or 0.0,
            end_s=None if end == -1 else end,
            channel=channel,
            refused=refused,
        )


def readable_file(value: str) -> tuple[str, int | None, str]:
    """The audio file behind the right side of a wav.scp line, its channel, and why it cannot be read ("" if it can).

    Example: "a.wav" -> a.wav; "flac -c -d -s b.flac |" -> b.flac; "sph2pipe -p -c 2 c.sph |" -> c.sph, channel 1;
    "sox --null ... |" -> refused
    """
    value = value.strip()
    if not value.endswith("|"):
        if value == "-" or value.startswith("|"):
            return "", None, f"'{value[:80]}' is standard input or output; {_RUN_IT}"
        if _OFFSET.search(value) or value.endswith(".ark"):
            return "", None, f"'{value[:80]}' is part of a Kaldi archive; extract the audio to files"
        return value, None, ""
    command = value[:-1].strip()
    shown = " ".join(value.split())[:80]
    refused = f"the command '{shown}' does more than print one audio file; {_RUN_IT}"
    if _SHELL.search(command):
        return "", None, refused
    try:
        words = shlex.split(command)
    except ValueError:
        return "", None, refused
    program = PROGRAMS.get(Path(words[0]).name) if words else None
    if program is None:
        return "", None, refused
    files, options, position = [], {}, 1
    while position < len(words):
        word = words[position]
        if word in program.valued and position + 1 < len(words):
            position += 1
            options[word] = words[position]
        elif word in program.flags:
            options[word] = ""
        elif word.startswith("-") and word != "-":
            return "", None, refused
        else:
            files.append(word)
        position += 1
    if words[0].endswith("sox") and files[-1:] == ["-"]:
        files.pop()
    if len(files) != 1 or files[0] == "-" or not _prints(Path(words[0]).name, options):
        return "", None, refused
    channel = int(options["-c"]) - 1 if options.get("-c", "").isdigit() and "sph2pipe" in words[0] else None
    return files[0], channel, ""


def _prints(program: str, options: dict[str, str]) -> bool:
    """Whether flac is told to decode to standard output; the others do so by themselves."""
    if program != "flac":
        return True
    letters = "".join(option[1:] for option in options if not option.startswith("--"))
    return ("c" in letters or "--stdout" in options) and ("d" in letters or "--decode" in options)


def _pair(line: tuple[int, bytes | Skip], name: str) -> tuple[str, str] | Skip:
    """Id and rest of a line."""
    number, data = line
    if isinstance(data, Skip):
        return data
    parts = data.decode("utf-8", errors="surrogateescape").strip().split(None, 1)
    if len(parts) < 2:
        return fault(parts[0], f"{name}, line {number}", "only an id; write 'id value'")
    return parts[0], parts[1]


@dataclass(slots=True)
class _Column:
    """A file of 'id value' lines, read along with another that should be sorted alike."""

    path: Path
    source: Source
    _lines: Iterator[tuple[int, bytes | Skip]] = field(init=False)
    _waiting: dict[str, tuple[int, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lines = lines_of(self.path, self.path.name, self.source.meter)

    def pop(self, id: str) -> str | None:
        """The value of an id, once. A line with an id alone has the value ""."""
        if id in self._waiting:
            return self._waiting.pop(id)[1]
        for line, data in self._lines:
            if isinstance(data, Skip):
                continue
            found, _, value = data.decode("utf-8", errors="surrogateescape").strip().replace("\t", " ").partition(" ")
            if found == id:
                return value.strip()
            self._waiting.setdefault(found, (line, value.strip()))
        return None

    def leftovers(self) -> Iterator[tuple[str, int]]:
        """Ids that nobody asked for, with their line."""
        self.pop("\0")
        yield from ((id, line) for id, (line, _) in self._waiting.items())
