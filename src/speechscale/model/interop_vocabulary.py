"""The vocabulary of an imported checkpoint: its ids under our lock, so that everything here can use the model.

Enters: a stock folder made by `interop`, the number of units, the text tokenizer if the model has text.
Leaves: the same folder with tokenizer.json, vocabulary.json and generation_config.json; for a unit-only model also
with its rows in our order. The one decision worth knowing: a table that does not have exactly the rows of the
vocabulary is refused; no id is guessed.

Source: slamkit's public description. Unit-only: PAD 0, S (opens and ends) 1, unit i at i + 2. Interleaved: the base
tokenizer's ids, units, `<speech>`, `<text>`, which is our own order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from speechscale.errors import DataError
from speechscale.files import complete_file, read_json
from speechscale.model.interop import INDEX, SINGLE
from speechscale.tokens.vocabulary import Vocabulary

PEER_EXTRA = 2
"""PAD and S, before the units of a unit-only checkpoint."""


def give_vocabulary(folder: Path | str, units: int, tokenizer: Path | str | None = None) -> Vocabulary:
    """Lock the ids of an imported model and save them beside its weights.

    Example: give_vocabulary("slam", 500); give_vocabulary("sims7b", 500, tokenizer="Qwen2.5-7B")

    Args:
        folder: of `import_slamkit`, ids still the checkpoint's. units: how many.
        tokenizer: of the base model, a folder, tokenizer.json or a name on the hub; None for a model of units alone.

    Raises:
        DataError: the model has another number of rows than this vocabulary, or see `Vocabulary.from_pretrained`.
    """
    folder = Path(folder)
    config = AutoConfig.from_pretrained(folder)
    rows = int(config.vocab_size)
    if tokenizer is None:
        if rows != units + PEER_EXTRA:
            raise DataError(
                f"'{folder}': {rows} ids, {units} units alone are {units + PEER_EXTRA} (with PAD and S); give the "
                "number of units it has (--units), and the text tokenizer of a model that has text (--tokenizer)"
            )
        vocabulary = Vocabulary.textless(units)
        # S both opens and ends a peer's sequence, as our <eos> does; PAD was never predicted.
        _reorder(folder, config, torch.arange(1, rows))
    else:
        vocabulary = Vocabulary.from_pretrained(tokenizer, units)
        if vocabulary.size != rows:
            raise DataError(
                f"'{folder}': {rows} ids, tokenizer '{tokenizer}' with {units} units and 2 markers makes "
                f"{vocabulary.size}; give the base model's own tokenizer and the number of units"
            )
    config.vocab_size, config.eos_token_id = vocabulary.size, vocabulary.eos_id
    config.bos_token_id = config.pad_token_id = None
    config.save_pretrained(folder)
    GenerationConfig(eos_token_id=vocabulary.eos_id).save_pretrained(folder)
    vocabulary.save(folder)
    return vocabulary


def _reorder(folder: Path, config: Any, order: torch.Tensor) -> None:
    """Keep these rows of the input and output tables, in this order; other weights are not touched."""
    tables = _table_names(config)
    shards = [SINGLE]
    if (folder / INDEX).is_file():
        shards = sorted(set(read_json(folder / INDEX, "index of shards", "import it again")["weight_map"].values()))
    for shard in shards:
        with safe_open(folder / shard, framework="pt") as opened:
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if tables & weights.keys():
            changed = {n: w[order].contiguous() if n in tables else w for n, w in weights.items()}
            with complete_file(folder / shard) as draft:
                save_file(changed, draft, metadata={"format": "pt"})


def _table_names(config: Any) -> set[str]:
    """Names of the weights that have a row per id: the look-up table, and the head with its bias."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    wanted = (model.get_input_embeddings(), model.get_output_embeddings())
    return {
        f"{name}.{kind}"
        for name, module in model.named_modules(remove_duplicate=False)
        if any(module is table for table in wanted)
        for kind, weight in module.named_parameters(recurse=False)
        if weight.shape[0] == config.vocab_size
    }
