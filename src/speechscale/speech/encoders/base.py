"""What an encoder is, and how it may run.

Enters: mono waveforms at the encoder's rate. Leaves: [frames, dim] float32 per waveform. The one decision worth
knowing: a waveform's features never depend on the waveforms it comes with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from speechscale.errors import DataError
from speechscale.speech.encoders.chunks import Blocks

Batching = Literal["exact", "masked", "padded"]


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """How an encoder runs; not part of its identity.

    Args:
        device: "cpu", "cuda", or "auto" for cuda where there is one.
        batching: "exact": one file at a time, the same bits alone and in any company. "masked": files of similar length
            together, padding masked everywhere; features agree with "exact" to rounding. "padded": zeros appended and
            what the model's own feature extractor does about them; units depend on the neighbors, for comparison only.
        batch_s: seconds of audio per batch, padding included; without effect on "exact".
        compile: run the transformer through torch.compile (needs a C++ compiler; slow first call).
        model_folders: where pretrained models lie, searched before SPEECHSCALE_MODELS and the hub.
    """

    device: str = "auto"
    batching: Batching = "exact"
    batch_s: float = 120.0
    compile: bool = False
    model_folders: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.batching not in ("exact", "masked", "padded"):
            raise DataError(f"batching '{self.batching}' is unknown; use exact, masked or padded")
        if not self.batch_s > 0:
            raise DataError(f"batch_s must be positive, got {self.batch_s:g}; correct the setting")


class Encoder(Protocol):
    """What an encoder must offer; `build_encoder(name, encoder.config(), encoder.tensors)` builds an equal one."""

    @property
    def name(self) -> str: ...

    @property
    def sample_rate_hz(self) -> int: ...

    @property
    def frame_rate_hz(self) -> float: ...

    @property
    def dim(self) -> int: ...

    @property
    def tensors(self) -> Mapping[str, np.ndarray]:
        """Learned arrays by name, saved beside the centroids; empty if it has none."""
        ...

    def encode(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """Encode each waveform to [frames, dim] float32; results must not depend on the other waveforms."""
        ...

    def config(self) -> dict[str, Any]:
        """Return everything that defines the features, as JSON-like values; learned arrays are in `tensors`."""
        ...


@runtime_checkable
class StreamingEncoder(Protocol):
    """An encoder that also takes a file of any length in bounded memory."""

    def encode_stream(self, blocks: Blocks) -> Iterator[np.ndarray]:
        """Yield the features of one file in parts; `blocks` is called once per pass over its audio."""
        ...


class UnitEncoder(Protocol):
    """An encoder whose output is discrete already; needs no k-means."""

    @property
    def sample_rate_hz(self) -> int: ...

    @property
    def frame_rate_hz(self) -> float:
        """Units per second: frames per second times codebooks."""
        ...

    @property
    def codebooks(self) -> int: ...

    @property
    def codebook_size(self) -> int: ...

    def encode_units(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """Encode each waveform to [frames, codebooks] int64, each in [0, codebook_size)."""
        ...

    def encode_units_stream(self, blocks: Blocks) -> Iterator[np.ndarray]:
        """Yield the codes of one file in parts; `blocks` is called once per pass over its audio."""
        ...

    def config(self) -> dict[str, Any]:
        """Return everything that defines the codes, as JSON-like values."""
        ...


def runtime_of(encoder: object) -> Runtime:
    """Options with which an equal encoder runs on this machine: its own, and where its model was found."""
    runtime: Runtime = getattr(encoder, "runtime", Runtime())
    files = getattr(encoder, "files", None)
    if files is None or files.folder.parent in runtime.model_folders:
        return runtime
    return replace(runtime, model_folders=(*runtime.model_folders, files.folder.parent))
