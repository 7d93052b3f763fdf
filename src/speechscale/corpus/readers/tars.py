"""Read WebDataset tars in place: key.flac with key.json, key.txt.

Enters: a tar, a folder of tars, or a pattern shard-{000..012}.tar. Leaves: an `Entry` per key, whose audio is
"TAR::MEMBER". The one decision worth knowing: nothing is unpacked; member names are only used as keys, so a hostile
name can lead nowhere, and links inside a tar are told and not followed.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from speechscale.corpus.readers.base import AUDIO_SUFFIXES, TAR_MARK, Found, Source, fault
from speechscale.corpus.readers.columns import check_mapping, entry_of
from speechscale.errors import DataError

MAX_TEXT_BYTES = 4 << 20
TEXT_SUFFIXES = (".txt", ".text", ".transcript", ".normalized.txt", ".lab")
_BRACES = re.compile(r"^(.*)\{(\d+)\.\.(\d+)\}(.*)$")


@dataclass(slots=True)
class _Sample:
    """What a tar holds under one key."""

    key: str
    audio: list[str] = field(default_factory=list)
    text: str | None = None
    row: dict[str, object] = field(default_factory=dict)
    problem: str = ""


def tar_entries(source: Source) -> Iterator[Found]:
    """Stream the samples of all shards in order. The members of a key stand next to each other, as WebDataset demands.

    Source: github webdataset/webdataset, "The WebDataset Format": the key ends at the first dot of the file name.
    """
    check_mapping(source.columns)
    shards, root = shards_of(source.path)
    for shard in shards:
        source.meter.total += shard.stat().st_size
    for shard in shards:
        name = shard.relative_to(root).as_posix()
        if not shard.resolve().is_relative_to(root.resolve()):
            yield fault(name, name, "a link that leads out of the folder; copy the tar there")
            continue
        before = source.meter.done
        seen: set[str] = set()
        for sample in _samples(shard, source):
            if isinstance(sample, DataError):
                yield fault(name, name, str(sample))
                continue
            yield _entry(sample, name, source, repeated=sample.key in seen)
            seen.add(sample.key)
        source.meter.done = before + shard.stat().st_size


def shards_of(path: Path) -> tuple[list[Path], Path]:
    """The tars that a path names, in order, and the folder they lie in. Raises DataError: none, or compressed ones."""
    if braces := _BRACES.match(str(path)):
        head, first, last, tail = braces.groups()
        width = len(first)
        shards = [Path(f"{head}{index:0{width}d}{tail}") for index in range(int(first), int(last) + 1)]
        if missing := [p for p in shards if not p.is_file()]:
            raise DataError(f"{path}: {len(missing)} of {len(shards)} shards are missing, first {missing[0]}; add them")
        return shards, shards[0].parent
    if path.is_file():
        shards, root = [path], path.parent
    else:
        shards, root = sorted(p for p in path.rglob("*.tar") if p.is_file()), path
    packed = sorted(path.rglob("*.tar.gz")) if path.is_dir() else [path] if path.suffix in (".gz", ".tgz") else []
    if packed and (not shards or packed == shards):
        raise DataError(f"{packed[0]}: a compressed tar cannot be read in place; unpack it with: gunzip {packed[0]}")
    if not shards:
        raise DataError(f"{path}: no tar in it; give a tar, a folder of tars or a pattern such as a-{{000..012}}.tar")
    return shards, root


def _samples(shard: Path, source: Source) -> Iterator[_Sample | DataError]:
    sample: _Sample | None = None
    place = source.meter.done
    try:
        with tarfile.open(shard, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]
                source.meter.done = place + member.offset_data + member.size
                path = PurePosixPath(member.name)
                if member.isdir() or path.name.startswith("."):
                    continue
                stem, dot, suffix = path.name.partition(".")
                key, suffix = (path.parent / stem).as_posix().removeprefix("./"), (dot + suffix).lower()
                if sample is None or sample.key != key:
                    if sample is not None:
                        yield sample
                    sample = _Sample(key)
                if not member.isreg():
                    sample.problem = f"{member.name} is a link, which is not followed; pack the file itself"
                elif suffix.endswith(AUDIO_SUFFIXES):
                    sample.audio.append(member.name)
                elif suffix in (".json", *TEXT_SUFFIXES):
                    _read(sample, tar, member, suffix)
    except (tarfile.TarError, OSError) as error:
        if sample is not None:
            yield sample
        yield DataError(f"not a readable tar ({error}); copy it again")
        return
    if sample is not None:
        yield sample


def _read(sample: _Sample, tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> None:
    stream = tar.extractfile(member)
    if member.size > MAX_TEXT_BYTES or stream is None:
        sample.problem = f"{member.name} has {member.size} bytes of text; at most {MAX_TEXT_BYTES} are read"
        return
    data = stream.read()
    if suffix != ".json":
        sample.text = data.decode("utf-8", errors="surrogateescape").removeprefix("\ufeff")
        return
    try:
        row = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        sample.problem = f"{member.name} is not JSON ({str(error)[:60]}); pack it again"
        return
    if isinstance(row, dict):
        sample.row = row


def _entry(sample: _Sample, shard: str, source: Source, *, repeated: bool) -> Found:
    where = f"{shard}, key {sample.key}"
    try:
        if repeated:
            raise DataError("the key comes twice in this tar, apart; pack its members next to each other")
        if sample.problem:
            raise DataError(sample.problem)
        if len(sample.audio) != 1:
            what = "no audio member" if not sample.audio else f"{len(sample.audio)} audio members"
            raise DataError(f"{what}; pack one of {', '.join(AUDIO_SUFFIXES)} per key")
        entry = entry_of({**sample.row, "audio": f"{shard}{TAR_MARK}{sample.audio[0]}"}, where, {
            ours: theirs for ours, theirs in source.columns.items() if ours != "audio"
        })  # fmt: skip
    except DataError as error:
        return fault(sample.key, where, str(error))
    stem = PurePosixPath(sample.key).name
    id = entry.id or (stem if source.ids == "stem" else f"{PurePosixPath(shard).stem}/{sample.key}")
    # Times in a sample's JSON tell where it came from; the member is the whole utterance.
    return replace(entry, id=id, text=entry.text if sample.text is None else sample.text, start_s=0.0, end_s=None)
