"""Train a unit HiFi-GAN on units and their sound.

Enters: a `UnitTable`, its waveforms, a recipe. Leaves: `UnitHifigan`, and on the way checkpoints to go on from. The one
decision worth knowing: what a step sees and drops out is drawn from (seed, step) alone, so a run that was killed and
resumed is the run that was not.

Source: Kong, Kim & Bae 2020 (HiFi-GAN), section 2.4; Polyak et al. 2021, section 3.3.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

from speechscale.errors import DataError
from speechscale.files import canonical_sha256, complete_file
from speechscale.records import UnitTable
from speechscale.speech.hifigan import UnitHifigan
from speechscale.speech.hifigan_discriminators import (
    Discriminators,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)
from speechscale.speech.hifigan_network import Generator, HifiganShape, filled_generator
from speechscale.speech.hifigan_segments import Segments, check_pairs, units_sha256
from speechscale.speech.spectrograms import MelSpec, log_mel

FORMAT = "speechscale hifigan checkpoint 1"
PUBLISHED_START_CHANNELS = 256
"""From here on weights start as published, N(0, 0.01); in narrower generators nothing would come through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HifiganRecipe:
    """How to train; the defaults are the published ones.

    segment_frames: unit frames per example; None for the whole frames nearest to 0.56 s. lr_decay: factor of the
    learning rate per `decay_steps`. discriminator_width: factor of all its channels.
    """

    steps: int
    batch: int = 16
    segment_frames: int | None = None
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.01
    lr_decay: float = 0.999
    decay_steps: int = 1000
    mel_weight: float = 45.0
    feature_weight: float = 2.0
    duration_weight: float = 1.0
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    scales: int = 3
    discriminator_width: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "learning_rate", "lr_decay", "decay_steps", "discriminator_width"):
            if not getattr(self, name) > 0:
                raise DataError(f"hifigan: {name} = {getattr(self, name)}; it must be above 0")
        if self.segment_frames is not None and self.segment_frames < 1:
            raise DataError(f"hifigan: segment_frames = {self.segment_frames}; it must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class HifiganStep:
    """What one step did. mel: mean absolute error of log-mels in nats. hours_left: at the speed of this call so far."""

    step: int
    steps: int
    mel: float
    adversarial: float
    feature: float
    discriminator: float
    duration: float
    steps_per_s: float
    hours_left: float

    def __str__(self) -> str:
        return (
            f"step {self.step}/{self.steps}, mel {self.mel:.3f}, adversarial {self.adversarial:.2f}, "
            f"discriminator {self.discriminator:.2f}, durations {self.duration:.3f}, "
            f"{self.steps_per_s:.2f} steps/s, {self.hours_left:.1f} h left"
        )


def train_hifigan(
    table: UnitTable,
    waveforms: Sequence[Float[np.ndarray, " samples"]],
    recipe: HifiganRecipe,
    *,
    shape: HifiganShape | None = None,
    sample_rate_hz: int = 16_000,
    checkpoint: Path | None = None,
    checkpoint_steps: int = 1000,
    device: str = "cpu",
    progress: Callable[[HifiganStep], None] | None = None,
) -> UnitHifigan:
    """Train a generator, its durations and the discriminators; row i of the table belongs to waveform i.

    Args:
        waveforms: read one at a time, so any sequence will do that loads row i when asked for it.
        shape: None for the published sizes at the rate of the units and the speakers of the table.
        checkpoint: file to write every `checkpoint_steps` and at the end, and to go on from if it is there. More
            `steps` than before go on with a finished one.
        progress: called after every step.

    Raises:
        DataError: rows and waveforms that do not fit, a shape for other units, a checkpoint of another run.
    """
    speakers = tuple(sorted(set(table.speakers)))
    shape = shape or HifiganShape.for_units(
        num_units=table.num_units,
        frame_rate_hz=table.frame_rate_hz,
        sample_rate_hz=sample_rate_hz,
        speakers=speakers,
    )
    check_pairs(table, waveforms, shape, speakers)
    run = _Run.start(shape, recipe, device)
    identity = {"shape": asdict(shape), "recipe": {**asdict(recipe), "steps": None}, "units": units_sha256(table)}
    first = run.resume(checkpoint, canonical_sha256(identity))
    data, began = Segments(table, waveforms, shape, recipe.batch, recipe.segment_frames, recipe.seed), monotonic()
    report = None
    for step, batch in zip(range(first, recipe.steps), _ahead(data, first, recipe.steps), strict=True):
        losses = run.step(step, *batch)
        if not all(map(math.isfinite, losses.values())):
            bad = ", ".join(f"{name} {loss:g}" for name, loss in losses.items())
            raise DataError(
                f"hifigan: step {step + 1} has losses that are not finite ({bad}); look for NaN in the audio, else "
                "lower learning_rate or use fp32, and go on from the last checkpoint"
            )
        rate = (step + 1 - first) / max(monotonic() - began, 1e-9)
        left = (recipe.steps - step - 1) / rate / 3600
        report = HifiganStep(step=step + 1, steps=recipe.steps, steps_per_s=rate, hours_left=left, **losses)
        if checkpoint is not None and ((step + 1) % checkpoint_steps == 0 or step + 1 == recipe.steps):
            run.save(checkpoint, canonical_sha256(identity), step + 1)
        if progress is not None:
            progress(report)
    training: dict[str, Any] = {"recipe": asdict(recipe), "hours": table.hours, "utterances": len(table)}
    if report is not None:
        training |= {"mel_loss": report.mel, "duration_loss": report.duration}
    return UnitHifigan(shape=shape, network=run.plain_generator(), training=json.loads(json.dumps(training)))


@dataclass(slots=True)
class _Run:
    """Networks and optimizers between two steps."""

    shape: HifiganShape
    recipe: HifiganRecipe
    device: torch.device
    generator: Generator
    discriminators: Discriminators
    optimizers: tuple[torch.optim.AdamW, torch.optim.AdamW]

    @classmethod
    def start(cls, shape: HifiganShape, recipe: HifiganRecipe, device: str) -> _Run:
        with _seeded(torch.device("cpu"), recipe.seed, 0):
            generator = Generator(shape)
            for module in _normed(generator):
                if module is not generator.conv_pre and shape.upsample_initial_channel >= PUBLISHED_START_CHANNELS:
                    nn.init.normal_(module.weight, 0.0, 0.01)
                weight_norm(module)
            discriminators = Discriminators(
                periods=recipe.periods, scales=recipe.scales, width=recipe.discriminator_width
            )
        generator.to(device), discriminators.to(device)
        settings: dict[str, Any] = {"lr": recipe.learning_rate, "betas": recipe.betas}
        settings["weight_decay"] = recipe.weight_decay
        optimizers = (
            torch.optim.AdamW(generator.parameters(), **settings),
            torch.optim.AdamW(discriminators.parameters(), **settings),
        )
        return cls(shape, recipe, torch.device(device), generator, discriminators, optimizers)

    def step(
        self, step: int, units: Tensor, audio: Tensor, speaker: Tensor, durations: tuple[Tensor, Tensor, Tensor]
    ) -> dict[str, float]:
        """Update the discriminators, then the generator, on one batch."""
        recipe = self.recipe
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = recipe.learning_rate * recipe.lr_decay ** (step // recipe.decay_steps)
        units, audio, speaker = (tensor.to(self.device) for tensor in (units, audio, speaker))
        self.generator.train(), self.discriminators.train()
        cast = torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16")
        with _seeded(self.device, recipe.seed, step + 1):
            with cast:
                made = self.generator(units, speaker)
                judged = discriminator_loss(self.discriminators(audio), self.discriminators(made.detach()))
            self._update(1, judged)
            self.discriminators.requires_grad_(False)
            with cast:
                real, fake = self.discriminators(audio), self.discriminators(made)
                adversarial, feature = adversarial_loss(fake), feature_loss(real, fake)
                duration = self._duration_loss(durations)
            mel = _mel_error(audio, made, self.shape.sample_rate_hz)
            parts = (mel, recipe.mel_weight), (feature, recipe.feature_weight), (duration, recipe.duration_weight)
            self._update(0, adversarial + sum(loss.float() * weight for loss, weight in parts))
            self.discriminators.requires_grad_(True)
        named = {"mel": mel, "adversarial": adversarial, "feature": feature, "discriminator": judged}
        return {name: float(loss.detach()) for name, loss in {**named, "duration": duration}.items()}

    def _update(self, which: int, loss: Tensor) -> None:
        self.optimizers[which].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[which].step()

    def _duration_loss(self, durations: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Mean squared error of log(duration + 1) over units that lie inside their segment."""
        units, frames, inside = (tensor.to(self.device) for tensor in durations)
        if self.generator.dur_predictor is None or not inside.any():
            return torch.zeros((), device=self.device)
        error = self.generator.log_durations(units) - (frames + 1).log()
        return (error.square() * inside).sum() / inside.sum()

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"generator.{name}": t for name, t in self.generator.state_dict().items()}
        tensors |= {f"discriminators.{name}": t for name, t in self.discriminators.state_dict().items()}
        for which, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer{which}.{index}.{name}": t for name, t in state.items()}
        return tensors

    def save(self, path: Path, identity: str, step: int) -> None:
        """Write everything a later run needs, complete or not at all."""
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self._tensors().items()}
        with complete_file(path) as draft:
            save_file(tensors, draft, metadata={"format": FORMAT, "identity": identity, "step": str(step)})

    def resume(self, path: Path | None, identity: str) -> int:
        """Take up a checkpoint; returns its step, 0 without one."""
        if path is None or not path.exists():
            return 0
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise DataError(f"hifigan {path}: not readable ({error}); delete it to start anew") from error
        if metadata.get("format") != FORMAT or metadata.get("identity") != identity:
            raise DataError(f"hifigan {path}: the checkpoint of other data, sizes or settings; name another file")
        self.generator.load_state_dict(_under(tensors, "generator."))
        self.discriminators.load_state_dict(_under(tensors, "discriminators."))
        for which, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in _under(tensors, f"optimizer{which}.").items():
                index, _, part = name.partition(".")
                state.setdefault(int(index), {})[part] = tensor
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        return int(metadata["step"])

    def plain_generator(self) -> Generator:
        """A copy for speaking, with weight norm multiplied out."""
        with _seeded(torch.device("cpu"), 0, 0):
            copy = Generator(self.shape)
        for module in _normed(copy):
            weight_norm(module)
        copy.load_state_dict({name: tensor.cpu() for name, tensor in self.generator.state_dict().items()})
        for module in _normed(copy):
            remove_parametrizations(module, "weight")
        return filled_generator(self.shape, copy.state_dict(), "training")


def _ahead(data: Segments, first: int, steps: int) -> Iterator[Any]:
    """Batches first..steps, each made by a second thread while the one before is used."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(data.batch, first) if first < steps else None
        for step in range(first + 1, steps + 1):
            assert waiting is not None
            batch = waiting.result()
            waiting = pool.submit(data.batch, step) if step < steps else None
            yield batch


def _mel_error(real: Tensor, made: Tensor, sample_rate_hz: int) -> Tensor:
    spec = MelSpec(
        sample_rate_hz=sample_rate_hz, window_samples=1024, hop_samples=256, low_hz=0.0, high_hz=sample_rate_hz / 2
    )
    return (log_mel(real.float(), spec) - log_mel(made.float(), spec)).abs().mean()


def _normed(generator: Generator) -> Sequence[nn.Conv1d | nn.ConvTranspose1d]:
    """The layers that have weight norm in the published network."""
    named = generator.named_modules()
    convolutions = [m for name, m in named if isinstance(m, nn.Conv1d | nn.ConvTranspose1d) and "dur_" not in name]
    assert generator.conv_pre in convolutions
    return convolutions


@contextmanager
def _seeded(device: torch.device, seed: int, step: int) -> Iterator[None]:
    """Run with torch's generators set from (seed, step), and put them back."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1))
        yield


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
