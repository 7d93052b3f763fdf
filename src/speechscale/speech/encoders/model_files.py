"""Where a pretrained model lies, and what it is.

Enters: a model's name (hub id or folder). Leaves: its folder, its settings and the checksum of its weights. The one
decision worth knowing: a model is known by its name, revision and the checksum of its weights; where it lies on this
machine is nobody's business but the machine's.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.files import canonical_sha256, read_json

FOLDERS_VARIABLE = "SPEECHSCALE_MODELS"
"""Environment variable: folders, separated as in PATH, that hold models as NAME or OWNER/NAME."""
HISTORY = {"transformers_version", "_name_or_path", "architectures", "torch_dtype", "dtype", "auto_map"}
"""Fields of config.json that say where a model came from, not what it computes."""
REMEDY = "give a folder with config.json and model.safetensors, or set " + FOLDERS_VARIABLE


@dataclass(frozen=True)
class ModelFiles:
    """A model's folder on this machine, under the name by which it is known."""

    name: str
    folder: Path

    @cached_property
    def settings(self) -> dict[str, Any]:
        return read_json(self.folder / "config.json", f"model '{self.name}'", REMEDY)

    @cached_property
    def preprocessing(self) -> dict[str, Any] | None:
        """Content of preprocessor_config.json, None if the model has none."""
        path = self.folder / "preprocessor_config.json"
        return read_json(path, f"model '{self.name}'", "copy the file again") if path.exists() else None

    @cached_property
    def weight_files(self) -> list[Path]:
        """The safetensors files that the model is loaded from.

        Raises:
            DataError: there is none, or one that the index names is missing.
        """
        index = self.folder / "model.safetensors.index.json"
        single = self.folder / "model.safetensors"
        if single.exists():
            return [single]
        if index.exists():
            names = sorted(set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()))
            absent = [name for name in names if Path(name).name != name or not (self.folder / name).is_file()]
            if names and not absent:
                return [self.folder / name for name in names]
            raise DataError(f"model '{self.name}': {absent or 'weights'} that {index} names are missing; copy them too")
        others = sorted(path.name for path in self.folder.glob("*.bin"))
        if others:
            raise DataError(
                f"model '{self.name}': {self.folder} has only {', '.join(others)}, which may run code when read; "
                "convert it where you trust it (AutoModel.from_pretrained(...).save_pretrained(FOLDER)), give FOLDER"
            )
        raise DataError(f"model '{self.name}': {self.folder} has no model.safetensors; {REMEDY}")

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file; of the list of names and checksums if there are several."""
        sums = [(path.name, file_sha256(path)) for path in self.weight_files]
        if len(sums) == 1:
            return sums[0][1]
        return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in sums).encode()).hexdigest()

    @cached_property
    def settings_sha256(self) -> str:
        return canonical_sha256({key: value for key, value in self.settings.items() if key not in HISTORY})


def find_model(name: str, revision: str, folders: tuple[Path, ...] = ()) -> ModelFiles:
    """Find a model: in `folders`, in those of SPEECHSCALE_MODELS, in the hub's cache or on the hub, in that order.

    Raises:
        DataError: it is nowhere, gated, or the hub cannot be reached; the message says what to do.
    """
    asked = Path(name)
    if (asked / "config.json").exists():
        return ModelFiles(asked.resolve().name, asked)
    roots = [*folders, *(Path(part) for part in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if part)]
    for root in roots:
        for candidate in (root / name, root / asked.name, *([root] if root.resolve().name == asked.name else [])):
            if (candidate / "config.json").exists():
                return ModelFiles(name, candidate)
    if name.count("/") != 1 or asked.is_absolute() or name.startswith("."):
        looked = ", ".join(str(root) for root in roots) or "no folders were named"
        raise DataError(f"model '{name}': not found (looked in: {looked}) and no hub id OWNER/NAME; {REMEDY}")
    return ModelFiles(name, _download(name, revision))


def find_verified(
    name: str, revision: str, folders: tuple[Path, ...], weights_sha256: str, settings_sha256: str
) -> ModelFiles:
    """Find a model whose files have these checksums; an empty checksum takes what is found.

    Raises:
        DataError: as `find_model`, or the files are others.
    """
    files = find_model(name, revision, folders)
    for what, expected in (("weights", weights_sha256), ("settings", settings_sha256)):
        found = getattr(files, f"{what}_sha256") if expected else ""
        if found != expected:
            raise DataError(
                f"model '{files.name}': the {what} in {files.folder} have SHA-256 {found[:12]}..., needed is "
                f"{expected[:12]}...; units of two {what} cannot be mixed: get the right files or make a new tokenizer"
            )
    return files


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(name: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    patterns = ["config.json", "preprocessor_config.json", "model*.safetensors", "model.safetensors.index.json"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise DataError(
            f"model '{name}': its owner asks for consent first ({_first_line(error)}); accept the terms on its page, "
            "run `hf auth login`, and try again"
        ) from error
    except RevisionNotFoundError as error:
        raise DataError(f"model '{name}': has no revision '{revision}'; correct the revision") from error
    except RepositoryNotFoundError as error:
        raise DataError(f"model '{name}': the hub does not know it; correct the name, or {REMEDY}") from error
    except Exception as error:  # Offline mode, no network, a proxy's answer: many types, one remedy.
        raise DataError(
            f"model '{name}': not on this machine and the hub cannot be reached ({_first_line(error)}); download it "
            f"where there is a network (`hf download {name}`), then {REMEDY}"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
