"""A bundle: a model folder that stock transformers and vLLM load, with what makes and speaks its units beside it.

Enters: a folder as training writes it (config.json, safetensors, tokenizer.json, our lock), perhaps with a speech
tokenizer and a vocoder. Leaves: config.json, weights in shards, tokenizer.json, tokenizer_config.json,
generation_config.json, the lock, a flat summary of the units, `speech_tokenizer/`, `vocoder/`. The one decision worth
knowing: weights are copied bit for bit unless another type is asked for, and no file that could hold code or a pickle
goes along.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from speechscale.errors import DataError
from speechscale.files import read_json, write_json
from speechscale.model.interop_stock import RECORD, Plan, check_weights, new_folder, older_rotary, stock_config
from speechscale.model.interop_weights import INDEX, SINGLE, Weights, open_weights
from speechscale.model.stock_settings import context_of, generation_settings, tokenizer_settings
from speechscale.model.stock_units import SUMMARY, copy_inside, copy_parts, units_summary
from speechscale.tokens.vocabulary import Vocabulary

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Types that weights can be cast to, by the names of `train.precision`."""
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
MAX_SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written.

    Args:
        dtypes: types of the weights in the files. shards: names of the weight files.
        notes: what was cast or left out, a sentence each.
    """

    folder: Path
    vocabulary: Vocabulary
    dtypes: tuple[str, ...]
    shards: tuple[str, ...]
    notes: tuple[str, ...]


def export_stock(
    source: Path | str,
    out: Path | str,
    *,
    speech_tokenizer: Path | None = None,
    vocoder: Path | None = None,
    dtype: str | None = None,
    units_per_second: float | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Exported:
    """Write a model folder as a bundle.

    Example: export_stock("run/model", "mine", speech_tokenizer=Path("units/mine"), vocoder=Path("vocoder/mine"))

    Args:
        source: a folder with config.json, safetensors and our lock. out: a new folder.
        speech_tokenizer, vocoder: folders that go along; None leaves them out.
        dtype: "fp32", "bf16" or "fp16" casts the weights; None copies them bit for bit.
        units_per_second: of the speech it was trained on, for the summary; None where it is not known.
        max_shard_bytes: weights of one file; a larger single weight has a file of its own.

    Raises:
        DataError: no lock, weights that do not fit config.json, a vocabulary of another size, a speech tokenizer or
            vocoder of another number of units or altered, unknown dtype; `out` exists. Nothing is left behind then.
    """
    source, out = Path(source), Path(out)
    if dtype is not None and dtype not in DTYPES:
        raise DataError(f"dtype '{dtype}' is unknown; allowed: {', '.join(DTYPES)}, or none to keep the weights' own")
    if max_shard_bytes < 1:
        raise DataError(f"max_shard_bytes {max_shard_bytes}; give at least 1")
    vocabulary = Vocabulary.load(source)
    config = stock_config(read_json(source / "config.json", "model config", "give a model folder"), str(source))
    if vocabulary.size != config.vocab_size:
        raise DataError(
            f"'{source}': {config.vocab_size} rows, its vocabulary has {vocabulary.size} ids; give the vocabulary it "
            "was trained with"
        )
    weights = open_weights(source)
    names, notes = check_weights(weights, Plan(layout="stock", config=config, stock_name=str))
    with new_folder(out) as draft:
        shards, dtypes = _write_weights(weights, names, draft, dtype, max_shard_bytes)
        _write_settings(config, vocabulary, dtypes, draft)
        parts = copy_parts(draft, vocabulary, speech_tokenizer, vocoder)
        write_json(draft / SUMMARY, units_summary(vocabulary, parts, units_per_second))
        if (source / RECORD).is_file():
            copy_inside(source / RECORD, draft / RECORD)
    cast = [f"weights were cast to {dtype}"] if dtype is not None else []
    return Exported(
        folder=out,
        vocabulary=vocabulary,
        dtypes=dtypes,
        shards=shards,
        notes=(*cast, *weights.notes, *notes, *parts.notes),
    )


def _write_settings(config: Any, vocabulary: Vocabulary, dtypes: tuple[str, ...], draft: Path) -> None:
    """config.json, the tokenizer and how to sample."""
    config.bos_token_id = config.eos_token_id = vocabulary.eos_id
    # With the names of transformers 4, which older tools look for.
    values = config.to_diff_dict() | older_rotary(config) | {"dtype": dtypes[0], "torch_dtype": dtypes[0]}
    write_json(draft / "config.json", values)
    vocabulary.save(draft)
    write_json(draft / "tokenizer_config.json", tokenizer_settings(vocabulary, context_of(config)))
    write_json(draft / "generation_config.json", generation_settings(vocabulary))


def _write_weights(
    weights: Weights, names: Mapping[str, str], draft: Path, dtype: str | None, max_bytes: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write shards one after the other; return their names, and the types of the weights, the most frequent first."""
    plan = list(_parts(weights, names, dtype, max_bytes))
    table: dict[str, str] = {}
    bytes_of: dict[str, int] = {}
    for number, part in enumerate(plan, 1):
        shard = SINGLE if len(plan) == 1 else f"model-{number:05}-of-{len(plan):05}.safetensors"
        made = {names[name]: weights.read(name) for name in part}
        if dtype is not None:
            made = {name: _cast(name, weight, dtype) for name, weight in made.items()}
        for weight in made.values():
            kind = str(weight.dtype).removeprefix("torch.")
            bytes_of[kind] = bytes_of.get(kind, 0) + weight.nbytes
        save_file({name: weight.contiguous() for name, weight in made.items()}, draft / shard, {"format": "pt"})
        table |= dict.fromkeys(made, shard)
    if len(plan) > 1:
        total = {"total_size": sum(bytes_of.values())}
        write_json(draft / INDEX, {"metadata": total, "weight_map": dict(sorted(table.items()))})
    return tuple(dict.fromkeys(table.values())), tuple(sorted(bytes_of, key=lambda kind: -bytes_of[kind]))


def _parts(weights: Weights, names: Mapping[str, str], dtype: str | None, max_bytes: int) -> Iterator[list[str]]:
    """Names in the files, in the order of their new names, in groups of at most `max_bytes`."""
    sizes = _sizes(weights, dtype)
    part: list[str] = []
    held = 0
    for name in sorted(names, key=names.__getitem__):
        if part and held + sizes[name] > max_bytes:
            yield part
            part, held = [], 0
        part.append(name)
        held += sizes[name]
    yield part


def _sizes(weights: Weights, dtype: str | None) -> dict[str, int]:
    """Bytes of every weight as it will be written, from the headers."""
    sizes = {}
    for shard in weights.shards:
        with safe_open(weights.folder / shard, framework="pt") as opened:
            for name in (name for name, place in weights.places.items() if place == shard):
                width = BYTES[opened.get_slice(name).get_dtype()] if dtype is None else DTYPES[dtype].itemsize
                sizes[name] = math.prod(weights.shapes[name]) * width
    return sizes


def _cast(name: str, weight: Tensor, dtype: str) -> Tensor:
    made = weight.to(DTYPES[dtype])
    if not torch.equal(made.isfinite(), weight.isfinite()):
        remedy = "; keep the weights' own type" + (", or take bf16" if dtype == "fp16" else "")
        raise DataError(f"weight '{name}' holds numbers that {dtype} cannot{remedy}")
    return made
