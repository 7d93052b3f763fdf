"""Checkpoints of type `speech_language_model` (slamkit, SIMS, Slam) into stock folders, and back.

Enters: a local folder with config.json and safetensors, one file or shards with an index. Leaves: a folder of the other
layout, weights bit for bit in the dtype they had. The one decision worth knowing: nothing is looked up by the name of
the base model; its config is the one inside the checkpoint, or the one that the caller gives.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from speechscale.errors import DataError
from speechscale.files import read_json, write_json
from speechscale.model.anatomy import require_known

PEER_TYPE = "speech_language_model"
PREFIX = "lm."
"""What slamkit puts before the name of every weight of the model it wraps."""
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
REMEDY = "copy the checkpoint again"


def import_slamkit(source: Path | str, out: Path | str, base_config: Path | str | None = None) -> None:
    """Write the stock model inside a `speech_language_model` checkpoint; no network, no code from the folder.

    One shard is in memory at a time. The vocabulary is not written: ids stay those of the checkpoint.

    Example: `import_slamkit("SIMS-7B", "sims7b")`, then `load_model("sims7b")`

    Args:
        source: folder of the checkpoint. out: a new folder.
        base_config: config.json of the base model or its folder, for a checkpoint that does not hold it.

    Raises:
        DataError: another type, no config of the base model, pickled weights, a broken shard, weights that are missing
            or of another shape than the config says; `out` exists.

    Source: slamkit's public description of its checkpoints (UnitLMConfig: base_config, vocab_size).
    """
    source, out = Path(source), Path(out)
    _require_new(out)
    outer = read_json(source / "config.json", "checkpoint config", REMEDY)
    if outer.get("model_type") != PEER_TYPE:
        raise DataError(f"'{source}': model_type is '{outer.get('model_type')}'; this reads '{PEER_TYPE}'")
    inner = _inner_config(source, outer, base_config)
    _check_and_copy(source, out, inner, lambda name: name.removeprefix(PREFIX))
    inner.save_pretrained(out)


def export_slamkit(source: Path | str, out: Path | str, base_model_name: str) -> None:
    """Write a stock model folder as a `speech_language_model` checkpoint; the inverse of `import_slamkit`.

    Args:
        source: folder of `save_model`. base_model_name: slamkit looks a config up by this name, so it has to exist
            where the checkpoint is used. Example: "Qwen/Qwen2.5-0.5B"

    Raises:
        DataError: as `import_slamkit`.
    """
    source, out = Path(source), Path(out)
    _require_new(out)
    inner = _config(read_json(source / "config.json", "model config", "give a folder made by save_model"), str(source))
    _check_and_copy(source, out, inner, lambda name: PREFIX + name)
    outer = {
        "model_type": PEER_TYPE,
        "architectures": ["UnitLM"],
        "base_model_name": base_model_name,
        "base_config": inner.to_dict(),
        "vocab_size": inner.vocab_size,
        "tie_word_embeddings": inner.tie_word_embeddings,
        "twist_init": False,
    }
    write_json(out / "config.json", outer)


def _require_new(out: Path) -> None:
    if out.exists():
        raise DataError(f"'{out}' exists; give a new folder")


def _inner_config(source: Path, outer: dict[str, Any], base_config: Path | str | None) -> Any:
    values = outer.get("base_config")
    if base_config is not None:
        path = Path(base_config)
        values = read_json(path / "config.json" if path.is_dir() else path, "base config", "give its config.json")
    if not isinstance(values, dict):
        raise DataError(
            f"'{source}': config.json holds no base_config; give config.json of '{outer.get('base_model_name')}' "
            "(--base-config)"
        )
    # slamkit cuts or grows the tables after the base config was read: the outer number is the one that holds.
    return _config(values | {"vocab_size": outer.get("vocab_size", values.get("vocab_size"))}, str(source))


def _config(values: dict[str, Any], what: str) -> Any:
    values = dict(values)
    kind = str(values.pop("model_type", None))
    require_known(kind)
    try:
        config = AutoConfig.for_model(kind, **values)
        config.architectures = [type(_empty(config)).__name__]
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        raise DataError(f"'{what}': config of the model cannot be read ({error}); {REMEDY}") from error
    return config


def _empty(config: Any) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def _shards(source: Path) -> list[str]:
    if (source / INDEX).is_file():
        table = read_json(source / INDEX, "index of shards", REMEDY).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise DataError(f"'{source / INDEX}': no weight_map; {REMEDY}")
        names = sorted({str(name) for name in table.values()})
    elif (source / SINGLE).is_file():
        names = [SINGLE]
    elif any(source.glob("*.bin")):
        raise DataError(
            f"'{source}': weights are pickled (*.bin), and reading them can run code; convert them to safetensors on "
            "a machine that holds nothing else, and give that folder"
        )
    else:
        raise DataError(f"'{source}': neither {SINGLE} nor {INDEX}; {REMEDY}")
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise DataError(f"'{source / INDEX}': shard '{name}' is no safetensors file of this folder; {REMEDY}")
    return names


def _check_and_copy(source: Path, out: Path, config: Any, rename: Callable[[str], str]) -> None:
    """Check names and shapes of all shards by their headers first, so that a refusal leaves nothing behind."""
    names = _shards(source)
    model = _empty(config)
    stock = {name: list(weight.shape) for name, weight in model.state_dict().items()}
    optional = set(model._tied_weights_keys or ()) if config.tie_word_embeddings else set()
    found: dict[str, str] = {}
    for shard in names:
        for name, shape in _header(source / shard).items():
            plain = name.removeprefix(PREFIX)
            if stock.get(plain) != shape:
                raise DataError(
                    f"'{source / shard}': '{name}' is {shape}, the config says {stock.get(plain)}; {REMEDY}"
                )
            found[plain] = shard
    missing = sorted(set(stock) - set(found) - optional)
    if missing:
        raise DataError(f"'{source}': no weight '{missing[0]}' ({len(missing)} missing); {REMEDY}")
    out.mkdir(parents=True)
    total = 0
    for shard in names:
        with safe_open(source / shard, framework="pt") as opened:
            weights = {rename(name): opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        total += sum(weight.nbytes for weight in weights.values())
        save_file(weights, out / shard, metadata={"format": "pt"})
    if names != [SINGLE]:
        table = {rename(name): shard for name, shard in sorted(found.items())}
        write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": table})


def _header(path: Path) -> dict[str, list[int]]:
    try:
        with safe_open(path, framework="pt") as opened:
            return {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(f"shard '{path}' cannot be read ({error}); {REMEDY}") from error
