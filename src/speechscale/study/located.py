"""Where a model's parts lie, from the one folder that a user names.

Enters: the folder of a study's run, of a training job's model, or any folder with a model and its vocabulary. Leaves:
the model, its vocabulary, speech tokenizer and vocoder. The one decision worth knowing: a study's run knows its
tokenizer and vocoder through its record, a bundle has them in folders of its own (docs/publishing.md), any other folder
has them only if the user says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.model.stock_units import TOKENIZER_FOLDER, VOCODER_FOLDER, bundle_rate
from speechscale.study.steps import read_record
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.tokens.vocabulary_files import LOCK_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A model and what belongs to it.

    Args:
        name: for people and results. folder: with the weights and the vocabulary.
        speech_tokenizer, vocoder: their folders; None where there is none.
        units_per_second: of the speech it was trained on, as a study or a bundle says; None elsewhere.
    """

    name: str
    folder: Path
    speech_tokenizer: Path | None = None
    vocoder: Path | None = None
    units_per_second: float | None = None

    def load_vocabulary(self) -> Vocabulary:
        return Vocabulary.load(self.folder)

    def need_tokenizer(self) -> Path:
        """The speech tokenizer's folder. Raises DataError if none is known."""
        if self.speech_tokenizer is None:
            raise DataError(
                f"{self.folder}: which speech tokenizer made this model's units is not known; give it (--tokenizer DIR)"
            )
        return self.speech_tokenizer


def locate(path: Path, *, tokenizer: Path | None = None, vocoder: Path | None = None) -> Located:
    """Find a model's parts.

    Args:
        path: folder of a study's run (it holds record.json and model/), of a training run (model/ or best/), or of the
            model itself. tokenizer, vocoder: folders given by the user; they win.

    Raises:
        DataError: no model there, no vocabulary beside it.
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; give a run's folder, or a model's with {LOCK_FILE}")
    record = read_record(path)
    if record is not None and "row" in record["results"]:
        return _study_run(path, record, tokenizer, vocoder)
    for folder in (path, path / "model", path / "best"):
        if (folder / "config.json").is_file():
            if not (folder / LOCK_FILE).is_file():
                raise DataError(
                    f"{folder}: a model without {LOCK_FILE}, so what its ids mean is not known; give a folder written "
                    "by speechscale"
                )
            named = path.parent if path.name in ("model", "best") else path
            return Located(
                name=named.resolve().name,
                folder=folder,
                speech_tokenizer=tokenizer or _bundled(folder / TOKENIZER_FOLDER),
                vocoder=vocoder or _bundled(folder / VOCODER_FOLDER),
                units_per_second=bundle_rate(folder),
            )
    raise DataError(f"{path}: no model in it (config.json); give a run's folder, or a model's with {LOCK_FILE}")


def _bundled(folder: Path) -> Path | None:
    return folder if folder.is_dir() else None


def _study_run(path: Path, record: dict[str, Any], tokenizer: Path | None, vocoder: Path | None) -> Located:
    folder = path / "model"
    if not folder.is_dir():
        raise DataError(f"{path}: this run left no model (it diverged); name another run")
    tokens = next((name for name in record["inputs"] if name.startswith("tokens/")), None)
    found = {"speech_tokenizer": tokenizer, "vocoder": vocoder}
    rate = None
    if tokens is not None:
        root, spoken = steps_root(path), tokens.removeprefix("tokens/")
        for key, own in (
            ("speech_tokenizer", root / "tokenizer" / spoken),
            ("vocoder", root / "vocoder" / spoken / "vocoder"),
        ):
            if found[key] is None and own.is_dir():
                found[key] = own
        made = read_record(root / tokens)
        rate = None if made is None else float(made["results"]["units_per_second"])
    return Located(
        name=path.resolve().name,
        folder=folder,
        units_per_second=rate,
        **found,
    )


def steps_root(run: Path) -> Path:
    """The folder `steps` above a run. Raises DataError if there is none."""
    for parent in run.resolve().parents:
        if parent.name == "run":
            return parent.parent
    raise DataError(f"{run} does not lie below a study's steps/run/; name a run inside a study's output")
