"""Published encoders and quantizers by name.

Enters: a name. Leaves: an encoder's settings, and which quantizer belongs to it. The one decision worth knowing: a
quantizer's checksum is compared where it is known, because features cut by a stranger's centroids give units that
look right and mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from speechscale.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings of `TransformerLayer` and the quantizer published for them.

    Args:
        quantizer: file name of the published k-means; empty if there is none for this layer.
        quantizer_sha256: its checksum; empty if unknown, and then any file of the right shape is believed.
        clusters: of the quantizer. source: who says so.
    """

    settings: dict[str, Any]
    source: str
    quantizer: str = ""
    quantizer_sha256: str = ""
    clusters: int = 0
    notes: str = field(default="", compare=False)


PRESETS: dict[str, Preset] = {
    "mhubert-25hz-l11": Preset(
        settings={
            "model": "slprl/mhubert-base-25hz",
            "revision": "a319086e1d343190047d02b7f81133fb310c1b90",
            "layer": 11,
            "normalize": False,
            "pad_samples": 40,
        },
        quantizer="mhubert_base_25hz_cp_mls_cv_sp_fisher_L11_km500.bin",
        quantizer_sha256="03cc04a9c24fec4285e73e709c485756d8f116aa8e724eac555de6a7cf8d28ad",
        clusters=500,
        source="TWIST (Hassid et al. 2023); SIMS and slamkit use it with 40 samples of padding, not normalized",
    ),
    "hubert-base-l9": Preset(
        settings={"model": "facebook/hubert-base-ls960", "layer": 9, "normalize": False},
        quantizer="hubert_base_ls960_L9_km500.bin",
        clusters=500,
        source="fairseq examples/hubert and textless; not normalized there, whatever the hub's preprocessor says",
        notes="slamkit sets pad_samples to 40",
    ),
    "wavlm-large-l21": Preset(
        settings={"model": "microsoft/wavlm-large", "layer": 21},
        source="Chen et al. 2022; the layer is a starting point, compare layers by PNMI",
    ),
    "w2v-bert-2-l17": Preset(
        settings={"model": "facebook/w2v-bert-2.0", "layer": 17},
        source="Seamless Communication 2023; the layer is a starting point, compare layers by PNMI",
    ),
}


def preset(name: str) -> Preset:
    """Look up a preset.

    Raises:
        DataError: unknown name.
    """
    if name not in PRESETS:
        raise DataError(f"preset '{name}' is unknown; known are: {', '.join(sorted(PRESETS))}")
    return PRESETS[name]


def encoder_of(name: str, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Encoder and settings behind a name that may be a preset's; given settings come before the preset's.

    Example: "hubert-base-l9", {"layer": 6} -> "transformer-layer", {"model": "facebook/...", "layer": 6, ...}
    """
    if name in PRESETS:
        return "transformer-layer", {**PRESETS[name].settings, **settings}
    return name, dict(settings)
