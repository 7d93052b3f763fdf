"""Read a study file: TOML -> merged parts -> `Study`, with errors that name the key and the nearest known one.

Enters: a shipped study's name or a file. Leaves: a resolved `Study`.
The one decision worth knowing: the top-level sections are what the parts share; a `[parts.NAME]` table overrides any of
them key by key. A study without parts has one, named "main".
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from speechscale.errors import DataError
from speechscale.settings import nearest, override, parse_override, read_toml
from speechscale.study.corpora_spec import FolderCorpus, ImportedCorpus, InventoryCorpus, StoryworldCorpus
from speechscale.study.spec import (
    SLUG,
    Arm,
    Evals,
    Fit,
    Grid,
    Interleave,
    Section,
    Study,
    StudyHeader,
    Text,
    TextLM,
    Train,
    Units,
    Vocoder,
)

__all__ = ["load_study", "parse_override", "resolve", "shipped_studies"]

PART_SECTIONS = ("corpus", "units", "text", "interleave", "arms", "text_lm", "grid", "train", "evals", "vocoder", "fit")
SECTIONS: dict[str, type[Section]] = {
    "study": StudyHeader,
    "units": Units,
    "text": Text,
    "interleave": Interleave,
    "text_lm": TextLM,
    "grid": Grid,
    "train": Train,
    "evals": Evals,
    "vocoder": Vocoder,
    "fit": Fit,
}


def shipped_studies() -> dict[str, Path]:
    """Names and files of the studies that come with the package."""
    folder = Path(str(resources.files("speechscale") / "studies"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_study(name_or_file: str, overrides: Mapping[str, Any] | None = None) -> Study:
    """Read a shipped study by name, or a study file; `overrides` maps dotted keys to values.

    Raises:
        DataError: no such study, broken TOML, unknown or mistyped key, a value that is not allowed.
    """
    shipped = shipped_studies()
    path = shipped.get(name_or_file, Path(name_or_file))
    if not path.is_file():
        nearest = difflib.get_close_matches(name_or_file, shipped, n=1)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
        raise DataError(f"no study '{name_or_file}': neither a file nor one of {', '.join(shipped)}{hint}")
    data = read_toml(path)
    for key, value in (overrides or {}).items():
        override(data, key, value)
    return resolve(data, source=str(path))


def resolve(data: Mapping[str, Any], source: str = "study") -> Study:
    """Merge shared sections into the parts, validate everything, refuse what cannot be.

    Example: {"grid": {"seeds": [0]}, "parts": {"a": {"grid": {"sizes": ["1M"]}}}} -> part a has both keys of grid
    """
    data = dict(data)
    known = ["study", "parts", *PART_SECTIONS]
    for key in data:
        if key not in known:
            raise DataError(f"{source}: unknown section [{key}]{nearest(key, known)}")
    header = data.pop("study", {})
    parts = data.pop("parts", None) or {"main": {}}
    merged = {}
    for name, part in parts.items():
        if not SLUG.fullmatch(name):
            raise DataError(f"{source}: part name '{name}': use lower-case letters, digits, '.', '_' and '-'")
        merged[name] = _merge_part(name, part, data, header.get("seed", 0), source)
    try:
        study = Study.model_validate({"study": header, "parts": merged})
    except ValidationError as error:
        raise DataError(_explain(error, source)) from error
    _refuse_name_clashes(study, source)
    return study


def _merge_part(
    name: str, part: Mapping[str, Any], shared: Mapping[str, Any], seed: int, source: str
) -> dict[str, Any]:
    for key in part:
        if key not in (*PART_SECTIONS, "title", "use_arms"):
            raise DataError(f"{source}: unknown key parts.{name}.{key}{nearest(key, [*PART_SECTIONS, 'use_arms'])}")
    merged: dict[str, Any] = {"title": part.get("title", name), "seed": seed}
    for section in PART_SECTIONS:
        merged[section] = _deep(shared.get(section, {}), part.get(section, {}))
    merged["corpus"].setdefault("kind", "storyworld")
    merged["arms"] = {arm: _own_interleave(entry, merged["interleave"]) for arm, entry in merged["arms"].items()}
    if "use_arms" in part:
        unknown = [arm for arm in part["use_arms"] if arm not in merged["arms"]]
        if unknown:
            raise DataError(f"{source}: parts.{name}.use_arms: no arm '{unknown[0]}'; arms: {sorted(merged['arms'])}")
        merged["arms"] = {arm: merged["arms"][arm] for arm in part["use_arms"]}
    return merged


def _own_interleave(arm: Any, shared: Mapping[str, Any]) -> Any:
    """Complete an arm's [interleave] from the part's."""
    if not (isinstance(arm, Mapping) and isinstance(arm.get("interleave"), Mapping)):
        return arm
    return {**arm, "interleave": _deep(shared, arm["interleave"])}


def _deep(base: Any, over: Any) -> Any:
    """Merge tables key by key; an inner value (also a list or a mixture) replaces the shared one."""
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)):
        return over
    out = dict(base)
    for key, value in over.items():
        both = isinstance(out.get(key), Mapping) and isinstance(value, Mapping) and key != "mixture"
        out[key] = _deep(out[key], value) if both else value
    return out


def _fields_at(path: list[str], kind: str) -> list[str]:
    corpora: dict[str, type[Section]] = {
        "storyworld": StoryworldCorpus,
        "folder": FolderCorpus,
        "corpus": ImportedCorpus,
        "inventory": InventoryCorpus,
    }
    section = path[0] if path else ""
    if section == "corpus":
        return list(corpora[kind].model_fields) if kind in corpora else list(corpora)
    if section == "arms":
        return list((Interleave if "interleave" in path else Arm).model_fields)
    return list(SECTIONS[section].model_fields) if section in SECTIONS else []


def _explain(error: ValidationError, source: str) -> str:
    """One line per problem: key, what came, what is allowed."""
    lines = []
    for issue in error.errors():
        location = [str(entry) for entry in issue["loc"]]
        part = ""
        if location[:1] == ["parts"]:
            part, location = f"part {location[1]}: ", location[2:]
        kind = ""
        if location[:1] == ["corpus"] and len(location) > 1:
            kind = location.pop(1)
        key = ".".join(location)
        if issue["type"] == "extra_forbidden":
            text = f"unknown key{nearest(location[-1], _fields_at(location, kind))}"
        elif issue["type"] == "missing":
            text = "is missing; give it a value"
        else:
            text = f"{issue['msg'].removeprefix('Value error, ')} (got {issue['input']!r:.80})"
        lines.append(f"  {part}{key}: {text}")
    return f"{source}: the study file cannot be used\n" + "\n".join(lines)


def _refuse_name_clashes(study: Study, source: str) -> None:
    """A name stands for one recipe: two parts may share a corpus or units only if they are equal."""
    seen: dict[tuple[str, str], tuple[str, Section]] = {}
    for part_name, part in study.parts.items():
        named: list[tuple[str, str, Section]] = [
            ("corpus", part.corpus.name, part.corpus),
            ("units", f"{part.corpus.name}-{part.units.name}", part.units),
        ]
        for what, name, section in named:
            if not SLUG.fullmatch(name):
                raise DataError(f"{source}: {what} name '{name}': use lower-case letters, digits, '.', '_' and '-'")
            other = seen.setdefault((what, name), (part_name, section))
            if other[1] != section:
                raise DataError(
                    f"{source}: parts '{other[0]}' and '{part_name}' both name their {what} '{name}' but differ; "
                    f"give one of them another {what}.name"
                )
    for part_name, part in study.parts.items():
        wanted = part.units.fitted_on
        if wanted and not any(
            other.corpus.name == wanted and other.units.model_copy(update={"fitted_on": wanted}) == part.units
            for other in study.parts.values()
            if not other.units.fitted_on
        ):
            raise DataError(
                f"{source}: part '{part_name}': units.fitted_on = '{wanted}': no part with the corpus '{wanted}' fits "
                f"the same units (all other keys of [units] must be equal)"
            )
