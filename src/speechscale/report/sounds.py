"""Sound inside a page: as a data URI, and as the outline of its waveform.

Enters: waveforms. Leaves: text for an audio element, and peaks to draw. The one decision worth knowing: sound is packed
as FLAC, which loses nothing, takes half of a wav and plays in every browser.
"""

from __future__ import annotations

import base64
import io

import numpy as np
import soundfile
from jaxtyping import Float, Int8

PEAKS_PER_S = 200


def flac_uri(audio: Float[np.ndarray, " samples"], sample_rate_hz: int) -> str:
    """A waveform in [-1, 1] as a data URI of 16-bit FLAC."""
    steps = np.clip(np.rint(audio * 32_768), -32_768, 32_767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, steps, sample_rate_hz, format="FLAC", subtype="PCM_16")
    return "data:audio/flac;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def peaks(
    audio: Float[np.ndarray, " samples"], sample_rate_hz: int, *, per_s: float = PEAKS_PER_S
) -> Int8[np.ndarray, "bins 2"]:
    """Lowest and highest sample of each bin (5 ms by default), -127..127."""
    bins = max(1, -int(-len(audio) * per_s // sample_rate_hz))
    edges = np.minimum(np.arange(bins) * sample_rate_hz // per_s, max(len(audio) - 1, 0)).astype(np.int64)
    steps = np.clip(np.append(audio, np.zeros(1, np.float32))[: max(len(audio), 1)], -1, 1) * 127
    both = np.stack([np.minimum.reduceat(steps, edges), np.maximum.reduceat(steps, edges)], axis=1)
    return np.rint(both).astype(np.int8)
