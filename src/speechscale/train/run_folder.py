"""The folder of a run: whose it is, and the models in it.

Enters: a recipe, a folder. Leaves: the folder, marked by job.json as this recipe's; stock model folders.
The one decision worth knowing: a folder belongs to one recipe. The same command goes on where it was; another recipe
is refused with the fields that differ.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechscale.errors import DataError, StaleStep
from speechscale.files import read_json, write_json
from speechscale.settings import differences
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.train.parallel import Group, save_stock

JOB, RESULT = "job.json", "result.json"


def claim(recipe: Mapping[str, Any], folder: Path, group: Group, *, fresh: bool) -> None:
    """Make the run folder this recipe's. Called by all processes.

    Args:
        fresh: remove what an earlier start left.

    Raises:
        StaleStep: it is another recipe's. DataError: it holds something else.
    """
    problem: Exception | None = None
    if group.leads:
        try:
            _claim(recipe, folder, fresh)
        except (DataError, StaleStep) as error:
            problem = error
    heard = group.gather(problem)[0]
    if heard is not None:
        raise heard


def _claim(recipe: Mapping[str, Any], folder: Path, fresh: bool) -> None:
    path = folder / JOB
    if fresh and path.is_file():
        shutil.rmtree(folder)
    if path.is_file():
        changed = differences(read_json(path, "job", "give another --out"), recipe)
        if changed:
            raise StaleStep(
                f"{folder} was begun with another recipe:\n  " + "\n  ".join(changed) + "\ngive another --out, or "
                "--fresh to remove what is there"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder} holds other files and no {JOB}; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, dict(recipe))


def save_folder(model: Any, vocabulary: Vocabulary, folder: Path, group: Group) -> None:
    """Write a stock model folder with its vocabulary, complete or absent. Called by all processes."""
    draft = folder.with_name(f".{folder.name}.partial")
    if group.leads:
        shutil.rmtree(draft, ignore_errors=True)
    save_stock(model, draft, group)
    if group.leads:
        vocabulary.save(draft)
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)
