"""Recordings that go along with a card.

Enters: the folder of a study's run. Leaves: its samples, copied below the card. The one decision worth knowing: the
study generated with the best run of each arm, and a sample only goes along with the very run that made it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from speechscale.errors import DataError
from speechscale.report.card_facts import SampleFacts
from speechscale.study.located import steps_root
from speechscale.study.steps import read_record

FOLDER = "samples"
MOST = 24
OF_ALL = ("original", "resynthesized")
"""Samples that no model made: what the others are to be heard against."""


def study_samples(run: Path) -> list[tuple[Path, SampleFacts]]:
    """Samples of the step `samples/PART` that this run made, with the original and its resynthesis.

    Raises:
        DataError: a sample is missing or altered.
    """
    record = read_record(run)
    if record is None or "row" not in record["results"]:
        return []
    row = record["results"]["row"]
    root = steps_root(run)
    folder = root / "samples" / row["part"]
    made = read_record(folder)
    if made is None or not (folder / "samples.json").is_file() or not _made_by(record, made["inputs"], root):
        return []
    entries = json_list(folder / "samples.json")
    chosen = []
    for entry in entries:
        kind = Path(entry["file"]).stem.partition("-")[2]
        if kind not in (*OF_ALL, row["arm"]):
            continue
        path = folder / Path(entry["file"]).name
        _require_unchanged(path, made["files"].get(entry["file"], {}).get("sha256"))
        facts = SampleFacts(group=entry["group"], title=entry["title"], text=entry["text"], path=path.name)
        chosen.append((path, facts))
    return chosen[:MOST]


def copy_samples(samples: Sequence[tuple[Path, SampleFacts]], draft: Path) -> tuple[SampleFacts, ...]:
    """Copy the recordings to `draft/samples`; return their facts with paths below `draft`.

    Raises:
        DataError: two of one name.
    """
    facts = []
    for path, sample in samples[:MOST]:
        target = draft / FOLDER / path.name
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            raise DataError(f"sample '{path}': another one is called so too; rename one")
        shutil.copyfile(path, target)
        place = f"{FOLDER}/{path.name}"
        facts.append(SampleFacts(group=sample.group, title=sample.title, text=sample.text, path=place))
    return tuple(facts)


def json_list(path: Path) -> list[dict[str, str]]:
    """Samples.json is a list, not an object."""
    import json

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"samples {path}: not readable ({error}); run the study again") from error
    return list(found)


def _made_by(record: dict[str, object], inputs: dict[str, str], root: Path) -> bool:
    """Whether the step took this run for its arm: the one with the lowest selection loss among its inputs."""
    name = str(record["name"])
    if inputs.get(name) != record["fingerprint"]:
        return False
    rows = []
    for other in sorted(inputs):
        found = read_record(root / other) if other.startswith("run/") else None
        if found is not None and found["results"].get("loss_select") is not None:
            rows.append((found["results"]["loss_select"], other, found["results"]["row"]["arm"]))
    arm = record["results"]["row"]["arm"]  # type: ignore[index]
    mine = [(loss, other) for loss, other, other_arm in rows if other_arm == arm]
    return bool(mine) and min(mine, key=lambda entry: entry[0])[1] == name


def _require_unchanged(path: Path, sha256: str | None) -> None:
    if not path.is_file():
        raise DataError(f"sample '{path}' is missing; run the study again")
    if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise DataError(f"sample '{path}' is not what its record names; run the study again")
