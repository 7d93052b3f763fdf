"""Hidden states of a pretrained speech transformer: HuBERT, wav2vec 2.0, WavLM, w2v-BERT.

Enters: waveforms at 16 kHz. Leaves: [frames, dim] float32 of one layer. The one decision worth knowing: each file runs
alone unless asked otherwise. A product of matrices of another shape rounds differently, so units that must not depend
on the batch cannot share one; on a CPU this costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from math import prod
from typing import Any

import numpy as np
import torch

from speechscale.errors import DataError
from speechscale.speech.encoders.base import Runtime
from speechscale.speech.encoders.batching import length_batches
from speechscale.speech.encoders.chunks import Blocks, changed, kept, plan_windows, read_spans, sample_spans
from speechscale.speech.encoders.fronts import frame_count, whole_file_scale
from speechscale.speech.encoders.layer_net import PRECISIONS, LayerNet, load_layer, model_kind
from speechscale.speech.encoders.loading import choose_device
from speechscale.speech.encoders.model_files import ModelFiles, find_verified


@dataclass(frozen=True, kw_only=True)
class TransformerLayer:
    """One layer of a pretrained model.

    Args:
        model: hub id OWNER/NAME, or a folder (known by its last name then).
        layer: 0 is what enters the first transformer layer, i what leaves the i-th.
        revision: of the hub's repository.
        weights_sha256, settings_sha256: what the files must be; empty takes those that are found and records them.
        normalize: scale each file to zero mean and unit variance; None does what the model's preprocessor says.
        pad_samples: zeros put before and after each file. 40 at 25 or 50 Hz make the frames whole hops.
        chunk_s: longer files run in windows of at most this length. context_s: audio at both sides of an inner border
            that a window hears but leaves to its neighbor.
        precision: "fp32", "bf16" (weights and sums of layers too) or "bf16-autocast" (products only).
        runtime: device, batching and so on; not part of the identity.
    """

    model: str
    layer: int
    revision: str = "main"
    weights_sha256: str = ""
    settings_sha256: str = ""
    normalize: bool | None = None
    pad_samples: int = 0
    chunk_s: float = 30.0
    context_s: float = 3.0
    precision: str = "fp32"
    version: int = 1
    runtime: Runtime = field(default_factory=Runtime, compare=False)

    sample_rate_hz = 16_000
    name = "transformer-layer"

    def __post_init__(self) -> None:
        if self.version != 1:
            raise DataError(
                f"encoder {self.name}: version {self.version} is unknown, this package has 1; update speechscale"
            )
        if self.precision not in PRECISIONS:
            raise DataError(
                f"encoder {self.name}: precision '{self.precision}' is unknown; use {', '.join(PRECISIONS)}"
            )
        if self.pad_samples < 0 or self.layer < 0 or not 0 <= 2 * self.context_s < self.chunk_s:
            raise DataError(
                f"encoder {self.name}: needs pad_samples >= 0, layer >= 0 and 0 <= 2 * context_s < chunk_s, got "
                f"{self.pad_samples}, {self.layer}, {self.context_s:g}, {self.chunk_s:g}; correct the settings"
            )

    @cached_property
    def files(self) -> ModelFiles:
        """The model's files, checked against the checksums that are asked for."""
        return find_verified(
            self.model, self.revision, self.runtime.model_folders, self.weights_sha256, self.settings_sha256
        )

    @cached_property
    def net(self) -> LayerNet:
        device = choose_device(self.runtime.device)
        return load_layer(self.files, self.layer, precision=self.precision, device=device, compile=self.runtime.compile)

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        return {}

    @cached_property
    def hop_samples(self) -> int:
        if model_kind(self.files) == "wav2vec2-bert":
            return 320
        return prod(self.files.settings.get("conv_stride", (5, 2, 2, 2, 2, 2, 2)))

    @property
    def frame_rate_hz(self) -> float:
        return self.sample_rate_hz / self.hop_samples

    @property
    def dim(self) -> int:
        return int(self.files.settings.get("hidden_size", 1024 if model_kind(self.files) == "wav2vec2-bert" else 768))

    @cached_property
    def normalizes(self) -> bool:
        """Whether each file is scaled, resolved from the model's preprocessor if it was not said."""
        if self.normalize is not None:
            return self.normalize
        if model_kind(self.files) == "wav2vec2-bert":
            return False
        if self.files.preprocessing is None:
            raise DataError(
                f"model '{self.files.name}': has no preprocessor_config.json that says whether files are normalized; "
                "set normalize to true or false as the model was trained"
            )
        return bool(self.files.preprocessing.get("do_normalize", True))

    def config(self) -> dict[str, Any]:
        """Return what defines the features; the model's folder is not among it, the checksums of its files are."""
        settings = asdict(replace(self, runtime=Runtime()))
        del settings["runtime"]
        return settings | {
            "model": self.files.name,
            "weights_sha256": self.files.weights_sha256,
            "settings_sha256": self.files.settings_sha256,
            "normalize": self.normalizes,
        }

    def frame_count(self, samples: int) -> int:
        """Frames of a file of so many samples."""
        return frame_count(self.net.front, samples + 2 * self.pad_samples)

    def encode(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """Encode each waveform to [frames, dim] float32; audio shorter than one frame gives none."""
        if self.runtime.batching == "exact":
            return [self._encode_alone(waveform) for waveform in waveforms]
        return self._encode_batches(waveforms)

    def encode_stream(self, blocks: Blocks) -> Iterator[np.ndarray]:
        """Yield the features of one file window by window; two to four passes over its audio.

        Memory: one window. The same bits as `encode` of the whole waveform, however the blocks are cut.
        """
        front = self.net.front
        samples, shift, scale = whole_file_scale(blocks, self.normalizes)
        heard = changed(blocks, shift=shift, scale=scale, pad_samples=self.pad_samples)
        total = samples + 2 * self.pad_samples
        windows = plan_windows(
            frame_count(front, total) if samples else 0,
            window_frames=int(self.chunk_s * self.frame_rate_hz),
            context_frames=round(self.context_s * self.frame_rate_hz),
        )
        if not windows:
            return
        statistics = front.statistics(heard, total)
        spans = sample_spans(windows, hop_samples=front.hop_samples, field_samples=front.field_samples)
        for window, audio in zip(windows, read_spans(heard(), spans), strict=True):
            yield kept(window, self.net.hidden([self.net.vectors(audio, statistics)])[0])

    def _encode_alone(self, waveform: np.ndarray) -> np.ndarray:
        assert waveform.ndim == 1, f"a waveform has one axis, got {waveform.shape}"
        parts = list(self.encode_stream(lambda: [waveform]))
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    def _encode_batches(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """Several files per pass; files longer than a window still run alone."""
        counts = [self.frame_count(len(waveform)) if len(waveform) else 0 for waveform in waveforms]
        results: list[np.ndarray] = [np.zeros((0, self.dim), np.float32)] * len(waveforms)
        for batch in length_batches(counts, max_padded=round(self.runtime.batch_s * self.frame_rate_hz)):
            if counts[batch[0]] > int(self.chunk_s * self.frame_rate_hz):
                features = [self._encode_alone(waveforms[index]) for index in batch]
            elif self.runtime.batching == "masked":
                features = self.net.hidden([self._vectors(waveforms[index]) for index in batch])
            else:
                features = self.net.hidden(self._padded([waveforms[index] for index in batch]))
            for index, one in zip(batch, features, strict=True):
                results[index] = one[: counts[index]]
        return results

    def _vectors(self, waveform: np.ndarray) -> torch.Tensor:
        """The front's output for one file."""
        samples, shift, scale = whole_file_scale(partial(list, [waveform]), self.normalizes)
        heard = changed(partial(list, [waveform]), shift=shift, scale=scale, pad_samples=self.pad_samples)
        audio = np.concatenate(list(heard()))
        return self.net.vectors(audio, self.net.front.statistics(heard, samples + 2 * self.pad_samples))

    def _padded(self, waveforms: list[np.ndarray]) -> list[torch.Tensor]:
        """The fronts' outputs the ordinary way: silence is appended to the audio, and models whose feature extractor
        gives no mask take it for speech: in the loudness, in the group norm and in the attention."""
        if self.net.masks_padding:
            return [self._vectors(waveform) for waveform in waveforms]
        longest = max(len(waveform) for waveform in waveforms)
        return [self._vectors(np.pad(waveform, (0, longest - len(waveform)))) for waveform in waveforms]
