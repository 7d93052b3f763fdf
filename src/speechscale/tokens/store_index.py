"""The index of a token store: which columns there are, how much of them counts, what they were made with.

Enters: a store's folder, or a vocabulary. Leaves: its meta.json, checked; the columns a vocabulary asks for.
The one decision worth knowing: meta.json carries its own checksum and is replaced last, so that it is the store, and
files without it are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from speechscale.errors import DataError
from speechscale.files import canonical_sha256, read_json
from speechscale.tokens.columns import INDEX_FILE, REMEDY, ColumnIndex
from speechscale.tokens.vocabulary import Vocabulary

STORE_FORMAT = "speechscale.tokens.2"


def column_types(vocabulary: Vocabulary) -> dict[str, np.dtype[Any]]:
    """The columns of a store of what the vocabulary can spell."""
    text = "<u2" if vocabulary.text_size <= 1 << 16 else "<u4"
    types = {"skips": "|u1"}
    if vocabulary.num_units:
        types |= {"units": "<u2" if vocabulary.num_units <= 1 << 16 else "<u4", "unit_offsets": "<i8"}
        types |= {"durations": "<u2", "frames": "<i4", "keys": "<u8", "id_bytes": "|u1", "id_offsets": "<i8"}
    if vocabulary.num_units and vocabulary.has_text:
        types |= {"word_offsets": "<i8", "word_tokens": text, "word_token_rows": "<i8", "word_token_counts": "<u2"}
        types |= {"word_first": "<i4", "word_last": "<i4", "word_code": "|u1"}
        types |= {"interleaved_rows": "<i8", "worded_rows": "<i8"}
    if vocabulary.has_text:
        types |= {"text_tokens": text, "text_offsets": "<i8"}
    return {name: np.dtype(dtype) for name, dtype in types.items()}


def read_meta(folder: Path) -> dict[str, Any]:
    """The index of a store. Raises DataError: none there, another format, or altered."""
    restore(folder)
    path = folder / INDEX_FILE
    if not path.is_file():
        raise DataError(f"{folder}: no complete token store ({INDEX_FILE} is missing); build it")
    try:
        meta = read_json(path, "token store", REMEDY)
    except DataError as error:
        raise DataError(f"{path}: not the index of a token store: {error}") from error
    if meta.get("format") != STORE_FORMAT:
        raise DataError(f"{path}: format '{meta.get('format')}', this version reads '{STORE_FORMAT}'; {REMEDY}")
    if seal(meta) != meta.get("index_sha256"):
        raise DataError(f"{path}: does not match its own checksum, it was altered; {REMEDY}")
    return meta


def restore(folder: Path) -> None:
    """Put the old store back where a kill came between the two renames that replace it."""
    old = old_place(folder)
    if not folder.exists() and (old / INDEX_FILE).is_file():
        old.rename(folder)


def old_place(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.old"


def columns_of(folder: Path, meta: Mapping[str, Any]) -> dict[str, ColumnIndex]:
    return {name: ColumnIndex.from_json(name, saved, folder / INDEX_FILE) for name, saved in meta["columns"].items()}


def check_vocabulary(folder: Path, meta: Mapping[str, Any], vocabulary: Vocabulary) -> None:
    """Raises DataError: the store holds numbers that mean something else in this vocabulary."""
    if meta["num_units"] and vocabulary.num_units not in (0, meta["num_units"]):
        raise DataError(
            f"{folder}: made with {meta['num_units']} units, the vocabulary has {vocabulary.num_units}; "
            "use the vocabulary it was made with or build it anew"
        )
    if meta["text_fingerprint"] and vocabulary.has_text and vocabulary.text_fingerprint != meta["text_fingerprint"]:
        raise DataError(
            f"{folder}: made with the text block {meta['text_fingerprint'][:12]}, the vocabulary has "
            f"{vocabulary.text_fingerprint[:12]}; use the vocabulary it was made with or build it anew"
        )


def seal(meta: Mapping[str, Any]) -> str:
    return canonical_sha256({key: value for key, value in meta.items() if key != "index_sha256"})
