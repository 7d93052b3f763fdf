"""A stock folder from the checkpoint of another tool: config, weights and, where it is known, the vocabulary.

Enters: the weights of a folder, a `Plan` (what they are called and how they are stored here) and `Ids` (which row
belongs to which of our ids). Leaves: a folder that stock transformers loads, complete or not at all.
The one decision worth knowing: all names and shapes are checked against an empty model of the config before anything
is written, and a table that does not give every one of our ids its row is refused; no id is guessed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from speechscale.errors import DataError
from speechscale.files import write_json
from speechscale.model.anatomy import require_known
from speechscale.model.folders import BUFFERS
from speechscale.model.interop_weights import REMEDY, Weights, copy_weights, same_bits
from speechscale.model.stock_settings import context_of, tokenizer_settings
from speechscale.tokens.vocabulary import Vocabulary

RECORD = "import.json"
"""What was read and what was left out, beside the model."""
MOST_LAYERS = 1000
"""More are a mistake, and the empty model of them would take all memory."""
ON_DISK = {"gpt_neox": ("lm_head.", "embed_out.")}
"""Names in transformers' modules and in its files, where they are not the same."""


def unchanged(name: str, weight: Tensor) -> Tensor:
    """Store a weight as it is."""
    return weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the weights of a checkpoint become those of a stock model.

    Args:
        layout: what kind of checkpoint it is, for people.
        config: of the stock model, with as many rows as the checkpoint has.
        stock_name: weight in the files -> its name in the stock model.
        change: (name in stock files, weight) -> the weight as the stock model has it, of the same shape.
    """

    layout: str
    config: Any
    stock_name: Callable[[str], str]
    change: Callable[[str, Tensor], Tensor] = unchanged


@dataclass(frozen=True, slots=True, kw_only=True)
class Ids:
    """Our vocabulary for a checkpoint.

    Args:
        rows: row of the checkpoint's tables for each of our ids. notes: what became of rows, a sentence each.
    """

    vocabulary: Vocabulary
    rows: Sequence[int]
    notes: tuple[str, ...] = ()


def stock_config(values: Mapping[str, Any], what: str) -> Any:
    """The config of a stock model, without what could lead to code or paths of others.

    Raises:
        DataError: an architecture that is not tested, quantized weights, or values it does not take.
    """
    values = {key: value for key, value in values.items() if key not in ("auto_map", "_name_or_path")}
    kind = str(values.pop("model_type", None))
    require_known(kind)
    if values.get("quantization_config"):
        raise DataError(f"'{what}' is quantized; give the checkpoint before it was")
    try:
        config = AutoConfig.for_model(kind, **values)
        if not 0 < config.num_hidden_layers <= MOST_LAYERS:
            raise ValueError(f"num_hidden_layers {config.num_hidden_layers}, allowed are 1 to {MOST_LAYERS}")
        config.architectures = [type(empty_model(config)).__name__]
    except Exception as error:  # transformers checks configs with errors of its own
        raise DataError(f"'{what}': config of the model cannot be read ({error}); {REMEDY}") from error
    return config


def older_rotary(config: Any) -> dict[str, Any]:
    """Rotary numbers of a config under the names that transformers 4 reads; without them it takes its defaults."""
    rope = getattr(config, "rope_parameters", None) or {}
    if "rope_theta" not in rope:
        return {}
    values = {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if key in rope}
    scaled = rope.get("rope_type", "default") != "default"
    values["rope_scaling"] = {key: value for key, value in rope.items() if key not in values} if scaled else None
    if config.model_type == "gpt_neox":
        values |= {"rotary_emb_base": rope["rope_theta"], "rotary_pct": rope.get("partial_rotary_factor", 1.0)}
    return values


def empty_model(config: Any) -> Any:
    """The model of a config without memory for its weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def check_weights(weights: Weights, plan: Plan) -> tuple[dict[str, str], list[str]]:
    """Compare names and shapes with the stock model.

    Returns:
        Weight in the files -> name in stock files, and notes about weights that the model works out by itself.

    Raises:
        DataError: a weight that is missing, unknown, given twice or of another shape; a head that is said to be tied
            and differs.
    """
    model = empty_model(plan.config)
    stock = {name: list(weight.shape) for name, weight in model.state_dict().items()}
    skip = [rf"{re.escape(BUFFERS)}$", *(model._keys_to_ignore_on_load_unexpected or ())]
    files: dict[str, str] = {}
    skipped: list[str] = []
    for name, shard in weights.places.items():
        plain = _known_name(plan.stock_name(name), stock, model)
        if plain not in stock and any(re.search(pattern, plain) for pattern in skip):
            skipped.append(name)
            continue
        if plain in files:
            raise DataError(f"'{weights.folder}': '{name}' and '{files[plain]}' are the same weight; {REMEDY}")
        if stock.get(plain) != weights.shapes[name]:
            raise DataError(
                f"'{weights.folder / shard}': '{name}' is {weights.shapes[name]}, the config says {stock.get(plain)}; "
                f"{REMEDY}"
            )
        files[plain] = name
    tied = dict(model._tied_weights_keys or {}) if plan.config.tie_word_embeddings else {}
    missing = sorted(set(stock) - set(files) - set(tied))
    if missing:
        raise DataError(f"'{weights.folder}': no weight '{missing[0]}' ({len(missing)} missing); {REMEDY}")
    _require_tied(weights, files, tied)
    names = {name: disk_name(plain, plan.config) for plain, name in files.items()}
    more = f" and {len(skipped) - 1} like it" if len(skipped) > 1 else ""
    return names, [f"{skipped[0]}{more}: worked out from the config; left out"] if skipped else []


