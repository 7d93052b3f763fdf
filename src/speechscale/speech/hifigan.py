"""Units to sound through a generator that is trained by us or published: the unit HiFi-GAN.

Enters: units, durations, a speaker. Leaves: sound. The one decision worth knowing: a whole utterance is made piece by
piece, with so many frames around each piece that none of its samples can depend on what lies beyond.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file

from speechscale.errors import DataError
from speechscale.files import complete_file, read_versioned, write_json
from speechscale.speech.hifigan_network import Generator, HifiganShape, as_tuples, filled_generator
from speechscale.speech.hifigan_stream import HifiganStream, ReadDurations, refuse_no_predictor
from speechscale.speech.vocoder import read_weights, speaker_index, weights_sha256
from speechscale.speech.vocoder_stream import checked_units

FORMAT = "speechscale unit hifigan"
FORMAT_VERSION = 1
REMEDY = "train or import the vocoder again"


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitHifigan:
    """A generator ready to speak. `training` records where it comes from."""

    shape: HifiganShape
    network: Generator
    training: dict[str, Any]

    @property
    def sample_rate_hz(self) -> int:
        return self.shape.sample_rate_hz

    @property
    def num_units(self) -> int:
        return self.shape.num_units

    @property
    def speakers(self) -> tuple[str, ...]:
        """The voices it can speak in; the first one is the default."""
        return self.shape.speakers

    @property
    def parameters_total(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    def to(self, device: str | torch.device) -> UnitHifigan:
        """The same vocoder on a device; `synthesize` still takes and gives numpy arrays."""
        return replace(self, network=self.network.to(device))

    def synthesize(
        self,
        units: Int[np.ndarray, " units"],
        durations_frames: Int[np.ndarray, " units"] | None = None,
        speaker: str | None = None,
    ) -> Float[np.ndarray, " samples"]:
        """Make sound of units; without durations they are predicted (for deduplicated units).

        Returns sum(durations) * hop_samples samples in [-1, 1].

        Raises:
            DataError: a unit id out of range, durations below one frame or missing for a checkpoint that cannot predict
                them, or an unknown speaker.
        """
        stream = self.stream(speaker)
        return np.concatenate([stream.push(units, durations_frames), stream.finish()])

    def stream(self, speaker: str | None = None) -> HifiganStream:
        """Begin sound whose units are still to come; it equals that of `synthesize` within 1e-5.

        Example: `stream = vocoder.stream(); play(stream.push(units)); play(stream.push(more)); play(stream.finish())`
        """
        return HifiganStream(self.network, self.shape, speaker_index(speaker, self.shape.speakers))

    def predict_durations(
        self, units: Int[np.ndarray, " units"], speaker: str | None = None
    ) -> Int[np.ndarray, " units"]:
        """Durations in frames of deduplicated units, at least one each; the published predictor knows no speakers."""
        units = checked_units(units, None, self.shape.num_units)
        speaker_index(speaker, self.shape.speakers)
        refuse_no_predictor(self.network)
        reader = ReadDurations(self.network, self.shape)
        return np.array([frames for _, frames in (*reader.push(units), *reader.finish())], np.int32)

    def save(self, folder: str | Path) -> None:
        """Write hifigan.safetensors and, last, hifigan.json."""
        folder = Path(folder)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        with complete_file(folder / "hifigan.safetensors") as draft:
            save_file(tensors, draft)
        write_json(
            folder / "hifigan.json",
            {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "shape": asdict(self.shape),
                "training": self.training,
                "weights_sha256": weights_sha256(tensors),
            },
        )

    @classmethod
    def load(cls, folder: str | Path) -> UnitHifigan:
        """Read a folder written by `save`.

        Raises:
            DataError: a file is missing, altered or of another format; the message names it.
        """
        path = Path(folder) / "hifigan.json"
        saved = read_versioned(path, "vocoder", REMEDY, format=FORMAT, version=FORMAT_VERSION)
        try:
            shape = HifiganShape(**{name: as_tuples(value) for name, value in saved["shape"].items()})
            training, sha256 = saved["training"], saved["weights_sha256"]
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"vocoder {path}: fields do not fit ({error}); {REMEDY}") from error
        weights = path.with_name("hifigan.safetensors")
        tensors = read_weights(weights, sha256)
        return cls(shape=shape, network=filled_generator(shape, tensors, str(weights)), training=training)
