"""Read a folder of recordings with transcripts and word times.

Enters: a folder tree. Leaves: one `Utterance` per usable recording, in the order of the paths, and a reason for every
other one. The one decision worth knowing: the folder is read twice, first to check everything and see all texts, then
to hand out utterances one by one, so that splits are exact for tiny corpora and memory stays small for large ones.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import soundfile

from speechscale.corpus.alignments import clip_words, read_alignment
from speechscale.corpus.skips import Skip
from speechscale.corpus.spelling import spell, tokens_of
from speechscale.errors import DataError
from speechscale.records import Utterance, Word

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")
SPLITS = ("train", "select", "test")
MIN_MATCH_SHARE = 0.5
"""Below this share of matching tokens an alignment belongs to another text."""
_AUDIO_FOLDERS = frozenset({"wav", "wavs", "wav48", "flac", "flacs", "mp3", "mp3s", "ogg", "opus", "audio", "clips"})
_ALIGNMENT_FOLDERS = ("TextGrid", "TextGrids", "textgrid", "textgrids", "alignments", "alignment", "aligned", "json")
_ALIGNMENT_SUFFIXES: dict[str, tuple[str, ...]] = {
    "auto": (".TextGrid", ".textgrid", ".json"),
    "textgrid": (".TextGrid", ".textgrid"),
    "json": (".json",),
    "none": (),
}
_LIBRISPEECH = re.compile(r"(\d+)-\d+-\d{4,}")

Alignments = Literal["auto", "textgrid", "json", "none"]
OnSkip = Callable[[str, str, str], None]
"""Called with (id, reason, remedy); `SkipLog.add` fits."""


def read_folder(
    root: Path,
    *,
    alignments: Alignments = "auto",
    tier: str | None = None,
    splits: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int,
    by: Literal["text", "speaker"] = "text",
    ids: Literal["stem", "path"] = "stem",
    licence: str = "",
    on_skip: OnSkip,
) -> Iterator[Utterance]:
    """Read every recording below `root` that has a transcript.

    Transcript: STEM.txt or STEM.lab beside the audio (a .lab of numbers is a label file), else the row STEM of the
    nearest `metadata.csv` at or above the audio (id|raw|normalized; the normalized text is used). Word times:
    STEM.TextGrid or STEM.json beside the audio or in a sister folder (wavs/ and TextGrid/).

    Args:
        alignments: "auto" takes what is there; "textgrid" and "json" insist on one; "none" reads no word times.
        tier: name of the word tier of TextGrids; by default "words" or "word".
        splits: shares of train, select and test; a group of equal texts (or of one speaker) is never divided.
            With at least as many groups as wanted splits none of these stays empty.
        seed: of the split.
        ids: "stem" names an utterance by its file name, "path" by its path below `root`.
        on_skip: receives (id, reason, remedy) of whatever cannot be used, before the first utterance comes.

    Raises:
        DataError: no such folder, no audio in it, or impossible splits.

    Source: LJSpeech's folder layout; MFA's sister folder of TextGrids.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"corpus folder {root}: no such folder; give the folder that holds the recordings")
    _check_options(splits, alignments=alignments, by=by, ids=ids)
    reader = _FolderReader(root=root.resolve(), alignments=alignments, tier=tier, ids=ids, licence=licence)
    usable: list[tuple[Path, bytes]] = []
    read = dropped = 0
    for found in reader.entries():
        read += 1
        made = found if isinstance(found, Skip) else reader.examine(found)
        if isinstance(made, Skip):
            dropped += 1
            on_skip(made.id, made.reason, made.remedy)
        else:
            assert isinstance(found, Path)
            key = made.speaker if by == "speaker" else " ".join(tokens_of(made.text))
            usable.append((found, hashlib.sha256(f"{seed}\0{key}".encode()).digest()))
    assert len(usable) + dropped == read
    chosen = assign_splits([digest for _, digest in usable], splits)
    for path, digest in usable:
        again = reader.examine(path, split=chosen[digest])
        if isinstance(again, Skip):
            raise DataError(f"{again.id}: the corpus changed while it was read ({again.reason}); read it again")
        yield again


def assign_splits(digests: Sequence[bytes], splits: Sequence[float]) -> dict[bytes, str]:
    """Assign each distinct digest to "train", "select" or "test" by its value, so that order never matters.

    If a wanted split came out empty and there are enough digests, the smallest group (then the lowest digest) of the
    split with the most groups moves there.

    Example: three digests always land in three splits.
    """
    sizes = Counter(digests)
    bounds = [splits[0], splits[0] + splits[1]]
    chosen = {}
    for digest in sizes:
        point = int.from_bytes(digest[:8], "big") / 2**64
        wanted = 0 if point < bounds[0] else 1 if point < bounds[1] or splits[2] == 0 else 2
        chosen[digest] = SPLITS[wanted]
    names = [name for name, share in zip(SPLITS, splits, strict=True) if share > 0]
    if len(sizes) >= len(names):
        for name in names:
            counts = Counter(chosen.values())
            if counts[name] == 0:
                donor = max(names, key=lambda n: (counts[n], n))
                moved = min((d for d in sizes if chosen[d] == donor), key=lambda d: (sizes[d], d))
                chosen[moved] = name
    return chosen


