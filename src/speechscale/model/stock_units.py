"""What makes units and what speaks them, carried along with a model.

Enters: a vocabulary, the folders of a speech tokenizer and of a vocoder. Leaves: copies in the folder of the model, and
a flat summary that needs no code to read. The one decision worth knowing: JSON and safetensors travel and nothing else,
and the copies are opened and held to the vocabulary before anything is believed.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.files import read_json
from speechscale.speech.tokenizer_files import centroids_sha256
from speechscale.speech.units import SpeechTokenizer
from speechscale.speech.vocoders import UnitVocoder, open_vocoder
from speechscale.tokens.vocabulary import Vocabulary

TOKENIZER_FOLDER, VOCODER_FOLDER = "speech_tokenizer", "vocoder"
KINDS = ("*.json", "*.safetensors")
LEFT = ("record.json",)
"""Of a study's step: what its folder holds beside the thing itself."""
SUMMARY = "speech_tokenizer.json"
"""What the units are and where their ids lie, at the top of a bundle; the tokenizer itself is in its folder."""
FORMAT = "speechscale.bundle.units.1"
ENCODER_FACTS = ("model", "revision", "layer", "hub", "weights_sha256")
"""Keys of an encoder's settings that say which pretrained model it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What was copied; None where there is none."""

    tokenizer: SpeechTokenizer | None
    vocoder: UnitVocoder | None
    notes: tuple[str, ...]


def copy_parts(draft: Path, vocabulary: Vocabulary, speech_tokenizer: Path | None, vocoder: Path | None) -> Parts:
    """Copy both folders below `draft`, open the copies and hold them to the vocabulary.

    Raises:
        DataError: one cannot be opened, is altered, or has another number of units.
    """
    tokenizer, sound, notes = None, None, []
    if speech_tokenizer is None and vocabulary.num_units:
        notes.append("no speech tokenizer beside it: units of a recording cannot be made")
    if speech_tokenizer is not None:
        tokenizer = SpeechTokenizer.load(_copied(speech_tokenizer, draft / TOKENIZER_FOLDER, "speech tokenizer"))
        _require_units(tokenizer.num_units, vocabulary, f"speech tokenizer '{speech_tokenizer}'")
    if vocoder is None and vocabulary.num_units:
        notes.append("no vocoder beside it: units cannot be heard")
    if vocoder is not None:
        sound = open_vocoder(_copied(vocoder, draft / VOCODER_FOLDER, "vocoder"))
        units = _units_of(sound)
        if units is not None:
            _require_units(units, vocabulary, f"vocoder '{vocoder}'")
    return Parts(tokenizer=tokenizer, vocoder=sound, notes=tuple(notes))


def units_summary(vocabulary: Vocabulary, parts: Parts, units_per_second: float | None = None) -> dict[str, Any]:
    """The content of speech_tokenizer.json at the top of a bundle.

    Id ranges are half open: units [397, 497) are 100 ids. A marker or block that the vocabulary does not have is null.
    """
    tokenizer, sound = parts.tokenizer, parts.vocoder
    encoder: dict[str, Any] = {}
    if tokenizer is not None:
        settings = tokenizer.encoder_config
        encoder = {
            "encoder": tokenizer.encoder_name,
            **{key: settings[key] for key in ENCODER_FACTS if settings.get(key) not in (None, "")},
            "fingerprint": tokenizer.fingerprint,
            "kmeans_sha256": centroids_sha256(tokenizer.centroids) if len(tokenizer.centroids) else None,
            "frame_rate_hz": tokenizer.frame_rate_hz,
            "sample_rate_hz": tokenizer.sample_rate_hz,
            "from_recordings": not tokenizer.oracle,
        }
    return {
        "format": FORMAT,
        "folder": TOKENIZER_FOLDER if tokenizer is not None else None,
        **encoder,
        "num_units": vocabulary.num_units,
        "deduplicated": True,
        "units_per_second": units_per_second,
        "subwords": vocabulary.subwords is not None,
        "spelling": vocabulary.spelling,
        "ids": {
            "text": [0, vocabulary.text_size] if vocabulary.has_text else None,
            "units": [vocabulary.unit_start, vocabulary.unit_start + vocabulary.num_units],
            "speech": [vocabulary.unit_start, vocabulary.speech_stop],
            "speech_marker": vocabulary.SPEECH,
            "text_marker": vocabulary.TEXT,
            "eos": vocabulary.eos_id,
            "unk": vocabulary.unk_id,
            "size": vocabulary.size,
        },
        "vocoder": None
        if sound is None
        else {"folder": VOCODER_FOLDER, "sample_rate_hz": sound.sample_rate_hz, "speakers": list(sound.speakers)},
    }


def bundle_rate(folder: Path) -> float | None:
    """Units per second of the speech that a bundle's model was trained on; None where nothing says it.

    Raises:
        DataError: the summary is there and cannot be read.
    """
    path = folder / SUMMARY
    if not path.is_file():
        return None
    saved = read_json(path, "summary of the units", "export the model again")
    rate = saved.get("units_per_second") if saved.get("format") == FORMAT else None
    return float(rate) if isinstance(rate, int | float) else None


def _copied(source: Path, target: Path, what: str) -> Path:
    source = Path(source)
    if not source.is_dir():
        raise DataError(f"{what} '{source}': no such folder; give the folder that holds its JSON and safetensors")
    files = sorted(path for kind in KINDS for path in source.glob(kind) if path.name not in LEFT)
    if not files:
        raise DataError(
            f"{what} '{source}': neither JSON nor safetensors in it; a pickled one does not travel, convert it first"
        )
    target.mkdir()
    for path in files:
        copy_inside(path, target / path.name)
    return target


def copy_inside(path: Path, target: Path) -> None:
    """Copy a file that travels. Raises DataError: it is a link to what lies elsewhere, which nobody meant to send."""
    if not path.resolve().is_relative_to(path.parent.resolve()):
        raise DataError(f"'{path}' is a link that leaves its folder; put the file itself there")
    shutil.copyfile(path, target)


def _units_of(vocoder: UnitVocoder) -> int | None:
    """How many units a vocoder speaks, where it says."""
    shape = getattr(vocoder, "shape", None)
    units = getattr(shape if shape is not None else vocoder, "num_units", None)
    return units if isinstance(units, int) else None


def _require_units(units: int, vocabulary: Vocabulary, what: str) -> None:
    if units != vocabulary.num_units:
        raise DataError(f"{what} has {units} units, the model {vocabulary.num_units}; give the one of this model")
