"""Read a published unit vocoder (CodeHiFiGAN of textless and fairseq) from local files.

Enters: a checkpoint and its config.json. Leaves: `UnitHifigan`. The one decision worth knowing: nothing in the file is
executed (tensors only), its checksum can be demanded, and every tensor must be one that the config calls for.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from speechscale.errors import DataError
from speechscale.files import read_json
from speechscale.speech.hifigan import UnitHifigan
from speechscale.speech.hifigan_network import HifiganShape, as_tuples, filled_generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published checkpoint: its usual file names, checksums, and the units it speaks."""

    checkpoint: str
    config: str
    sha256: str
    config_sha256: str
    units: str


PUBLISHED = {
    "hifigan_lj_mhubert_base_25hz": Published(
        checkpoint="hifigan_lj_mhubert_base_25hz.pt",
        config="hifigan_lj_mhubert_base_25hz_config.json",
        sha256="d88224e95c501e2cd59a6e4014753169cfe060fb7ade3cc0da03c809fef73b79",
        config_sha256="116dc39be4970cd393e562acd0a0ec70a86aaba7e9ca469b8b836cb3fe46afc7",
        units="mHuBERT base 25 Hz, layer 11, 500 clusters (TWIST, SIMS, Cuervo)",
    ),
}
SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", "")
CHECKSUM = re.compile(r"[0-9a-f]{8,64}")
REMEDY = "use the checkpoint together with its own config"


def load_codehifigan(
    path: str | Path,
    *,
    config: str | Path | None = None,
    sha256: str | None = None,
    preset: str | None = None,
    speakers: Sequence[str] = (),
    style: int = 0,
) -> UnitHifigan:
    """Read a checkpoint in the layout of textless and fairseq, or a folder that holds one and its config.

    Args:
        path: the checkpoint (torch or safetensors), or a folder with exactly one.
        config: its JSON; None looks beside the checkpoint for STEM_config.json, STEM.json and config.json.
        sha256: what the checkpoint must have, whole or its first 8 or more digits.
        preset: a name in `PUBLISHED`, whose checksums are then demanded.
        speakers: names of a multi-speaker checkpoint's voices; None names them "0", "1", ...
        style: which one, for a checkpoint with speaking styles.

    Raises:
        DataError: a file that is missing, has another checksum, holds more than tensors, lacks or has spare tensors,
            or needs what this package does not give it (pitch, speaker vectors).
    """
    if preset is not None and preset not in PUBLISHED:
        raise DataError(f"vocoder: unknown preset '{preset}', known: {', '.join(PUBLISHED)}; choose one of them")
    known = PUBLISHED.get(preset or "")
    checkpoint = _find_checkpoint(Path(path), known)
    config_path = _find_config(checkpoint, known) if config is None else Path(config)
    found = _check_sha256(checkpoint, known.sha256 if known else sha256)
    if known:
        _check_sha256(config_path, known.config_sha256)
    settings = read_json(config_path, "vocoder config", "put the checkpoint's config.json beside it")
    shape = _shape(settings, config_path, speakers, style)
    tensors = _fold(_read_tensors(checkpoint), checkpoint)
    training = {"source": checkpoint.name, "sha256": found, "config": config_path.name, "preset": preset}
    return UnitHifigan(shape=shape, network=filled_generator(shape, tensors, str(checkpoint)), training=training)


def _find_checkpoint(path: Path, known: Published | None) -> Path:
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and p.suffix in SUFFIXES[:-1])
        if known and path / known.checkpoint in files:
            return path / known.checkpoint
        if len(files) != 1:
            raise DataError(f"vocoder {path}: {len(files)} checkpoints in this folder; name the file")
        return files[0]
    if not path.is_file():
        raise DataError(f"vocoder {path}: no such file; download the checkpoint and name it here")
    return path


def _find_config(checkpoint: Path, known: Published | None) -> Path:
    names = [f"{checkpoint.stem}_config.json", f"{checkpoint.stem}.json", "config.json"]
    names = [known.config, *names] if known else names
    for name in names:
        if (checkpoint.parent / name).is_file():
            return checkpoint.parent / name
    raise DataError(f"vocoder {checkpoint}: no config beside it (looked for {', '.join(names)}); name it with config=")


def _check_sha256(path: Path, wanted: str | None) -> str:
    if wanted is not None and not CHECKSUM.fullmatch(wanted := wanted.lower().removesuffix("...")):
        raise DataError(f"vocoder {path}: '{wanted}' is no checksum; give 8 to 64 hexadecimal digits")
    if not path.is_file():
        raise DataError(f"vocoder {path}: no such file; download it and name it here")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if wanted is not None and not found.startswith(wanted):
        raise DataError(f"vocoder {path}: sha256 is {found}, {wanted} was demanded; download it again")
    return found


