"""Datasets of the Hugging Face hub, and folders that the `datasets` library knows: open one, and say what it holds.

Enters: a name or a folder, a configuration, a split. Leaves: the rows as a stream, or a fingerprint of them. The one
decision worth knowing: the fingerprint names the revision of remote files and hashes local ones, so that it follows the
content and not the day.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from speechscale.errors import DataError, MissingExtra
from speechscale.files import canonical_sha256


def file_sha256(path: Path) -> str:
    """SHA-256 of the bytes of a file, read as a stream. Raises DataError: it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); copy it again") from error


def load_hub(name: str, config: str, split: str) -> Any:
    """The dataset as a stream; split "all" is "train".

    Raises:
        DataError: no such dataset or split. MissingExtra: no `datasets` library.
    """
    datasets, wanted = _library(), "train" if split == "all" else split
    try:
        if _is_saved(name):
            return _saved(datasets, name, split).to_iterable_dataset()
        return datasets.load_dataset(name, config or None, split=wanted, streaming=True)
    except DataError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"texts hf:{name}: cannot be loaded, split '{wanted}' ({error}); check its name") from error


def hub_fingerprint(name: str, config: str, split: str) -> str:
    """What changes when the dataset does: revisions of remote files, hashes of local ones. Raises as `load_hub`."""
    datasets, wanted = _library(), "train" if split == "all" else split
    try:
        if _is_saved(name):
            return str(_saved(datasets, name, split)._fingerprint)
        builder = datasets.load_dataset_builder(name, config or None)
    except DataError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"texts hf:{name}: cannot be loaded, split '{wanted}' ({error}); check its name") from error
    by_split = {str(key): list(files) for key, files in (builder.config.data_files or {}).items()}
    if by_split and wanted not in by_split:
        raise _no_split(name, wanted, sorted(by_split))
    files = [Path(file) for file in by_split.get(wanted, ())]
    if files and all(file.is_file() for file in files):
        return canonical_sha256({"files": [[file.name, file_sha256(file)] for file in files]})
    return canonical_sha256({"builder": builder.hash, "files": by_split.get(wanted, [])})


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("a dataset of the hub", "hf") from error
    return datasets


def _is_saved(name: str) -> bool:
    return (Path(name) / "dataset_info.json").is_file() or (Path(name) / "dataset_dict.json").is_file()


def _saved(datasets: Any, name: str, split: str) -> Any:
    """A split of a folder that `save_to_disk` wrote; one without splits has only "all"."""
    saved, wanted = datasets.load_from_disk(name), "train" if split == "all" else split
    if isinstance(saved, datasets.DatasetDict):
        if wanted not in saved:
            raise _no_split(name, wanted, sorted(map(str, saved)))
        return saved[wanted]
    if split not in ("all", str(saved.split)):
        raise _no_split(name, split, [str(saved.split)] if saved.split is not None else [])
    return saved


def _no_split(name: str, split: str, there: list[str]) -> DataError:
    return DataError(
        f"texts hf:{name}: cannot be loaded, split '{split}' is not there; splits: {', '.join(there) or 'none'}; "
        "choose one, or all"
    )
