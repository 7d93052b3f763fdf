"""Import any corpus into one folder.

Enters: a source of any known format and what to make of it. Leaves: a corpus folder (`corpus.imported`) with a split
for every utterance and a reason for every item that is not in it. The one decision worth knowing: the source is read
once and streamed through a draft table; only hashes of ids, speakers and texts stay in memory, so that splits are drawn
over the whole corpus and a manifest of any length fits.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from speechscale.corpus.cutting import cut_long
from speechscale.corpus.imported import Corpus, begin_corpus, finish_corpus
from speechscale.corpus.readers import FORMATS, Source, manifest_in, sniff
from speechscale.corpus.readers.admit import Admission, AudioFiles
from speechscale.corpus.readers.base import Entry, Ids, Meter, fault
from speechscale.corpus.readers.times import WordTimes
from speechscale.corpus.splits import SPLITS, By, Groups, check_shares, draw_splits, key_hash
from speechscale.corpus.tables import replace_splits, write_utterances
from speechscale.errors import DataError
from speechscale.files import read_json
from speechscale.progress import Progress, Watch
from speechscale.records import Utterance
from speechscale.skips import Skip, SkipLog


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What to make of a source.

    Args:
        format: a key of FORMATS, or "auto".
        audio_root: where relative audio paths start, and what no path may leave; by default the source's folder.
        strip: cut from the front of the source's audio paths.
        columns: our column name -> theirs.
        ids: names of items without id: file name or path.
        text: "auto" is what the format usually has; see `Admission`.
        words, check: see `Admission`.
        alignments, tier: for format "folder": which word times, which tier.
        times: word times for items without their own: a file of many recordings, or a folder of one per item.
        split_long_s: cut what is longer; None keeps it.
        splits: "source" keeps the source's, "none" leaves them open, shares draw train, select and test; "auto" keeps
            the source's when every item has one, else draws (0.8, 0.1, 0.1).
        by, seed: of the draw.
        licence, language, speaker: for items without their own.
        on_error: "skip" goes on, "stop" raises at the first item that cannot be used.
        limit: stop after so many utterances.
        overwrite: replace a corpus that was made from another source.
        names: for format "audio": what file names say, such as "{text}_{speaker}_{take}".
        subset, part: configuration and split of a hub dataset.
    """

    format: str = "auto"
    audio_root: Path | None = None
    strip: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    ids: Ids = "stem"
    text: Literal["auto", "required", "optional", "none"] = "auto"
    words: Literal["auto", "none"] = "auto"
    check: Literal["header", "decode", "none"] = "header"
    alignments: Literal["auto", "textgrid", "json", "none"] = "auto"
    tier: str | None = None
    times: Path | None = None
    split_long_s: float | None = None
    splits: tuple[float, float, float] | Literal["auto", "source", "none"] = "auto"
    by: By = "text"
    seed: int = 0
    licence: str = ""
    language: str = ""
    speaker: str = ""
    on_error: Literal["skip", "stop"] = "skip"
    limit: int | None = None
    overwrite: bool = False
    names: str = ""
    subset: str = ""
    part: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The written corpus, the format that was read, and the sum: read + pieces = utterances + dropped.

    pieces: utterances gained by cutting long ones. splits: utterances per split.
    """

    corpus: Corpus
    format: str
    read: int
    pieces: int
    skips: SkipLog
    splits: dict[str, int]


def import_corpus(source: Path, out: Path, *, options: ImportOptions, watch: Watch | None = None) -> Imported:
    """Read `source`, write the corpus folder `out`.

    Args:
        watch: told after every item; the share is of the source's bytes, which may not be known.

    Raises:
        DataError: no such source or format, impossible options, nothing usable, or (on_error "stop") the first item
            that cannot be used.
        MissingExtra: a hub dataset without the package datasets.
    """
    name = options.format if options.format != "auto" else sniff(source)
    if name not in FORMATS:
        raise DataError(f"format '{name}' is not one of auto, {', '.join(FORMATS)}; correct --format")
    if not isinstance(options.splits, str):
        check_shares(options.splits)
    if options.split_long_s is not None and options.split_long_s < 1:
        raise DataError(f"--split-long {options.split_long_s:g} s: give at least 1 second")
    if FORMATS[name].path_exists and not source.exists() and "{" not in source.name:
        raise DataError(f"source {source}: no such file or folder; correct the path")
    source = manifest_in(source, name)
    root = _audio_root(source, out, name, options)
    times = WordTimes(path=options.times, tier=options.tier) if options.times else None
    run = _Run(name=name, root=root, options=options, log=SkipLog(), watch=watch, meter=Meter(), times=times)
    _check_free(out, source, options)
    begin_corpus(out)
    for stale in out.glob(".*utterances*.tmp"):  # Of an import that was killed.
        stale.unlink()
    draft, table = out / ".utterances.draft.parquet", out / "utterances.parquet"
    try:
        write_utterances(draft, run.utterances(_source(source, out, options, run.meter)))
        chosen, how = run.splits()
        if chosen is None:
            draft.replace(table)
        else:
            replace_splits(draft, table, np.array(SPLITS)[chosen])
            run.counts = Counter(dict(zip(SPLITS, np.bincount(chosen, minlength=len(SPLITS)).tolist(), strict=True)))
    finally:
        draft.unlink(missing_ok=True)
    info = {
        "source": str(source),
        "format": name,
        "options": _facts(options),
        "splits": how,
        "read": run.read,
        "pieces": run.pieces,
        **({"timed": times.found, "time_losses": asdict(times.losses)} if times else {}),
    }
    corpus = finish_corpus(out, count=run.kept, audio_root=root, info=info, skips=run.log)
    run.log.check(read=run.read + run.pieces, kept=run.kept)
    splits = {name: count for name, count in run.counts.items() if count}
    return Imported(corpus=corpus, format=name, read=run.read, pieces=run.pieces, skips=run.log, splits=splits)


@dataclass(slots=True, kw_only=True)
class _Run:
    """One import: counts, what was seen, and how far it is."""

    name: str
    root: Path
    options: ImportOptions
    log: SkipLog
    watch: Watch | None
    meter: Meter
    read: int = 0
    kept: int = 0
    pieces: int = 0
    times: WordTimes | None = None
    counts: Counter[str] = field(default_factory=Counter)
    groups: Groups | None = None
    _seen: dict[int, int] = field(default_factory=dict)

    def utterances(self, source: Source) -> Iterator[Utterance]:
        """Stream what can be used; file the rest."""
        options, kind = self.options, FORMATS[self.name]
        files = AudioFiles(root=self.root, strip=options.strip)
        admission = Admission(
            files=files,
            ids=options.ids,
            text=kind.text if options.text == "auto" else options.text,
            words=options.words,
            check=options.check,
            licence=options.licence,
            language=options.language,
            speaker=options.speaker,
        )
        self.groups = Groups(options.by) if not isinstance(options.splits, str) or options.splits == "auto" else None
        began = time.monotonic()
        for found in kind.read(source):
            self.read += 1
            for made in self._made(found, admission):
                if isinstance(made, Skip):
                    self._drop(made)
                    continue
                self.kept += 1
                self.counts[made.split] += 1
                if self.groups is not None:
                    self.groups.add(made)
                yield made
                if self.kept == options.limit:
                    self._tell(began, total=self.read)
                    return
            self._tell(began)
        self._tell(began, total=self.read)

    def _tell(self, began: float, *, total: int | None = None) -> None:
        if self.watch is None:
            return
        share = self.meter.done / self.meter.total if self.meter.total and total is None else None
        dropped = f"{len(self.log):,} dropped"
        wall_s = time.monotonic() - began
        self.watch(Progress(items_done=self.read, items_total=total, wall_s=wall_s, share=share, note=dropped))

    def _made(self, found: Entry | Skip, admission: Admission) -> list[Utterance | Skip]:
        """What becomes of one item: one utterance, several pieces, or a skip."""
        if self.times is not None and isinstance(found, Entry) and not found.words:
            name = admission.name(found)
            try:
                found = replace(found, words=self.times.words_of(found, name))
            except DataError as error:
                found = fault(name, found.where, str(error))
        made = found if isinstance(found, Skip) else admission.admit(found)
        if isinstance(made, Skip):
            return [made]
        assert isinstance(found, Entry)
        if self.options.split_long_s is None:
            return [self._unique(made, found.where)]
        try:
            end_s = admission.files.facts(made.audio).duration_s if made.end_s is None else made.end_s
            pieces = cut_long(
                made,
                duration_s=end_s - made.start_s,
                max_s=self.options.split_long_s,
                path=admission.files.path(made.audio),
            )
        except DataError as error:
            return [fault(made.id, found.where, str(error))]
        room = len(pieces) if self.options.limit is None else min(len(pieces), self.options.limit - self.kept)
        self.pieces += room - 1
        return [self._unique(piece, found.where) for piece in pieces[:room]]

    def _unique(self, utterance: Utterance, where: str) -> Utterance | Skip:
        first = self._seen.setdefault(key_hash(utterance.id), self.read)
        if first == self.read:
            return utterance
        return fault(utterance.id, where, f"item {first} has the same id; rename one, or import with --ids path")

    def _drop(self, skip: Skip) -> None:
        if self.options.on_error == "stop":
            raise DataError(f"{skip.id}: {skip.reason}; {skip.remedy} (or go on with --on-error skip)")
        self.log.skips.append(skip)

    def splits(self) -> tuple[Int[np.ndarray, " utterances"] | None, dict[str, Any]]:
        """Split index per utterance (None: as they are), and how they came about."""
        wanted = self.options.splits
        if self.kept == 0:
            return None, {"from": "none"}
        unsplit = self.counts[""]
        if wanted == "source" and unsplit:
            raise DataError(f"{unsplit} of {self.kept} utterances have no split in the source; give --splits .8,.1,.1")
        if wanted in ("source", "none") or (wanted == "auto" and not unsplit):
            return None, {"from": "none" if wanted == "none" else "source"}
        shares = (0.8, 0.1, 0.1) if isinstance(wanted, str) else wanted
        assert self.groups is not None
        labels = self.groups.labels()
        how = {"from": "draw", "shares": list(shares), "by": self.options.by, "seed": self.options.seed}
        if wanted == "auto" and len(set(labels.tolist())) < len(SPLITS):
            return None, {"from": "none", "note": "too few groups to draw three splits"}
        # An import is not refused for uneven groups; `speechscale corpus split` is the place to be strict.
        return draw_splits(labels, shares, seed=self.options.seed, by=self.options.by, tolerance=1.0), how


def _source(path: Path, out: Path, options: ImportOptions, meter: Meter) -> Source:
    return Source(
        path=path,
        columns=options.columns,
        ids=options.ids,
        alignments="none" if options.words == "none" else options.alignments,
        tier=options.tier,
        piece_s=options.split_long_s or 30.0,
        names=options.names,
        subset=options.subset,
        part=options.part,
        download=out / "audio",
        meter=meter,
    )


def _audio_root(source: Path, out: Path, name: str, options: ImportOptions) -> Path:
    if name in ("hf", "parquet"):
        (out / "audio").mkdir(parents=True, exist_ok=True)
        return out / "audio"
    root = options.audio_root or (source if source.is_dir() else source.parent)
    if not root.is_dir():
        raise DataError(f"audio root {root}: no such folder; correct --audio-root")
    return root


def _check_free(out: Path, source: Path, options: ImportOptions) -> None:
    """Refuse to replace a corpus of another source unless told to."""
    path = out / "corpus.json"
    if path.is_file() and not options.overwrite:
        info = read_json(path, "corpus", "remove the folder").get("info")
        before = info.get("source") if isinstance(info, dict) else None
        if before != str(source):
            raise DataError(f"{out}: holds a corpus made from {before}; give another folder, or --overwrite")


def _facts(options: ImportOptions) -> dict[str, Any]:
    """The options as JSON, without what is at its default."""
    defaults = ImportOptions()
    names = [name for name in options.__dataclass_fields__ if getattr(options, name) != getattr(defaults, name)]
    facts = {name: getattr(options, name) for name in names}
    return {name: str(value) if isinstance(value, Path) else value for name, value in facts.items()}
