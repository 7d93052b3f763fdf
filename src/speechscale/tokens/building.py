"""Build token stores from corpora: parts on workers, merged in order.

Enters: folders of units, sources of text, a vocabulary. Leaves: OUT/store, OUT/vocabulary and OUT/skips.jsonl.
The one decision worth knowing: a part is a small store of its own, complete before its row is in the journal, and the
store is the parts in their order; so the bytes do not depend on workers, kills, or on what was added later.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechscale.corpus.text_sources import TextSlice, TextSource
from speechscale.errors import DataError
from speechscale.files import complete_file
from speechscale.journal import Row, read_part, run_parts
from speechscale.progress import Watch
from speechscale.tokens import build_checks
from speechscale.tokens.build_checks import JOURNAL
from speechscale.tokens.columns import column_path
from speechscale.tokens.store import TokenStore
from speechscale.tokens.store_index import read_meta
from speechscale.tokens.store_writer import StoreWriter, grown_store, new_store
from speechscale.tokens.unit_sources import UnitSource
from speechscale.tokens.vocabulary import Vocabulary

__all__ = ["BuildWork", "Part", "UnitSource", "build_tokens"]

PART_BYTES = 16 << 20
"""Of Parquet files of units in one part."""
SECONDS_PER_MB = 10.0
"""How long a worker may take for a megabyte of text before it is taken for hanging."""


class BadSource(DataError):
    """What a source holds cannot be stored: trying again changes nothing, so nothing is kept to go on from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one worker does at a time: some files of units, or a slice of a text source."""

    number: int
    source: int
    files: tuple[Path, ...] = ()
    part: TextSlice | None = None

    @property
    def id(self) -> str:
        return f"part-{self.number:05d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildWork:
    """Make the parts (a `journal.Work`); a row is the summary of a part whose store is complete."""

    folder: Path
    vocabulary: Vocabulary
    sources: tuple[UnitSource | TextSource, ...]
    parts: tuple[Part, ...]

    def start(self) -> None: ...

    def items(self, part: int) -> Sequence[Part]:
        return [self.parts[part]]

    def patience(self, item: Part) -> float:
        """Seconds that a part may take."""
        text = item.part.bytes if item.part else 0
        return 3600.0 if item.part and not text else text / 1e6 * SECONDS_PER_MB

    def rows(self, items: Sequence[Part]) -> Iterator[Row]:
        for item in items:
            try:
                yield {"id": item.id, **self._make(item)}
            except DataError as error:
                raise BadSource(str(error)) from error

    def _make(self, item: Part) -> Row:
        folder, source = self.folder / item.id, self.sources[item.source]
        writer = StoreWriter(folder, self.vocabulary, on_error="skip", sync=False, name=Path(source.label))
        try:
            if isinstance(source, UnitSource):
                read, others = _add_units(writer, source, item.files)
                kept = writer.counts["speech_documents"]
            else:
                assert item.part is not None
                read, others = _add_texts(writer, source, item.part)
                kept = writer.counts["text_documents"]
            dropped = sum(writer.remedies.values())
            assert read == kept + dropped, f"{item.id}: {kept} kept + {dropped} dropped is not {read} read"
            writer.commit(may_be_empty=True)
        except BaseException:
            writer.abort()
            raise
        writer.release()
        return {"read": read, "kept": kept, "other_splits": others, "remedies": dict(writer.remedies)}


def build_tokens(
    out: Path | str,
    vocabulary: Vocabulary,
    *,
    units: Sequence[Path | UnitSource] = (),
    texts: Sequence[TextSource] = (),
    append: bool = False,
    workers: int = 1,
    watch: Watch | None = None,
) -> TokenStore:
    """Build OUT/store; the same call goes on after any interruption, and one that is done is left alone.

    Args:
        append: add the sources to the store that is there. workers: processes of one thread; 0 works in this one.

    Raises:
        DataError: a source that cannot be used, sources of two speech tokenizers, a store of other sources, a folder of
            something else, or no document is left. What can never succeed leaves no vocabulary and no journal behind.
        StaleStep: OUT holds the unfinished work of another call.
    """
    out, store = Path(out), Path(out) / "store"
    unit_sources = [unit if isinstance(unit, UnitSource) else UnitSource(path=Path(unit)) for unit in units]
    sources: tuple[UnitSource | TextSource, ...] = (*unit_sources, *texts)
    build_checks.check_out(out, append)
    build_checks.check_spelled(vocabulary, sources)
    opened = [source.open() if isinstance(source, UnitSource) else (source.recipe(), ()) for source in sources]
    recipes = [recipe for recipe, _ in opened]
    if not build_checks.is_done(store, vocabulary, recipes, append):
        before = read_meta(store)["speech_tokenizer"] if append else ""
        tokenizer = build_checks.one_speech_tokenizer(recipes, before)
        parts = tuple(_cut(sources, [files for _, files in opened]))
        work = BuildWork(folder=out / JOURNAL / "parts", vocabulary=vocabulary, sources=sources, parts=parts)
        try:
            _work(out, work, recipes, tokenizer, append=append, workers=workers, watch=watch)
        except BadSource as error:
            build_checks.forget(out)
            raise DataError(str(error)) from error
    _write_skips(out)
    shutil.rmtree(out / JOURNAL, ignore_errors=True)
    return TokenStore.open(store, vocabulary, verify=False)


def _work(
    out: Path,
    work: BuildWork,
    recipes: Sequence[dict[str, Any]],
    tokenizer: str,
    *,
    append: bool,
    workers: int,
    watch: Watch | None,
) -> None:
    recipe = build_checks.journal_recipe(work.vocabulary, recipes, append)
    build_checks.check_journal(out, recipe)
    build_checks.save_vocabulary(out, work.vocabulary)
    try:
        run_parts(
            work,
            [1] * len(work.parts),
            out / JOURNAL,
            recipe=recipe,
            workers=workers,
            stop_on_skip=True,
            watch=watch,
        )
    except BadSource:
        raise
    except DataError as error:  # a part is no utterance that could be left out
        raise DataError(str(error).removesuffix(" (or go on without it: --on-error skip)")) from error
    _merge(out, work, recipes, tokenizer, append)


def _merge(out: Path, work: BuildWork, recipes: Sequence[dict[str, Any]], tokenizer: str, append: bool) -> None:
    total, dropped = [Counter[str]() for _ in recipes], [Counter[str]() for _ in recipes]
    for part in work.parts:
        (row,) = read_part(out / JOURNAL, part.number)
        total[part.source].update({name: row[name] for name in ("read", "kept", "other_splits")})
        dropped[part.source].update(row["remedies"])
    read = sum(counts["read"] for counts in total)
    if not any(counts["kept"] for counts in total):
        why = "; ".join(f"{count:,}: {remedy}" for remedy, count in sum(dropped, Counter[str]()).most_common())
        raise BadSource(f"tokens {out}: none of {read} documents is left; dropped by remedy: {why or 'none'}")
    names = [recipe["name"] for recipe in recipes]
    spoken = [(names[part.source], work.folder / part.id) for part in work.parts if part.files]
    joined = False
    try:
        build_checks.check_ids(spoken, out / "store" if append else None)
        change = grown_store if append else new_store
        with change(out / "store", work.vocabulary) as writer:
            joined = True
            for part in work.parts:
                writer.add_store(work.folder / part.id)
            writer.speech_tokenizer = tokenizer
            for recipe, counts, why_dropped in zip(recipes, total, dropped, strict=True):
                lost = counts["read"] - counts["kept"] - sum(why_dropped.values())
                assert lost == 0, f"{recipe['name']}: {lost} documents got lost"
                by_remedy = {"dropped": dict(why_dropped.most_common())}
                counted = {name: counts[name] for name in ("read", "kept", "other_splits")}
                writer.sources.append({**recipe, **counted, **by_remedy})
    except build_checks.TwiceError as error:
        raise BadSource(str(error)) from error
    except DataError as error:
        if joined:
            raise BadSource(str(error)) from error
        raise  # another run holds the store


def _cut(sources: Sequence[UnitSource | TextSource], files: Sequence[Sequence[Path]]) -> Iterator[Part]:
    number = 0
    for index, source in enumerate(sources):
        if isinstance(source, TextSource):
            for part in source.slices():
                yield Part(number=number, source=index, part=part)
                number += 1
            continue
        group: list[Path] = []
        for file in files[index]:
            group.append(file)
            if sum(path.stat().st_size for path in group) >= PART_BYTES or file == files[index][-1]:
                yield Part(number=number, source=index, files=tuple(group))
                number, group = number + 1, []


def _add_units(writer: StoreWriter, source: UnitSource, files: Sequence[Path]) -> tuple[int, int]:
    """How many utterances were read, and how many are of other splits."""
    read = others = 0
    for table, other in source.tables(files):
        writer.add_table(table)
        read, others = read + len(table), others + other
    return read, others


def _add_texts(writer: StoreWriter, source: TextSource, part: TextSlice) -> tuple[int, int]:
    """How many documents were read, and how many are of other splits."""
    counts = Counter[str]()

    def skip(id: str, reason: str, remedy: str) -> None:
        counts["dropped"] += 1
        writer.skip(id, reason, remedy)

    def counted() -> Iterator[tuple[str, str]]:
        for document in source.documents(skip, part, lambda: counts.update(("others",))):
            counts["read"] += 1
            yield document

    writer.add_documents(counted())
    return counts["read"] + counts["dropped"], counts["others"]


def _write_skips(out: Path) -> None:
    """Write out the skips that the store keeps; they are counted there, so that a kill never counts one twice."""
    size = read_meta(out / "store")["columns"]["skips"]["length"]
    path = column_path(out / "store", "skips")
    with complete_file(out / "skips.jsonl") as draft, draft.open("wb") as target, path.open("rb") as source:
        while size and (block := source.read(min(size, 1 << 20))):
            target.write(block)
            size -= len(block)
