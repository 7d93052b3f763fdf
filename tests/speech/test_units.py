"""Catches units that depend on the batch, and tokenizers that load although a file was altered or swapped."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from speechscale.errors import DataError
from speechscale.speech.audio import load_audio
from speechscale.speech.encoders import ENCODERS, Mfcc, build_encoder
from speechscale.speech.units import OTHER, SpeechTokenizer, fit_tokenizer, phone_frames, phone_tokenizer


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    time = np.arange(round(seconds * 16_000)) / 16_000
    rng = np.random.default_rng(seed)
    return (0.2 * (1 + np.sin(9 * time)) * np.cumsum(rng.standard_normal(len(time))) * 0.02).astype(np.float32)


@pytest.fixture(scope="module")
def tokenizer() -> SpeechTokenizer:
    return fit_tokenizer([noise(6, seed) for seed in range(4)], encoder="mfcc", clusters=20, seed=1)


def test_fit_is_deterministic_and_reports_itself(tokenizer: SpeechTokenizer) -> None:
    again = fit_tokenizer((noise(6, seed) for seed in range(4)), encoder="mfcc", clusters=20, seed=1)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.centroids.tobytes() == tokenizer.centroids.tobytes()
    other = fit_tokenizer((noise(6, seed) for seed in range(4)), encoder="mfcc", clusters=20, seed=2)
    assert other.fingerprint != tokenizer.fingerprint
    assert (tokenizer.num_units, tokenizer.frame_rate_hz, tokenizer.sample_rate_hz) == (20, 25.0, 16_000)
    assert not tokenizer.oracle
    assert (tokenizer.fit["frames_seen"], tokenizer.fit["frames_used"], tokenizer.fit["seed"]) == (600, 600, 1)
    small = fit_tokenizer([noise(6, seed) for seed in range(4)], encoder="mfcc", clusters=20, seed=1, max_frames=100)
    assert (small.fit["frames_seen"], small.fit["frames_used"]) == (600, 100)


def test_units_alone_and_in_any_batch(tokenizer: SpeechTokenizer) -> None:
    waveforms = [noise(seconds, 9) for seconds in (3.3, 0.01, 0.04, 71.7, 1.0)]
    together = tokenizer.units(waveforms)
    assert [len(units) for units in together] == [82, 0, 1, 1792, 25]
    for waveform, units in zip(waveforms, together, strict=True):
        assert units.dtype == np.int16
        assert tokenizer.units([waveform])[0].tobytes() == units.tobytes()
    assert len(np.unique(together[3])) > 10


def test_bad_waveform_is_named(tokenizer: SpeechTokenizer) -> None:
    bad = noise(1)
    bad[100] = np.nan
    with pytest.raises(DataError, match="waveform 1: holds NaN"):
        tokenizer.units([noise(1), bad])


def test_saved_tokenizer_is_the_same(tokenizer: SpeechTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "a" / "b")
    loaded = SpeechTokenizer.load(tmp_path / "a" / "b")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.fit == tokenizer.fit
    waveform = noise(5, 11)
    assert loaded.units([waveform])[0].tobytes() == tokenizer.units([waveform])[0].tobytes()
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == ["kmeans.safetensors", "speech_tokenizer.json"]
    loaded.save(tmp_path / "c")
    for name in ("kmeans.safetensors", "speech_tokenizer.json"):
        assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "a" / "b" / name).read_bytes()


def test_oracle_is_named_and_saved_without_centroids(tmp_path: Path) -> None:
    phones = phone_tokenizer(["b", "a", "b", "_"])
    assert phones.labels == (OTHER, "_", "a", "b")
    assert (phones.num_units, phones.frame_rate_hz, phones.oracle) == (4, 100.0, True)
    assert phones.fingerprint == phone_tokenizer(["_", "a", "b"]).fingerprint
    assert phones.fingerprint != phone_tokenizer(["_", "a", "c"]).fingerprint
    phones.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["speech_tokenizer.json"]
    assert json.loads((tmp_path / "speech_tokenizer.json").read_text())["oracle"] is True
    assert SpeechTokenizer.load(tmp_path).fingerprint == phones.fingerprint
    with pytest.raises(DataError, match="come from a speech engine's phone events"):
        phones.units([noise(1)])
    with pytest.raises(DataError, match="no phone labels given"):
        phone_tokenizer([])


def test_phone_events_need_the_oracle(tokenizer: SpeechTokenizer) -> None:
    with pytest.raises(DataError, match="'mfcc' are made from waveforms"):
        phone_frames(tokenizer, [("a", 0, 160)], 160)


def test_fit_refuses_what_it_cannot_use() -> None:
    with pytest.raises(DataError, match="got 25; use more audio"):
        fit_tokenizer([noise(1)], encoder="mfcc", clusters=100, seed=0)
    with pytest.raises(DataError, match=r"clusters must be 2\.\.32767"):
        fit_tokenizer([noise(1)], encoder="mfcc", clusters=40_000, seed=0)
    with pytest.raises(DataError, match="no usable audio"):
        fit_tokenizer([], encoder="mfcc", clusters=5, seed=0)


@pytest.mark.parametrize("position", [9, -1, -200])
def test_altered_centroids_are_found(tokenizer: SpeechTokenizer, tmp_path: Path, position: int) -> None:
    tokenizer.save(tmp_path)
    path = tmp_path / "kmeans.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"kmeans\.safetensors: .*; make the tokenizer again"):
        SpeechTokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_rate_hz": 50.0}, "does not match its fingerprint"),
        ({"encoder": "other"}, "does not match its fingerprint"),
        ({"encoder_config": {}}, "does not match its fingerprint"),
        ({"centroids_sha256": "0" * 64}, "kmeans.safetensors: the centroids are not those"),
        ({"format_version": 2}, "version 2, this package reads"),
        ({"format": "x"}, "format 'x'"),
        ({"labels": None}, "field 'labels' is missing"),
    ],
)
def test_altered_description_is_found(
    tokenizer: SpeechTokenizer, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    tokenizer.save(tmp_path)
    path = tmp_path / "speech_tokenizer.json"
    content = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    with pytest.raises(DataError, match=message):
        SpeechTokenizer.load(tmp_path)


def test_missing_and_unreadable_files_are_named(tokenizer: SpeechTokenizer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"speech_tokenizer\.json: the file is missing"):
        SpeechTokenizer.load(tmp_path)
    tokenizer.save(tmp_path)
    (tmp_path / "kmeans.safetensors").unlink()
    with pytest.raises(DataError, match=r"kmeans\.safetensors: the file is missing"):
        SpeechTokenizer.load(tmp_path)
    (tmp_path / "speech_tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="not readable as JSON"):
        SpeechTokenizer.load(tmp_path)
    (tmp_path / "speech_tokenizer.json").write_text("[1]")
    with pytest.raises(DataError, match="holds a JSON list"):
        SpeechTokenizer.load(tmp_path)


def test_real_recordings_become_units(shared: Path) -> None:
    paths = sorted((shared / "data" / "dev-ljspeech" / "wavs").glob("*.flac"))
    waveforms = [load_audio(path).audio for path in paths]
    tokenizer = fit_tokenizer(waveforms, encoder="mfcc", clusters=50, seed=0)
    units = tokenizer.units(waveforms)
    assert len(units) == 12
    assert [len(u) for u in units] == [len(w) // 640 for w in waveforms]
    assert len(np.unique(np.concatenate(units))) == 50
    changes = np.mean([np.mean(u[1:] != u[:-1]) for u in units])
    assert 0.5 < changes < 0.95


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A test encoder with one learned array: MFCC times a gain per dimension."""

    tensors: dict[str, np.ndarray] = field(default_factory=lambda: {"gain": np.ones(26, np.float32)})
    name: str = "scaled"
    sample_rate_hz: int = 16_000
    frame_rate_hz: float = 25.0
    dim: int = 26

    def config(self) -> dict[str, object]:
        return {}

    def encode(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        return [features * self.tensors["gain"] for features in Mfcc().encode(waveforms)]


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> SpeechTokenizer:
    monkeypatch.setitem(ENCODERS, "scaled", Scaled)
    gain = {"gain": np.linspace(0.5, 2, 26, dtype=np.float32)}
    return fit_tokenizer([noise(6)], encoder="scaled", encoder_tensors=gain, clusters=10, seed=0)


def test_learned_arrays_travel_with_the_tokenizer(scaled: SpeechTokenizer, tmp_path: Path) -> None:
    """Catches a tokenizer that is loaded without its encoder's learned arrays."""
    scaled.save(tmp_path)
    assert "encoder.safetensors" in [path.name for path in tmp_path.iterdir()]
    loaded = SpeechTokenizer.load(tmp_path)
    assert loaded.fingerprint == scaled.fingerprint
    assert loaded.units([noise(3, 5)])[0].tobytes() == scaled.units([noise(3, 5)])[0].tobytes()


def test_learned_arrays_are_part_of_the_fingerprint(scaled: SpeechTokenizer, tmp_path: Path) -> None:
    other = replace(scaled, encoder_tensors={"gain": scaled.encoder_tensors["gain"] * np.float32(1.01)})
    assert other.fingerprint != scaled.fingerprint
    assert replace(scaled, encoder_tensors={}).fingerprint != scaled.fingerprint
    scaled.save(tmp_path)
    other.save(tmp_path / "other")
    (tmp_path / "other" / "encoder.safetensors").replace(tmp_path / "encoder.safetensors")
    with pytest.raises(DataError, match=r"encoder\.safetensors: the arrays are not those"):
        SpeechTokenizer.load(tmp_path)
    (tmp_path / "encoder.safetensors").unlink()
    with pytest.raises(DataError, match=r"encoder\.safetensors: the file is missing"):
        SpeechTokenizer.load(tmp_path)


def test_an_encoder_without_learned_arrays_refuses_them() -> None:
    with pytest.raises(DataError, match=r"encoder 'mfcc': settings \['tensors'\] do not fit"):
        build_encoder("mfcc", {}, {"gain": np.ones(26)})


def test_fingerprint_of_older_tokenizers_is_kept() -> None:
    """Catches a change of the definition that would disown every tokenizer and unit file made so far."""
    old = SpeechTokenizer(
        encoder_name="mfcc",
        encoder_config=Mfcc().config(),
        num_units=2,
        frame_rate_hz=25.0,
        sample_rate_hz=16_000,
        centroids=np.arange(52, dtype=np.float32).reshape(2, 26),
    )
    assert old.fingerprint == "8bfad4fd01b7463d696ba185b013fe669d81882bd0272d05c420632e724d36a4"
