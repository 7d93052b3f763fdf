"""Read the folder trees of known corpora: LibriSpeech, LibriLight, VCTK, LJSpeech, and audio without any text.

Enters: an unpacked corpus. Leaves: one `Entry` per utterance in the order of the paths, and a skip for every audio file
and every transcript line that has no partner. The one decision worth knowing: the transcripts lead, because they are
small and complete; audio files that none of them names are told, not ignored.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from speechscale.corpus.readers.base import AUDIO_SUFFIXES, Entry, Found, Source, fault, lines_of
from speechscale.corpus.readers.folder import folder_entries
from speechscale.corpus.splits import SPLITS, canonical_split
from speechscale.errors import DataError
from speechscale.skips import Skip

LIBRISPEECH_SPLITS = frozenset(
    {f"{part}-{kind}" for part in ("dev", "test") for kind in ("clean", "other")}
    | {f"train-{kind}" for kind in ("clean-100", "clean-360", "other-500", "clean-5")}
    | {"dev-clean-2"}
)
MAX_GAP_S = 2.0
"""LibriLight: a longer silence always ends a piece."""
MIN_PIECE_S = 0.5


def walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield (folder, sorted file names) in the order of the paths; hidden files and links to folders are left out."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield Path(folder), sorted(name for name in files if not name.startswith("."))


def is_audio(name: str) -> bool:
    """Whether the suffix is one we decode."""
    return Path(name).suffix.lower() in AUDIO_SUFFIXES


def audio_entries(source: Source) -> Iterator[Found]:
    """Every audio file; the speaker is the folder's name, the split the first folder's if it is one.

    `source.names` says what file names tell: "{text}_{speaker}_{take}" reads 7_theo_3.wav as speaker theo saying 7.
    """
    pattern = name_pattern(source.names) if source.names else None
    for folder, files in walk(source.path):
        relative = folder.relative_to(source.path)
        speaker = relative.name or source.path.resolve().name
        first = canonical_split(relative.parts[0]) if relative.parts else ""
        split = first if first in SPLITS else ""
        for name in filter(is_audio, files):
            path = (relative / name).as_posix()
            told = pattern.fullmatch(Path(name).stem) if pattern else None
            if pattern and not told:
                yield fault(Path(name).stem, path, f"its name is not of the form {source.names}; rename it")
                continue
            said = told.groupdict() if told else {}
            text = said.get("text")
            yield Entry(
                id="",
                where=path,
                audio=path,
                text=None if text is None else text.replace("_", " "),
                speaker=said.get("speaker", speaker),
                split=split,
                language=said.get("language", ""),
            )


def name_pattern(names: str) -> re.Pattern[str]:
    """A pattern of file names from "{text}_{speaker}_{take}"; fields may have any name. Raises DataError."""
    parts = re.split(r"\{(\w+)\}", names)
    try:
        if len(parts) < 3:
            raise ValueError("no field")
        fields = "".join(re.escape(part) if i % 2 == 0 else f"(?P<{part}>.+?)" for i, part in enumerate(parts))
        return re.compile(fields)
    except (ValueError, re.error) as error:
        raise DataError(f"--names {names}: {error}; write fields in braces, such as {{text}}_{{speaker}}") from error


def librispeech_entries(source: Source) -> Iterator[Found]:
    """LibriSpeech and MLS-like trees: SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt with lines "ID TEXT".

    The official split names anywhere in the path become splits. Source: openslr.org/12, README.TXT.
    """
    for folder, files in walk(source.path):
        relative = folder.relative_to(source.path)
        split = next((canonical_split(part) for part in relative.parts if part in LIBRISPEECH_SPLITS), "")
        split = split or (canonical_split(source.path.name) if source.path.name in LIBRISPEECH_SPLITS else "")
        audio = {Path(name).stem: name for name in reversed(files) if is_audio(name)}
        told: set[str] = set()
        for table in [name for name in files if name.endswith(".trans.txt")]:
            where = (relative / table).as_posix()
            if not (folder / table).resolve().is_relative_to(source.path.resolve()):
                yield fault(where, where, "a link that leads out of the corpus folder; copy the file there")
                continue
            for number, line in lines_of(folder / table, where, source.meter):
                if isinstance(line, Skip):
                    yield line
                    continue
                id, _, text = line.decode("utf-8", errors="surrogateescape").strip().partition(" ")
                place = f"{where}, line {number}"
                if id in told:
                    yield fault(id, place, "repeats an id of this file; delete one of the two lines")
                elif id not in audio:
                    yield fault(id, place, f"no audio {id}.flac beside it; add the file or delete the line")
                else:
                    yield Entry(
                        id=id,
                        where=place,
                        audio=(relative / audio[id]).as_posix(),
                        text=text,
                        speaker=id.split("-")[0],
                        split=split,
                        language="en",
                    )
                told.add(id)
        for stem in sorted(audio.keys() - told):
            place = (relative / audio[stem]).as_posix()
            yield fault(stem, place, "no line in a .trans.txt beside it; add 'ID TEXT', or read with --format audio")


def librilight_entries(source: Source) -> Iterator[Found]:
    """LibriLight: STEM.flac with STEM.json {speaker, book_meta, voice_activity: [[start, end], ...]}.

    Neighboring stretches of speech are joined to pieces of up to `piece_s` seconds; a silence above 2 s or a longer
    piece ends one, a single stretch that is longer stays whole, pieces below 0.5 s are told. Where we differ from
    cut_by_vad.py: the silence inside a piece stays, because a piece is one range of its file.

    Source: Kahn et al. 2019, "Libri-light", section 3; github facebookresearch/libri-light, data_preparation.
    """
    for folder, files in walk(source.path):
        relative = folder.relative_to(source.path)
        for name in filter(is_audio, files):
            stem, path = Path(name).stem, (relative / name).as_posix()
            try:
                speaker, book, stretches = _librilight_json(folder / f"{stem}.json", (relative / stem).as_posix())
            except DataError as error:
                yield fault(stem, path, str(error))
                continue
            id = stem if source.ids == "stem" else (relative / stem).as_posix()
            for start, end in join_stretches(stretches, source.piece_s):
                piece = f"{id}-{round(start * 1000):08d}-{round(end * 1000):08d}"
                if end - start < MIN_PIECE_S:
                    yield fault(piece, path, f"a stretch of speech of {end - start:.2f} s; too short to use")
                    continue
                yield Entry(
                    id=piece,
                    where=f"{path}{f' ({book})' if book else ''}",
                    audio=path,
                    speaker=speaker or relative.parent.name or relative.name,
                    language="en",
                    start_s=start,
                    end_s=end,
                )


def join_stretches(stretches: Sequence[tuple[float, float]], piece_s: float) -> list[tuple[float, float]]:
    """Join ordered stretches to pieces of at most `piece_s` seconds where silences allow.

    Example: [(0, 4), (5, 9), (9.5, 30)], 10 s -> [(0, 9), (9.5, 30)]
    """
    pieces: list[tuple[float, float]] = []
    for start, end in stretches:
        if pieces and end - pieces[-1][0] <= piece_s and start - pieces[-1][1] <= MAX_GAP_S:
            pieces[-1] = (pieces[-1][0], end)
        else:
            pieces.append((start, end))
    return pieces


def _librilight_json(path: Path, name: str) -> tuple[str, str, list[tuple[float, float]]]:
    """Speaker, book title and checked stretches of speech."""
    if not path.is_file() or path.is_symlink():
        raise DataError(f"no {name}.json with its voice_activity; add it, or read with --format audio")
    try:
        content: Any = json.loads(path.read_bytes())
        stretches = [(float(start), float(end)) for start, end in content["voice_activity"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{name}.json has no list voice_activity of [start, end] ({error!r}); get it again") from error
    before = 0.0
    for start, end in stretches:
        if not before <= start < end:
            raise DataError(f"{name}.json: voice_activity {start:g}..{end:g} s is out of order; get it again")
        before = end
    if not stretches:
        raise DataError(f"{name}.json: voice_activity is empty; drop the file")
    meta = content.get("book_meta")
    book = str(meta.get("title", "")) if isinstance(meta, dict) else ""
    return str(content.get("speaker", "")), book, stretches


def ljspeech_entries(source: Source) -> Iterator[Found]:
    """LJSpeech: metadata.csv (id|raw|normalized) and wavs/, with word times as in any folder; one speaker, "LJ"."""
    for found in folder_entries(source):
        yield found if isinstance(found, Skip) else replace(found, speaker="LJ", language="en")


def vctk_entries(source: Source) -> Iterator[Found]:
    """VCTK: wav48*/SPEAKER/ID(_mic1).flac with txt/SPEAKER/ID.txt; of two microphones the first is read.

    Source: DataShare Edinburgh, CSTR VCTK 0.92, README.
    """
    folders = sorted(p for p in source.path.iterdir() if p.is_dir() and p.name.startswith("wav"))
    if not folders or not (source.path / "txt").is_dir():
        raise DataError(f"{source.path}: no folders wav48* and txt as in VCTK; give its root, or use --format folder")
    for folder, files in walk(folders[0]):
        relative = folder.relative_to(source.path)
        for name in [n for n in files if is_audio(n) and "_mic2" not in n]:
            stem = Path(name).stem.removesuffix("_mic1")
            path, speaker = (relative / name).as_posix(), stem.split("_")[0]
            text = source.path / "txt" / speaker / f"{stem}.txt"
            if not text.is_file() or not text.resolve().is_relative_to(source.path.resolve()):
                yield fault(stem, path, f"no transcript txt/{speaker}/{stem}.txt; add it, or drop the recording")
                continue
            said = text.read_bytes().decode("utf-8", errors="surrogateescape")
            yield Entry(id=stem, where=path, audio=path, text=said, speaker=speaker, language="en")
