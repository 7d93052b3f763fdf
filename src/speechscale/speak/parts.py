"""Load a model with the parts that belong to it.

Enters: a folder or a hub name, parts that the user names instead. Leaves: the fields of a `SpeechLM`. The one decision
worth knowing: parts are held against the vocabulary before anything is made with them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.model.folders import load_model
from speechscale.model.interop_hub import fetch
from speechscale.speech.units import SpeechTokenizer
from speechscale.speech.vocoders import open_vocoder
from speechscale.study.devices import resolved
from speechscale.study.located import Located, locate
from speechscale.tokens.vocabulary import Vocabulary

USUAL_DEDUP = 0.78
"""Units over frames where the speech of a model is not known; HuBERT at 25 Hz has 19.4 units per second."""
USUAL_RATE_HZ = 25.0


def load_parts(
    path_or_name: str | Path,
    *,
    tokenizer: str | Path | None,
    vocoder: str | Path | None,
    revision: str | None,
    device: str,
    dtype: str,
) -> dict[str, Any]:
    """Fields of a `SpeechLM`; arguments and errors as `SpeechLM.from_pretrained`."""
    found = _found(path_or_name, revision, tokenizer, vocoder)
    vocabulary = found.load_vocabulary()
    model = load_model(found.folder, dtype=dtype).to(resolved(device))
    if model.config.vocab_size != vocabulary.size:
        raise DataError(
            f"{found.folder}: the model has {model.config.vocab_size} ids, vocabulary.json {vocabulary.size}; give "
            "the vocabulary it was trained with"
        )
    hears = found.speech_tokenizer and SpeechTokenizer.load(found.speech_tokenizer)
    speaks = found.vocoder and open_vocoder(found.vocoder, num_units=vocabulary.num_units)
    if hears:
        _require_units("speech tokenizer", hears.num_units, vocabulary, found.speech_tokenizer)
    usual = USUAL_DEDUP * (hears.frame_rate_hz if hears else USUAL_RATE_HZ)
    return {
        "name": found.name,
        "model": model,
        "vocabulary": vocabulary,
        "tokenizer": hears or None,
        "vocoder": speaks or None,
        "units_per_second": found.units_per_second or usual,
    }


def _found(
    path_or_name: str | Path, revision: str | None, tokenizer: str | Path | None, vocoder: str | Path | None
) -> Located:
    path, parts = Path(path_or_name), {"tokenizer": tokenizer, "vocoder": vocoder}
    given = {key: Path(value) for key, value in parts.items() if value is not None}
    name = str(path_or_name)
    if not path.exists() and name.count("/") == 1 and not name.startswith((".", "/", "~")):
        path = fetch(name, revision, parts=True).folder
        return replace(locate(path, **given), name=name)
    return locate(path, **given)


def _require_units(what: str, found: int, vocabulary: Vocabulary, path: Path | None) -> None:
    if found != vocabulary.num_units:
        raise DataError(
            f"{what} {path}: it has {found} units, the model's vocabulary {vocabulary.num_units}; give the one that "
            "this model was trained with"
        )
