"""Checkpoints of type `speech_language_model` (slamkit, SIMS, Slam) into stock models, and back.

Enters: a folder with config.json and safetensors, or a stock folder with our vocabulary. Leaves: a plan for
`write_stock`, or a checkpoint whose ids mean to slamkit what they meant here. The one decision worth knowing: nothing
is looked up by the name of the base model; its config is the one inside the checkpoint, or the one that the caller
gives.

Source: slamkit's public description. Config: base_model_name, base_config, vocab_size; inner weights under `lm.`.
Units alone: PAD 0, S (opens and ends) 1, unit i at i + 2. Interleaved: the base tokenizer's ids, units, `<speech>`,
`<text>`, which is our own order.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechscale.errors import DataError
from speechscale.files import read_json, write_json
from speechscale.model.interop_stock import (
    Ids,
    Plan,
    check_weights,
    new_folder,
    older_rotary,
    row_tables,
    stock_config,
    unchanged,
    units_alone,
)
from speechscale.model.interop_weights import REMEDY, copy_weights, open_weights
from speechscale.tokens.spelling import DEFAULT_SPELLING
from speechscale.tokens.text_tokenizer import TOKENIZER_FILE
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.tokens.vocabulary_files import LOCK_FILE

PEER_TYPE = "speech_language_model"
PREFIX = "lm."
"""What slamkit puts before the name of every weight of the model it wraps."""
PAD, S = 0, 1
"""Rows of a checkpoint of units alone; units follow."""
NEVER = -1e4
"""Bias of PAD in a head that has one."""


def plan_slamkit(folder: Path, base_config: Path | str | None = None) -> Plan:
    """How the model inside a `speech_language_model` checkpoint becomes a stock one.

    Args:
        base_config: config.json of the base model or its folder, for a checkpoint that does not hold it.

    Raises:
        DataError: no config of the base model, or one that cannot be used.
    """
    outer = read_json(folder / "config.json", "checkpoint config", REMEDY)
    values = outer.get("base_config")
    if base_config is not None:
        path = Path(base_config)
        values = read_json(path / "config.json" if path.is_dir() else path, "base config", "give its config.json")
    if not isinstance(values, dict):
        raise DataError(
            f"'{folder}': config.json holds no base_config; give config.json of '{outer.get('base_model_name')}' "
            "(--base-config)"
        )
    # slamkit cuts or grows the tables after the base config was read: the outer number is the one that holds.
    rows = {"vocab_size": outer.get("vocab_size", values.get("vocab_size"))}
    return Plan(layout=PEER_TYPE, config=stock_config(values | rows, str(folder)), stock_name=inner_name)


def inner_name(name: str) -> str:
    """The name of a weight in the model that slamkit wraps."""
    return name.removeprefix(PREFIX)


def ids_slamkit(rows: int, units: int, tokenizer: Path | str | None, eos: str | None, what: str) -> Ids:
    """Our ids for a checkpoint without tokenizer files.

    Args:
        rows: of its tables. tokenizer: of the base model, a folder, tokenizer.json or a name on the hub; None for a
            model of units alone. eos: the token of it that ends a document; None reads it from its files.

    Raises:
        DataError: the model has another number of rows than these make, or see `Vocabulary.from_pretrained`.
    """
    if tokenizer is None:
        if rows != units + 2:
            raise DataError(
                f"'{what}': {rows} ids, {units} units alone are {units + 2} (with PAD and S); give the number of "
                "units it has (--units), and the text tokenizer of a model that has text (--tokenizer)"
            )
        # S both opens and ends a peer's sequence, as our <eos> does; PAD was never predicted.
        return units_alone(units, eos=S, first=2, rows=rows, names={PAD: "PAD (0)"})
    if units >= rows:
        raise DataError(f"'{what}': {rows} ids cannot hold {units} units and text (--units)")
    vocabulary = Vocabulary.from_pretrained(tokenizer, units, eos_token=eos)
    if vocabulary.size != rows:
        raise DataError(
            f"'{what}': {rows} ids, tokenizer '{tokenizer}' with {units} units and 2 markers makes "
            f"{vocabulary.size}; give the base model's own tokenizer and the number of units"
        )
    return Ids(vocabulary=vocabulary, rows=range(rows))


def export_slamkit(source: Path | str, out: Path | str, base_model_name: str, *, ids_are_theirs: bool = False) -> None:
    """Write a stock model folder as a `speech_language_model` checkpoint; importing it again gives the same model.

    Units alone get slamkit's order, in which S is our `<eos>`, and a row for PAD. PAD is embedded as zeros; its row of
    the head is the mean of the others, so that its logit is their mean: never the largest, and never more probable
    than one in (units + 2). Zeros would be the most probable id wherever all logits are negative. A head with a bias
    gives PAD -10000. Where embedding and head share a table the row is the mean in both; PAD is never read. A model
    with text keeps its ids, and its tokenizer.json goes along.

    Args:
        source: a folder with the lock vocabulary.json, as training writes it.
        base_model_name: slamkit looks a config up by this name, so it has to exist where the checkpoint is used.
            Example: "Qwen/Qwen2.5-0.5B"
        ids_are_theirs: for a folder without a lock, whose ids are slamkit's already: write them as they are.

    Raises:
        DataError: no lock, or a vocabulary that slamkit cannot have: merged subwords, text alone, another spelling of
            units; tables that do not fit the lock; weights as `import_model`; `out` exists.
    """
    source, out = Path(source), Path(out)
    values = read_json(source / "config.json", "model config", "give a folder made by save_model")
    config = stock_config(values, str(source))
    vocabulary = _exportable(source, int(config.vocab_size), ids_are_theirs)
    weights = open_weights(source)
    names, _ = check_weights(weights, Plan(layout="stock", config=config, stock_name=str))
    alone = vocabulary is not None and not vocabulary.has_text
    change = _with_pad(config) if alone else unchanged
    with new_folder(out) as draft:
        copy_weights(weights, draft, {file: PREFIX + name for file, name in names.items()}, change)
        write_json(draft / "config.json", _outer_config(config, vocabulary, base_model_name))
        if vocabulary is not None and vocabulary.has_text:
            shutil.copyfile(source / TOKENIZER_FILE, draft / TOKENIZER_FILE)


def _exportable(source: Path, rows: int, ids_are_theirs: bool) -> Vocabulary | None:
    """The vocabulary of a folder, if slamkit can have it; None for ids that are slamkit's already."""
    if not (source / LOCK_FILE).is_file():
        if ids_are_theirs:
            return None
        raise DataError(
            f"'{source}': no {LOCK_FILE}, so nothing says which id is which; save the vocabulary beside the model "
            "(Vocabulary.save), or say that the ids are slamkit's already (--ids-are-theirs)"
        )
    vocabulary = Vocabulary.load(source)
    if not vocabulary.num_units:
        raise DataError(f"'{source}': a model of text alone; slamkit's have units: export the model trained from it")
    if vocabulary.subwords is not None:
        raise DataError(
            f"'{source}': speech is written in merged subwords, which slamkit does not have; export a model trained on "
            "single units (no subwords), or keep this one as the stock folder it is"
        )
    if vocabulary.spelling != DEFAULT_SPELLING:
        raise DataError(
            f"'{source}': units are spelled '{vocabulary.spelling}', slamkit reads '{DEFAULT_SPELLING}' alone; ids do "
            "not depend on it: save the vocabulary beside a copy of the model under that spelling, and export the copy"
        )
    if vocabulary.size != rows:
        raise DataError(
            f"'{source}': {rows} rows, {LOCK_FILE} has {vocabulary.size} ids; give the vocabulary it was trained with"
        )
    return vocabulary


