"""Make the folder of a data set that travels: card, checksums and, on request, the data.

Enters: a corpus folder or a folder of units. Leaves: a new folder, verified after it was written. The one decision
worth knowing: by default no data moves. The card says what there is, and DATA_SHA256SUMS lets whoever gets the data
elsewhere check that it is the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.files import complete_file, read_json, write_json
from speechscale.model.interop_stock import new_folder
from speechscale.publish.bundle import CARD, SUMS, BundleFile, hashed, verify_bundle, write_sums
from speechscale.publish.dataset_facts import corpus_facts, units_facts
from speechscale.report.card_facts import DatasetFacts, FileFacts, Terms
from speechscale.report.dataset_card import dataset_card

DATA_SUMS = "DATA_SHA256SUMS"
OWN = (CARD, SUMS, DATA_SUMS)
LEFT_OUT = (".journal", ".lock")
"""Work that is under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedData:
    """What was made."""

    folder: Path
    facts: DatasetFacts
    files: tuple[BundleFile, ...]
    notes: tuple[str, ...]


def publish_dataset(
    source: Path,
    out: Path,
    *,
    terms: Terms | None = None,
    name: str = "",
    corpus: Path | None = None,
    data: bool = False,
) -> PublishedData:
    """Write the folder; nothing is sent anywhere.

    Example: publish_dataset(Path("units/libri"), Path("libri-units"), terms=Terms(license="cc-by-4.0"))

    Args:
        source: a folder with corpus.json or units.json. name: "" takes that of the folder.
        corpus: the corpus that units were made of, for the hours under each licence.
        data: copy the data too.

    Raises:
        DataError: neither a corpus nor units, an altered file, a corpus of other units, audio that lies outside the
            corpus folder and is to be copied, a card the hub would refuse, `out` exists. Nothing is left behind then.
    """
    source, out, terms = Path(source), Path(out), terms or Terms()
    if out.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{out} lies in {source}, and would be part of the data; give a folder elsewhere")
    if (source / "corpus.json").is_file():
        facts = corpus_facts(source, terms, name or source.resolve().name)
    elif (source / "units.json").is_file():
        facts = units_facts(source, terms, name or source.resolve().name, corpus)
    else:
        raise DataError(f"{source}: neither corpus.json nor units.json; give a corpus or a folder of units encode")
    files, own = _data_files(source)
    facts = replace(
        facts,
        files=tuple(FileFacts(path=f.path, bytes=f.bytes, sha256=f.sha256, included=data) for f in files),
    )
    notes = [] if terms.license else ["no license was named (--license): the card says so, and it cannot be pushed"]
    if own:
        notes.append(f"{', '.join(own)} of the source: not part of the data; the folder gets its own")
    with new_folder(out) as draft:
        if data:
            _copy(source, draft, files, facts.kind)
            facts = replace(facts, files=tuple(_again(draft, facts.files)))
        with complete_file(draft / DATA_SUMS) as sums:
            sums.write_text("".join(f"{f.sha256}  {f.path}\n" for f in facts.files), encoding="utf-8")
        (draft / CARD).write_text(dataset_card(facts), encoding="utf-8")
        write_sums(draft)
    return PublishedData(folder=out, facts=facts, files=tuple(verify_bundle(out)), notes=tuple(notes))


def _data_files(source: Path) -> tuple[list[BundleFile], list[str]]:
    """The data, and names at its top that the new folder needs for itself."""
    files = [
        file
        for file in hashed(source)
        if not any(part in LEFT_OUT or part.startswith(".") for part in Path(file.path).parts)
    ]
    return [file for file in files if file.path not in OWN], [name for name in OWN if (source / name).exists()]


def _copy(source: Path, draft: Path, files: list[BundleFile], kind: str) -> None:
    if kind == "corpus":
        root = read_json(source / "corpus.json", "corpus", "import it again")["audio_root"]
        if not (source / root).resolve().is_relative_to(source.resolve()):
            raise DataError(
                f"{source}: its audio lies outside of it ('{Path(root).name}'), and a corpus without its audio cannot "
                "be used; leave --with-data out, or encode it and publish the units"
            )
    for file in files:
        target = draft / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file.path, target)
    if kind == "corpus":
        saved = read_json(draft / "corpus.json", "corpus", "import it again")
        write_json(draft / "corpus.json", {**saved, "info": without_places(saved["info"])})


def without_places(value: Any) -> Any:
    """Facts without the paths of the machine they were made on: the last part of each is kept."""
    if isinstance(value, Mapping):
        return {key: without_places(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_places(entry) for entry in value]
    if isinstance(value, str) and (value.startswith(("/", "~", "./", "../")) or value[1:3] == ":\\"):
        return Path(value).name
    return value


def _again(draft: Path, files: tuple[FileFacts, ...]) -> Iterator[FileFacts]:
    """Checksums of what was copied: corpus.json has lost its places."""
    found = {file.path: file for file in hashed(draft)}
    for file in files:
        copied = found[file.path]
        if copied.sha256 != file.sha256 and file.path != "corpus.json":
            raise DataError(f"'{file.path}' changed while it was copied; publish again")
        yield replace(file, bytes=copied.bytes, sha256=copied.sha256)
