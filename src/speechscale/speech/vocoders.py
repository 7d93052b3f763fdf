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


class UnitVocoder(Protocol):
    """Units to sound. speakers: the voices, the first one is the default; empty for a single one without a name."""

    @property
    def sample_rate_hz(self) -> int: ...

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


def open_vocoder(path: str | Path, *, sha256: str | None = None, preset: str | None = None) -> UnitVocoder:
    """Open a folder written by `Vocoder.save` or `UnitHifigan.save`, or a published CodeHiFiGAN.

    Args:
        sha256, preset: of a published checkpoint, as in `load_codehifigan`.

    Raises:
        DataError: nothing there that can be opened; the message names it.
    """
    path = Path(path)
    if sha256 is None and preset is None:
        if (path / "vocoder.json").is_file():
            return Vocoder.load(path)
        if (path / "hifigan.json").is_file():
            return UnitHifigan.load(path)
    if not path.exists():
        raise DataError(f"vocoder {path}: no such file or folder; train one or name a checkpoint")
    return load_codehifigan(path, sha256=sha256, preset=preset)
