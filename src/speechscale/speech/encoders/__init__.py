"""Waveforms to continuous features: one row per frame.

Enters: mono waveforms at the encoder's rate. Leaves: [frames, dim] float32 per waveform. The one decision worth
knowing: every waveform is computed by itself, never padded to a neighbor, so that a file has the same features alone
and in any batch, bit for bit (same machine, same torch).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from speechscale.errors import DataError
from speechscale.speech.encoders.adapted import Adapted
from speechscale.speech.encoders.base import Encoder, Runtime, StreamingEncoder, UnitEncoder, runtime_of
from speechscale.speech.encoders.codecs import Codec
from speechscale.speech.encoders.logmel import LogMel
from speechscale.speech.encoders.mel import mel_filterbank
from speechscale.speech.encoders.mfcc import Mfcc, deltas
from speechscale.speech.encoders.phonetic import PhoneticSupervised
from speechscale.speech.encoders.transformer_layers import TransformerLayer

__all__ = [
    "ENCODERS",
    "UNIT_ENCODERS",
    "Adapted",
    "Codec",
    "Encoder",
    "LogMel",
    "Mfcc",
    "PhoneticSupervised",
    "Runtime",
    "StreamingEncoder",
    "TransformerLayer",
    "UnitEncoder",
    "build_encoder",
    "build_unit_encoder",
    "deltas",
    "mel_filterbank",
    "runtime_of",
]

ENCODERS: dict[str, Callable[..., Encoder]] = {
    "adapted": Adapted,
    "log-mel": LogMel,
    "mfcc": Mfcc,
    "phonetic-supervised": PhoneticSupervised,
    "transformer-layer": TransformerLayer,
}
"""Every encoder by name. Learned arrays are given as the keyword `tensors`, runtime options as `runtime`."""


UNIT_ENCODERS: dict[str, Callable[..., UnitEncoder]] = {"codec": Codec}
"""Encoders whose output is discrete already."""


def build_encoder(
    name: str,
    config: dict[str, Any],
    tensors: Mapping[str, np.ndarray] | None = None,
    *,
    runtime: Runtime | None = None,
) -> Encoder:
    """Build the encoder of that name, with its learned arrays if it has any.

    `runtime` says how it runs; an encoder that has no such choices ignores it.

    Raises:
        DataError: unknown name, or settings or arrays the encoder does not have.
    """
    if name in UNIT_ENCODERS:
        raise DataError(f"encoder '{name}' is discrete already, it has no features to cluster; use codec_tokenizer")
    if name not in ENCODERS:
        raise DataError(f"encoder '{name}' is unknown; known are: {', '.join(sorted(ENCODERS))}")
    arrays = {"tensors": dict(tensors)} if tensors else {}
    factory = ENCODERS[name]
    options = {"runtime": runtime} if runtime and "runtime" in inspect.signature(factory).parameters else {}
    try:
        return factory(**config, **arrays, **options)
    except TypeError as error:
        raise DataError(f"encoder '{name}': settings {sorted([*config, *arrays])} do not fit ({error})") from error


def build_unit_encoder(name: str, config: dict[str, Any], *, runtime: Runtime | None = None) -> UnitEncoder:
    """Build the discrete encoder of that name.

    Raises:
        DataError: unknown name, or settings it does not have.
    """
    if name not in UNIT_ENCODERS:
        raise DataError(f"discrete encoder '{name}' is unknown; known are: {', '.join(sorted(UNIT_ENCODERS))}")
    try:
        return UNIT_ENCODERS[name](**config, runtime=runtime or Runtime())
    except TypeError as error:
        raise DataError(f"encoder '{name}': settings {sorted(config)} do not fit ({error})") from error
