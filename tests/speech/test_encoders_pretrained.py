"""Catches a wrong layer, a wrong frame count, wrong weights, and a model folder that is not what it says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from speechscale.errors import DataError
from speechscale.speech.audio import load_audio
from speechscale.speech.encoders import Runtime, TransformerLayer, build_encoder
from speechscale.speech.encoders.fronts import ConvFront, FilterbankFront
from speechscale.speech.encoders.model_files import find_model
from speechscale.speech.encoders.presets import PRESETS, preset
from speechscale.speech.encoders.spectral_conv import SpectralConv1d, replaceable
from speechscale.speech.pretrained import preset_tokenizer
from speechscale.speech.units import SpeechTokenizer, fit_tokenizer
from tests.speech.tiny_models import KINDS, speech_like, tiny_folder


def layer(kind: str, number: int = 2, **settings: Any) -> TransformerLayer:
    return TransformerLayer(model=str(tiny_folder(kind)), layer=number, **settings)


def full_model(kind: str) -> Any:
    return getattr(transformers, KINDS[kind][0] + "Model").from_pretrained(tiny_folder(kind)).eval()


def inputs(kind: str, waveform: np.ndarray) -> torch.Tensor:
    if kind == "w2v-bert":
        extractor = transformers.SeamlessM4TFeatureExtractor()
        found = extractor(waveform, sampling_rate=16_000, pad_to_multiple_of=None, return_tensors="pt")
        return found.input_features
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    return extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_values


@pytest.mark.parametrize("kind", KINDS)
def test_each_layer_is_that_of_the_full_model(kind: str) -> None:
    """Catches off-by-one layers and a final norm where there should be none (or none where there should be one)."""
    waveform = speech_like(30_000)
    with torch.inference_mode():
        output = full_model(kind)(inputs(kind, waveform), output_hidden_states=True)
    expected = [*output.hidden_states[:3], output.last_hidden_state]
    tolerance = 2e-4 if kind in ("hubert-base", "wav2vec2-base", "wavlm-base", "hubert-batch-norm") else 3e-5
    for number, states in enumerate(expected):
        encoder = layer(kind, number)
        np.testing.assert_allclose(encoder.encode([waveform])[0], states[0].numpy(), atol=tolerance)
        stack = encoder.net.model.encoder.layers
        assert len(stack) == number, "layers above the wanted one are computed"
    norms = dict.fromkeys(("hubert-large", "wav2vec2-large", "wavlm-large"), "layer_norm")
    if kind in norms:
        before_norm = output.hidden_states[3][0].numpy()
        assert np.abs(layer(kind, 3).encode([waveform])[0] - before_norm).max() > 0.1


@pytest.mark.parametrize("kind", ["hubert-base", "hubert-large", "hubert-25hz"])
def test_frames_are_those_of_the_convolutions(kind: str) -> None:
    encoder, model = layer(kind), full_model(kind)
    for samples in (399, 400, 719, 720, 721, 1039, 1040, 5000, 16_000):
        expected = max(0, int(model._get_feat_extract_output_lengths(torch.tensor(samples))))
        assert encoder.frame_count(samples) == expected
        assert len(encoder.encode([speech_like(samples)])[0]) == expected


@pytest.mark.parametrize(
    ("kind", "pad", "samples", "frames"),
    [
        ("hubert-base", 0, 190_800, 596),  # fairseq's sample
        ("hubert-25hz", 40, 225_360, 352),  # slamkit's samples: 14.085 s and 15.945 s
        ("hubert-25hz", 40, 255_120, 398),
    ],
)
def test_frame_counts_of_published_units(kind: str, pad: int, samples: int, frames: int) -> None:
    assert layer(kind, pad_samples=pad).frame_count(samples) == frames


def test_frame_counts_of_the_published_files(shared: Path) -> None:
    """Catches a frame rule that would shift our units against fairseq's and slamkit's."""
    folder = shared / "data" / "dev-units"
    audio = load_audio(folder / "fairseq" / "6313-76958-0021.flac").audio
    published = np.load(folder / "fairseq" / "sample.base.L9.npy")
    assert layer("hubert-base", 1).encode([audio])[0].shape == (len(published), 32)
    rows = [json.loads(line) for line in (folder / "slamkit" / "features.jsonl").read_text().splitlines()]
    encoder = layer("hubert-25hz", 1, pad_samples=40)
    for row in rows:
        name = Path(row["file_name"]).name
        audio = load_audio(folder / "slamkit" / "audio" / name).audio
        durations = row.get("duration", row.get("durations"))
        assert len(encoder.encode([audio])[0]) == sum(durations)


def test_filterbank_is_that_of_transformers() -> None:
    extractor = transformers.SeamlessM4TFeatureExtractor()
    front = FilterbankFront(extractor.mel_filters, extractor.window)
    waveform = speech_like(20_321)
    expected = extractor._extract_fbank_features(waveform)
    np.testing.assert_allclose(front.bands(torch.from_numpy(waveform)).numpy(), expected, atol=2e-3)


def test_tiles_make_no_difference() -> None:
    """Catches frames at the border of a tile that miss samples."""
    for kind in ("hubert-base", "hubert-large"):
        front = layer(kind).net.front
        assert isinstance(front, ConvFront)
        waveform = speech_like(60_000)
        statistics = front.statistics(lambda audio=waveform: [audio], len(waveform))  # type: ignore[misc]
        with torch.inference_mode():
            tiled = front(torch.from_numpy(waveform), statistics)
            whole = ConvFront(front.layers, tile_frames=10_000)(torch.from_numpy(waveform), statistics)
        torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frames", [1, 30, 385, 386, 900])
@pytest.mark.parametrize(("kernel", "groups", "bias"), [(128, 4, True), (128, 1, False), (33, 2, True)])
def test_spectral_convolution_is_the_convolution(frames: int, kernel: int, groups: int, bias: bool) -> None:
    """Catches blocks that are glued one frame off, and a kernel run backwards."""
    torch.manual_seed(frames)
    conv = torch.nn.Conv1d(16, 8, kernel, padding=kernel // 2, groups=groups, bias=bias)
    assert replaceable(conv)
    hidden = torch.randn(2, 16, frames)
    with torch.inference_mode():
        torch.testing.assert_close(SpectralConv1d(conv)(hidden), conv(hidden), atol=1e-5, rtol=1e-5)
        assert SpectralConv1d(conv)(hidden.bfloat16()).dtype == torch.bfloat16


def test_only_long_plain_convolutions_are_replaced() -> None:
    assert not replaceable(torch.nn.Conv1d(4, 4, 16))
    assert not replaceable(torch.nn.Conv1d(4, 4, 64, stride=2))
    assert not replaceable(torch.nn.Linear(4, 4))
    position = layer("hubert-base").net.model.encoder.pos_conv_embed
    assert isinstance(position.conv, SpectralConv1d), "tiny models must exercise it"


def test_config_rebuilds_the_encoder_without_its_folder() -> None:
    encoder = layer("hubert-base", pad_samples=40)
    config = encoder.config()
    assert config["model"] == "tiny-hubert-base"
    assert config["normalize"] is True
    assert len(config["weights_sha256"]) == len(config["settings_sha256"]) == 64
    assert str(tiny_folder("hubert-base").parent) not in json.dumps(config)
    again = build_encoder(
        "transformer-layer", config, runtime=Runtime(model_folders=(tiny_folder("hubert-base").parent,))
    )
    assert again.config() == config
    waveform = speech_like(20_000)
    assert again.encode([waveform])[0].tobytes() == encoder.encode([waveform])[0].tobytes()


def test_models_are_found_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = layer("hubert-base").config()
    with pytest.raises(DataError, match=r"model 'tiny-hubert-base': not found .*SPEECHSCALE_MODELS"):
        build_encoder("transformer-layer", config).encode([speech_like(4000)])
    monkeypatch.setenv("SPEECHSCALE_MODELS", str(tiny_folder("hubert-base").parent))
    assert len(build_encoder("transformer-layer", config).encode([speech_like(4000)])[0]) == 12


def copy_of(kind: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder(kind), tmp_path / f"tiny-{kind}"))


def test_other_weights_are_refused(tmp_path: Path) -> None:
    """Catches a tokenizer that silently runs on another checkpoint of the same name."""
    config = layer("hubert-base").config()
    folder = copy_of("hubert-base", tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["feature_projection.projection.bias"] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    other = build_encoder("transformer-layer", config, runtime=Runtime(model_folders=(tmp_path,)))
    with pytest.raises(DataError, match=r"the weights in .* have SHA-256 .*make a new tokenizer"):
        other.encode([speech_like(4000)])
    assert TransformerLayer(model=str(folder), layer=2).config()["weights_sha256"] != config["weights_sha256"]


def test_settings_are_part_of_the_identity_but_not_their_history(tmp_path: Path) -> None:
    folder = copy_of("hubert-base", tmp_path)
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"transformers_version": "0", "_name_or_path": "elsewhere"}))
    assert TransformerLayer(model=str(folder), layer=2).config() == layer("hubert-base").config()
    path.write_text(json.dumps(settings | {"layer_norm_eps": 1e-3}))
    assert TransformerLayer(model=str(folder), layer=2).config() != layer("hubert-base").config()


def test_missing_weights_are_an_error_not_noise(tmp_path: Path) -> None:
    """Catches what transformers does by itself: draw missing weights at random and warn."""
    folder = copy_of("hubert-base", tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layers.1.attention.k_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"lack or misshape 1 arrays, such as encoder\.layers\.1\.attention"):
        TransformerLayer(model=str(folder), layer=2).encode([speech_like(4000)])
    assert len(TransformerLayer(model=str(folder), layer=1).encode([speech_like(4000)])[0]) == 12


def test_checkpoints_with_a_head_are_read(tmp_path: Path) -> None:
    """Catches a loader that only knows bare models: fine-tuned checkpoints keep theirs under a prefix."""
    config = transformers.HubertConfig(**KINDS["hubert-base"][1])
    model = transformers.HubertForCTC(config).eval()
    model.save_pretrained(tmp_path / "ctc")
    waveform = speech_like(8000)
    with torch.inference_mode():
        expected = model.hubert(torch.from_numpy(waveform)[None], output_hidden_states=True).hidden_states[2][0]
    found = TransformerLayer(model=str(tmp_path / "ctc"), layer=2, normalize=False).encode([waveform])[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("pickle", "only pytorch_model.bin, which may run code when read"),
        ("empty", r"has no model\.safetensors; give a folder"),
        ("index", r"model-00002\.safetensors.* are missing; copy them too"),
        ("truncated", "cannot be loaded .*; copy its files again"),
        ("kind", "is a 'bert'; known kinds are hubert"),
        ("json", "not readable as JSON"),
        ("preprocessor", r"has no preprocessor_config\.json .* set normalize"),
    ],
)
def test_damaged_folders_are_named(tmp_path: Path, damage: str, message: str) -> None:
    folder = copy_of("hubert-base", tmp_path)
    weights = folder / "model.safetensors"
    if damage == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    elif damage == "empty":
        weights.unlink()
    elif damage == "index":
        weights.unlink()
        index = {"weight_map": {"a": "model-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif damage == "kind":
        (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    elif damage == "json":
        (folder / "config.json").write_text("{")
    else:
        (folder / "preprocessor_config.json").unlink()
    with pytest.raises(DataError, match=message):
        TransformerLayer(model=str(folder), layer=2).encode([speech_like(4000)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": 4}, r"has layers 0\.\.3, 4 was asked for"),
        ({"layer": 1, "precision": "fp8"}, "precision 'fp8' is unknown"),
        ({"layer": 1, "chunk_s": 4.0, "context_s": 2.0}, r"0 <= 2 \* context_s < chunk_s"),
        ({"layer": 1, "version": 2}, "version 2 is unknown"),
        ({"layer": 1, "layers": 2}, "do not fit"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        build_encoder("transformer-layer", {"model": str(tiny_folder("hubert-base")), **settings}).encode(
            [speech_like(4000)]
        )


def test_a_model_that_is_nowhere_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*_: Any, **__: Any) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(DataError, match=r"hub cannot be reached \(no network\).*hf download owner/name"):
        find_model("owner/name", "main")
    with pytest.raises(DataError, match="no hub id OWNER/NAME"):
        find_model("../../secret", "main")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", "asks for consent first .* accept the terms"),
        ("RepositoryNotFoundError", "the hub does not know it"),
        ("RevisionNotFoundError", "has no revision 'v9'; correct the revision"),
    ],
)
def test_answers_of_the_hub_are_told_apart(monkeypatch: pytest.MonkeyPatch, error: str, message: str) -> None:
    import huggingface_hub

    def refuse(*_: Any, **__: Any) -> str:
        kind = getattr(huggingface_hub.errors, error)
        raise kind.__new__(kind)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(DataError, match=message):
        find_model("owner/name", "v9")


def test_bf16_is_close_and_part_of_the_identity() -> None:
    waveform = speech_like(30_000)
    exact = layer("hubert-base").encode([waveform])[0]
    for precision in ("bf16", "bf16-autocast"):
        encoder = layer("hubert-base", precision=precision)
        found = encoder.encode([waveform])[0]
        assert found.dtype == np.float32
        assert 1e-4 < np.abs(found - exact).max() < 0.3
        assert encoder.config() != layer("hubert-base").config()
        masked = replace(encoder, runtime=Runtime(batching="masked")).encode([waveform, speech_like(20_000)])[0]
        assert np.abs(masked - exact).max() < 0.3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_compiled_layers_agree() -> None:
    waveform = speech_like(20_000)
    compiled = layer("hubert-base", 1, runtime=Runtime(compile=True)).encode([waveform])[0]
    np.testing.assert_allclose(compiled, layer("hubert-base", 1).encode([waveform])[0], atol=1e-4)


def test_presets_name_real_settings() -> None:
    for name, chosen in PRESETS.items():
        assert TransformerLayer(**chosen.settings).layer > 0, name
        assert bool(chosen.quantizer) == bool(chosen.clusters)
    assert preset("mhubert-25hz-l11").settings["pad_samples"] == 40
    assert preset("mhubert-25hz-l11").quantizer_sha256.startswith("03cc04a9")
    with pytest.raises(DataError, match="preset 'hubert' is unknown; known are: hubert-base-l9"):
        preset("hubert")


def test_fitted_units_of_a_local_model_run_at_once_and_after_loading(tmp_path: Path) -> None:
    """Catches a fitted tokenizer that has lost the folder its model was read from."""
    settings = {"model": str(tiny_folder("wavlm-base")), "layer": 1}
    tokenizer = fit_tokenizer(
        [speech_like(60_000)], encoder="transformer-layer", encoder_config=settings, clusters=20, seed=0
    )
    units = tokenizer.units([speech_like(20_000)])[0]
    assert len(units) == 62
    tokenizer.save(tmp_path)
    loaded = SpeechTokenizer.load(tmp_path, runtime=Runtime(model_folders=(tiny_folder("wavlm-base").parent,)))
    assert loaded.units([speech_like(20_000)])[0].tobytes() == units.tobytes()


def test_a_preset_becomes_a_tokenizer_that_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a fingerprint that does not depend on weights, and a tokenizer bound to this machine's folders."""
    centers = layer("hubert-25hz", 1).encode([speech_like(90_000, 3)])[0][:50]
    np.save(tmp_path / "km.npy", centers)
    with pytest.raises(DataError, match="sha256"):
        preset_tokenizer("mhubert-25hz-l11", tmp_path / "km.npy")
    monkeypatch.setitem(PRESETS, "tiny", replace(preset("mhubert-25hz-l11"), quantizer_sha256="", clusters=50))
    settings = {"model": str(tiny_folder("hubert-25hz")), "layer": 1}
    tokenizer = preset_tokenizer("tiny", tmp_path / "km.npy", settings=settings)
    assert (tokenizer.num_units, tokenizer.frame_rate_hz, tokenizer.sample_rate_hz) == (50, 25.0, 16_000)
    units = tokenizer.units([speech_like(225_360)])[0]
    assert (len(units), units.dtype) == (352, np.int16)
    tokenizer.save(tmp_path / "saved")
    here = Runtime(model_folders=(tiny_folder("hubert-25hz").parent,))
    loaded = SpeechTokenizer.load(tmp_path / "saved", runtime=here)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.units([speech_like(225_360)])[0].tobytes() == units.tobytes()
    config = loaded.encoder_config | {"weights_sha256": "0" * 64}
    assert replace(tokenizer, encoder_config=config).fingerprint != tokenizer.fingerprint
    monkeypatch.setitem(PRESETS, "tiny", replace(preset("mhubert-25hz-l11"), quantizer_sha256=""))
    with pytest.raises(DataError, match=r"needs 500 centroids of 32 values, km\.npy has 50 of 32"):
        preset_tokenizer("tiny", tmp_path / "km.npy", settings=settings)
