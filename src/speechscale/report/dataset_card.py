"""The data card: Markdown with the hub's metadata, from facts.

Enters: `DatasetFacts`. Leaves: the text of README.md. The one decision worth knowing: a data set of several licences
has the license "other" for the hub unless its publisher says otherwise, and the hours under each stand in a table.
Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from huggingface_hub import DatasetCardData

from speechscale import __version__
from speechscale.report.card_check import require_valid
from speechscale.report.card_facts import NOT_RECORDED, DatasetFacts, FileFacts
from speechscale.report.card_rules import size_category
from speechscale.report.cards import environment

TABLES = {"corpus": "utterances.parquet", "units": "parts/*.parquet"}
"""What the hub's viewer can show, if it goes along."""


def dataset_card(facts: DatasetFacts) -> str:
    """Write the card.

    Raises:
        DataError: the metadata would be refused by the hub; the fields are named.
    """
    text = f"---\n{metadata(facts).to_yaml(line_break=chr(10))}\n---\n\n{_body(facts)}"
    require_valid(text, "dataset")
    return text


def metadata(facts: DatasetFacts) -> DatasetCardData:
    """What the hub reads."""
    extra: dict[str, Any] = {}
    if facts.terms.name:
        extra = {"license_name": facts.terms.name, "license_link": facts.terms.link}
    table = TABLES[facts.kind]
    shown = any(file.included and file.path.endswith(".parquet") for file in facts.files)
    if shown:
        extra["configs"] = [{"config_name": "default", "data_files": table}]
    return DatasetCardData(
        pretty_name=facts.name,
        language=list(facts.languages) or None,
        license=facts.terms.license or None,
        size_categories=[size_category(facts.utterances)],
        task_categories=["text-to-speech", "automatic-speech-recognition"] if facts.kind == "corpus" else None,
        language_creators=["machine-generated"] if facts.synthetic else None,
        tags=["speechscale", "speech", "audio" if facts.kind == "corpus" else "speech-units"],
        **extra,
    )


def _body(facts: DatasetFacts) -> str:
    single, many = folded(facts.files)
    return (
        environment()
        .get_template("dataset_card.md.j2")
        .render(facts=facts, version=__version__, missing=NOT_RECORDED, single=single, many=many, limits=limits(facts))
    )


def folded(files: Sequence[FileFacts], most: int = 12) -> tuple[list[FileFacts], list[tuple[str, int, int, bool]]]:
    """Files to be listed one by one, and folders of more than `most` as (name, files, bytes, whether they lie here)."""
    folders: dict[str, list[FileFacts]] = {}
    for file in files:
        folders.setdefault(file.path.rpartition("/")[0], []).append(file)
    single = [file for folder, found in folders.items() if not folder or len(found) <= most for file in found]
    many = [
        (folder, len(found), sum(file.bytes for file in found), all(file.included for file in found))
        for folder, found in sorted(folders.items())
        if folder and len(found) > most
    ]
    return single, many


def limits(facts: DatasetFacts) -> list[str]:
    """What this data is not good for, from its own numbers."""
    said = []
    if facts.synthetic:
        said.append("Every voice is synthetic: models trained on it alone have never heard a person.")
    if facts.speakers is not None and facts.speakers < 20:
        said.append(f"{facts.speakers} speaker{'s' if facts.speakers != 1 else ''}: it says little about other voices.")
    unnamed = [amount for name, _, amount in facts.licences if name == NOT_RECORDED]
    if unnamed:
        said.append("Some of it carries no licence in its records; ask its source before giving it on.")
    if len(facts.languages) == 1:
        said.append(f"One language: {facts.languages[0]}.")
    if not facts.languages:
        said.append("Its language is not recorded.")
    if facts.units is not None:
        said.append("Units are no anonymization: a vocoder, or a stronger model, may tell what was said and by whom.")
        if facts.units.oracle:
            said.append("Its units are phones of a speech engine, which no recording has.")
    if not any(file.included for file in facts.files):
        said.append("Only this card and checksums lie here; the data itself stays where its publisher keeps it.")
    return said
