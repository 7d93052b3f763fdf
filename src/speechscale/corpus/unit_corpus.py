"""A corpus encoded to disk: parts of unit tables, the tokenizer that made them, what was dropped.

Enters: a corpus folder and a tokenizer folder. Leaves: parts/part-NNNNN.parquet, tokenizer/, skips.jsonl and, last,
units.json. The one decision worth knowing: utterances go through the journal one by one (`speechscale.journal`), so a
run killed at any moment goes on at the next file, on any number of workers, to the same bytes; memory never holds more
than a part.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq

from speechscale.corpus.encode import Loader, encode_stream, sample_waveforms
from speechscale.corpus.imported import Corpus, open_corpus
from speechscale.corpus.tables import check_ids, count_utterances, pick_utterances, read_utterance_rows
from speechscale.errors import DataError
from speechscale.files import read_versioned, write_json
from speechscale.journal import Row, read_part, run_parts
from speechscale.progress import Watch
from speechscale.records import UnitTable, UnitTableBuilder, Utterance, concat_tables
from speechscale.skips import SkipLog
from speechscale.speech.encoders import UNIT_ENCODERS, Runtime
from speechscale.speech.encoders.presets import encoder_of
from speechscale.speech.pretrained import codec_tokenizer
from speechscale.speech.unit_files import read_units, write_units
from speechscale.speech.units import SpeechTokenizer, encoder_rate_hz, fit_tokenizer
from speechscale.voices.labeled_speech import labeled_speech

FORMAT = "speechscale unit corpus"
FORMAT_VERSION = 1
PART_UTTERANCES = 512
BATCH_S = 60.0
DRAWN_ROWS = 256
"""Rows drawn at once to fit on: reading them touches each row group of the table once."""
_AGAIN = "encode the corpus again"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCorpus:
    """An opened folder of units. `info`: counts, hours, the corpus and tokenizer they came from."""

    folder: Path
    tokenizer: SpeechTokenizer
    parts: tuple[str, ...]
    info: dict[str, Any]

    def tables(self) -> Iterator[UnitTable]:
        """Stream the parts, each verified against its checksum and the tokenizer."""
        for name in self.parts:
            yield read_units(self.folder / "parts" / name, expect_sha=self.tokenizer.fingerprint)

    def table(self) -> UnitTable:
        """All parts as one table in memory."""
        return concat_tables(list(self.tables()))


@dataclass(slots=True, kw_only=True)
class EncodeWork:
    """Encode the rows of a corpus part by part (a `journal.Work`). Runtime settings never change a unit."""

    corpus: Path
    tokenizer: Path
    part_utterances: int
    runtime: Runtime = field(default_factory=Runtime)
    _opened: Corpus | None = field(default=None, init=False)
    _tokenizer: SpeechTokenizer | None = field(default=None, init=False)

    def start(self) -> None:
        import torch

        torch.set_num_threads(1)
        self._tokenizer = SpeechTokenizer.load(self.tokenizer, runtime=self.runtime)

    def items(self, part: int) -> Sequence[Utterance]:
        first = part * self.part_utterances
        return read_utterance_rows(self.corpus / "utterances.parquet", first, first + self.part_utterances)

    def rows(self, items: Sequence[Utterance]) -> Iterator[Row]:
        assert self._tokenizer is not None
        if self._opened is None:
            self._opened = open_corpus(self.corpus)
        skips = SkipLog()
        order = iter(items)
        stream = encode_stream(
            items, self._tokenizer, loader=self._opened.loader(), skips=skips, shard_utterances=1, batch_s=BATCH_S
        )
        for encoded in stream:
            yield from _skipped_before(encoded.utterance.id, order, skips)
            yield {
                "id": encoded.utterance.id,
                "seconds": len(encoded.spoken.audio) / encoded.spoken.sample_rate_hz,
                "units": encoded.units.tolist(),
                "durations": encoded.durations_frames.tolist(),
                "words": encoded.words,
                "word_frames": encoded.word_frames.ravel().tolist(),
            }
        yield from _skipped_before(None, order, skips)


def encode_folder(
    corpus: Path,
    tokenizer: Path,
    out: Path,
    *,
    workers: int = 1,
    on_error: Literal["skip", "stop"] = "skip",
    part_utterances: int = PART_UTTERANCES,
    patience_s: float = 1800.0,
    runtime: Runtime | None = None,
    watch: Watch | None = None,
) -> UnitCorpus:
    """Encode a corpus folder with a tokenizer folder; the same call goes on after any interruption.

    Args:
        workers: processes of one thread each; 0 works in this process.
        on_error: "skip" drops what cannot be used, with a reason; "stop" raises at the first such utterance.
        runtime: how to compute (device, batching, local folders of models).

    Raises:
        DataError: nothing usable, or (stop) the first bad utterance. StaleStep: `out` holds another recipe's work.
    """
    opened, loaded = open_corpus(corpus), SpeechTokenizer.load(tokenizer)
    recipe = {
        "corpus_sha256": opened.sha256,
        "tokenizer": loaded.fingerprint,
        "part_utterances": part_utterances,
        "batching": (runtime or Runtime()).batching,
    }
    if (out / "units.json").is_file():
        done = open_units(out)
        if done.info["recipe"] == recipe:
            return done
        raise DataError(f"units {out}: made from another corpus or tokenizer; choose another output or delete it")
    total = count_utterances(opened.folder / "utterances.parquet")
    check_ids(opened.folder / "utterances.parquet")
    parts = [min(part_utterances, total - first) for first in range(0, total, part_utterances)]
    work = EncodeWork(
        corpus=opened.folder, tokenizer=tokenizer, part_utterances=part_utterances, runtime=runtime or Runtime()
    )
    run_parts(
        work,
        parts,
        out / ".journal",
        recipe=recipe,
        workers=workers,
        patience_s=patience_s,
        stop_on_skip=on_error == "stop",
        watch=watch,
    )
    return _finish(out, work, parts, loaded, recipe)


def open_units(folder: Path) -> UnitCorpus:
    """Open a folder written by `encode_folder`; parts are verified when they are read.

    Raises:
        DataError: no units there, another format, or a part that is missing or altered; the message names it.
    """
    path = Path(folder) / "units.json"
    saved = read_versioned(path, "units", _AGAIN, format=FORMAT, version=FORMAT_VERSION)
    for name, sha256 in saved["parts"].items():
        part = Path(folder) / "parts" / name
        if not part.is_file() or _sha256(part) != sha256:
            raise DataError(f"units {part}: missing or not the part that units.json names; {_AGAIN}")
    return UnitCorpus(
        folder=Path(folder),
        tokenizer=SpeechTokenizer.load(Path(folder) / "tokenizer"),
        parts=tuple(saved["parts"]),
        info=saved["info"],
    )


def _skipped_before(id: str | None, order: Iterator[Utterance], skips: SkipLog) -> Iterator[Row]:
    """Rows of the dropped utterances up to (not including) the one called `id`, in their order."""
    for utterance in order:
        if utterance.id == id:
            return
        found = next(skip for skip in reversed(skips.skips) if skip.id == utterance.id)
        yield {"id": utterance.id, "skip": [found.reason, found.remedy]}
    assert id is None, f"the encoder yielded '{id}', which was not asked for"


def _finish(
    out: Path, work: EncodeWork, parts: Sequence[int], tokenizer: SpeechTokenizer, recipe: dict[str, Any]
) -> UnitCorpus:
    """Write the parts from the journal, then units.json, then delete the journal."""
    skips, names = SkipLog(), dict[str, str]()
    kept = frames = units = 0
    for part in range(len(parts)):
        builder = UnitTableBuilder(frame_rate_hz=tokenizer.frame_rate_hz, num_units=tokenizer.num_units)
        held = 0
        for utterance, row in zip(work.items(part), read_part(out / ".journal", part), strict=True):
            if "skip" in row:
                skips.add(row["id"], *row["skip"])
                continue
            builder.add(
                id=utterance.id,
                speaker=utterance.speaker,
                split=utterance.split,
                text=utterance.text,
                units=np.asarray(row["units"], np.int16),
                durations_frames=np.asarray(row["durations"], np.int32),
                words=row["words"],
                word_frames=np.asarray(row["word_frames"], np.int32).reshape(-1, 2),
            )
            held += 1
            frames, units = frames + sum(row["durations"]), units + len(row["units"])
        kept += held
        if held:
            name = f"part-{part:05d}.parquet"
            write_units(out / "parts" / name, builder.build(), tokenizer.fingerprint)
            names[name] = _sha256(out / "parts" / name)
    skips.check(read=sum(parts), kept=kept)
    skips.write(out / "skips.jsonl")
    if not kept:
        raise DataError(f"none of {sum(parts)} utterances can be used: {skips.first()}")
    tokenizer.save(out / "tokenizer")
    info = {
        "recipe": recipe,
        "read": sum(parts),
        "kept": kept,
        "dropped": len(skips),
        "remedies": skips.remedies(),
        "hours": frames / tokenizer.frame_rate_hz / 3600,
        "units": units,
        "units_per_second": units / max(frames, 1) * tokenizer.frame_rate_hz,
    }
    write_json(out / "units.json", {"format": FORMAT, "format_version": FORMAT_VERSION, "parts": names, "info": info})
    shutil.rmtree(out / ".journal")
    return open_units(out)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fit_on_corpus(
    corpus: Corpus,
    *,
    encoder: str,
    clusters: int,
    hours: float,
    split: str | None,
    seed: int,
    encoder_config: dict[str, Any] | None = None,
    runtime: Runtime | None = None,
) -> SpeechTokenizer:
    """Fit a tokenizer on `hours` of a corpus, drawn over the whole of it by a seeded shuffle of the utterances.

    Args:
        encoder: key of `ENCODERS`, a preset, or "codec", whose codes are the units as they are.

    Raises:
        DataError: no utterance in the split, no usable audio, unknown encoder.
    """
    path = corpus.folder / "utterances.parquet"
    splits = pq.read_table(path, columns=["split"]).column("split").to_pylist()
    rows = np.flatnonzero([split is None or found == split for found in splits])
    if not len(rows):
        raise DataError(f"corpus {corpus.folder}: no utterance in split '{split}'; splits: {sorted(set(splits))}")
    order = rows[np.random.default_rng([seed, len(rows)]).permutation(len(rows))]

    def drawn() -> Iterator[Utterance]:
        for first in range(0, len(order), DRAWN_ROWS):
            yield from pick_utterances(path, order[first : first + DRAWN_ROWS].tolist())

    return fit_units(
        drawn(),
        loader=corpus.loader(),
        encoder=encoder,
        clusters=clusters,
        hours=hours,
        seed=seed,
        encoder_config=encoder_config,
        runtime=runtime,
    )


def fit_units(
    utterances: Iterable[Utterance],
    *,
    loader: Loader,
    encoder: str,
    clusters: int,
    hours: float,
    seed: int,
    encoder_config: dict[str, Any] | None = None,
    runtime: Runtime | None = None,
) -> SpeechTokenizer:
    """Fit a tokenizer on the first `hours` of these utterances; arguments as `fit_on_corpus`."""
    name, settings = encoder_of(encoder, encoder_config or {})
    if name in UNIT_ENCODERS:  # a codec's codes are the units; there is nothing to fit
        return codec_tokenizer(settings, runtime=runtime)
    rate_hz = encoder_rate_hz(name, settings, runtime=runtime)
    return fit_tokenizer(
        sample_waveforms(utterances, loader=loader, max_hours=hours, sample_rate_hz=rate_hz),
        encoder=name,
        clusters=clusters,
        seed=seed,
        encoder_config=settings,
        runtime=runtime,
        labeled=labeled_speech,
    )
