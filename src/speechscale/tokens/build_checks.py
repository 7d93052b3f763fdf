"""Whether a build may begin, goes on, or is done already: its folder, its journal, its vocabulary, its sources.

Enters: the output folder and what is to be put into it. Leaves: nothing, or an error that says what is there and what
to do. The one decision worth knowing: a folder belongs to a build or is empty; what a build that failed for good has
left there is taken away, what an interrupted one has left is kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechscale.corpus.text_sources import TextSource
from speechscale.errors import DataError, StaleStep
from speechscale.files import canonical_sha256, read_json
from speechscale.tokens.columns import INDEX_FILE, open_column
from speechscale.tokens.store_index import check_vocabulary, columns_of, read_meta
from speechscale.tokens.text_tokenizer import TOKENIZER_FILE
from speechscale.tokens.unit_sources import UnitSource
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.tokens.vocabulary_files import LOCK_FILE, SUBWORDS_FILE

JOURNAL = ".journal"
OWN = ("store", "vocabulary", JOURNAL, ".store.partial", ".store.old")
OWN_VOCABULARY = "vocabulary-is-new"
"""In the journal: the vocabulary was put there by the build that the journal belongs to."""
COUNTED = ("read", "kept", "dropped", "other_splits")
"""What a store knows of a source beside its recipe."""
SHOWN = 5


class TwiceError(DataError):
    """An utterance id comes twice."""


def check_out(out: Path, append: bool) -> None:
    """Raises DataError: `out` is a file, holds something else than a build, or (append) no store to add to."""
    if out.exists() and not out.is_dir():
        raise DataError(f"tokens {out}: a file, a folder is needed; choose another output")
    if (out / "store" / INDEX_FILE).is_file() or (out / ".store.old" / INDEX_FILE).is_file():
        return
    if append:
        raise DataError(f"{out / 'store'}: no store to add to; build it first")
    foreign = sorted(path.name for path in out.iterdir() if path.name not in OWN) if out.is_dir() else []
    vocabulary, new = out / "vocabulary", out / JOURNAL / OWN_VOCABULARY
    if (
        vocabulary.is_dir()
        and any(vocabulary.iterdir())
        and not (vocabulary / LOCK_FILE).is_file()
        and not new.exists()
    ):
        foreign.append("vocabulary (without vocabulary.json)")
    if foreign:
        named = ", ".join(foreign[:SHOWN]) + (f" and {len(foreign) - SHOWN} more" if len(foreign) > SHOWN else "")
        raise DataError(f"tokens {out}: holds something else than a token store ({named}); choose another output")


def journal_recipe(vocabulary: Vocabulary, recipes: Sequence[dict[str, Any]], append: bool) -> dict[str, Any]:
    """What defines a build, short enough to be read in a message."""
    named = {f"source {k} {recipe['name']}": canonical_sha256(recipe)[:12] for k, recipe in enumerate(recipes, 1)}
    return {"vocabulary": vocabulary.fingerprint[:12], "append": append, **named}


def check_journal(out: Path, recipe: Mapping[str, Any]) -> None:
    """Raises StaleStep: the folder holds the unfinished work of another call; says which sources differ."""
    path = out / JOURNAL / "recipe.json"
    if not path.is_file():
        return
    found = read_json(path, "journal", f"delete {path.parent}")
    keys = [key for key in dict.fromkeys([*found, *recipe]) if found.get(key) != recipe.get(key)]
    if keys:
        what = [f"{key}: {found.get(key, 'none')} -> {recipe.get(key, 'none')}" for key in keys[:SHOWN]]
        what += [f"{len(keys) - SHOWN} more"] if len(keys) > SHOWN else []
        new = f" and {out / 'vocabulary'}" if (out / JOURNAL / OWN_VOCABULARY).exists() else ""
        raise StaleStep(
            f"{path.parent} was begun with another recipe ({'; '.join(what)}); finish it with the old sources and "
            f"options, or delete {path.parent}{new}, or choose another output"
        )


def save_vocabulary(out: Path, vocabulary: Vocabulary) -> None:
    """Put the vocabulary there, noting that it is new. Raises DataError: another one is there."""
    folder = out / "vocabulary"
    if not (folder / LOCK_FILE).is_file():
        (out / JOURNAL).mkdir(parents=True, exist_ok=True)
        (out / JOURNAL / OWN_VOCABULARY).touch()
        vocabulary.save(folder)
    elif (found := Vocabulary.load(folder).fingerprint) != vocabulary.fingerprint:
        raise DataError(
            f"{folder}: vocabulary {found[:12]}, this is {vocabulary.fingerprint[:12]}; use that one, or another output"
        )


def forget(out: Path) -> None:
    """Take away what a build that failed for good has left: its vocabulary, if it made it, and its journal."""
    folder = out / "vocabulary"
    if (out / JOURNAL / OWN_VOCABULARY).exists() and not (out / "store" / INDEX_FILE).is_file():
        for name in (LOCK_FILE, TOKENIZER_FILE, SUBWORDS_FILE):
            (folder / name).unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    shutil.rmtree(out / JOURNAL, ignore_errors=True)


def check_spelled(vocabulary: Vocabulary, sources: Sequence[UnitSource | TextSource]) -> None:
    """Raises DataError: no sources, or some that the vocabulary cannot spell."""
    if not sources:
        raise DataError("tokens: no sources; give folders of units, texts, or both")
    for source in sources:
        if isinstance(source, UnitSource) and not vocabulary.num_units:
            raise DataError(f"units {source.path}: the vocabulary has no units; use a joint or a textless one")
        if isinstance(source, TextSource) and not vocabulary.has_text:
            raise DataError(f"texts {source.path}: the vocabulary has no text; use a joint or a text-only one")


def one_speech_tokenizer(recipes: Sequence[dict[str, Any]], before: str) -> str:
    """The one tokenizer of all units, those in the store included. Raises DataError: there are two."""
    found = {"the store": before} if before else {}
    found |= {recipe["name"]: recipe["speech_tokenizer"] for recipe in recipes if recipe["kind"] == "units"}
    if len(set(found.values())) > 1:
        named = ", ".join(f"{name}: {sha[:12]}" for name, sha in found.items())
        raise DataError(f"units of two speech tokenizers ({named}); encode all corpora with one tokenizer")
    return next(iter(found.values()), "")


def is_done(store: Path, vocabulary: Vocabulary, recipes: Sequence[dict[str, Any]], append: bool) -> bool:
    """Whether the store holds these sources already. Raises DataError: it holds some of them, or others."""
    if not (store / INDEX_FILE).is_file():
        return False
    meta = read_meta(store)
    check_vocabulary(store, meta, vocabulary)
    known = [{key: source[key] for key in source if key not in COUNTED} for source in meta["sources"]]
    if known[-len(recipes) :] == list(recipes) and (append or len(known) == len(recipes)):
        return True
    if not append:
        changed = [recipe for recipe in recipes if recipe not in known]
        other = f"; other now or new: {_names(changed)}" if changed else ""
        raise DataError(
            f"{store}: holds other sources ({_names(known)}){other}; choose another output, delete it, or append"
        )
    if twice := [recipe for recipe in recipes if recipe in known]:
        raise DataError(f"{store}: holds {_names(twice)} already; give only what is new")
    return False


def check_ids(parts: Sequence[tuple[str, Path]], store: Path | None) -> None:
    """Look for utterances that come twice before anything is joined.

    Args:
        parts: name of the source and folder of each part. store: what they are added to.

    Raises:
        TwiceError: an id comes twice; names both sources.
    """
    names, columns = list[str](), list[tuple[np.ndarray, ...]]()
    sizes = list[int]()
    for name, folder in [*([("", store)] if store else []), *parts]:
        meta = read_meta(folder)
        index = columns_of(folder, meta)
        if "keys" not in index or not index["keys"].length:
            continue
        found = tuple(open_column(folder / f"{key}.bin", index[key]) for key in ("keys", "id_offsets", "id_bytes"))
        columns.append(found)
        held = [(name, len(found[0]))] if name else list(_held(meta, len(found[0])))
        names, sizes = names + [source for source, _ in held], sizes + [size for _, size in held]
    keys = np.concatenate([found[0] for found in columns]) if columns else np.zeros(0, np.uint64)
    ordered = np.sort(keys)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(twice):
        return
    firsts = np.cumsum([0, *(len(found[0]) for found in columns)])
    ends, seen = np.cumsum(sizes), dict[str, str]()
    for row in np.flatnonzero(np.isin(keys, twice)).tolist():
        part = int(np.searchsorted(firsts, row, side="right")) - 1
        _, starts, letters = columns[part]
        begin, end = starts[row - firsts[part] : row - firsts[part] + 2].tolist()
        id, name = letters[begin:end].tobytes().decode(), names[int(np.searchsorted(ends, row, side="right"))]
        if id in seen:  # otherwise it is another id of the same hash
            where = f"twice in {name}" if seen[id] == name else f"in {seen[id]} and in {name}"
            raise TwiceError(
                f"utterance '{id}' comes twice, {where}; give every utterance its own id, and each corpus once"
            )
        seen[id] = name


def _held(meta: Mapping[str, Any], rows: int) -> Iterator[tuple[str, int]]:
    """Names of the sources of a store and how many utterances each has."""
    found = [(source["name"], source["kept"]) for source in meta["sources"] if source["kind"] == "units"]
    yield from found if sum(kept for _, kept in found) == rows else [("the store", rows)]


def _names(recipes: Sequence[dict[str, Any]]) -> str:
    return ", ".join(recipe["name"] for recipe in recipes)
