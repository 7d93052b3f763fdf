"""Read a folder of recordings with transcripts and word times.

Enters: a folder tree. Leaves: one `Utterance` per usable recording, in the order of the paths, and a reason for every
other one. The one decision worth knowing: there are two passes, first to check everything and see all texts, then to
hand out utterances one by one, so that splits are exact for tiny corpora and memory stays small for large ones.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from speechscale.align.formats import clip_words, read_alignment
from speechscale.align.spelling import spell, tokens_of
from speechscale.corpus.readers.base import AUDIO_SUFFIXES, Entry, Found, Ids, OnSkip, Source
from speechscale.corpus.splits import assign_splits, check_shares
from speechscale.corpus.transcripts import Metadata, clean_text, decode_text, is_label_file
from speechscale.errors import DataError
from speechscale.records import Utterance, Word
from speechscale.skips import Skip, SkipLog
from speechscale.speech.audio import audio_duration_s

MIN_DURATION_S = 0.1
"""Recordings below this are dropped before the splits are drawn, so that no split is left empty by them."""
MIN_MATCH_SHARE = 0.5
"""Below this share of matching tokens an alignment belongs to another text."""
REMEMBERED_UTTERANCES = 10_000
"""Utterances kept from the first pass; the ones after them are read again in the second."""
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


def read_folder(
    root: Path,
    *,
    alignments: Alignments = "auto",
    tier: str | None = None,
    splits: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int,
    by: Literal["text", "speaker"] = "text",
    ids: Ids = "stem",
    licence: str = "",
    on_skip: OnSkip,
) -> Iterator[Utterance]:
    """Read every recording below `root` that has a transcript.

    Transcript: STEM.txt or STEM.lab beside the audio (a .lab of numbers is a label file), else the row STEM of the
    nearest `metadata.csv` at or above the audio (id|raw|normalized; the normalized text is used), else the words of
    the word times. Word times:
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
        DataError: no such folder, no audio in it, nothing usable (with the first reasons), or impossible options.

    Source: LJSpeech's folder layout; MFA's sister folder of TextGrids.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"corpus folder {root}: no such folder; give the folder that holds the recordings")
    _check_options(splits, alignments=alignments, by=by, ids=ids)
    reader = _FolderReader(root=root.resolve(), alignments=alignments, tier=tier, ids=ids, licence=licence)
    usable: list[tuple[Path, bytes, Utterance | None]] = []
    read, dropped = 0, SkipLog()
    for found in reader.entries():
        read += 1
        made = found if isinstance(found, Skip) else reader.examine(found)
        if isinstance(made, Skip):
            dropped.skips.append(made)
            on_skip(made.id, made.reason, made.remedy)
        else:
            assert isinstance(found, Path)
            key = made.speaker if by == "speaker" else " ".join(tokens_of(made.text))
            digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
            usable.append((found, digest, made if len(usable) < REMEMBERED_UTTERANCES else None))
    dropped.check(read=read, kept=len(usable))
    if not usable:
        raise DataError(f"corpus folder {root}: none of {read} recordings can be used: {dropped.first()}")
    chosen = assign_splits([digest for _, digest, _ in usable], splits)
    for path, digest, remembered in usable:
        again = remembered or reader.examine(path)
        if isinstance(again, Skip):
            raise DataError(f"{again.id}: the corpus changed while it was read ({again.reason}); read it again")
        yield replace(again, split=chosen[digest])


def folder_entries(source: Source) -> Iterator[Found]:
    """Read the same folder as a stream, for `import_corpus`; splits are drawn there."""
    reader = _FolderReader(
        root=Path(source.path).resolve(), alignments=source.alignments, tier=source.tier, ids=source.ids, licence=""
    )
    for found in reader.entries():
        made = found if isinstance(found, Skip) else reader.examine(found)
        if isinstance(made, Skip):
            yield made
        else:
            timed = any(word.start_s is not None for word in made.words)
            yield Entry(
                id=made.id,
                where=made.audio,
                audio=made.audio,
                text=made.text,
                speaker=made.speaker,
                words=made.words if timed else (),
            )


def _check_options(splits: Sequence[float], **options: str) -> None:
    check_shares(splits)
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
    ids: Ids
    licence: str
    _tables: dict[Path, Metadata | None] = field(default_factory=dict)

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

    def examine(self, path: Path) -> Utterance | Skip:
        """Read the transcript and word times of one recording; its split is still open."""
        try:
            duration_s = _duration_s(path)
            alignment, problem = self._alignment(path), ""
            text = self._transcript(path, required=alignment is None)
            words = tuple(Word(text=word) for word in text.split())
            if alignment is not None:
                aligned = clip_words(read_alignment(alignment, tier=self.tier), duration_s)
                text = text or clean_text(" ".join(word.text for word in aligned), self._name(alignment))
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
            split="",
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

    def _transcript(self, path: Path, *, required: bool) -> str:
        """What is said; "" when it is written nowhere and not required, because word times will say it."""
        for suffix in (".txt", ".lab"):
            beside = path.with_suffix(suffix)
            if beside.is_file():
                self._must_be_inside(beside)
                text = decode_text(beside.read_bytes(), self._name(beside))
                if not (suffix == ".lab" and is_label_file(text)):
                    return clean_text(text, self._name(beside))
        for folder in [path.parent, *path.parent.parents]:
            if not folder.is_relative_to(self.root):
                break
            table = self._metadata(folder)
            row = table.row(path) if table is not None else None
            if row is not None:
                where = f"{self._name(folder / 'metadata.csv')}, line {row.line}"
                return clean_text(decode_text(row.text, where), where)
        if not required:
            return ""
        raise DataError(f"no transcript; put {path.stem}.txt beside it or a row '{path.stem}|text' in metadata.csv")

    def _metadata(self, folder: Path) -> Metadata | None:
        if folder not in self._tables:
            path = folder / "metadata.csv"
            usable = path.is_file() and self._inside(path)
            self._tables[folder] = Metadata.read(path, self._name(path)) if usable else None
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


def _duration_s(path: Path) -> float:
    """Length by the file's header. What only decoding shows (NaN, truncation) is reported by the encoder's loader."""
    duration_s = audio_duration_s(path)
    if duration_s < MIN_DURATION_S:
        raise DataError(f"audio of {duration_s:.4f} s is too short to hold a word; record it again or drop it")
    return duration_s
