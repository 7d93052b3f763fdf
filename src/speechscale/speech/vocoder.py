"""Units to sound without weights from outside: a small network trained on the spot, and Griffin-Lim.

Enters: a `UnitTable` of one or more voices and its waveforms. Leaves: a `Vocoder`, whose `synthesize` turns units into
sound of one of them. The one decision worth knowing: units become mel frames by their durations in samples, so that
any unit rate works and the audio has exactly the length that the durations say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from speechscale.errors import DataError
from speechscale.files import complete_file, read_versioned, write_json
from speechscale.records import UnitTable
from speechscale.speech.griffin_lim import ITERATIONS
from speechscale.speech.spectrograms import MelSpec
from speechscale.speech.unit_to_mel import RunningEnds, UnitToMel, VocoderShape, empty_network
from speechscale.speech.vocoder_stream import MelBlocks, ReadUnits, VocoderStream, checked_units
from speechscale.speech.vocoder_training import train_network

FORMAT = "speechscale vocoder"
FORMAT_VERSION = 2
OLDEST_VERSION = 1
"""Version 1 knew one voice, without its name and gain."""
REMEDY = "train the vocoder again"


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocoder:
    """A trained unit-to-mel network. `training` records how it was made (steps, hours, last losses)."""

    shape: VocoderShape
    network: UnitToMel
    training: dict[str, Any]

    @property
    def sample_rate_hz(self) -> int:
        return self.shape.mel.sample_rate_hz

    @property
    def num_units(self) -> int:
        return self.shape.num_units

    @property
    def speakers(self) -> tuple[str, ...]:
        """The voices it can speak in; the first one is the default."""
        return self.shape.speakers

    @cached_property
    def parameters_total(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    def synthesize(
        self,
        units: Int[np.ndarray, " units"],
        durations_frames: Int[np.ndarray, " units"] | None = None,
        speaker: str | None = None,
        *,
        iterations: int = ITERATIONS,
        seed: int = 0,
    ) -> Float[np.ndarray, " samples"]:
        """Make sound of units; without durations they are predicted (for deduplicated units).

        Returns sum(durations) * sample_rate / frame_rate samples, in [-1, 1]; equal calls give equal samples, and so
        does a `stream` of the same units.

        Args:
            speaker: one of `speakers`; None for the first.
            iterations: of Griffin-Lim, per block. seed: of the first phases.

        Raises:
            DataError: a unit id out of range, durations that are missing or below one frame, or an unknown speaker.
        """
        stream = self.stream(speaker, iterations=iterations, seed=seed)
        return np.concatenate([stream.push(units, durations_frames), stream.finish()])

    def stream(self, speaker: str | None = None, *, iterations: int = ITERATIONS, seed: int = 0) -> VocoderStream:
        """Begin sound whose units are still to come; arguments as in `synthesize`, which gives the same samples.

        Example: `stream = vocoder.stream(); play(stream.push(units)); play(stream.push(more)); play(stream.finish())`
        """
        return VocoderStream(self.network, self.shape, self._voice(speaker), iterations=iterations, seed=seed)

    def predict_mels(
        self, units: Int[np.ndarray, " units"], durations_frames: Int[np.ndarray, " units"], speaker: str | None = None
    ) -> Float[np.ndarray, "mels mel_frames"]:
        """Natural-log mel magnitudes of units with durations, before Griffin-Lim."""
        units, voice = checked_units(units, durations_frames, self.shape.num_units), self._voice(speaker)
        blocks, ends = MelBlocks(self.network, self.shape, voice), np.cumsum(durations_frames)
        made = [np.zeros((self.shape.mel.mels, 0), np.float32)]
        with torch.inference_mode():
            for (context, _), end in zip(self._read(units, voice), ends, strict=True):
                made += [mels.numpy() for mels in blocks.add(context, int(end))]
            made += [mels.numpy() for mels in blocks.finish()]
        return np.concatenate(made, axis=1)

    def predict_durations(
        self, units: Int[np.ndarray, " units"], speaker: str | None = None
    ) -> Int[np.ndarray, " units"]:
        """Durations in frames of deduplicated units, at least one each, rounded so that their sum stays right."""
        units, voice = checked_units(units, None, self.shape.num_units), self._voice(speaker)
        running = RunningEnds()
        with torch.inference_mode():
            ends = [running.predicted(log_extra) for _, log_extra in self._read(units, voice)]
        return np.diff(ends, prepend=0).astype(np.int32)

    def _voice(self, speaker: str | None) -> int:
        return speaker_index(speaker, self.shape.speakers)

    def _read(self, units: Int[np.ndarray, " units"], voice: int) -> Iterator[tuple[Tensor, float]]:
        reader = ReadUnits(self.network, voice)
        yield from reader.push(units)
        yield from reader.finish()

    def save(self, folder: str | Path) -> None:
        """Write vocoder.safetensors and, last, vocoder.json."""
        folder = Path(folder)
        tensors = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        with complete_file(folder / "vocoder.safetensors") as draft:
            save_file(tensors, draft)
        write_json(
            folder / "vocoder.json",
            {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "shape": asdict(self.shape),
                "training": self.training,
                "weights_sha256": weights_sha256(tensors),
            },
        )

    @classmethod
    def load(cls, folder: str | Path) -> Vocoder:
        """Read a folder written by `save`.

        Raises:
            DataError: a file is missing, altered or of another format; the message names it.
        """
        path = Path(folder) / "vocoder.json"
        saved = read_versioned(path, "vocoder", REMEDY, format=FORMAT, version=FORMAT_VERSION, oldest=OLDEST_VERSION)
        try:
            speakers = tuple(saved["shape"].get("speakers", ()))
            shape = VocoderShape(**{**saved["shape"], "mel": MelSpec(**saved["shape"]["mel"]), "speakers": speakers})
            training, sha256 = saved["training"], saved["weights_sha256"]
        except (KeyError, TypeError) as error:
            raise DataError(f"vocoder {path}: fields do not fit ({error}); {REMEDY}") from error
        weights = path.with_name("vocoder.safetensors")
        network = empty_network(shape)
        tensors = read_weights(weights, sha256)
        try:
            network.load_state_dict(_one_voice(tensors) if saved["format_version"] == 1 else tensors)
        except RuntimeError as error:
            raise DataError(f"vocoder {weights}: not readable ({error}); {REMEDY}") from error
        return cls(shape=shape, network=network.eval(), training=training)


def train_vocoder(
    table: UnitTable,
    waveforms: Sequence[Float[np.ndarray, " samples"]],
    *,
    seed: int,
    steps: int,
    batch: int = 8,
    crop_mel_frames: int = 128,
    learning_rate: float = 6e-3,
    mel: MelSpec | None = None,
) -> Vocoder:
    """Train on utterances of one or more voices; row i of the table belongs to waveform i.

    `table.speakers` names the voices; the first by name becomes the default. Loss: mean absolute error of normalized
    log mels, plus Poisson likelihood of the durations. Work is bounded by `steps`; equal arguments give equal weights.

    Raises:
        DataError: no rows, or a waveform whose length does not fit its units.
    """
    if steps < 1:
        raise DataError(f"vocoder: steps must be at least 1, got {steps}")
    shape = VocoderShape(
        num_units=table.num_units,
        frame_rate_hz=table.frame_rate_hz,
        mel=mel or MelSpec(),
        speakers=tuple(sorted(set(table.speakers))),
    )
    network, losses = train_network(
        table,
        waveforms,
        shape,
        seed=seed,
        steps=steps,
        batch=batch,
        crop_mel_frames=crop_mel_frames,
        learning_rate=learning_rate,
    )
    training = {"steps": steps, "seed": seed, "hours": table.hours, "utterances": len(table), **losses}
    return Vocoder(shape=shape, network=network, training=training)


def _one_voice(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of version 1 in the shapes of version 2."""
    widened = {name: tensor[None] if name in ("mel_mean", "mel_spread") else tensor for name, tensor in tensors.items()}
    return {**widened, "gain": torch.ones(1)}


def speaker_index(speaker: str | None, speakers: Sequence[str]) -> int:
    """Position of a speaker; None is the first. Raises DataError if there is no such speaker."""
    if speaker is None:
        return 0
    if speaker not in speakers:
        known = ", ".join(speakers[:8]) or "one without a name"
        raise DataError(f"vocoder: no voice '{speaker}' among {len(speakers)} ({known}); choose one of them")
    return speakers.index(speaker)


def read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    """Read a vocoder's weights and verify their checksum. Raises DataError: missing, unreadable or altered."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise DataError(f"vocoder {path}: the file is missing; {REMEDY}") from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"vocoder {path}: not readable ({error}); {REMEDY}") from error
    if weights_sha256(tensors) != sha256:
        raise DataError(f"vocoder {path}: the weights are not those that {path.stem}.json names; {REMEDY}")
    return tensors


def weights_sha256(tensors: dict[str, Tensor]) -> str:
    """Hash names, shapes and values of tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
