"""Catches a generator that is not the published one, checkpoints believed too easily, training that cannot resume."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from speechscale.errors import DataError
from speechscale.records import UnitTable, UnitTableBuilder, dedup
from speechscale.speech import codehifigan, hifigan_stream
from speechscale.speech.codehifigan import PUBLISHED, Published, load_codehifigan
from speechscale.speech.hifigan import UnitHifigan
from speechscale.speech.hifigan_discriminators import Discriminators, adversarial_loss, discriminator_loss, feature_loss
from speechscale.speech.hifigan_network import HifiganShape
from speechscale.speech.hifigan_segments import Segments
from speechscale.speech.hifigan_training import HifiganRecipe, HifiganStep, train_hifigan
from speechscale.speech.spectrograms import MelSpec, log_mel
from speechscale.speech.vocoder import train_vocoder
from speechscale.speech.vocoders import open_vocoder

CONFIG: dict[str, Any] = {
    "resblock": "1",
    "upsample_rates": [5, 4, 2],
    "upsample_kernel_sizes": [11, 8, 4],
    "upsample_initial_channel": 32,
    "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 4]],
    "num_embeddings": 20,
    "embedding_dim": 6,
    "model_in_dim": 6,
    "code_hop_size": 40,
    "f0": False,
    "sampling_rate": 16_000,
    "dur_prediction_weight": 1.0,
    "dur_predictor_params": {
        "encoder_embed_dim": 6,
        "var_pred_hidden_dim": 8,
        "var_pred_kernel_size": 3,
        "var_pred_dropout": 0.5,
    },
}


def published_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors under the names that textless and fairseq give them, with weight norm."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}

    def draw(*size: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(size, generator=generator) * scale

    def normed(name: str, *size: int, bias: int) -> None:
        tensors[f"{name}.bias"] = draw(bias, scale=0.05)
        tensors[f"{name}.weight_g"] = draw(size[0], *[1] * (len(size) - 1)).abs() + 0.5
        tensors[f"{name}.weight_v"] = draw(*size)

    width, dim = config["upsample_initial_channel"], config["embedding_dim"]
    normed("conv_pre", width, config["model_in_dim"], 7, bias=width)
    for i, kernel in enumerate(config["upsample_kernel_sizes"]):
        normed(f"ups.{i}", width >> i, width >> i + 1, kernel, bias=width >> i + 1)
        for j, (size, dilations) in enumerate(
            zip(config["resblock_kernel_sizes"], config["resblock_dilation_sizes"], strict=True)
        ):
            block = i * len(config["resblock_kernel_sizes"]) + j
            for convs in ("convs1", "convs2"):
                for k in range(len(dilations)):
                    normed(f"resblocks.{block}.{convs}.{k}", width >> i + 1, width >> i + 1, size, bias=width >> i + 1)
    last = width >> len(config["upsample_rates"])
    normed("conv_post", 1, last, 7, bias=1)
    tensors["dict.weight"] = draw(config["num_embeddings"], dim)
    if config.get("multispkr"):
        tensors["spkr.weight"] = draw(config["num_speakers"], dim)
    if config.get("multistyle"):
        tensors["style.weight"] = draw(config["num_styles"], dim)
    if config.get("dur_predictor_params"):
        hidden = config["dur_predictor_params"]["var_pred_hidden_dim"]
        for name, size in (("conv1.0", (hidden, dim, 3)), ("conv2.0", (hidden, hidden, 3)), ("proj", (1, hidden))):
            tensors[f"dur_predictor.{name}.weight"] = draw(*size, scale=0.5)
            tensors[f"dur_predictor.{name}.bias"] = draw(size[0], scale=0.1) + (1.5 if name == "proj" else 0)
        for name in ("ln1", "ln2"):
            tensors[f"dur_predictor.{name}.weight"] = 1 + draw(hidden, scale=0.1)
            tensors[f"dur_predictor.{name}.bias"] = draw(hidden, scale=0.1)
    return tensors


def write_published(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor], name: str = "g.pt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"generator": tensors}, folder / name)
    (folder / "config.json").write_text(json.dumps(config))
    return folder / name


def plain_forward(config: dict[str, Any], tensors: dict[str, torch.Tensor], x: np.ndarray) -> np.ndarray:
    """The published forward pass in plain numpy, from (channels, frames) to samples: sums over taps, nothing else."""
    arrays = {name: tensor.double().numpy() for name, tensor in tensors.items()}

    def weights(name: str) -> np.ndarray:
        v, g = arrays[f"{name}.weight_v"], arrays[f"{name}.weight_g"]
        return np.stack([g[i] * v[i] / np.sqrt((v[i] ** 2).sum()) for i in range(len(v))])

    def convolve(x: np.ndarray, name: str, dilation: int = 1) -> np.ndarray:
        w = weights(name)
        pad = dilation * (w.shape[2] - 1) // 2
        padded = np.pad(x, ((0, 0), (pad, pad)))
        taps = [w[:, :, k] @ padded[:, k * dilation : k * dilation + x.shape[1]] for k in range(w.shape[2])]
        return np.sum(taps, axis=0) + arrays[f"{name}.bias"][:, None]

    def transpose(x: np.ndarray, name: str, rate: int) -> np.ndarray:
        w = weights(name)  # (in, out, kernel)
        full = np.zeros((w.shape[1], (x.shape[1] - 1) * rate + w.shape[2]))
        for t in range(x.shape[1]):
            full[:, t * rate : t * rate + w.shape[2]] += np.einsum("i,iok->ok", x[:, t], w)
        pad = (w.shape[2] - rate) // 2
        return full[:, pad : full.shape[1] - pad] + arrays[f"{name}.bias"][:, None]

    def leaky(x: np.ndarray, slope: float = 0.1) -> np.ndarray:
        return np.where(x > 0, x, slope * x)

    x = convolve(x, "conv_pre")
    fusion = len(config["resblock_kernel_sizes"])
    for i, rate in enumerate(config["upsample_rates"]):
        x = transpose(leaky(x), f"ups.{i}", rate)
        total = np.zeros_like(x)
        for j in range(fusion):
            y, block = x, f"resblocks.{i * fusion + j}"
            for k, dilation in enumerate(config["resblock_dilation_sizes"][j]):
                y = y + convolve(leaky(convolve(leaky(y), f"{block}.convs1.{k}", dilation)), f"{block}.convs2.{k}")
            total += y
        x = total / fusion
    return np.tanh(convolve(leaky(x, 0.01), "conv_post"))[0]


def test_published_layout_speaks_as_the_plain_forward_pass(tmp_path: Path) -> None:
    tensors = published_tensors(CONFIG)
    vocoder = load_codehifigan(write_published(tmp_path, CONFIG, tensors))
    units, durations = np.array([3, 17, 0, 5]), np.array([2, 1, 4, 3])
    made = vocoder.synthesize(units, durations)
    x = tensors["dict.weight"].double().numpy()[np.repeat(units, durations)].T
    wanted = plain_forward(CONFIG, tensors, x)
    assert made.shape == wanted.shape == (10 * 40,)
    assert np.abs(made - wanted).max() < 1e-4
    assert wanted.std() > 0.05
    assert (vocoder.sample_rate_hz, vocoder.shape.frame_rate_hz, vocoder.speakers) == (16_000, 400.0, ())


def test_durations_are_predicted_as_published(tmp_path: Path) -> None:
    tensors = published_tensors(CONFIG)
    vocoder = load_codehifigan(write_published(tmp_path, CONFIG, tensors))
    units = np.array([3, 17, 0, 5, 9])
    p = {name.removeprefix("dur_predictor."): t.double().numpy() for name, t in tensors.items() if "dur_" in name}
    x = tensors["dict.weight"].double().numpy()[units]
    for conv, norm in (("conv1.0", "ln1"), ("conv2.0", "ln2")):
        w, padded = p[f"{conv}.weight"], np.pad(x, ((1, 1), (0, 0)))
        x = sum(padded[k : k + len(units)] @ w[:, :, k].T for k in range(3)) + p[f"{conv}.bias"]
        x = np.maximum(x, 0)
        x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
        x = x * p[f"{norm}.weight"] + p[f"{norm}.bias"]
    logs = x @ p["proj.weight"][0] + p["proj.bias"]
    wanted = np.maximum(np.round(np.exp(logs) - 1), 1)
    assert len(set(wanted)) > 1
    assert vocoder.predict_durations(units).tolist() == wanted.tolist()
    assert len(vocoder.synthesize(units)) == wanted.sum() * 40
    silent = {**CONFIG, "dur_predictor_params": None}
    without = load_codehifigan(write_published(tmp_path / "b", silent, published_tensors(silent)))
    with pytest.raises(DataError, match="cannot predict durations; give durations_frames"):
        without.synthesize(units)


def test_speakers_and_styles_of_published_checkpoints(tmp_path: Path) -> None:
    more = {"multispkr": True, "num_speakers": 3, "multistyle": True, "num_styles": 2, "model_in_dim": 18}
    config = {**CONFIG, **more}
    tensors = published_tensors(config)
    path = write_published(tmp_path, config, tensors)
    vocoder = load_codehifigan(path, speakers=("ann", "bob", "cy"), style=1)
    units = np.array([3, 17, 0])
    parts = [tensors["dict.weight"][units], tensors["spkr.weight"][1].expand(3, -1)]
    x = torch.cat([*parts, tensors["style.weight"][1].expand(3, -1)], dim=1).double().numpy().T
    made = vocoder.synthesize(units, np.ones(3, np.int64), "bob")
    assert np.abs(made - plain_forward(config, tensors, x)).max() < 1e-4
    assert not np.array_equal(made, vocoder.synthesize(units, np.ones(3, np.int64)))
    assert load_codehifigan(path).speakers == ("0", "1", "2")
    with pytest.raises(DataError, match=r"no voice 'dan' among 3 \(ann, bob, cy\)"):
        vocoder.synthesize(units, speaker="dan")
    with pytest.raises(DataError, match="3 speakers, 1 names were given"):
        load_codehifigan(path, speakers=("ann",))
    with pytest.raises(DataError, match="style 2 was asked for, it has 2"):
        load_codehifigan(path, style=2)


def test_other_spellings_of_the_same_checkpoint(tmp_path: Path) -> None:
    """Safetensors, newer names of weight norm, plain weights, a prefix: all the same sound."""
    tensors = published_tensors(CONFIG)
    first = load_codehifigan(write_published(tmp_path / "a", CONFIG, tensors))
    units = np.array([1, 2, 3])
    spelled = {
        "newer": {
            name.replace("weight_g", "parametrizations.weight.original0").replace(
                "weight_v", "parametrizations.weight.original1"
            ): tensor
            for name, tensor in tensors.items()
        },
        "plain": dict(first.network.state_dict()),
        "prefixed": {f"generator.{name}": tensor for name, tensor in tensors.items()},
    }
    for name, renamed in spelled.items():
        folder = tmp_path / name
        folder.mkdir()
        save_file({key: tensor.contiguous() for key, tensor in renamed.items()}, folder / "model.safetensors")
        (folder / "model_config.json").write_text(json.dumps(CONFIG))
        assert np.array_equal(open_vocoder(folder).synthesize(units), first.synthesize(units)), name


def test_checksums_can_be_demanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_published(tmp_path, CONFIG, published_tensors(CONFIG))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    for given in (sha256, sha256[:8], f"{sha256[:8].upper()}..."):
        assert load_codehifigan(path, sha256=given).training["sha256"] == sha256
    with pytest.raises(DataError, match=f"sha256 is {sha256}, 00000000 was demanded; download it again"):
        load_codehifigan(path, sha256="00000000")
    with pytest.raises(DataError, match="'123' is no checksum"):
        load_codehifigan(path, sha256="123")
    assert PUBLISHED["hifigan_lj_mhubert_base_25hz"].sha256.startswith("d88224e9")
    with pytest.raises(DataError, match="was demanded"):
        open_vocoder(path, preset="hifigan_lj_mhubert_base_25hz")
    with pytest.raises(DataError, match="unknown preset 'x'"):
        load_codehifigan(path, preset="x")
    config_sha256 = hashlib.sha256((tmp_path / "config.json").read_bytes()).hexdigest()
    own = Published(checkpoint="g.pt", config="config.json", sha256=sha256, config_sha256=config_sha256, units="test")
    monkeypatch.setitem(codehifigan.PUBLISHED, "own", own)
    assert load_codehifigan(tmp_path, preset="own").training["preset"] == "own"


def altered(tensors: dict[str, torch.Tensor], **changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    named = {name.replace("__", "."): tensor for name, tensor in changes.items()}
    return {name: tensor for name, tensor in {**tensors, **named}.items() if tensor is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv_pre__bias": None}, "1 tensors do not fit the config: missing conv_pre.bias"),
        ({"extra__weight": torch.zeros(2)}, "unknown extra.weight"),
        ({"dict__weight": torch.zeros(19, 6)}, r"dict.weight is \(19, 6\), not \(20, 6\)"),
        ({"ups__1__weight_g": None}, "ups.1.weight_v has no matching scale"),
        ({"ups__1__weight_g": torch.ones(3, 1, 1)}, "ups.1.weight_v has no matching scale"),
        ({"ups__1__weight_v": None}, "missing ups.1.weight"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, changes: dict[str, torch.Tensor | None], message: str
) -> None:
    path = write_published(tmp_path, CONFIG, altered(published_tensors(CONFIG), **changes))
    with pytest.raises(DataError, match=message) as caught:
        load_codehifigan(path)
    assert "g.pt" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"f0": True}, r"needs pitch \(f0\), not supported"),
        ({"embedder_params": {"a": 1}}, "needs speaker vectors"),
        ({"model_in_dim": 12}, "model_in_dim 12 and code_hop_size 40 do not fit 6 input channels and a hop of 40"),
        ({"code_hop_size": 640}, "do not fit"),
        ({"upsample_rates": None}, "a config value does not fit|must be lists"),
        ({"upsample_rates": [5, 4]}, "lists of one length"),
        ({"upsample_kernel_sizes": [10, 8, 4]}, "by an even number each"),
        ({"num_embeddings": "many"}, "a config value does not fit"),
        ({"upsample_initial_channel": 20}, "20 channels cannot be halved 3 times"),
    ],
)
def test_configs_that_do_not_fit_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_published(tmp_path, {**CONFIG, **changes}, published_tensors(CONFIG))
    with pytest.raises(DataError, match=message):
        load_codehifigan(path)


def test_files_that_cannot_be_believed(tmp_path: Path) -> None:
    tensors = published_tensors(CONFIG)
    path = write_published(tmp_path, CONFIG, tensors)
    marker = tmp_path / "was-executed"

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (Path.touch, (marker,))  # type: ignore[return-value]

    path.write_bytes(pickle.dumps({"generator": Evil()}))
    with pytest.raises(DataError, match=r"g\.pt: (holds more than tensors|not readable)"):
        load_codehifigan(path)
    torch.save({"generator": Evil()}, path)
    with pytest.raises(DataError, match=r"g\.pt: holds more than tensors"):
        load_codehifigan(path)
    assert not marker.exists()
    torch.save({"generator": tensors}, path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"g\.pt: (holds more|not readable)"):
        load_codehifigan(path)
    torch.save([1, 2], path)
    with pytest.raises(DataError, match="no table of tensors named 'generator'"):
        load_codehifigan(path)
    with pytest.raises(DataError, match="no such file"):
        load_codehifigan(tmp_path / "none.pt")
    (tmp_path / "config.json").unlink()
    with pytest.raises(DataError, match=r"no config beside it \(looked for g_config\.json, g\.json, config\.json\)"):
        load_codehifigan(path)
    (tmp_path / "h.pt").write_bytes(b"")
    with pytest.raises(DataError, match="2 checkpoints in this folder"):
        load_codehifigan(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        open_vocoder(tmp_path / "none")


def tiny_shape(num_units: int = 6, **changes: Any) -> HifiganShape:
    sizes = {
        "upsample_initial_channel": 32,
        "resblock_kernel_sizes": (3, 5),
        "resblock_dilation_sizes": ((1, 3), (1, 3)),
        "embedding_dim": 8,
        "duration_channels": 8,
        "duration_dropout": 0.1,
    }
    return HifiganShape.for_units(num_units=num_units, frame_rate_hz=100.0, **{**sizes, **changes})


TINY: dict[str, Any] = {"batch": 2, "segment_frames": 16, "discriminator_width": 0.05, "periods": (2,), "scales": 1}


def corpus(rows: int = 2, speakers: int = 1) -> tuple[UnitTable, list[np.ndarray]]:
    """Units at 100 Hz that last u + 2 frames; unit u is a tone, higher for the second speaker."""
    rng = np.random.default_rng(0)
    builder, waveforms = UnitTableBuilder(frame_rate_hz=100.0, num_units=6), []
    for row in range(rows):
        units, _ = dedup(rng.integers(6, size=24))
        durations, speaker = units + 2, row % speakers
        builder.add(
            id=str(row),
            speaker=f"s{speaker}",
            split="train",
            text="",
            units=units,
            durations_frames=durations,
            words=[],
            word_frames=np.zeros((0, 2), np.int32),
        )
        hertz = np.repeat(300.0 * (1 + units) * (1 + 0.2 * speaker), durations * 160)
        waveforms.append((0.3 * np.sin(2 * np.pi * np.cumsum(hertz) / 16_000)).astype(np.float32))
    return builder.build(), waveforms


def mel_error(vocoder: UnitHifigan, table: UnitTable, waveforms: list[np.ndarray]) -> float:
    spec = MelSpec(window_samples=1024, hop_samples=256)
    errors = []
    for row, waveform in enumerate(waveforms):
        made = vocoder.synthesize(table.row_units(row), table.row_durations(row), table.speakers[row])
        both = (log_mel(torch.from_numpy(audio), spec) for audio in (made, waveform))
        errors.append(float((next(both) - next(both)).abs().mean()))
    return float(np.mean(errors))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_tiny_generator_learns_a_few_seconds_by_heart() -> None:
    table, waveforms = corpus(rows=4, speakers=2)
    shape = tiny_shape(speakers=("s0", "s1"))
    steps: list[HifiganStep] = []
    recipe = {**TINY, "batch": 3, "segment_frames": 32, "learning_rate": 5e-3}
    fresh = train_hifigan(table, waveforms, HifiganRecipe(steps=1, **recipe), shape=shape)
    vocoder = train_hifigan(table, waveforms, HifiganRecipe(steps=120, **recipe), shape=shape, progress=steps.append)
    before, after = mel_error(fresh, table, waveforms), mel_error(vocoder, table, waveforms)
    assert after < 0.45 * before
    swapped = mel_error(vocoder, UnitTable(**{**fields(table), "speakers": ["s1", "s0"] * 2}), waveforms)
    assert swapped > 1.1 * after
    lasting = vocoder.predict_durations(np.array([0, 5, 1, 4, 2, 3]))
    assert lasting[1] > lasting[0]
    assert "step 120/120, mel" in str(steps[-1])
    assert str(steps[-1]).endswith("0.0 h left")


def fields(table: UnitTable) -> dict[str, Any]:
    return {name: getattr(table, name) for name in table.__dataclass_fields__}


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    table, waveforms = corpus()
    shape, recipe = tiny_shape(), HifiganRecipe(steps=5, learning_rate=1e-3, decay_steps=2, **TINY)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    whole = train_hifigan(table, waveforms, recipe, shape=shape)
    assert torch.equal(torch.get_rng_state(), state)

    def kill(step: HifiganStep) -> None:
        if step.step == 3:
            raise Killed

    path = tmp_path / "run" / "checkpoint.safetensors"
    arguments: dict[str, Any] = {"shape": shape, "checkpoint": path, "checkpoint_steps": 2}
    with pytest.raises(Killed):
        train_hifigan(table, waveforms, recipe, progress=kill, **arguments)
    seen: list[int] = []
    resumed = train_hifigan(table, waveforms, recipe, progress=lambda step: seen.append(step.step), **arguments)
    assert seen == [3, 4, 5]
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    wanted = whole.network.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in resumed.network.state_dict().items())
    # A finished run is read back, and more steps go on with it.
    again = train_hifigan(table, waveforms, recipe, progress=lambda step: seen.append(step.step), **arguments)
    assert seen == [3, 4, 5]
    assert torch.equal(again.network.conv_pre.weight, whole.network.conv_pre.weight)
    longer = HifiganRecipe(steps=6, learning_rate=1e-3, decay_steps=2, **TINY)
    train_hifigan(table, waveforms, longer, progress=lambda step: seen.append(step.step), **arguments)
    assert seen == [3, 4, 5, 6]
    other = HifiganRecipe(steps=6, learning_rate=2e-3, decay_steps=2, **TINY)
    with pytest.raises(DataError, match="the checkpoint of other data, sizes or settings"):
        train_hifigan(table, waveforms, other, **arguments)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"checkpoint\.safetensors: not readable .*; delete it"):
        train_hifigan(table, waveforms, recipe, **arguments)


def test_bf16_trains_too() -> None:
    table, waveforms = corpus()
    steps: list[HifiganStep] = []
    recipe = HifiganRecipe(steps=2, precision="bf16", **TINY)
    vocoder = train_hifigan(table, waveforms, recipe, shape=tiny_shape(), progress=steps.append)
    assert all(np.isfinite([s.mel, s.adversarial, s.feature, s.discriminator, s.duration]).all() for s in steps)
    assert all(p.dtype == torch.float32 for p in vocoder.network.parameters())
    assert np.isfinite(vocoder.synthesize(np.array([1, 2]))).all()


def test_what_cannot_be_trained_is_refused() -> None:
    table, waveforms = corpus()
    recipe = HifiganRecipe(steps=1, **TINY)
    with pytest.raises(DataError, match="2 rows of units need as many waveforms, got 1"):
        train_hifigan(table, waveforms[:1], recipe, shape=tiny_shape())
    with pytest.raises(DataError, match="a generator for 5 units at 100 Hz cannot learn 6 at 100 Hz"):
        train_hifigan(table, waveforms, recipe, shape=tiny_shape(5))
    with pytest.raises(DataError, match="has no voice for s0"):
        train_hifigan(table, waveforms, recipe, shape=tiny_shape(speakers=("x",)))
    with pytest.raises(DataError, match=r"utterance \d has \d+ frames of 160 samples and 100 samples"):
        train_hifigan(table, [waveforms[0][:100], waveforms[1][:100]], recipe, shape=tiny_shape())
    with pytest.raises(DataError, match="batch = 0; it must be above 0"):
        HifiganRecipe(steps=1, batch=0)


def test_losses_that_are_not_finite_stop_before_they_are_saved(tmp_path: Path) -> None:
    table, waveforms = corpus()
    path = tmp_path / "checkpoint.safetensors"
    broken = [np.full_like(waveform, np.nan) for waveform in waveforms]
    with pytest.raises(DataError, match=r"step 1 has losses that are not finite \(mel nan.*look for NaN in the audio"):
        train_hifigan(
            table, broken, HifiganRecipe(steps=2, **TINY), shape=tiny_shape(), checkpoint=path, checkpoint_steps=1
        )
    assert not path.exists()


def test_waveforms_may_be_read_when_asked_for() -> None:
    """Any sequence will do, so that hours of audio need not lie in memory."""
    table, waveforms = corpus()

    class Lazy(Sequence[np.ndarray]):
        def __len__(self) -> int:
            return len(waveforms)

        def __getitem__(self, row: Any) -> Any:
            return waveforms[row].copy()

    recipe = HifiganRecipe(steps=1, **TINY)
    first, second = (train_hifigan(table, w, recipe, shape=tiny_shape()) for w in (waveforms, Lazy()))
    assert torch.equal(first.network.conv_pre.weight, second.network.conv_pre.weight)


@pytest.mark.parametrize(
    ("frame_rate_hz", "rates"),
    [(25.0, (5, 4, 4, 4, 2)), (50.0, (5, 4, 4, 4)), (100.0, (5, 4, 4, 2)), (12.5, (5, 4, 4, 4, 4))],
)
def test_the_hop_follows_the_rate_of_the_units(frame_rate_hz: float, rates: tuple[int, ...]) -> None:
    shape = HifiganShape.for_units(num_units=5, frame_rate_hz=frame_rate_hz)
    assert shape.upsample_rates == rates
    assert shape.frame_rate_hz == frame_rate_hz


@pytest.mark.parametrize("frame_rate_hz", [75.0, 16_000 / 11])
def test_impossible_hops_are_refused(frame_rate_hz: float) -> None:
    with pytest.raises(DataError, match="use another sample_rate_hz"):
        HifiganShape.for_units(num_units=5, frame_rate_hz=frame_rate_hz)


def test_segments_are_slices_and_know_only_seed_and_step() -> None:
    table, waveforms = corpus(rows=3, speakers=2)
    segments = Segments(table, waveforms, tiny_shape(speakers=("s0", "s1")), 8, 16, 7)
    units, audio, speakers, (kinds, frames, inside) = segments.batch(4)
    for row in range(8):
        places = [
            (i, start)
            for i in range(3)
            for start in range(int(table.frames[i]) - 15)
            if np.array_equal(waveforms[i][start * 160 : (start + 16) * 160], audio[row].numpy())
        ]
        assert any(
            np.array_equal(np.repeat(table.row_units(i), table.row_durations(i))[s : s + 16], units[row].numpy())
            and speakers[row] == i % 2
            for i, s in places
        )
        # Inside, every duration is the whole one: u + 2.
        assert (frames[row] == kinds[row] + 2)[inside[row] > 0].all()
        assert frames[row].sum() == 16
    same = Segments(table, waveforms, tiny_shape(speakers=("s0", "s1")), 8, 16, 7).batch(4)
    assert torch.equal(same[0], units)
    assert not torch.equal(segments.batch(5)[0], units)


def test_pieces_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocoder = load_codehifigan(write_published(tmp_path, CONFIG, published_tensors(CONFIG)))
    units = np.random.default_rng(0).integers(20, size=150)
    whole = vocoder.synthesize(units, np.ones(150, np.int64))
    monkeypatch.setattr(hifigan_stream, "PIECE_FRAMES", 7)
    assert np.abs(vocoder.synthesize(units, np.ones(150, np.int64)) - whole).max() < 1e-5
    # The reach is no guess: a unit beyond it changes nothing, and it is not far too wide.
    monkeypatch.undo()
    reach = vocoder.shape.reach_frames
    changed = units.copy()
    changed[75] = (units[75] + 1) % 20
    difference = np.abs(vocoder.synthesize(changed, np.ones(150, np.int64)) - whole)
    places = np.flatnonzero(difference > 1e-6) // 40
    assert reach - 8 <= 75 - places.min() <= reach
    assert reach - 8 <= places.max() - 75 <= reach


def test_saved_generator_is_the_same_and_altered_files_are_named(tmp_path: Path) -> None:
    vocoder = load_codehifigan(write_published(tmp_path / "p", CONFIG, published_tensors(CONFIG)))
    vocoder.save(tmp_path / "s")
    units = np.array([1, 5, 2])
    loaded = open_vocoder(tmp_path / "s")
    assert isinstance(loaded, UnitHifigan)
    assert np.array_equal(loaded.synthesize(units), vocoder.synthesize(units))
    assert (loaded.shape, loaded.training) == (vocoder.shape, vocoder.training)
    assert len(vocoder.synthesize(np.zeros(0, np.int64))) == 0
    with pytest.raises(DataError, match=r"unit ids run 1\.\.20, allowed 0\.\.19"):
        vocoder.synthesize(np.array([1, 20]))
    weights = tmp_path / "s" / "hifigan.safetensors"
    content = bytearray(weights.read_bytes())
    content[-9] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DataError, match=r"hifigan\.safetensors: the weights are not those"):
        UnitHifigan.load(tmp_path / "s")
    weights.write_bytes(content[:50])
    with pytest.raises(DataError, match=r"hifigan\.safetensors: not readable"):
        UnitHifigan.load(tmp_path / "s")
    weights.unlink()
    with pytest.raises(DataError, match=r"hifigan\.safetensors: the file is missing"):
        UnitHifigan.load(tmp_path / "s")
    description = tmp_path / "s" / "hifigan.json"
    saved = json.loads(description.read_text())
    description.write_text(json.dumps({**saved, "format_version": 9}))
    with pytest.raises(DataError, match="version 9"):
        UnitHifigan.load(tmp_path / "s")
    description.write_text(json.dumps({**saved, "shape": {}}))
    with pytest.raises(DataError, match=r"hifigan\.json: fields do not fit"):
        UnitHifigan.load(tmp_path / "s")


def test_losses_are_those_of_the_paper() -> None:
    real = [(torch.tensor([[1.0, 0.5]]), [torch.tensor([1.0, 2.0]), torch.tensor([3.0])])]
    made = [(torch.tensor([[0.0, 0.5]]), [torch.tensor([0.0, 4.0]), torch.tensor([3.5])])]
    assert discriminator_loss(real, made).item() == pytest.approx((0 + 0.25) / 2 + (0 + 0.25) / 2)
    assert adversarial_loss(made).item() == pytest.approx((1 + 0.25) / 2)
    assert feature_loss(real, made).item() == pytest.approx(1.5 + 0.5)
    judged = Discriminators(width=0.05)(torch.randn(2, 1001, generator=torch.Generator().manual_seed(0)))
    assert [len(features) for _, features in judged] == [6] * 5 + [8] * 3


def test_one_interface_for_all(tmp_path: Path) -> None:
    table, waveforms = corpus()
    train_vocoder(table, waveforms, seed=0, steps=1).save(tmp_path / "a")
    load_codehifigan(write_published(tmp_path / "p", CONFIG, published_tensors(CONFIG))).save(tmp_path / "b")
    for folder in ("a", "b", "p"):
        vocoder = open_vocoder(tmp_path / folder)
        assert vocoder.sample_rate_hz == 16_000
        assert vocoder.synthesize(np.array([1, 2, 3]), np.array([2, 2, 2]), None).dtype == np.float32
        whole = vocoder.synthesize(np.array([1, 2, 3]))
        assert len(whole) > 0
        stream = vocoder.stream()
        made = np.concatenate([*(stream.push(np.array([unit])) for unit in (1, 2, 3)), stream.finish()])
        assert len(made) == len(whole)
        assert np.abs(made - whole).max() < 1e-5
    with pytest.raises(DataError, match=r"p: speaks 20 units, the vocabulary has 500; use the vocoder of the same"):
        open_vocoder(tmp_path / "p", num_units=500)