def disk_name(name: str, config: Any) -> str:
    """What transformers calls a weight of its module in files, whichever release writes them."""
    module, file = ON_DISK.get(config.model_type, ("", ""))
    return file + name.removeprefix(module) if module and name.startswith(module) else name


def _known_name(name: str, stock: Mapping[str, Any], model: Any) -> str:
    """The module's name for one in a file: as it is, of other releases, or saved without the name of the body."""
    module, file = ON_DISK.get(model.config.model_type, ("", ""))
    if file and name.startswith(file):
        return module + name.removeprefix(file)
    inside = f"{model.base_model_prefix}.{name}"
    return inside if name not in stock and inside in stock else name


def _require_tied(weights: Weights, files: Mapping[str, str], tied: Mapping[str, str]) -> None:
    for head, table in tied.items():
        pair = [files[name] for name in (head, table) if name in files]
        if len(pair) == 2 and not same_bits(*map(weights.read, pair)):
            raise DataError(
                f"'{weights.folder}': the config ties '{pair[0]}' to '{pair[1]}', and their values differ; say "
                '"tie_word_embeddings": false in config.json if both count'
            )


def row_tables(config: Any) -> tuple[set[str], set[str]]:
    """Names in files of the weights that have a row per id: those of the look-up table, and those of the head."""
    model = empty_model(config)
    return _of(model, model.get_input_embeddings()), _of(model, model.get_output_embeddings())


def _of(model: Any, wanted: Any) -> set[str]:
    return {
        disk_name(f"{name}.{kind}", model.config)
        for name, module in model.named_modules(remove_duplicate=False)
        if module is wanted
        for kind, _ in module.named_parameters(recurse=False)
    }


def write_stock(
    weights: Weights, plan: Plan, find_ids: Callable[[], Ids | None], out: Path, source: Mapping[str, Any]
) -> tuple[Vocabulary | None, list[str]]:
    """Write the stock folder; where the ids are known also tokenizer.json, the lock and generation_config.json.

    Args:
        find_ids: called once it is known that the tables have the rows that the config says; None: ids are not known.
        source: where the checkpoint came from, for the record. Example: {"name": "x/y", "commit": "0123"}

    Returns:
        The vocabulary, and notes: everything that was left out or moved.

    Raises:
        DataError: as `check_weights` and `find_ids`; `out` exists.
    """
    names, notes = check_weights(weights, plan)
    ids = find_ids()
    notes = [*weights.notes, *notes, *(ids.notes if ids is not None else ())]
    config, change = plan.config, plan.change
    with new_folder(out) as draft:
        if ids is not None:
            tables, rows = set.union(*row_tables(config)), torch.tensor(list(ids.rows))

            def change(name: str, weight: Tensor) -> Tensor:
                made = plan.change(name, weight)
                return made[rows] if name in tables else made

        copy_weights(weights, draft, names, change)
        if ids is not None:
            end = ids.vocabulary.eos_id  # in front of a document, too
            config.vocab_size, config.eos_token_id, config.bos_token_id = ids.vocabulary.size, end, end
            config.pad_token_id = None
            GenerationConfig(eos_token_id=end, bos_token_id=end).save_pretrained(draft)
            ids.vocabulary.save(draft)
            write_json(draft / "tokenizer_config.json", tokenizer_settings(ids.vocabulary, context_of(config)))
        write_json(draft / "config.json", config.to_diff_dict() | older_rotary(config))
        record = {"format": "speechscale.import.1", "layout": plan.layout, "source": dict(source), "notes": notes}
        write_json(draft / RECORD, record)
    return (ids.vocabulary if ids is not None else None), notes


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `out` that becomes `out` if the block succeeds, and goes if it does not.

    Raises:
        DataError: `out` exists.
    """
    if out.exists():
        raise DataError(f"'{out}' exists; give a new folder")
    draft = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    draft.mkdir(parents=True)
    try:
        yield draft
        draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def units_alone(units: int, *, eos: int, first: int, rows: int, names: Mapping[int, str]) -> Ids:
    """Ids of a model of units alone: our `<eos>` 0 and unit i at i + 1, from wherever the checkpoint has them.

    Args:
        eos: row of what ends, or opens, an utterance. first: row of unit 0. rows: how many the checkpoint has.
        names: what the checkpoint calls rows that have no place here.

    Raises:
        DataError: rows that do not hold them.
    """
    inside = 0 <= eos < rows and 0 <= first <= rows - units
    if not inside or first <= eos < first + units:
        raise DataError(
            f"{units} units from row {first} on and the end at row {eos} do not fit a table of {rows} rows; give the "
            "number of units it has (--units)"
        )
    taken = {eos, *range(first, first + units)}
    left = [names.get(row, f"row {row}") for row in range(rows) if row not in taken]
    return Ids(vocabulary=Vocabulary.textless(units), rows=[eos, *range(first, first + units)], notes=no_place(left))


def no_place(names: Sequence[str], most: int = 8) -> tuple[str, ...]:
    """The note about rows that a model of units alone cannot keep; none where it keeps all."""
    if not names:
        return ()
    shown = ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
    return (f"no place here for {shown}; a likelihood under the full softmax loses what they had",)
