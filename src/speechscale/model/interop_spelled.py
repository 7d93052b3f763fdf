"""Stock models whose tokenizer spells units: Spirit-LM's `[Hu12]`, SpeechGPT's `<12>`, slamkit's `<Un12>`, and others.

Enters: a folder with a tokenizer, and the rows that its model has. Leaves: `Ids`. The one decision worth knowing: units
and markers are found by their spelling, wherever they stand, and moved behind the text; all other rows stay as text
ids in the order they had, pitch and style tokens and rows without a token included, so that no logit is lost and a
likelihood under the full softmax is the same.

Source: facebookresearch/spiritlm: text 0 to 31999, [Text] 32000, [Speech] 32001, [Hu0] to [Hu500] from 32002, and in
the expressive model [Pi0] to [Pi63] and [St0] to [St99] behind them; tables are padded to 32512 and 32768 rows.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.files import read_json
from speechscale.model.interop_stock import Ids, no_place
from speechscale.model.interop_tokenizer import keep_tokens
from speechscale.tokens.spelling import SPELLINGS, Spelling
from speechscale.tokens.text_tokenizer import (
    TOKENIZER_FILE,
    declared_ids,
    find_eos,
    load_text_tokenizer,
    tokenizer_from_json,
)
from speechscale.tokens.vocabulary import Vocabulary

VOCABULARY_FILES = (TOKENIZER_FILE, "*.model", "*.tiktoken", "vocab.*")
FEWEST = 2
"""Names in a row that make a spelling; one alone may be chance."""


def has_tokenizer(folder: Path) -> bool:
    """Whether there is a tokenizer, and not only its settings."""
    return any(found for pattern in VOCABULARY_FILES for found in folder.glob(pattern))


def ids_spelled(
    folder: Path, rows: int, *, spelling: str | None = None, units: int | None = None, eos: str | None = None
) -> Ids | None:
    """Our ids for a model whose tokenizer has units; None where it has none.

    Args:
        rows: of the model's tables, at least the tokenizer's ids.
        spelling: key of `SPELLINGS` or a format; None looks for those that are known.
        units: how many of the units found to take as units, from 0 on; the others stay text. None takes all.
        eos: token that ends a document; None reads it from the files beside the tokenizer.

    Raises:
        DataError: two spellings, units with a gap, fewer than asked for, one marker without the other, text without
            markers, more ids than rows, or a tokenizer that needs a unit to cut text.
    """
    _require_rows(folder, rows)
    tokenizer = load_text_tokenizer(folder)
    data = json.loads(tokenizer.to_str())
    ids = declared_ids(data)
    found = _find(ids, spelling, str(folder))
    if found is None:
        return None
    spelling, number = found
    number = _asked(number, units, str(folder))
    _require_below(max(ids.values()), rows, folder)
    names = Spelling.of(spelling)
    units_at = [ids[names.unit(unit)] for unit in range(number)]
    markers = [ids[name] for name in (names.speech, names.text) if name in ids]
    rest = [row for row in range(rows) if row not in {*units_at, *markers}]
    end = find_eos(tokenizer, folder) if eos is None else eos
    if ids.get(end) not in rest:
        raise DataError(f"'{folder}': the tokenizer has no token '{end}', besides units, to end documents (--eos)")
    if len(markers) == 2:
        tokens = json.dumps(keep_tokens(data, {row: new for new, row in enumerate(rest)}), ensure_ascii=False)
        text = Vocabulary.text_only(tokenizer_from_json(tokens, str(folder)), eos_token=end, spelling=spelling)
        return Ids(
            vocabulary=text.with_units(number),
            rows=[*rest, *units_at, *markers],
            notes=_kept(rest, {index: token for token, index in ids.items()}, data),
        )
    others = {row: f"row {row}" for row in rest} | {row: token for token, row in ids.items() if row in rest}
    del others[ids[end]]
    if markers or not _only_special(others.values(), data, folder):
        missing = names.speech if names.speech not in ids else names.text
        raise DataError(
            f"'{folder}': units are spelled '{names.unit(0)}', and there is no marker '{missing}'; name the markers it "
            f"has (--spelling 'unit speech-marker text-marker', as in '{SPELLINGS['spiritlm']}')"
        )
    vocabulary = Vocabulary.textless(number, spelling=spelling)
    return Ids(vocabulary=vocabulary, rows=[ids[end], *units_at], notes=no_place(list(others.values())))


def _require_rows(folder: Path, rows: int) -> None:
    """Refuse ids beyond the table before anything fills the holes below them."""
    if not (folder / TOKENIZER_FILE).is_file():
        return
    data = read_json(folder / TOKENIZER_FILE, "tokenizer", "restore the file")
    try:
        largest = max(declared_ids(data).values(), default=0)
    except (KeyError, TypeError, ValueError, AttributeError):
        return  # no tokenizer.json; reading it says what is wrong
    _require_below(largest, rows, folder)


def _require_below(largest: int, rows: int, folder: Path) -> None:
    if largest >= rows:
        raise DataError(
            f"'{folder}': its tokenizer has ids up to {largest}, its model {rows} rows; give the tokenizer that "
            "belongs to it"
        )


def _find(ids: Mapping[str, int], spelling: str | None, what: str) -> tuple[str, int] | None:
    """The spelling of a tokenizer's units, and how many there are from 0 on."""
    counts = {name: _count(ids, Spelling.of(name), what) for name in (SPELLINGS if spelling is None else [spelling])}
    found = [(name, count) for name, count in counts.items() if count >= FEWEST]
    if len(found) > 1:
        shown = " and ".join(f"{count} '{name}'" for name, count in found)
        raise DataError(f"'{what}': the tokenizer has units of two spellings, {shown}; say which (--spelling)")
    if spelling is not None and not found:
        raise DataError(f"'{what}': the tokenizer has no '{Spelling.of(spelling).unit(0)}'; correct --spelling")
    return found[0] if found else None