def _read_tensors(path: Path) -> Mapping[str, Tensor]:
    """Tensors of the generator, on the CPU. Nothing but tensors and plain containers is read from a torch file."""
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            with warnings.catch_warnings():  # About unusual pickles, which are refused or read below.
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = str(error).strip().splitlines()[0]
        raise DataError(f"vocoder {path}: holds more than tensors, or is cut ({first}); do not use it") from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise DataError(f"vocoder {path}: not readable ({str(error).splitlines()[0]}); download it again") from error
    for key in ("generator", "state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise DataError(f"vocoder {path}: no table of tensors named 'generator'; give a CodeHiFiGAN checkpoint")
    return {str(name).removeprefix("generator."): tensor for name, tensor in content.items()}


def _fold(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Multiply weight norm out: weight = g * v / |v|, the norm over all axes but the first.

    Source: Salimans & Kingma 2016, eq. 2.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stem, _, part = name.rpartition(".")
        if part == "weight_v" or name.endswith("parametrizations.weight.original1"):
            stem = stem.removesuffix(".parametrizations.weight")
            scale = tensors.get(f"{stem}.weight_g", tensors.get(f"{stem}.parametrizations.weight.original0"))
            if scale is None or scale.shape != (len(tensor), *[1] * (tensor.ndim - 1)):
                raise DataError(f"vocoder {path}: {name} has no matching scale; {REMEDY}")
            value = tensor.double()
            norm = value.flatten(1).norm(dim=1).reshape(scale.shape)
            plain[f"{stem}.weight"] = (scale.double() * value / norm).float()
        elif part != "weight_g" and not name.endswith("parametrizations.weight.original0"):
            plain[name] = tensor
    return plain


def _shape(settings: Mapping[str, Any], path: Path, speakers: Sequence[str], style: int) -> HifiganShape:
    for unsupported, what in (("f0", "pitch"), ("embedder_params", "speaker vectors"), ("f0_quant_num_bin", "pitch")):
        if settings.get(unsupported):
            raise DataError(f"vocoder {path}: needs {what} ({unsupported}), not supported; use a checkpoint without")
    durations = settings.get("dur_predictor_params") or {}
    count = int(settings.get("num_speakers", 200)) if settings.get("multispkr") else 0
    if speakers and len(speakers) != count:
        raise DataError(f"vocoder {path}: {count} speakers, {len(speakers)} names were given; leave the names out")
    styles = int(settings.get("num_styles", 100)) if settings.get("multistyle") else 0
    if style and not 0 <= style < styles:
        raise DataError(f"vocoder {path}: style {style} was asked for, it has {styles}; choose one from 0 on")
    try:
        shape = HifiganShape(
            num_units=int(settings["num_embeddings"]),
            sample_rate_hz=int(settings.get("sampling_rate", 16_000)),
            upsample_rates=as_tuples(settings["upsample_rates"]),
            upsample_kernel_sizes=as_tuples(settings["upsample_kernel_sizes"]),
            upsample_initial_channel=int(settings["upsample_initial_channel"]),
            resblock_kernel_sizes=as_tuples(settings["resblock_kernel_sizes"]),
            resblock_dilation_sizes=as_tuples(settings["resblock_dilation_sizes"]),
            embedding_dim=int(settings["embedding_dim"]),
            speakers=tuple(speakers) or tuple(map(str, range(count))),
            speaker_table=count > 0,
            styles=styles,
            style=style,
            duration_channels=int(durations["var_pred_hidden_dim"]) if durations else 0,
            duration_kernel=int(durations["var_pred_kernel_size"]) if durations else 3,
            duration_dropout=float(durations.get("var_pred_dropout", 0.5)),
        )
        width = int(settings.get("model_in_dim", 80))
    except KeyError as error:
        raise DataError(f"vocoder {path}: the config lacks {error}; {REMEDY}") from error
    except (TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"vocoder {path}: a config value does not fit ({error}); {REMEDY}") from error
    if width != shape.in_channels or settings.get("code_hop_size", shape.hop_samples) != shape.hop_samples:
        raise DataError(
            f"vocoder {path}: model_in_dim {width} and code_hop_size {settings.get('code_hop_size')} do not fit "
            f"{shape.in_channels} input channels and a hop of {shape.hop_samples}; {REMEDY}"
        )
    return shape
