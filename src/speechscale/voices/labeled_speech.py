"""Speech with phone labels, for encoders that are supervised.

Enters: nothing. Leaves: waveforms at 16 kHz with their phones. The one decision worth knowing: it is spoken on the spot
by the training voices only, so that the held-out voices stay unheard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from speechscale.records import Utterance
from speechscale.voices.espeak import INVENTORY_TEXT, VOICES, Span, speak_shard


def labeled_speech(voices: Sequence[str] | None = None) -> Iterator[tuple[Float[np.ndarray, " samples"], list[Span]]]:
    """Speak all of `INVENTORY_TEXT` in each voice (by default every training voice): about 25 minutes.

    Raises:
        MissingExtra: espeakng-loader is not installed.
        DataError: unknown voice.
    """
    names = [name for name, voice in VOICES.items() if not voice.held_out] if voices is None else voices
    shard = [
        Utterance(id=f"{name}-{number}", text=text, speaker=name, split="train", segments=(text,))
        for name in names
        for number, text in enumerate(INVENTORY_TEXT)
    ]
    for spoken in speak_shard(shard):
        yield spoken.audio, spoken.phones
