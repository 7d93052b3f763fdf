"""Model folders: stock Hugging Face, safetensors only, never code from outside.

Enters: a model, a folder, or the name of a TextLM on the hub. Leaves: a folder, or a model whose every weight is in the
files and whose files hold no weight beside it. The one decision worth knowing: dropout is switched off when a TextLM is
loaded (OPT was released with 0.1): training here is repeatable, and an epoch or two of speech needs none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers import logging as transformers_logging

from speechscale.errors import DataError
from speechscale.model.anatomy import DROPOUTS, head_of, require_known

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Names of number types, as in `train.precision`."""
BUFFERS = "rotary_emb.inv_freq"
"""End of names in files of old transformers that are worked out anew today."""


def save_model(model: Any, folder: Path | str, state: Mapping[str, Tensor] | None = None) -> None:
    """Write a stock Hugging Face folder: config.json, generation_config.json, model.safetensors.

    Args:
        state: the weights, where the model does not hold them as such (it is sharded, or an adapter is merged).
    """
    with _quiet():
        model.save_pretrained(Path(folder), state_dict=None if state is None else dict(state))


def load_model(folder: Path | str, dtype: str = "fp32") -> Any:
    """Read a model folder, without network and without code from the folder.

    Args:
        dtype: of the weights in memory, a key of `DTYPES`.

    Raises:
        DataError: no such folder, files missing or damaged, weights that do not belong to the config, unknown dtype.
    """
    folder = Path(folder)
    if dtype not in DTYPES:
        raise DataError(f"dtype '{dtype}': allowed are {', '.join(DTYPES)}")
    if not (folder / "config.json").is_file():
        raise DataError(f"model folder '{folder}': no config.json there; give a folder made by save_model")
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            _without_dropout(config)
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=DTYPES[dtype],
                output_loading_info=True,
            )
    except Exception as error:  # safetensors, json, os and transformers each raise their own
        raise DataError(f"model folder '{folder}' cannot be read ({error}); make it again") from error
    _require_complete(report, f"model folder '{folder}'", "make it again")
    return model


def load_text_lm(name: Path | str, revision: str | None = None, dtype: torch.dtype = torch.float32) -> Any:
    """Load a TextLM of a tested architecture, from a folder or by its name on the Hugging Face hub.

    Args:
        name: a folder with config.json and safetensors, or a hub name such as "Qwen/Qwen2.5-0.5B".
        revision: branch, tag or commit on the hub. dtype: of the weights; fp32 to train them.

    Raises:
        DataError: neither a folder nor to be had from the hub, an architecture that is not known, quantized weights,
            no safetensors, weights that do not belong to the config.
    """
    config = text_lm_config(name, revision)
    _without_dropout(config)
    try:
        with _quiet():
            model, report = AutoModelForCausalLM.from_pretrained(
                name,
                config=config,
                use_safetensors=True,
                dtype=dtype,
                output_loading_info=True,
                **_options(name, revision),
            )
    except Exception as error:
        raise DataError(
            f"{_what(name, revision)}: weights cannot be read (safetensors only): {_remedy(name, revision)} "
            f"({_first_line(error)})"
        ) from error
    report["unexpected_keys"] = {key for key in report["unexpected_keys"] if not key.endswith(BUFFERS)}
    _require_complete(report, _what(name, revision), "these weights belong to another model")
    head_of(model)
    return model


def text_lm_config(name: Path | str, revision: str | None = None) -> Any:
    """The config of a TextLM, without its weights; arguments and errors as `load_text_lm`."""
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(name, **_options(name, revision))
    except Exception as error:  # the hub's client, os, json and transformers each raise their own
        raise DataError(
            f"{_what(name, revision)}: config.json cannot be read: {_remedy(name, revision)} ({_first_line(error)})"
        ) from error
    require_known(config.model_type)
    if getattr(config, "quantization_config", None):
        raise DataError(
            f"{_what(name, revision)} is quantized, and cannot be trained in full; give the original weights"
        )
    return config


def _without_dropout(config: Any) -> None:
    for dropout in DROPOUTS:
        if getattr(config, dropout, None):
            setattr(config, dropout, 0.0)


def _options(name: Path | str, revision: str | None) -> dict[str, Any]:
    return {
        "revision": revision or "main",
        "trust_remote_code": False,
        "local_files_only": Path(name).is_dir(),
    }


def _what(name: Path | str, revision: str | None) -> str:
    return f"TextLM '{name}'" + (f" at revision '{revision}'" if revision else "")


def _remedy(name: Path | str, revision: str | None) -> str:
    if Path(name).is_dir():
        return "give a folder with config.json and *.safetensors"
    if str(name).startswith(("/", ".", "~")):
        return "no such folder; give one with config.json and *.safetensors, or a name on the hub"
    command = f"hf download {name}" + (f" --revision {revision}" if revision else "")
    return (
        "no such folder here, and the hub did not give it either; check the name, or run "
        f"`{command}` on a machine with network and give the folder"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _require_complete(report: dict[str, Any], what: str, remedy: str) -> None:
    wrong = sorted(report["missing_keys"]) + sorted(report["unexpected_keys"])
    wrong += [str(key) for key in report["mismatched_keys"]]
    if wrong:
        raise DataError(f"{what}: weights and config.json disagree at {wrong[0]}; {remedy}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars and warnings off the terminal; every fault is raised by us."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
