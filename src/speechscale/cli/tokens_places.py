"""What the verbs that look at tokens share: which vocabulary, corpus and settings belong to a store's folder.

Two layouts are known: OUT of `tokens build` (OUT/store, OUT/vocabulary), and a study's (steps/tokens/NAME/train,
../joint, study.json).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from speechscale.cli.units import parse_settings

if TYPE_CHECKING:
    from speechscale.corpus.sounds import Sounds
    from speechscale.tokens.interleave import InterleaveConfig
    from speechscale.tokens.store import TokenStore

_FOLDER = click.Path(path_type=Path, file_okay=False)


def drawing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how a document is drawn."""
    for option in (
        click.option("--vocabulary", type=_FOLDER, help="Vocabulary folder [found beside the store]."),
        click.option("--progress", type=click.FloatRange(0, 1), default=0.0, help="Part of a curriculum's training."),
        click.option(
            "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Interleaving, e.g. speech_span=poisson(2)."
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
        click.option("--epoch", type=click.IntRange(min=0), default=0, show_default=True),
    ):
        command = option(command)
    return command


STREAM = click.option(
    "--stream", default="interleaved", show_default=True, help="interleaved, speech or text.", metavar="STREAM"
)
CORPUS = click.option("--corpus", type=_FOLDER, help="Where the audio is [found inside a study].")


def open_tokens(folder: Path, vocabulary: Path | None) -> TokenStore:
    """Open a store, or that of OUT of `tokens build`. Raises DataError: no store, or no vocabulary near it."""
    from speechscale.errors import DataError
    from speechscale.files import read_json
    from speechscale.tokens.columns import INDEX_FILE
    from speechscale.tokens.packed_rows import ROWS_FORMAT
    from speechscale.tokens.store import TokenStore
    from speechscale.tokens.vocabulary import Vocabulary
    from speechscale.tokens.vocabulary_files import first_vocabulary, places_beside

    folder = store_folder(folder)
    if not (folder / INDEX_FILE).is_file():
        inside = sorted(path.parent.name for path in folder.glob(f"*/{INDEX_FILE}"))
        say = f"; it holds the stores {', '.join(inside)}, give one of them" if inside else "; give a store's folder"
        raise DataError(f"{folder}: no token store ({INDEX_FILE} is missing){say}")
    if read_json(folder / INDEX_FILE, "token store", "build it").get("format") == ROWS_FORMAT:
        raise DataError(f"{folder}: these are packed rows; give the store that they were packed from")
    near = places_beside(folder) if vocabulary is None else [vocabulary]
    found = first_vocabulary(near)
    if found is None:
        raise DataError(f"{folder}: no vocabulary in {', '.join(map(str, near))}; name its folder with --vocabulary")
    return TokenStore.open(folder, Vocabulary.load(found))


def store_folder(folder: Path) -> Path:
    """The store itself, where OUT of `tokens build` was named."""
    inside = Path(folder) / "store"
    return inside if inside.is_dir() else Path(folder)


def interleaving(folder: Path, settings: Sequence[str], progress: float | None) -> tuple[InterleaveConfig, str]:
    """How documents are drawn, and where that comes from: the study's own settings or the usual ones, then `--set`.

    Args:
        progress: point of a curriculum; None leaves the curriculum in the settings.

    Raises:
        DataError: a setting that is not there, or a value that it cannot have.
    """
    from dataclasses import replace

    from speechscale.tokens.interleave import InterleaveConfig
    from speechscale.tokens.interleave_config import interleave_settings

    study = _study_interleaving(store_folder(folder))
    base, source = (InterleaveConfig(), "usual settings") if study is None else (study, "settings of the study")
    changes = interleave_settings(parse_settings(tuple(settings)))
    if settings:
        source += f", changed: {', '.join(settings)}"
    config = replace(base, **changes)
    return config if progress is None else config.at(progress), source


def _study_interleaving(folder: Path) -> InterleaveConfig | None:
    """The settings of the first part of the study that trains on this store; None outside a study."""
    from speechscale.errors import DataError
    from speechscale.files import read_json
    from speechscale.study.spec import Interleave

    step = folder.resolve().parent
    marker = step.parent.parent.parent / "study.json"
    if step.parent.name != "tokens" or not marker.is_file():
        return None
    for part in read_json(marker, "study", "run the study again").get("parts", {}).values():
        if f"{part['corpus']['name']}-{part['units']['name']}" == step.name:
            try:
                return Interleave.model_validate(part["interleave"]).config
            except ValueError as error:
                raise DataError(f"{marker}: its [interleave] cannot be read ({error}); run the study again") from error
    return None


def find_sounds(folder: Path, corpus: Path | None) -> Sounds | None:
    """Where the audio of a store is: `--corpus`, or the corpus step of the study. Raises DataError as `open_sounds`."""
    from speechscale.corpus.sounds import open_sounds
    from speechscale.files import read_json

    if corpus is not None:
        return open_sounds(corpus)
    step = store_folder(folder).resolve().parent
    if step.parent.name != "tokens" or not (step / "record.json").is_file():
        return None
    inputs = read_json(step / "record.json", "record", "run the study again").get("inputs", {})
    names = [name for name in inputs if name.startswith("corpus/")]
    return open_sounds(step.parent.parent / names[0]) if names else None


def batches(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Parts of at most `size`."""
    for first in range(0, len(numbers), size):
        yield numbers[first : first + size]
