"""Recordings that go along with a card.

Enters: the folder of a study's run, or one of `speechscale generate`. Leaves: samples, copied below the card. The one
decision worth knowing: a sample only goes along with the very run, or the very weights, that made it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.evals.weights import weights_sha256
from speechscale.files import read_json
from speechscale.model.folders import load_model
from speechscale.publish.eval_facts import require_same_weights
from speechscale.publish.study_records import StudyRecords, is_storyworld, require_unchanged
from speechscale.report.card_facts import SampleFacts
from speechscale.study.located import steps_root
from speechscale.study.steps import read_record

FOLDER = "samples"
MOST = 24
REMEDY = "give the folder of speechscale generate"
OF_ALL = ("original", "resynthesized")
"""Samples that no model made: what the others are to be heard against."""


def study_samples(run: Path) -> tuple[list[tuple[Path, SampleFacts]], tuple[str, ...]]:
    """Samples of the step `samples/PART` that this run made, with the original and its resynthesis.

    Recordings of people stay: a corpus has terms of its own, and it is not this card that gives it away.

    Returns:
        The samples, and notes about what was left out.

    Raises:
        DataError: a sample is missing or altered.
    """
    record = read_record(run)
    if record is None or "row" not in record["results"]:
        return [], ()
    row = record["results"]["row"]
    root = steps_root(run)
    folder = root / "samples" / row["part"]
    made = read_record(folder)
    if made is None or not (folder / "samples.json").is_file() or not _made_by(record, made["inputs"], root):
        return [], ()
    spoken = is_storyworld(StudyRecords.of(run).first("corpus/"))
    kinds = (*(OF_ALL if spoken else OF_ALL[1:]), row["arm"])
    entries = json_list(folder / "samples.json")
    chosen = []
    for entry in entries:
        kind = Path(entry["file"]).stem.partition("-")[2]
        if kind not in kinds:
            continue
        path = folder / Path(entry["file"]).name
        require_unchanged(folder, made, path.name)
        facts = SampleFacts(group=entry["group"], title=entry["title"], text=entry["text"], path=path.name)
        chosen.append((path, facts))
    left = () if spoken else ("the recordings that samples began with were left out: their corpus has its own terms",)
    return chosen[:MOST], left


def generated_samples(folder: Path, model: Path) -> list[tuple[Path, SampleFacts]]:
    """Samples that `speechscale generate` made with these weights: one line of samples.jsonl each, audio below it.

    Raises:
        DataError: not such a folder, made with other weights, or audio that is not below it.
    """
    recipe = read_json(folder / "recipe.json", "recipe of samples", REMEDY)
    require_same_weights(recipe.get("model"), weights_sha256(load_model(model)), folder)
    path = folder / "samples.jsonl"
    try:
        rows = [dict(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"samples {path}: cannot be read ({error}); {REMEDY}") from error
    found = []
    for row in rows:
        prompt = row.get("prompt") or {}
        if not isinstance(prompt, dict):
            raise DataError(f"samples {path}: cannot be read (prompt {prompt!r}); {REMEDY}")
        audio = str(row.get("audio") or "")
        if not audio:
            continue
        place = (folder / audio).resolve()
        if not place.is_relative_to(folder.resolve()) or not place.is_file():
            raise DataError(f"samples {path}: '{audio}' is no file below it; generate them again")
        found.append((place, _told(row, prompt, place.name)))
    return found


def _told(row: Mapping[str, Any], prompt: Mapping[str, Any], name: str) -> SampleFacts:
    begun = str(prompt.get("text") or prompt.get("source") or "")
    shown = Path(begun).name if prompt.get("kind") == "speech" and not prompt.get("text") else begun
    seconds = row.get("prompt_s")
    title = f"into {row.get('into', 'speech')}, sample {row.get('number', 0)}"
    if isinstance(seconds, int | float) and seconds > 0:
        title += f" (the first {seconds:.1f} s are the prompt)"
    group = f"Prompt {prompt.get('id', '')}: {shown}".strip(": ")
    return SampleFacts(group=group, title=title, text=str(row.get("text") or ""), path=name)


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