def _check_options(splits: Sequence[float], **options: str) -> None:
    if len(splits) != 3 or min(splits) < 0 or splits[0] <= 0 or abs(sum(splits) - 1) > 1e-6:
        raise DataError(
            f"splits {tuple(splits)}: give three shares (train, select, test) that are not negative, add up to 1, "
            f"and leave something to train on, such as (0.8, 0.1, 0.1)"
        )
    allowed = {"alignments": get_args(Alignments), "by": ("text", "speaker"), "ids": ("stem", "path")}
    for name, value in options.items():
        if value not in allowed[name]:
            raise DataError(f"{name} = '{value}' is not one of {', '.join(allowed[name])}")


@dataclass(slots=True, kw_only=True)
class _FolderReader:
    """Find recordings below a resolved root and read what belongs to each."""

    root: Path
    alignments: Alignments
    tier: str | None
    ids: Literal["stem", "path"]
    licence: str
    _tables: dict[Path, _Metadata | None] = field(default_factory=dict)

    def entries(self) -> Iterator[Path | Skip]:
        """Audio files in the order of their paths, and skips for what has to stay out."""
        seen: dict[str, Path] = {}
        names: set[str] = set()
        for path, skip in self._walk():
            names |= {path.stem, path.name}
            if skip is None and (first := seen.setdefault(self._id(path), path)) is not path:
                skip = self._skip(
                    path, f"same id as {self._name(first)}", "rename one of the two, or read with ids='path'"
                )
            yield skip or path
        if not names:
            raise DataError(f"corpus folder {self.root}: no audio ({', '.join(AUDIO_SUFFIXES)}) in it or below it")
        for folder in sorted(f for f, table in self._tables.items() if table is not None):
            table = self._tables[folder]
            assert table is not None
            yield from table.leftovers(names, self._name(folder / "metadata.csv"))

    def examine(self, path: Path, *, split: str = "") -> Utterance | Skip:
        """Read the transcript and word times of one recording."""
        try:
            text = self._transcript(path)
            words, problem = tuple(Word(text=word) for word in text.split()), ""
            if (alignment := self._alignment(path)) is not None:
                aligned = clip_words(read_alignment(alignment, tier=self.tier), _duration_s(path))
                words, share = spell(text, aligned)
                if share < MIN_MATCH_SHARE:
                    problem = f"{self._name(alignment)} matches {share:.0%} of the transcript"
        except (DataError, OSError) as error:
            # Paths below the root, so that the same corpus gives the same skips wherever it lies.
            reason, _, remedy = str(error).replace(f"{self.root}{os.sep}", "").rpartition("; ")
            default = "correct the word times, or read with alignments='none'"
            return self._skip(path, reason or remedy, remedy if reason else default)
        if problem:
            return self._skip(path, problem, "give the alignment of this text, or read with alignments='none'")
        return Utterance(
            id=self._id(path),
            text=text,
            speaker=self._speaker(path),
            split=split,
            words=words,
            audio=self._name(path),
            licence=self.licence,
        )

    def _walk(self) -> Iterator[tuple[Path, Skip | None]]:
        for folder, names, files in os.walk(self.root):
            names.sort()
            here = Path(folder)
            self._metadata(here)
            for name in [n for n in names if (here / n).is_symlink()]:
                if not self._inside(here / name):
                    yield here / name, self._outside(here / name)
            for name in sorted(files):
                path = here / name
                if path.suffix.lower() in AUDIO_SUFFIXES and not name.startswith("."):
                    yield path, None if self._inside(path) else self._outside(path)

    def _transcript(self, path: Path) -> str:
        for suffix in (".txt", ".lab"):
            beside = path.with_suffix(suffix)
            if beside.is_file():
                self._must_be_inside(beside)
                text = _decode(beside.read_bytes(), self._name(beside))
                if not (suffix == ".lab" and _is_label_file(text)):
                    return _clean(text, self._name(beside))
        for folder in [path.parent, *path.parent.parents]:
            if not folder.is_relative_to(self.root):
                break
            table = self._metadata(folder)
            row = table.row(path) if table is not None else None
            if row is not None:
                where = f"{self._name(folder / 'metadata.csv')}, line {row.line}"
                return _clean(_decode(row.text, where), where)
        raise DataError(f"no transcript; put {path.stem}.txt beside it or a row '{path.stem}|text' in metadata.csv")

    def _metadata(self, folder: Path) -> _Metadata | None:
        if folder not in self._tables:
            path = folder / "metadata.csv"
            usable = path.is_file() and self._inside(path)
            self._tables[folder] = _Metadata.read(path, self._name(path)) if usable else None
        return self._tables[folder]

    def _alignment(self, path: Path) -> Path | None:
        suffixes = _ALIGNMENT_SUFFIXES[self.alignments]
        relative = path.parent.relative_to(self.root)
        folders = [path.parent]
        for name in _ALIGNMENT_FOLDERS:
            # root/wavs/ann/STEM.wav: root/TextGrid/STEM, root/TextGrid/ann/STEM; ann/wavs/STEM.wav: ann/TextGrid/STEM.
            folders += [self.root / name, self.root / name / Path(*relative.parts[1:]), self.root / name / relative]
            if relative.parts:
                folders.append(path.parent.parent / name)
        for suffix in suffixes:
            for folder in folders:
                candidate = folder / (path.stem + suffix)
                if candidate.is_file():
                    self._must_be_inside(candidate)
                    return candidate
        if self.alignments not in ("auto", "none"):
            raise DataError(f"no word times {path.stem}{suffixes[0]}; align it, or read with alignments='auto'")
        return None

    def _speaker(self, path: Path) -> str:
        if found := _LIBRISPEECH.fullmatch(path.stem):
            return found[1]
        folders = [name for name in path.parent.relative_to(self.root).parts if name.lower() not in _AUDIO_FOLDERS]
        return folders[-1] if folders else self.root.name

    def _id(self, path: Path) -> str:
        return path.stem if self.ids == "stem" else path.relative_to(self.root).with_suffix("").as_posix()

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _skip(self, path: Path, reason: str, remedy: str) -> Skip:
        return Skip(id=self._id(path), reason=f"{self._name(path)}: {reason}", remedy=remedy)

    def _inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.root)

    def _outside(self, path: Path) -> Skip:
        return self._skip(path, "a link that leads out of the corpus folder", "copy the files into the corpus folder")

    def _must_be_inside(self, path: Path) -> None:
        if not self._inside(path):
            raise DataError(f"{self._name(path)} is a link that leads out of the corpus folder; copy the file there")


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    text: bytes