def _count(ids: Mapping[str, int], spelling: Spelling, what: str) -> int:
    name = re.compile(rf"{re.escape(spelling.before)}(0|[1-9][0-9]*){re.escape(spelling.after)}")
    numbers = sorted(int(match[1]) for match in map(name.fullmatch, ids) if match)
    if len(numbers) >= FEWEST and numbers[0] == 0 and numbers[-1] != len(numbers) - 1:
        gap = next(unit for unit, number in enumerate(numbers) if unit != number)
        raise DataError(
            f"'{what}': the tokenizer has '{spelling.unit(numbers[-1])}' and no '{spelling.unit(gap)}'; units run from "
            "0 without gaps here"
        )
    return len(numbers) if numbers and numbers[0] == 0 else 0


def _asked(found: int, units: int | None, what: str) -> int:
    if units is not None and units > found:
        raise DataError(f"'{what}': the tokenizer has {found} units, not {units}; leave --units out to take them all")
    return found if units is None else units


def _kept(rest: list[int], tokens: Mapping[int, str], data: dict[str, Any]) -> tuple[str, ...]:
    """Which tokens besides the model's own vocabulary stay as text, and what moved."""
    vocab = data["model"]["vocab"]
    own = set(vocab) if isinstance(vocab, dict) else {piece for piece, _ in vocab}
    added = {int(token["id"]) for token in data["added_tokens"] if token["content"] not in own}
    groups = Counter(re.sub(r"\d+", "{}", tokens[row]) for row in rest if row in added)
    shown = ", ".join(name if count == 1 else f"{name} ({count})" for name, count in groups.items())
    notes = [f"kept as text ids: {shown}"] if groups else []
    bare = [row for row in rest if row not in tokens]
    if bare:
        notes.append(f"{len(bare)} rows without a token (from {bare[0]} on) kept as text ids with placeholder names")
    moved = sum(new != row for new, row in enumerate(rest))
    if moved:
        notes.append(f"{moved} text ids moved down: units and markers stood before them")
    return tuple(notes)


def _only_special(names: Iterable[str], data: dict[str, Any], folder: Path) -> bool:
    """Whether these tokens are such as PAD and UNK, and no text."""
    special = {token["content"] for token in data["added_tokens"] if token["special"]}
    special.add(str(data["model"].get("unk_token")))
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / file).is_file():
            values = read_json(folder / file, "settings of a tokenizer", "restore or remove the file")
            entries = [entry for key, entry in values.items() if key.endswith("_token")]
            special |= {str(entry["content"] if isinstance(entry, dict) else entry) for entry in entries}
    return all(name in special or name.startswith("row ") for name in names)
