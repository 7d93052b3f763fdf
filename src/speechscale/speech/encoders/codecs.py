"""Neural codecs as encoders whose output is discrete already: Mimi, EnCodec, X-codec.

Enters: waveforms at the codec's rate. Leaves: [frames, codebooks] codes per waveform. The one decision worth knowing:
several codebooks become one stream by writing a frame's codes one after the other, codebook q's codes moved up by
q * codebook_size, so that a unit says which codebook it came from and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import floor, log2
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from speechscale.errors import DataError
from speechscale.speech.encoders.base import Runtime
from speechscale.speech.encoders.chunks import Blocks, measure, plan_windows, read_spans
from speechscale.speech.encoders.loading import choose_device, load_model
from speechscale.speech.encoders.model_files import ModelFiles, find_verified

CLASSES = {"mimi": "MimiModel", "encodec": "EncodecModel", "xcodec": "XcodecModel"}


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A codec of transformers. Each file runs alone; no mask is needed and none is used.

    | codec | a frame depends on | a part frame at the end |
    |---|---|---|
    | Mimi | the past: 250 steps per transformer layer | is filled up and counts |
    | EnCodec | the past (LSTM) | is filled up and counts |
    | X-codec | the whole file (its HuBERT's attention and group norm) | counts from a quarter frame on |

    Files longer than `chunk_s` run in windows, whose codes are those of a shorter history.

    Args:
        codebooks: how many to keep, the first ones; Mimi's first is its semantic one.
        chunk_s, context_s: as in `TransformerLayer`. The rest too.
    """

    model: str
    codebooks: int = 1
    revision: str = "main"
    weights_sha256: str = ""
    settings_sha256: str = ""
    chunk_s: float = 60.0
    context_s: float = 10.0
    version: int = 1
    runtime: Runtime = field(default_factory=Runtime, compare=False)

    name = "codec"

    def __post_init__(self) -> None:
        if self.version != 1:
            raise DataError(f"encoder codec: version {self.version} is unknown, this package has 1; update speechscale")
        if self.codebooks < 1 or not 0 <= 2 * self.context_s < self.chunk_s:
            raise DataError(
                "encoder codec: needs codebooks >= 1 and 0 <= 2 * context_s < chunk_s, got "
                f"{self.codebooks}, {self.context_s:g}, {self.chunk_s:g}; correct the settings"
            )

    @cached_property
    def files(self) -> ModelFiles:
        files = find_verified(
            self.model, self.revision, self.runtime.model_folders, self.weights_sha256, self.settings_sha256
        )
        if files.settings.get("model_type") not in CLASSES:
            raise DataError(
                f"model '{files.name}': is a '{files.settings.get('model_type')}', no known codec; "
                f"use a {', '.join(CLASSES)} model"
            )
        return files

    @cached_property
    def net(self) -> Any:
        net = load_model(self.files, CLASSES[self.files.settings["model_type"]])
        available = int(getattr(net.config, "num_quantizers", 1))
        if self.codebooks > available:
            raise DataError(
                f"model '{self.files.name}': has {available} codebooks, {self.codebooks} were asked for; ask for fewer"
            )
        if getattr(net.config, "chunk_length", None) is not None or getattr(net.config, "audio_channels", 1) != 1:
            raise DataError(f"model '{self.files.name}': is for stereo or cuts audio itself; use a mono model")
        return net.to(choose_device(self.runtime.device))

    @property
    def sample_rate_hz(self) -> int:
        config = self.net.config
        return int(getattr(config, "sampling_rate", None) or config.sample_rate)

    @property
    def hop_samples(self) -> int:
        """Samples per frame."""
        return round(self.sample_rate_hz / float(self.net.config.frame_rate))

    @property
    def codebook_size(self) -> int:
        return int(self.net.config.codebook_size)

    @property
    def num_units(self) -> int:
        return self.codebooks * self.codebook_size

    @property
    def frame_rate_hz(self) -> float:
        """Units per second: frames per second times codebooks."""
        return self.sample_rate_hz / self.hop_samples * self.codebooks

    def config(self) -> dict[str, Any]:
        """Return what defines the codes; the model's folder is not among it, the checksums of its files are."""
        settings = asdict(replace(self, runtime=Runtime()))
        del settings["runtime"]
        return settings | {
            "model": self.files.name,
            "weights_sha256": self.files.weights_sha256,
            "settings_sha256": self.files.settings_sha256,
        }

    def encode_units(self, waveforms: list[np.ndarray]) -> list[Int[np.ndarray, "frames codebooks"]]:
        """Encode each waveform to [frames, codebooks] int64 in [0, codebook_size); each by itself."""
        results = []
        for waveform in waveforms:
            assert waveform.ndim == 1, f"a waveform has one axis, got {waveform.shape}"
            parts = list(self.encode_units_stream(lambda audio=waveform: [audio]))  # type: ignore[misc]
            results.append(np.concatenate(parts) if parts else np.zeros((0, self.codebooks), np.int64))
        return results

    def encode_units_stream(self, blocks: Blocks) -> Iterator[Int[np.ndarray, "frames codebooks"]]:
        """Yield the codes of one file window by window; two passes over its audio, one window in memory."""
        samples, hop = measure(blocks).samples, self.hop_samples
        per_s = self.sample_rate_hz / hop
        windows = plan_windows(
            self._frames(samples),
            window_frames=int(self.chunk_s * per_s),
            context_frames=round(self.context_s * per_s),
        )
        spans = [(w.start * hop, samples if w is windows[-1] else w.end * hop) for w in windows]
        for window, audio in zip(windows, read_spans(blocks(), spans), strict=True):
            codes = self._codes(np.asarray(audio, np.float32))
            assert len(codes) == window.end - window.start, f"{len(codes)} frames for {window}"
            yield codes[window.keep_start - window.start : window.keep_end - window.start]

    def _frames(self, samples: int) -> int:
        if self.net.config.model_type == "xcodec":
            return max(0, (samples - self.hop_samples // 4) // self.hop_samples + 1) if samples >= 400 else 0
        return -(-samples // self.hop_samples)

    def _codes(self, audio: np.ndarray) -> np.ndarray:
        values = torch.from_numpy(audio).to(self.net.device)[None, None]
        with torch.inference_mode():
            if self.net.config.model_type == "mimi":
                codes = self.net.encode(values, num_quantizers=self.codebooks).audio_codes  # (1, codebooks, frames)
            else:
                codes = self.net.encode(values, bandwidth=self._bandwidth).audio_codes
                codes = codes[0] if codes.ndim == 4 else codes
            return codes[0, : self.codebooks].T.cpu().numpy().astype(np.int64)

    @property
    def _bandwidth(self) -> float:
        """The smallest bandwidth in kbit/s that has enough codebooks."""
        config = self.net.config
        each = log2(config.codebook_size) * float(config.frame_rate) / 1000
        enough = [width for width in config.target_bandwidths if max(1, floor(width / each)) >= self.codebooks]
        if not enough:
            raise DataError(
                f"model '{self.files.name}': no bandwidth of {list(config.target_bandwidths)} has {self.codebooks} "
                "codebooks; ask for fewer"
            )
        return float(min(enough))


def flatten_codes(codes: Int[np.ndarray, "frames codebooks"], codebook_size: int) -> Int[np.ndarray, " units"]:
    """One unit per code, frame by frame; codebook q's codes are moved up by q * codebook_size.

    >>> flatten_codes(np.array([[3, 1], [0, 2]]), 4).tolist()
    [3, 5, 0, 6]
    """
    return (codes + codebook_size * np.arange(codes.shape[1])).reshape(-1)


def unflatten_codes(
    units: Int[np.ndarray, " units"], codebooks: int, codebook_size: int
) -> Int[np.ndarray, "frames codebooks"]:
    """Undo `flatten_codes`.

    Raises:
        DataError: the units are no whole frames, or not in the order of the codebooks.
    """
    if len(units) % codebooks:
        raise DataError(f"codec units: {len(units)} units are no whole frames of {codebooks} codebooks; encode again")
    codes = np.asarray(units, np.int64).reshape(-1, codebooks) - codebook_size * np.arange(codebooks)
    if codes.size and not 0 <= codes.min() <= codes.max() < codebook_size:
        raise DataError("codec units: not in the order of the codebooks, some are missing or merged; encode again")
    return codes