@dataclass(slots=True)
class _Metadata:
    """The rows of one metadata.csv in LJSpeech's form: id|raw or id|raw|normalized, no header, no quotes."""

    rows: dict[str, _Row]
    faults: list[Skip]

    @classmethod
    def read(cls, path: Path, name: str) -> _Metadata:
        rows: dict[str, _Row] = {}
        faults = []
        for line, data in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
            if not data.strip():
                continue
            cells = data.split(b"|")
            id = cells[0].strip().decode("utf-8", errors="replace")
            problem = "has no second column" if len(cells) < 2 else f"repeats '{id}'" if id in rows else ""
            if problem and not rows:
                remedy = "write lines 'id|text' or 'id|raw text|normalized text'"
                return cls({}, [Skip(id=name, reason=f"{name}, line {line}: {problem}; not read", remedy=remedy)])
            if problem:
                faults.append(Skip(id=f"{name}:{line}", reason=f"{name}, line {line}: {problem}", remedy="correct it"))
                continue
            rows[id] = _Row(line, cells[2] if len(cells) > 2 and cells[2].strip() else cells[1])
        return cls(rows, faults)

    def row(self, path: Path) -> _Row | None:
        return self.rows.get(path.stem) or self.rows.get(path.name)

    def leftovers(self, names: set[str], name: str) -> Iterator[Skip]:
        """Rows that could not be read, and rows without audio."""
        yield from self.faults
        for id, row in self.rows.items():
            if id not in names:
                reason = f"{name}, line {row.line}: no audio named '{id}' in the corpus folder"
                yield Skip(id=id, reason=reason, remedy="add the audio file or delete the row")


def _decode(data: bytes, name: str) -> str:
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: not UTF-8 at byte {error.start}; convert it (iconv -f latin1 -t utf-8, if it is Latin-1)"
        ) from error


def _clean(text: str, name: str) -> str:
    """Collapse white space. Raises DataError for an empty, wordless or binary text."""
    text = " ".join(text.split())
    if not text:
        raise DataError(f"{name}: the transcript is empty; write what is said, or delete the recording")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise DataError(f"{name}: control characters, not a text file; write what is said as UTF-8 text")
    if not tokens_of(text):
        raise DataError(f"{name}: the transcript has no words ('{text[:40]}'); write what is said, or delete it")
    return text


def _is_label_file(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip()]
    return bool(lines) and all(re.match(r"\s*[\d.]+\s", line + " ") for line in lines)


def _duration_s(path: Path) -> float:
    """Length by the file's header; endless when unreadable, which the encoder's loader reports with its reason."""
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError):
        return float("inf")
    return float(info.frames) / float(info.samplerate)
