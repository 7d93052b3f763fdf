"""Load a transformers model from its files, or fail.

Enters: a model's files and its class. Leaves: the model in evaluation mode. The one decision worth knowing: weights
that the files do not hold are an error; transformers would draw them at random and only warn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError

from speechscale.errors import DataError
from speechscale.speech.encoders.model_files import ModelFiles


def load_model(files: ModelFiles, class_name: str, *, unused: Sequence[str] = (), **overrides: Any) -> Any:
    """Load `transformers.<class_name>` in float32 from safetensors only, never running code of the repository.

    Args:
        unused: ends of names of weights that may be missing. overrides: settings other than those of config.json.

    Raises:
        DataError: the files are unreadable, or weights are missing or misshapen.
    """
    import transformers

    assert files.weight_files, "raises if there are none"
    try:
        with _quiet(transformers):
            model, report = getattr(transformers, class_name).from_pretrained(
                files.folder,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                dtype=torch.float32,
                **overrides,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(f"model '{files.name}': cannot be loaded ({error}); copy its files again") from error
    wrong = sorted(key for key in report["missing_keys"] if not key.endswith(tuple(unused) or "\0"))
    wrong += sorted(str(key[0]) for key in report["mismatched_keys"])
    if wrong:
        raise DataError(
            f"model '{files.name}': its weights lack or misshape {len(wrong)} arrays, such as {wrong[0]}; "
            "config.json and model.safetensors do not belong together, copy both again"
        )
    return model.eval()


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is cuda where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"device '{name}': not usable here ({str(error).splitlines()[0]}); use cpu or auto") from error
    return device


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without progress bars and without a warning for every layer that is cut off."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
