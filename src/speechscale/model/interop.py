"""Checkpoints of others, looked at and brought here as stock folders with our vocabulary.

Enters: a folder or OWNER/NAME on the hub. Leaves: a folder that stock transformers loads, with tokenizer.json and the
lock vocabulary.json where the ids are known. The one decision worth knowing: what lies there is told by config.json and
the tokenizer alone, never by names, and no code of the checkpoint runs.

    model_type speech_language_model   slamkit, SIMS, Slam        interop_slamkit
    model_type slm                     Cuervo and Marxer's suite  interop_cuervo
    stock, units in the tokenizer      Spirit-LM, SpeechGPT, ...  interop_spelled
    stock, "offset" in the config      TWIST                      here
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.files import read_json
from speechscale.model.anatomy import FAMILIES
from speechscale.model.interop_cuervo import CUERVO_TYPE, ids_cuervo, plan_cuervo
from speechscale.model.interop_hub import Snapshot, fetch
from speechscale.model.interop_slamkit import PEER_TYPE, export_slamkit, ids_slamkit, plan_slamkit
from speechscale.model.interop_spelled import has_tokenizer, ids_spelled
from speechscale.model.interop_stock import Ids, Plan, stock_config, units_alone, write_stock
from speechscale.model.interop_weights import PICKLES, REMEDY, SAFE_WAY, open_weights
from speechscale.tokens.text_tokenizer import HUB_NAME
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.tokens.vocabulary_files import LOCK_FILE

__all__ = ["Imported", "Wanted", "export_slamkit", "import_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the caller knows that a checkpoint does not say.

    Args:
        base_config: config.json of the base model or its folder (slamkit's older checkpoints).
        units: how many speech units there are. tokenizer: of the base model, a folder or a name on the hub, for a
            checkpoint with text that has no tokenizer of its own.
        spelling: of the units in its tokenizer, where it is none of `SPELLINGS`.
        eos: the token that ends a document; in TWIST's layout its id.
    """

    base_config: Path | str | None = None
    units: int | None = None
    tokenizer: Path | str | None = None
    spelling: str | None = None
    eos: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What came of it.

    Args:
        layout: what the checkpoint was. commit: of the hub; None for a folder.
        vocabulary: None where ids are the checkpoint's own. notes: what was left out or moved, a sentence each.
    """

    folder: Path
    layout: str
    commit: str | None
    vocabulary: Vocabulary | None
    notes: tuple[str, ...]


def import_model(
    source: Path | str, out: Path | str, *, revision: str | None = None, wanted: Wanted | None = None
) -> Imported:
    """Write the stock model of a checkpoint to a new folder.

    Example: import_model("slprl/SIMS-7B", "sims7b", wanted=Wanted(units=500, tokenizer="Qwen/Qwen2.5-7B"))

    Args:
        source: folder of the checkpoint, or OWNER/NAME on the hub. out: a new folder.
        revision: branch, tag or commit on the hub. wanted: what the checkpoint does not say.

    Raises:
        DataError: nothing to be had there, a layout that is not known, an argument it has no use for, pickled or
            broken weights, weights that disagree with the config, ids that cannot be told; `out` exists. Nothing is
            left behind then.
    """
    out, wanted = Path(out), wanted or Wanted()
    if out.exists():
        raise DataError(f"'{out}' exists; give a new folder")
    found = _find(source, revision)
    plan, find_ids = _look(found.folder, wanted)
    origin = {"name": str(source) if found.commit else Path(source).resolve().name, "commit": found.commit}
    vocabulary, notes = write_stock(open_weights(found.folder), plan, find_ids, out, origin)
    return Imported(folder=out, layout=plan.layout, commit=found.commit, vocabulary=vocabulary, notes=tuple(notes))


@dataclass(frozen=True, slots=True)
class _Found:
    folder: Path
    commit: str | None


def _find(source: Path | str, revision: str | None) -> _Found:
    path = Path(source)
    if path.is_dir():
        if revision is not None:
            raise DataError(f"'{source}' is a folder here; --revision belongs to a name on the hub")
        return _Found(path, None)
    if any(path.match(pattern) for pattern in PICKLES):
        raise DataError(f"'{source}' is a pickled file, and reading it can run code; {SAFE_WAY}")
    if path.exists() or not HUB_NAME.fullmatch(str(source)):
        raise DataError(f"'{source}': no such folder; give the folder of a checkpoint, or OWNER/NAME on the hub")
    snapshot: Snapshot = fetch(str(source), revision)
    return _Found(snapshot.folder, snapshot.commit)


def _look(folder: Path, wanted: Wanted) -> tuple[Plan, Callable[[], Ids | None]]:
    """What lies there, and how to find its ids."""
    if (folder / LOCK_FILE).is_file():
        Vocabulary.load(folder)
        raise DataError(f"'{folder}' has our vocabulary ({LOCK_FILE}) already; use the folder as it is")
    values = read_json(folder / "config.json", "checkpoint config", REMEDY)
    kind = values.get("model_type")
    if kind == PEER_TYPE:
        plan = plan_slamkit(folder, wanted.base_config)
        return plan, partial(_ids_slamkit, folder, int(plan.config.vocab_size), wanted)
    if wanted.base_config is not None:
        raise DataError(f"'{folder}': model_type '{kind}' holds its own config; leave --base-config out")
    if kind == CUERVO_TYPE:
        _refuse(wanted, folder, "spelling", "eos", "tokenizer")
        plan = plan_cuervo(folder)
        return plan, partial(ids_cuervo, plan.config, wanted.units)
    if kind not in FAMILIES:
        raise DataError(
            f"'{folder}': model_type is '{kind}'; this reads {PEER_TYPE}, {CUERVO_TYPE}, and stock models of the kinds "
            f"{', '.join(FAMILIES)}"
        )
    _refuse(wanted, folder, "tokenizer")
    config = stock_config(values, str(folder))
    return Plan(layout="stock", config=config, stock_name=str), partial(_ids_stock, folder, config, wanted)


def _ids_stock(folder: Path, config: Any, wanted: Wanted) -> Ids:
    rows = int(config.vocab_size)
    if has_tokenizer(folder):
        ids = ids_spelled(folder, rows, spelling=wanted.spelling, units=wanted.units, eos=wanted.eos)
        if ids is not None:
            return ids
    offset = getattr(config, "offset", None)
    if type(offset) is int:
        _refuse(wanted, folder, "spelling")
        return _ids_twist(config, offset, wanted, folder)
    raise DataError(
        f"'{folder}': a stock model, and neither its tokenizer spells units ([Hu0], <0>, <Un0>) nor its config says "
        "where they start (offset); name their spelling (--spelling), or give it to training as a TextLM as it is"
    )


def _ids_slamkit(folder: Path, rows: int, wanted: Wanted) -> Ids | None:
    alone = wanted.units is not None and rows == wanted.units + 2  # text and markers would make more
    if wanted.tokenizer is None and not alone and has_tokenizer(folder):
        ids = ids_spelled(folder, rows, spelling=wanted.spelling, units=wanted.units, eos=wanted.eos)
        if ids is not None:
            return ids
    _refuse(wanted, folder, "spelling")
    if wanted.units is None:
        _refuse(wanted, folder, "tokenizer", "eos", why="needs --units, the number of speech units")
        return None
    return ids_slamkit(rows, wanted.units, wanted.tokenizer, wanted.eos, str(folder))


def _ids_twist(config: Any, offset: int, wanted: Wanted, folder: Path) -> Ids:
    """Units from `offset` on; the end where the config has it."""
    rows = int(config.vocab_size)
    if wanted.units is None:
        raise DataError(
            f"'{folder}': units start at id {offset} of {rows}, and nothing says how many there are; give --units"
        )
    end = int(wanted.eos) if wanted.eos is not None and wanted.eos.isdigit() else config.eos_token_id
    if not isinstance(end, int):
        raise DataError(f"'{folder}': the config says no eos_token_id; give the id that ends an utterance (--eos)")
    return units_alone(wanted.units, eos=end, first=offset, rows=rows, names={})


def _refuse(wanted: Wanted, folder: Path, *names: str, why: str = "is of no use for this checkpoint") -> None:
    for name in names:
        if getattr(wanted, name) is not None:
            raise DataError(f"'{folder}': --{name} {why}")
