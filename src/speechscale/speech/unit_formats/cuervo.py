"""Packed shards of tiagoCuervo/slm_scaling, format version 2.

Enters: a shard folder (meta.json, audio.bin int16, audio.len int64, samples.jsonl, skips.jsonl) or a folder of them.
Leaves: the same. The one decision worth knowing: every sequence in a shard ends with the EOS id; it is taken off on
reading and put back on writing, and everything else of meta.json travels along, so that a shard comes back byte for
byte.

Source: the repository's DATA.md and its validation rules (Apache-2.0), read at 395a5f0.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from speechscale.errors import DataError
from speechscale.files import read_json
from speechscale.speech.unit_formats.base import (
    MAX_UNITS,
    Problems,
    ReadOptions,
    UnitInfo,
    UnitRecord,
    UnitStream,
    WriteOptions,
    check_utf8,
    make_record,
    text_lines,
)

SCHEMA_VERSION = 2
FILES = ("audio.bin", "audio.len", "samples.jsonl", "skips.jsonl")
AGAIN = "prepare the shard again"
RESERVED = ("id", "audio_steps")


def read_shards(path: Path, options: ReadOptions, problems: Problems) -> UnitStream:
    """Read a shard, or every shard below a folder in the order of their names; checksums are verified first.

    Raises:
        DataError: no shard, another version, counts or checksums that do not fit, shards of different tokenizers.
    """
    shards = [path] if (path / "meta.json").is_file() else sorted(p.parent for p in path.glob("*/meta.json"))
    if not shards:
        raise DataError(f"shard {path}: no meta.json in it or in its folders; give a shard of slm_scaling")
    metas = [_verified(shard) for shard in shards]
    kinds = [
        {key: _preprocessing(meta).get(key) for key in ("eos_token", "vocab_size", "collapsed", "kmeans")}
        for meta in metas
    ]
    for shard, kind in zip(shards, kinds, strict=True):
        if kind != kinds[0]:
            raise DataError(
                f"shard {shard}: its tokenizer {kind} is not that of {shards[0]}, {kinds[0]}; convert apart"
            )
    preprocessing = _preprocessing(metas[0])
    eos, vocabulary = preprocessing.get("eos_token"), preprocessing.get("vocab_size")
    skipped = sum(int(meta.get("num_skipped", 0)) for meta in metas)
    info = UnitInfo(
        has_durations=False,
        content="collapsed" if preprocessing.get("collapsed", True) else "frames",
        num_units=options.num_units or (eos if type(eos) is int else vocabulary),
        frame_rate_hz=options.frame_rate_hz,
        details={"preprocessing": preprocessing},
        notes=(f"{skipped} utterances were skipped when the shards were made",) if skipped else (),
    )
    differ = info.content == "collapsed" and not options.merge_equal

    def records() -> Iterator[UnitRecord]:
        seen: set[int] = set()
        for shard, meta in zip(shards, metas, strict=True):
            yield from _shard_records(shard, meta, info, eos, differ, seen, problems)

    return UnitStream(info, records())


def write_shard(path: Path, info: UnitInfo, records: Iterator[UnitRecord], options: WriteOptions) -> None:
    """Write one shard folder, complete or not at all; an existing one is refused.

    Without a `preprocessing` of its own the shard gets eos_token = num_units, pad_token and vocab_size behind it.
    """
    if path.exists():
        raise DataError(f"shard {path}: exists already; choose another name or remove it")
    preprocessing = info.details.get("preprocessing") or _new_preprocessing(path, info)
    eos = preprocessing.get("eos_token")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    draft.mkdir()
    try:
        samples, steps = _write_samples(draft, records, eos)
        if not samples:
            raise DataError(f"shard {path}: no utterance to write, a shard holds at least one; check the input")
        (draft / "skips.jsonl").touch()
        meta = {
            "schema_version": SCHEMA_VERSION,
            "num_samples": samples,
            "num_audio_steps": steps,
            "num_skipped": 0,
            "keep_audio": False,
            "preprocessing": preprocessing,
            "checksums": {name: _sha256(draft / name) for name in FILES},
        }
        (draft / "meta.json").write_text(json.dumps(meta, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        for name in (*FILES, "meta.json"):
            with (draft / name).open("rb+") as stream:
                os.fsync(stream.fileno())
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_samples(folder: Path, records: Iterator[UnitRecord], eos: int | None) -> tuple[int, int]:
    tail = np.zeros(0, np.int16) if eos is None else np.array([eos], np.int16)
    count = steps = 0
    with (
        (folder / "audio.bin").open("wb") as codes,
        (folder / "audio.len").open("wb") as lengths,
        (folder / "samples.jsonl").open("w", encoding="utf-8", newline="\n") as samples,
    ):
        for record in records:
            units = np.concatenate([record.units, tail]).astype("<i2")
            codes.write(units.tobytes())
            lengths.write(np.array([len(units)], "<i8").tobytes())
            extras = {key: value for key, value in record.extras.items() if key != "prepared_audio"}
            row = {**extras, "id": record.id, "audio_steps": len(units)}
            samples.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")
            count, steps = count + 1, steps + len(units)
    return count, steps


def _new_preprocessing(path: Path, info: UnitInfo) -> dict[str, Any]:
    if info.num_units is None:
        raise DataError(
            f"shard {path}: the number of units is not known, its EOS id comes behind them; give --num-units"
        )
    if info.num_units + 2 > MAX_UNITS:
        raise DataError(
            f"shard {path}: {info.num_units} units and two special ids do not fit int16; use fewer than {MAX_UNITS - 1}"
        )
    return {
        "unit_extractor": "speechscale",
        "collapsed": info.content != "frames",
        "eos_token": info.num_units,
        "pad_token": info.num_units + 1,
        "vocab_size": info.num_units + 2,
    }


def _shard_records(
    shard: Path, meta: dict[str, Any], info: UnitInfo, eos: Any, differ: bool, seen: set[int], problems: Problems
) -> Iterator[UnitRecord]:
    lengths = np.memmap(shard / "audio.len", "<i8", "r")
    codes = np.memmap(shard / "audio.bin", "<i2", "r")
    rows = ((where, line) for where, _, line in text_lines(shard / "samples.jsonl") if line.strip())
    start = 0
    for length in lengths:
        stop = start + int(length)
        where, line = next(rows, (f"{shard / 'samples.jsonl'}, end", ""))
        problems.read += 1
        try:
            row = _sample_row(where, line, int(length))
            units = np.array(codes[start:stop], np.int64)
            key = int.from_bytes(hashlib.blake2b(str(row["id"]).encode(), digest_size=8).digest(), "big")
            if key in seen:
                raise DataError(f"{where}: the id {row['id']!r} comes twice; {AGAIN}")
            if type(eos) is int:
                if units[-1] != eos:
                    raise DataError(f"{where}: utterance {row['id']} does not end with EOS ({eos}); {AGAIN}")
                units = units[:-1]
            extras = {name: value for name, value in row.items() if name not in RESERVED}
            record = make_record(where, row["id"], units, info=info, differ=differ, extras=extras)
            seen.add(key)
        except DataError as error:
            problems.add(where, error)
        else:
            yield record
        start = stop
    if next(rows, None) is not None:
        raise DataError(f"shard {shard}: samples.jsonl has more lines than the {len(lengths)} samples; {AGAIN}")


def _sample_row(where: str, line: str, length: int) -> dict[str, Any]:
    if not line:
        raise DataError(f"{where}: fewer lines than samples in audio.len; {AGAIN}")
    try:
        check_utf8(where, line)
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}); {AGAIN}") from None
    if not isinstance(row, dict) or not isinstance(row.get("id"), str) or row.get("audio_steps") != length:
        raise DataError(f"{where}: needs an 'id' and 'audio_steps' of {length}, as audio.len says; {AGAIN}")
    return row


def _verified(shard: Path) -> dict[str, Any]:
    """meta.json, after sizes, counts and checksums were found right."""
    meta = read_json(shard / "meta.json", "shard", AGAIN)
    if meta.get("schema_version") != SCHEMA_VERSION:
        raise DataError(f"shard {shard}: version {meta.get('schema_version')!r}, read is {SCHEMA_VERSION}; {AGAIN}")
    checksums = meta.get("checksums")
    if not isinstance(checksums, dict) or not set(FILES) <= set(checksums):
        raise DataError(f"shard {shard}: meta.json has no checksums of {', '.join(FILES)}; {AGAIN}")
    for name, stated in checksums.items():
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or PurePosixPath(name).is_absolute() or "\\" in name:
            raise DataError(f"shard {shard}: meta.json names '{name}', outside the shard; {AGAIN}")
        if not (shard / name).resolve().is_relative_to(shard.resolve()) or not (shard / name).is_file():
            raise DataError(f"shard {shard}: {name} is missing; {AGAIN}")
        if _sha256(shard / name) != stated:
            raise DataError(f"shard {shard}: {name} does not match its checksum; {AGAIN}")
    lengths = np.fromfile(shard / "audio.len", "<i8")
    size = (shard / "audio.bin").stat().st_size
    if (shard / "audio.len").stat().st_size % 8 or not len(lengths) or lengths.min() < 1:
        raise DataError(f"shard {shard}: audio.len must hold int64 lengths of at least 1; {AGAIN}")
    if [len(lengths), int(lengths.sum())] != [meta.get("num_samples"), meta.get("num_audio_steps")]:
        raise DataError(
            f"shard {shard}: audio.len has {len(lengths)} samples of {lengths.sum()} steps, meta.json says "
            f"{meta.get('num_samples')} of {meta.get('num_audio_steps')}; {AGAIN}"
        )
    if size != 2 * int(lengths.sum()):
        raise DataError(f"shard {shard}: audio.bin has {size} bytes, {2 * int(lengths.sum())} are needed; {AGAIN}")
    return meta


def _preprocessing(meta: dict[str, Any]) -> dict[str, Any]:
    found = meta.get("preprocessing")
    return found if isinstance(found, dict) else {}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
