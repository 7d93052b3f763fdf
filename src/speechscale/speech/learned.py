"""Encoders that learn from the audio they are fitted on.

Enters: the name of an encoder, the stream of waveforms that k-means will be fitted on. Leaves: the encoder, what to
record of its learning, and the whole stream again. The one decision worth knowing: learning takes the first half hour
and holds it in memory; the rest of the stream is never held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch

from speechscale.errors import DataError
from speechscale.speech.encoders.adapted import Adapted, mel_front
from speechscale.speech.encoders.base import Encoder
from speechscale.speech.encoders.learning import learn_adapted
from speechscale.speech.encoders.phonetic import PhoneticSupervised, learn_phonetic
from speechscale.speech.frames import Event

LEARN_S = 1800.0
"""Seconds of audio to learn from, at most."""

PIECE_S = 30.0
"""Longer recordings are learned from in pieces, each with a warp of its own."""

LabeledSpeech = Callable[[], Iterable[tuple[np.ndarray, Sequence[Event]]]]
"""Makes waveforms at 16 kHz with their phones (label, start sample, end sample)."""

LEARNED: dict[str, type[Adapted]] = {"adapted": Adapted, "phonetic-supervised": PhoneticSupervised}
"""Encoders that must be learned before they can be built."""


def learn_encoder(
    name: str,
    config: dict[str, Any],
    waveforms: Iterable[np.ndarray],
    *,
    seed: int,
    labeled: LabeledSpeech | None = None,
) -> tuple[Encoder, dict[str, Any], Iterator[np.ndarray]]:
    """Learn the encoder of that name from the head of `waveforms` (or from labeled speech, if it is supervised).

    Raises:
        DataError: too little audio, NaN, settings the encoder does not have, or no labeled speech for a supervised one.
    """
    factory = LEARNED[name]
    stream = iter(waveforms)
    front, context = mel_front(factory, config)
    if name == "phonetic-supervised":
        if labeled is None:
            raise DataError(
                "encoder 'phonetic-supervised' is trained on speech with phone labels, none was given; "
                "pass labeled=speechscale.voices.labeled_speech, or use 'adapted'"
            )
        with _one_thread():
            tensors, info = learn_phonetic(labeled(), front, context, seed=seed)
        return factory(**config, tensors=tensors), info, stream
    head = _head(stream, front.sample_rate_hz)
    with _one_thread():
        tensors, info = learn_adapted(_pieces(head, front.sample_rate_hz), front, context, seed=seed)
    return factory(**config, tensors=tensors), info, chain(head, stream)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The matrices are small: on two busy cores two threads took 70 s of processor time where one takes 5 s."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _head(stream: Iterator[np.ndarray], sample_rate_hz: int) -> list[np.ndarray]:
    """The first waveforms, up to LEARN_S; the last one may go over."""
    head: list[np.ndarray] = []
    samples = 0
    for waveform in stream:
        if not np.isfinite(waveform).all():
            raise DataError(f"waveform {len(head)}: holds NaN or infinite samples; export the audio again or drop it")
        head.append(waveform)
        samples += len(waveform)
        if samples >= LEARN_S * sample_rate_hz:
            break
    return head


def _pieces(waveforms: Sequence[np.ndarray], sample_rate_hz: int) -> list[np.ndarray]:
    """Cut long waveforms, and stop after LEARN_S."""
    size, left = round(PIECE_S * sample_rate_hz), round(LEARN_S * sample_rate_hz)
    pieces: list[np.ndarray] = []
    for waveform in waveforms:
        pieces += [waveform[start : min(start + size, left)] for start in range(0, min(len(waveform), left), size)]
        left -= len(waveform)
    return pieces
