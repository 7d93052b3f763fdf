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
from speechscale.files import canonical_sha256, complete_file
from speechscale.journal import Row, read_part, run_parts
from speechscale.progress import Watch
from speechscale.records import UnitTable
from speechscale.speech.unit_files import iter_units, unit_file_header
from speechscale.tokens.columns import column_path
from speechscale.tokens.store import TokenStore
from speechscale.tokens.store_writer import StoreWriter, check_vocabulary, grown_store, new_store, read_meta
from speechscale.tokens.vocabulary import Vocabulary

PART_BYTES = 16 << 20
"""Of Parquet files of units in one part."""
SECONDS_PER_MB = 10.0
"""How long a worker may take for a megabyte of text before it is taken for hanging."""
JOURNAL = ".journal"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSource:
    """Where units come from.

    Args:
        path: a folder that `encode_folder` wrote, or a units.parquet. name: for the record; "" takes that of the path.
        split: of the utterances, or "all".
    """

    path: Path
    name: str = ""
    split: str = "all"

    @property
    def label(self) -> str:
        """The name, or that of the path."""
        return self.name or self.path.name

    def open(self) -> tuple[dict[str, Any], tuple[Path, ...]]:
        """What defines the utterances, and the verified files in order."""
        if self.path.is_dir():
            from speechscale.corpus.unit_corpus import open_units  # loads torch, which the workers do not need

            opened = open_units(self.path)
            tokenizer, files = opened.tokenizer.fingerprint, tuple(self.path / "parts" / name for name in opened.parts)
        else:
            tokenizer, files = unit_file_header(self.path)["tokenizer_sha256"], (self.path,)
        content = {file.name: unit_file_header(file)["content_sha256"] for file in files}
        recipe = {"kind": "units", "name": self.label, "split": self.split, "speech_tokenizer": tokenizer}
        return {**recipe, "content_sha256": canonical_sha256(content)}, files


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
            yield {"id": item.id, **self._make(item)}

    def _make(self, item: Part) -> Row:
        folder, source = self.folder / item.id, self.sources[item.source]
        writer = StoreWriter(folder, self.vocabulary, on_error="skip", sync=False)
        try:
            if isinstance(source, UnitSource):
                read = self._add_units(writer, source, item.files)
                kept = writer.counts["speech_documents"]
            else:
                assert item.part is not None
                read = _add_texts(writer, source, item.part)
                kept = writer.counts["text_documents"]
            dropped = sum(writer.remedies.values())
            assert read == kept + dropped, f"{item.id}: {kept} kept + {dropped} dropped is not {read} read"
            writer.commit(may_be_empty=True)
        except BaseException:
            writer.abort()
            raise
        writer.release()
        return {"read": read, "kept": kept, "remedies": dict(writer.remedies)}

    def _add_units(self, writer: StoreWriter, source: UnitSource, files: Sequence[Path]) -> int:
        read = 0
        for file in files:
            for table in iter_units(file):
                chosen = _of_split(table, source.split)
                writer.add_table(chosen)
                read += len(chosen)
        return read


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
        DataError: a source that cannot be used, sources of two speech tokenizers, a store of other sources, or no
            document is left. StaleStep: OUT holds the unfinished work of another call.
    """
    out, store = Path(out), Path(out) / "store"
    unit_sources = [unit if isinstance(unit, UnitSource) else UnitSource(path=Path(unit)) for unit in units]
    sources: tuple[UnitSource | TextSource, ...] = (*unit_sources, *texts)
    _check_spelled(vocabulary, sources)
    opened = [source.open() if isinstance(source, UnitSource) else (source.recipe(), ()) for source in sources]
    recipes = [recipe for recipe, _ in opened]
    if not _is_done(store, vocabulary, recipes, append):
        tokenizer = _speech_tokenizer(recipes, read_meta(store)["speech_tokenizer"] if append else "")
        _save_vocabulary(out / "vocabulary", vocabulary)
        parts = tuple(_cut(sources, [files for _, files in opened]))
        work = BuildWork(folder=out / JOURNAL / "parts", vocabulary=vocabulary, sources=sources, parts=parts)
        recipe = {"vocabulary": vocabulary.fingerprint, "sources": recipes, "append": append}
        try:
            run_parts(
                work, [1] * len(parts), out / JOURNAL, recipe=recipe, workers=workers, stop_on_skip=True, watch=watch
            )
        except DataError as error:  # a part is no utterance that could be left out
            raise DataError(str(error).removesuffix(" (or go on without it: --on-error skip)")) from error
        _merge(out, work, recipes, tokenizer, append)
    _write_skips(out)
    shutil.rmtree(out / JOURNAL, ignore_errors=True)
    return TokenStore.open(store, vocabulary, verify=False)


def _merge(out: Path, work: BuildWork, recipes: Sequence[dict[str, Any]], tokenizer: str, append: bool) -> None:
    read, kept, dropped = [0] * len(recipes), [0] * len(recipes), [Counter[str]() for _ in recipes]
    for part in work.parts:
        (row,) = read_part(out / JOURNAL, part.number)
        read[part.source] += row["read"]
        kept[part.source] += row["kept"]
        dropped[part.source].update(row["remedies"])
    if not any(kept):
        why = dict(sum(dropped, Counter[str]()))
        raise DataError(f"tokens {out}: none of {sum(read)} documents is left; dropped by remedy: {why or 'none'}")
    change = grown_store if append else new_store
    with change(out / "store", work.vocabulary) as writer:
        for part in work.parts:
            writer.add_store(work.folder / part.id)
        writer.speech_tokenizer = tokenizer
        for index, recipe in enumerate(recipes):
            lost = read[index] - kept[index] - sum(dropped[index].values())
            assert lost == 0, f"{recipe['name']}: {lost} documents got lost"
            counts = {"read": read[index], "kept": kept[index], "dropped": dict(dropped[index].most_common())}
            writer.sources.append({**recipe, **counts})


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


def _add_texts(writer: StoreWriter, source: TextSource, part: TextSlice) -> int:
    read = dropped = 0

    def skip(id: str, reason: str, remedy: str) -> None:
        nonlocal dropped
        dropped += 1
        writer.skip(id, reason, remedy)

    def counted() -> Iterator[tuple[str, str]]:
        nonlocal read
        for document in source.documents(skip, part):
            read += 1
            yield document

    writer.add_documents(counted())
    return read + dropped


def _of_split(table: UnitTable, split: str) -> UnitTable:
    if split == "all" or all(found == split for found in table.splits):
        return table
    return table.split(split)


def _check_spelled(vocabulary: Vocabulary, sources: Sequence[UnitSource | TextSource]) -> None:
    if not sources:
        raise DataError("tokens: no sources; give folders of units, texts, or both")
    for source in sources:
        if isinstance(source, UnitSource) and not vocabulary.num_units:
            raise DataError(f"units {source.path}: the vocabulary has no units; use a joint or a textless one")
        if isinstance(source, TextSource) and not vocabulary.has_text:
            raise DataError(f"texts {source.path}: the vocabulary has no text; use a joint or a text-only one")


def _save_vocabulary(folder: Path, vocabulary: Vocabulary) -> None:
    if not (folder / "vocabulary.json").is_file():
        vocabulary.save(folder)
    elif (found := Vocabulary.load(folder).fingerprint) != vocabulary.fingerprint:
        raise DataError(
            f"{folder}: vocabulary {found[:12]}, this is {vocabulary.fingerprint[:12]}; use that one, or another output"
        )


def _speech_tokenizer(recipes: Sequence[dict[str, Any]], before: str) -> str:
    """The one tokenizer of all units, those in the store included. Raises DataError: there are two."""
    found = {"the store": before} if before else {}
    found |= {recipe["name"]: recipe["speech_tokenizer"] for recipe in recipes if recipe["kind"] == "units"}
    if len(set(found.values())) > 1:
        named = ", ".join(f"{name}: {sha[:12]}" for name, sha in found.items())
        raise DataError(f"units of two speech tokenizers ({named}); encode all corpora with one tokenizer")
    return next(iter(found.values()), "")


def _is_done(store: Path, vocabulary: Vocabulary, recipes: Sequence[dict[str, Any]], append: bool) -> bool:
    """Whether the store holds these sources already. Raises DataError: it holds some of them, or others."""
    if not (store / "meta.json").is_file():
        if append:
            raise DataError(f"{store}: no store to add to; build it first")
        return False
    meta = read_meta(store)
    check_vocabulary(store, meta, vocabulary)
    held = meta["sources"]
    known = [{key: source[key] for key in source if key not in ("read", "kept", "dropped")} for source in held]
    if known[-len(recipes) :] == list(recipes) and (append or len(known) == len(recipes)):
        return True
    if not append:
        raise DataError(f"{store}: holds other sources ({_names(known)}); choose another output, delete it, or append")
    if twice := [recipe for recipe in recipes if recipe in known]:
        raise DataError(f"{store}: holds {_names(twice)} already; give only what is new")
    return False


def _names(recipes: Sequence[dict[str, Any]]) -> str:
    return ", ".join(recipe["name"] for recipe in recipes)


def _write_skips(out: Path) -> None:
    """Write out the skips that the store keeps; they are counted there, so that a kill never counts one twice."""
    size = read_meta(out / "store")["columns"]["skips"]["length"]
    path = column_path(out / "store", "skips")
    with complete_file(out / "skips.jsonl") as draft, draft.open("wb") as target, path.open("rb") as source:
        while size and (block := source.read(min(size, 1 << 20))):
            target.write(block)
            size -= len(block)