def _with_pad(config: Any) -> Callable[[str, Tensor], Tensor]:
    """Put the row of PAD before tables of units alone; `<eos>` and units are in slamkit's order already."""
    embedding, head = ({PREFIX + name for name in names} for names in row_tables(config))

    def change(name: str, weight: Tensor) -> Tensor:
        if name not in embedding | head:
            return weight
        if weight.ndim == 1:
            pad = torch.full((1,), NEVER)
        elif name in embedding and not config.tie_word_embeddings:
            pad = torch.zeros(1, weight.shape[1])
        else:
            pad = weight.double().mean(0, keepdim=True)
        return torch.cat([pad.to(weight.dtype), weight])

    return change


def _outer_config(config: Any, vocabulary: Vocabulary | None, base_model_name: str) -> dict[str, Any]:
    values = config.to_dict() | older_rotary(config)
    values.pop("transformers_version", None)
    special: dict[str, Any] = {}
    if vocabulary is not None and vocabulary.has_text:
        # Its tokenizer pads with 0, and its likelihood leaves this id out.
        special = {"pad_token_id": 0, "bos_token_id": vocabulary.eos_id, "eos_token_id": vocabulary.eos_id}
    elif vocabulary is not None:
        special = {"pad_token_id": PAD, "bos_token_id": S, "eos_token_id": S}
        values["vocab_size"] = vocabulary.size + 1
    values |= special
    return {
        "model_type": PEER_TYPE,
        "architectures": ["UnitLM"],
        "base_model_name": base_model_name,
        "base_config": values,
        "vocab_size": values["vocab_size"],
        "tie_word_embeddings": config.tie_word_embeddings,
        "twist_init": False,
        **special,
    }
