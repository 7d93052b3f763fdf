"""Whatever can turn units into sound, behind one interface.

Enters: a folder or a checkpoint. Leaves: a `UnitVocoder`. The one decision worth knowing: what lies in the folder
decides which one it is, so that a caller never has to know.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from speechscale.errors import DataError
from speechscale.speech.codehifigan import load_codehifigan
from speechscale.speech.hifigan import UnitHifigan
from speechscale.speech.vocoder import Vocoder


class UnitStream(Protocol):
    """Sound of units that arrive one after the other. All that comes out, joined, is the sound of all units.

    Samples that came out are final: no later unit changes them. A stream keeps only what it still looks at, so it may
    be endless. Each method raises DataError after `finish`.
    """

    def push(
        self, units: Int[np.ndarray, " units"], durations_frames: Int[np.ndarray, " units"] | None = None
    ) -> Float[np.ndarray, " samples"]:
        """Take the next units; return the samples that are final now, maybe none."""
        ...

    def finish(self) -> Float[np.ndarray, " samples"]:
        """Return the rest; no more units will come."""
        ...


class UnitVocoder(Protocol):
    """Units to sound. speakers: the voices, the first one is the default; empty for a single one without a name."""

    @property
    def sample_rate_hz(self) -> int: ...

    @property
    def num_units(self) -> int: ...

    @property
    def speakers(self) -> tuple[str, ...]: ...

    def synthesize(
        self,
        units: Int[np.ndarray, " units"],
        durations_frames: Int[np.ndarray, " units"] | None = None,
        speaker: str | None = None,
    ) -> Float[np.ndarray, " samples"]:
        """Make sound of units; without durations they are taken for deduplicated and durations are predicted."""
        ...

    def predict_durations(
        self, units: Int[np.ndarray, " units"], speaker: str | None = None
    ) -> Int[np.ndarray, " units"]:
        """Durations in frames of deduplicated units, at least one each."""
        ...

    def stream(self, speaker: str | None = None) -> UnitStream:
        """Begin sound whose units are still to come."""
        ...


def open_vocoder(
    path: str | Path, *, sha256: str | None = None, preset: str | None = None, num_units: int | None = None
) -> UnitVocoder:
    """Open a folder written by `Vocoder.save` or `UnitHifigan.save`, or a published CodeHiFiGAN.

    Args:
        sha256, preset: of a published checkpoint, as in `load_codehifigan`.
        num_units: how many the vocabulary has that is to be spoken; None if that is not known.

    Raises:
        DataError: nothing there that can be opened, or a vocoder of other units; the message names it.
    """
    path = Path(path)
    vocoder = _open(path, sha256, preset)
    if num_units is not None and vocoder.num_units != num_units:
        raise DataError(
            f"vocoder {path}: speaks {vocoder.num_units} units, the vocabulary has {num_units}; use the vocoder of the "
            "same speech tokenizer"
        )
    return vocoder


def _open(path: Path, sha256: str | None, preset: str | None) -> UnitVocoder:
    if sha256 is None and preset is None:
        if (path / "vocoder.json").is_file():
            return Vocoder.load(path)
        if (path / "hifigan.json").is_file():
            return UnitHifigan.load(path)
    if not path.exists():
        raise DataError(f"vocoder {path}: no such file or folder; train one or name a checkpoint")
    return load_codehifigan(path, sha256=sha256, preset=preset)
