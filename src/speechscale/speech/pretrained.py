"""Tokenizers from published models: nothing to fit.

Enters: a preset and its quantizer, or a codec. Leaves: a `SpeechTokenizer`. The one decision worth knowing: the model's
checksums are read when the tokenizer is made and are part of its fingerprint, so that it never runs on other weights.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from speechscale.errors import DataError
from speechscale.speech.encoders import Runtime, build_encoder, build_unit_encoder, runtime_of
from speechscale.speech.encoders.presets import preset
from speechscale.speech.quantizers import quantizer_tokenizer, read_quantizer
from speechscale.speech.units import SpeechTokenizer


def preset_tokenizer(
    name: str,
    quantizer: str | Path,
    *,
    settings: dict[str, Any] | None = None,
    runtime: Runtime | None = None,
) -> SpeechTokenizer:
    """Make the tokenizer of a preset from the file of its quantizer, as published.

    Args:
        settings: of `TransformerLayer`, instead of the preset's; "model" may name a folder.

    Raises:
        DataError: unknown preset, model not found, another quantizer than the preset's, or one of another size.
    """
    chosen = preset(name)
    centers = read_quantizer(quantizer, sha256=chosen.quantizer_sha256 or None)
    encoder = build_encoder("transformer-layer", {**chosen.settings, **(settings or {})}, runtime=runtime)
    if (centers.clusters, centers.dim) != (chosen.clusters or centers.clusters, encoder.dim):
        raise DataError(
            f"preset '{name}': needs {chosen.clusters or 'any number of'} centroids of {encoder.dim} values, "
            f"{centers.source_name} has {centers.clusters} of {centers.dim}; use the quantizer of this preset"
        )
    tokenizer = quantizer_tokenizer(
        centers,
        encoder="transformer-layer",
        encoder_config=encoder.config(),
        frame_rate_hz=encoder.frame_rate_hz,
        sample_rate_hz=encoder.sample_rate_hz,
    )
    fit = {**tokenizer.fit, "preset": name, "preset_source": chosen.source}
    return replace(tokenizer, fit=fit, runtime=runtime_of(encoder))


def codec_tokenizer(config: dict[str, Any], *, runtime: Runtime | None = None) -> SpeechTokenizer:
    """Make the tokenizer of a codec (settings of `Codec`); its codes are the units.

    Several codebooks become one stream of codebooks * codebook_size units, frame_rate_hz counts units.

    Raises:
        DataError: model not found, or more units than int16 holds.
    """
    encoder = build_unit_encoder("codec", config, runtime=runtime)
    num_units = encoder.codebooks * encoder.codebook_size
    if num_units > np.iinfo(np.int16).max:
        raise DataError(
            f"codec: {encoder.codebooks} codebooks of {encoder.codebook_size} are {num_units} units, "
            f"{np.iinfo(np.int16).max} fit; use fewer codebooks"
        )
    return SpeechTokenizer(
        encoder_name="codec",
        encoder_config=encoder.config(),
        num_units=num_units,
        frame_rate_hz=encoder.frame_rate_hz,
        sample_rate_hz=encoder.sample_rate_hz,
        runtime=runtime_of(encoder),
    )
