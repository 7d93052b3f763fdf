"""Speech tokenizers: waveforms to units per frame.

Enters: waveforms, or the phone events of a speech engine. Leaves: units, and the tokenizer's folder. The one decision
worth knowing: a tokenizer is known by the hash of all that defines its units, which every file of units carries, so
that units of two quantizers are never mixed. Word borders (`word_frames`) and files (`write_units`) are offered too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from safetensors.numpy import save_file

from speechscale.errors import DataError
from speechscale.files import canonical_sha256, complete_file, read_versioned, write_json
from speechscale.speech.encoders import (
    UNIT_ENCODERS,
    Encoder,
    Runtime,
    StreamingEncoder,
    UnitEncoder,
    build_encoder,
    build_unit_encoder,
    runtime_of,
)
from speechscale.speech.encoders.adapted import mel_front
from speechscale.speech.encoders.chunks import Blocks
from speechscale.speech.encoders.codecs import flatten_codes
from speechscale.speech.frames import Event, event_frames, whole_frames, word_frames
from speechscale.speech.kmeans import assign, fit_kmeans, sample_frames
from speechscale.speech.learned import LEARNED, LabeledSpeech, learn_encoder
from speechscale.speech.tokenizer_files import (
    REFIT,
    centroids_sha256,
    read_centroids,
    read_encoder_tensors,
    tensors_sha256,
)
from speechscale.speech.unit_files import read_units, write_units

__all__ = [
    "OTHER",
    "SpeechTokenizer",
    "encoder_rate_hz",
    "fit_tokenizer",
    "phone_frames",
    "phone_losses",
    "phone_tokenizer",
    "read_units",
    "word_frames",
    "write_units",
]

FORMAT = "speechscale speech tokenizer"
FORMAT_VERSION = 1
OTHER = "<other>"
"""Label of phone unit 0: gaps between events, and phones the label list does not have."""
ENCODER_FILE = "encoder.safetensors"
ORACLE = "phones"
ORACLE_FRAME_RATE_HZ = 100.0
ORACLE_SAMPLE_RATE_HZ = 16_000
LONG_S = 600.0
"""Longer audio goes through `units_stream`, which never holds all its features."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SpeechTokenizer:
    """What defines the units: an encoder and its centroids, or (oracle) a list of phone labels.

    Two tokenizers make the same units if their `fingerprint` is the same.

    Args:
        encoder_name: key of `ENCODERS`, or "phones" for the oracle. encoder_config: the encoder's own settings.
        oracle: the units come from a speech engine's events, not from the waveform.
        labels: name of each unit of the oracle; empty otherwise.
        centroids: [num_units, dim]; no rows for the oracle.
        encoder_tensors: the encoder's learned arrays by name; empty for most encoders.
        fit: how the centroids came about; not part of the fingerprint.
        runtime: device and batching; not part of the fingerprint and not saved.
    """

    encoder_name: str
    num_units: int
    frame_rate_hz: float
    sample_rate_hz: int
    oracle: bool = False
    encoder_config: dict[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    centroids: Float[np.ndarray, "num_units dim"] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    encoder_tensors: dict[str, np.ndarray] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)
    runtime: Runtime = field(default_factory=Runtime)

    @cached_property
    def encoder(self) -> Encoder:
        return build_encoder(self.encoder_name, self.encoder_config, self.encoder_tensors, runtime=self.runtime)

    @cached_property
    def unit_encoder(self) -> UnitEncoder:
        return build_unit_encoder(self.encoder_name, self.encoder_config, runtime=self.runtime)

    @property
    def discrete(self) -> bool:
        """Whether the encoder's own output is the units (a codec), without centroids."""
        return self.encoder_name in UNIT_ENCODERS

    @cached_property
    def label_index(self) -> dict[str, int]:
        return {label: index for index, label in enumerate(self.labels)}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that defines the units."""
        return canonical_sha256(self._definition())

    def units(self, waveforms: list[np.ndarray]) -> list[Int[np.ndarray, " frames"]]:
        """Units of each waveform, one per frame, not deduplicated; the same alone and in any batch.

        Audio shorter than one frame gives no units.

        Raises:
            DataError: the tokenizer is the oracle, or a waveform holds NaN or infinite samples.
        """
        self._needs_waveforms()
        for index, waveform in enumerate(waveforms):
            if not np.isfinite(waveform).all():
                raise DataError(f"waveform {index}: holds NaN or infinite samples; export the audio again or drop it")
        if self.discrete:
            return [self._flat(codes) for codes in self.unit_encoder.encode_units(waveforms)]
        results: list[np.ndarray] = [np.zeros(0, np.int16)] * len(waveforms)
        limit = LONG_S * self.sample_rate_hz if isinstance(self.encoder, StreamingEncoder) else np.inf
        short = [index for index, waveform in enumerate(waveforms) if len(waveform) <= limit]
        for index, features in zip(short, self.encoder.encode([waveforms[i] for i in short]), strict=True):
            results[index] = self._assign(features)
        for index in sorted(set(range(len(waveforms))) - set(short)):
            results[index] = np.concatenate(list(self.units_stream(partial(list, [waveforms[index]]))))
        return results

    def units_stream(self, blocks: Blocks) -> Iterator[Int[np.ndarray, " frames"]]:
        """Yield the units of one file of any length in parts, in bounded memory; together the same as `units` gives.

        `blocks` gives the file's samples in order each time it is called, as `stream_audio` does.

        Raises:
            DataError: as `units`, or the encoder cannot stream.
        """
        self._needs_waveforms()
        if self.discrete:
            yield from map(self._flat, self.unit_encoder.encode_units_stream(blocks))
            return
        if not isinstance(self.encoder, StreamingEncoder):
            raise DataError(f"units '{self.encoder_name}': this encoder needs the whole file; cut it into parts first")
        yield from map(self._assign, self.encoder.encode_stream(blocks))

    def _needs_waveforms(self) -> None:
        if self.oracle:
            raise DataError(
                f"units '{self.encoder_name}' come from a speech engine's phone events, not from waveforms; "
                "use phone_frames, or an encoder such as 'adapted' for recordings"
            )

    def _assign(self, features: np.ndarray) -> Int[np.ndarray, " frames"]:
        return assign(features, self.centroids).astype(np.int16)

    def _flat(self, codes: np.ndarray) -> Int[np.ndarray, " frames"]:
        return flatten_codes(codes, self.unit_encoder.codebook_size).astype(np.int16)

    def save(self, folder: str | Path) -> None:
        """Write encoder.safetensors and kmeans.safetensors, if there are such arrays, then speech_tokenizer.json."""
        folder = Path(folder)
        if self.encoder_tensors:
            with complete_file(folder / ENCODER_FILE) as draft:
                save_file({name: np.ascontiguousarray(array) for name, array in self.encoder_tensors.items()}, draft)
        if len(self.centroids):
            with complete_file(folder / "kmeans.safetensors") as draft:
                save_file({"centroids": self.centroids}, draft)
        write_json(
            folder / "speech_tokenizer.json",
            {"format": FORMAT, **self._definition(), "fingerprint": self.fingerprint, "fit": self.fit},
        )

    @classmethod
    def load(cls, folder: str | Path, *, runtime: Runtime | None = None) -> SpeechTokenizer:
        """Read a folder written by `save` and verify every checksum. A pretrained model is sought at its first use.

        Raises:
            DataError: a file is missing, altered or of another format; the message names it.
        """
        path = Path(folder) / "speech_tokenizer.json"
        saved = read_versioned(path, "speech tokenizer", REFIT, format=FORMAT, version=FORMAT_VERSION)
        try:
            tokenizer = cls(
                encoder_name=saved["encoder"],
                encoder_config=saved["encoder_config"],
                num_units=saved["num_units"],
                frame_rate_hz=saved["frame_rate_hz"],
                sample_rate_hz=saved["sample_rate_hz"],
                oracle=saved["oracle"],
                labels=tuple(saved["labels"]),
                centroids=read_centroids(path.with_name("kmeans.safetensors"), saved["centroids_sha256"])
                if saved["centroids_sha256"]
                else np.zeros((0, 0), np.float32),
                encoder_tensors=read_encoder_tensors(path.with_name(ENCODER_FILE), saved["encoder_tensors_sha256"])
                if saved.get("encoder_tensors_sha256")
                else {},
                fit=saved["fit"],
                runtime=runtime or Runtime(),
            )
            fingerprint = saved["fingerprint"]
        except KeyError as error:
            raise DataError(f"speech tokenizer {path}: field {error} is missing; {REFIT}") from error
        if tokenizer.fingerprint != fingerprint:
            raise DataError(
                f"speech tokenizer {path}: its content does not match its fingerprint, it was altered; {REFIT}"
            )
        return tokenizer

    def _definition(self) -> dict[str, Any]:
        # Absent without learned arrays: tokenizers from before they existed keep their fingerprint.
        arrays = {"encoder_tensors_sha256": tensors_sha256(self.encoder_tensors)} if self.encoder_tensors else {}
        return {
            "format_version": FORMAT_VERSION,
            "encoder": self.encoder_name,
            "encoder_config": self.encoder_config,
            "num_units": self.num_units,
            "frame_rate_hz": self.frame_rate_hz,
            "sample_rate_hz": self.sample_rate_hz,
            "oracle": self.oracle,
            "labels": list(self.labels),
            "centroids_sha256": centroids_sha256(self.centroids) if len(self.centroids) else "",
            **arrays,
        }


def fit_tokenizer(
    waveforms: Iterable[np.ndarray],
    *,
    encoder: str,
    clusters: int,
    seed: int,
    encoder_config: dict[str, Any] | None = None,
    encoder_tensors: dict[str, np.ndarray] | None = None,
    max_frames: int = 200_000,
    runtime: Runtime | None = None,
    labeled: LabeledSpeech | None = None,
) -> SpeechTokenizer:
    """Fit k-means units on a stream of waveforms at the encoder's rate; at most `max_frames` frames are used.

    Args:
        encoder: one of `LEARNED` learns its arrays first, from the head of the same stream, unless `encoder_tensors`
            has them. labeled: speech with phones, from which a supervised encoder learns instead.

    Raises:
        DataError: unknown encoder, no audio, NaN, or fewer frames than clusters.
    """
    if not 2 <= clusters <= np.iinfo(np.int16).max:
        raise DataError(f"units: clusters must be 2..{np.iinfo(np.int16).max}, got {clusters}; correct the setting")
    learned: dict[str, Any] = {}
    if encoder in LEARNED and encoder_tensors is None:
        model, learned, waveforms = learn_encoder(encoder, encoder_config or {}, waveforms, seed=seed, labeled=labeled)
    else:
        model = build_encoder(encoder, encoder_config or {}, encoder_tensors, runtime=runtime)
    seen_frames = 0

    def features() -> Iterator[np.ndarray]:
        nonlocal seen_frames
        for waveform in waveforms:
            part = model.encode([waveform])[0]
            seen_frames += len(part)
            yield part

    sample = sample_frames(features(), max_frames, seed=seed)
    result = fit_kmeans(sample, clusters, seed=seed)
    return SpeechTokenizer(
        encoder_name=encoder,
        encoder_config=model.config(),
        num_units=clusters,
        frame_rate_hz=model.frame_rate_hz,
        sample_rate_hz=model.sample_rate_hz,
        encoder_tensors=dict(model.tensors),
        centroids=result.centroids,
        fit={
            "seed": seed,
            "frames_seen": seen_frames,
            "frames_used": len(sample),
            "iterations": result.iterations,
            "engine": result.engine,
            "mean_squared_distance": result.mean_squared_distance,
            **learned,
        },
        runtime=runtime_of(model),
    )


def encoder_rate_hz(name: str, config: dict[str, Any], *, runtime: Runtime | None = None) -> int:
    """The rate of the waveforms that `fit_tokenizer` wants for this encoder. Raises DataError as `build_encoder`."""
    if name in LEARNED:
        return mel_front(LEARNED[name], config)[0].sample_rate_hz
    return build_encoder(name, config, runtime=runtime).sample_rate_hz


def phone_tokenizer(labels: Sequence[str]) -> SpeechTokenizer:
    """Make the oracle tokenizer of these phone labels (sorted, duplicates dropped); unit 0 is `OTHER`."""
    names = (OTHER, *sorted(set(labels) - {OTHER}))
    if len(names) < 2:
        raise DataError("units 'phones': no phone labels given; list the labels of the voices")
    return SpeechTokenizer(
        encoder_name=ORACLE,
        num_units=len(names),
        frame_rate_hz=ORACLE_FRAME_RATE_HZ,
        sample_rate_hz=ORACLE_SAMPLE_RATE_HZ,
        oracle=True,
        labels=names,
    )


def phone_frames(tokenizer: SpeechTokenizer, phones: Sequence[Event], samples: int) -> Int[np.ndarray, " frames"]:
    """Unit of each of the samples // 160 frames of 10 ms.

    Every phone gets at least one frame where possible (`speechscale.speech.frames`); `phone_losses` counts the rest.

    Raises:
        DataError: not the oracle tokenizer, or phones outside the audio or out of order.
    """
    if not tokenizer.oracle:
        raise DataError(f"units '{tokenizer.encoder_name}' are made from waveforms, not from phone events; use .units")
    frames = whole_frames(samples, tokenizer.frame_rate_hz, tokenizer.sample_rate_hz)
    spans = event_frames(phones, phones, tokenizer.frame_rate_hz, tokenizer.sample_rate_hz, frames, "phone")
    ids = np.zeros(2 * len(phones) + 1, np.int16)
    ids[1::2] = [tokenizer.label_index.get(label, 0) for label, _, _ in phones]
    borders = np.concatenate(([0], spans.ravel(), [frames]))
    return np.repeat(ids, np.diff(borders))


def phone_losses(tokenizer: SpeechTokenizer, phones: Sequence[Event], samples: int) -> dict[str, int]:
    """Count the phones that got no frame ("squeezed") and those without a label of their own ("unknown")."""
    frames = whole_frames(samples, tokenizer.frame_rate_hz, tokenizer.sample_rate_hz)
    spans = event_frames(phones, phones, tokenizer.frame_rate_hz, tokenizer.sample_rate_hz, frames, "phone")
    return {
        "squeezed": int((spans[:, 0] == spans[:, 1]).sum()),
        "unknown": sum(label not in tokenizer.label_index for label, _, _ in phones),
    }
