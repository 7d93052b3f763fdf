"""Is a card one that the hub takes? Asked offline.

Enters: the text of a card. Leaves: what is wrong with it, a sentence each, with the field. The one decision worth
knowing: huggingface_hub's own parser goes first, so that what it cannot read is not read here; what only the server
checks (licenses, tasks, languages, the table of results, names) is checked by our lists (`card_rules`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from huggingface_hub import DatasetCard, ModelCard, RepoCard

from speechscale.errors import DataError
from speechscale.report.card_rules import (
    CREATORS,
    LANGUAGES,
    LARGEST,
    LICENSES,
    SIZE_CATEGORIES,
    SPECIAL_LANGUAGES,
    TASKS,
)

Kind = Literal["model", "dataset"]
REPO = re.compile(
    r"(?!.*(?:--|\.\.))(?:[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?/)?[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?"
)
"""OWNER/NAME or NAME as the hub allows them."""
YAML_BLOCK = re.compile(r"\A\s*---\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
TOP_KEY = re.compile(r"^([A-Za-z_][\w-]*):", re.MULTILINE)


def validate_card(text: str, kind: Kind) -> list[str]:
    """Say what the hub would refuse.

    Example: validate_card("---\\nlicense: apache\\n---\\n# A", "model")
        -> ["license: 'apache' is no identifier of the hub; nearest: apache-2.0 ..."]

    Args:
        kind: "model" or "dataset".

    Returns:
        One sentence for each fault, beginning with its field; nothing for a card that can go.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return ["text: holds bytes that are no letters, as of a folder's name; give another name (--name)"]
    block = YAML_BLOCK.match(text)
    if block is None:
        return ["metadata: the card does not begin with a block of YAML between two lines '---'"]
    doubled = [key for key in dict.fromkeys(TOP_KEY.findall(block[1])) if TOP_KEY.findall(block[1]).count(key) > 1]
    if doubled:
        return [f"{doubled[0]}: stands twice"]
    try:
        card = RepoCard(text)  # as it stands; the other two mend what they can
        (ModelCard if kind == "model" else DatasetCard)(text)
    except Exception as error:  # yaml and huggingface_hub each raise their own
        return [f"metadata: huggingface_hub cannot read it ({error})".replace("\n", " ")]
    values = card.data.to_dict()
    faults = [*_license(values), *_languages(values), *_common(values)]
    faults += _model(values) if kind == "model" else _dataset(values)
    if not card.text.strip():
        faults.append("text: nothing stands behind the metadata")
    return faults


def require_valid(text: str, kind: Kind) -> None:
    """Raise DataError with every fault of `validate_card`."""
    faults = validate_card(text, kind)
    if faults:
        raise DataError(f"the {kind} card would be refused by the hub:\n  " + "\n  ".join(faults))


def check_repo(name: str) -> str:
    """A repository's OWNER/NAME. Raises DataError: the hub does not allow the name."""
    owner, _, own = name.partition("/")
    if not own or not REPO.fullmatch(name) or len(name) > 96 or name.endswith(".git"):
        raise DataError(
            f"repository '{name}': the hub wants OWNER/NAME of letters, digits, '-', '_' and '.', at most 96 "
            "characters, without '--' and '..', and no '-' or '.' at an end; choose such a name"
        )
    return f"{owner}/{own}"


def _license(values: Mapping[str, Any]) -> Iterator[str]:
    given = values.get("license")
    for license in given if isinstance(given, list) else [] if given is None else [given]:
        if license not in LICENSES:
            near = sorted(name for name in LICENSES if str(license).lower()[:3] == name[:3])[:6]
            yield f"license: '{license}' is no identifier of the hub; nearest: {', '.join(near) or 'other'}"
    others = given == "other" or (isinstance(given, list) and "other" in given)
    if others and not (values.get("license_name") and values.get("license_link")):
        yield "license_name: license 'other' needs license_name and license_link"
    if not others and (values.get("license_name") or values.get("license_link")):
        yield "license_name: belongs to license 'other' alone"
    link = values.get("license_link")
    if link is not None and not re.fullmatch(r"https?://\S+|LICENSE(\.md)?", str(link)):
        yield f"license_link: '{link}' is neither an address nor LICENSE or LICENSE.md"


def _languages(values: Mapping[str, Any]) -> Iterator[str]:
    given = values.get("language")
    for code in given if isinstance(given, list) else [] if given is None else [given]:
        known = code in LANGUAGES or code in SPECIAL_LANGUAGES
        if not known and not (isinstance(code, str) and re.fullmatch(r"[a-z]{3}", code)):
            yield f"language: '{code}' is no code of ISO 639-1, 639-2 or 639-3 (en, deu), nor code or multilingual"


def _common(values: Mapping[str, Any]) -> Iterator[str]:
    tags = values.get("tags")
    if tags is not None and not (isinstance(tags, list) and all(isinstance(tag, str) and tag for tag in tags)):
        yield "tags: must be a list of names"
    for key in ("base_model", "datasets"):
        given = values.get(key)
        for name in given if isinstance(given, list) else [] if given is None else [given]:
            if not isinstance(name, str) or not REPO.fullmatch(name):
                yield f"{key}: '{name}' is no name on the hub"


def _model(values: Mapping[str, Any]) -> Iterator[str]:
    tag = values.get("pipeline_tag")
    if tag is not None and tag not in TASKS:
        yield f"pipeline_tag: '{tag}' is no task of the hub"
    index = values.get("model-index")
    if index is None:
        return
    # huggingface_hub has read it: names, tasks, data sets and metrics are there.
    for place, result in ((f"model-index[{i}]", r) for i, entry in enumerate(index) for r in entry["results"]):
        if result["task"]["type"] not in TASKS:
            yield f"{place}: task type '{result['task']['type']}' is no task of the hub"
        if not str(result["dataset"]["name"]).strip() or not REPO.fullmatch(str(result["dataset"]["type"])):
            yield f"{place}: dataset needs a name, and a type like a name on the hub: {dict(result['dataset'])}"
        for metric in result["metrics"]:
            if not isinstance(metric["value"], int | float | str) or isinstance(metric["value"], bool):
                yield f"{place}: value of metric '{metric['type']}' is {metric['value']!r}, a number is needed"
            elif isinstance(metric["value"], float) and metric["value"] != metric["value"]:
                yield f"{place}: value of metric '{metric['type']}' is not a number"
    names = [entry.get("name") for entry in index]
    if not all(isinstance(name, str) and name for name in names):
        yield "model-index: every entry needs a name"


def _dataset(values: Mapping[str, Any]) -> Iterator[str]:
    for key in ("task_categories",):
        for task in _listed(values.get(key)):
            if task not in TASKS:
                yield f"{key}: '{task}' is no task of the hub"
    sizes = {name for _, name in SIZE_CATEGORIES} | {LARGEST}
    for size in _listed(values.get("size_categories")):
        if size not in sizes:
            yield f"size_categories: '{size}'; allowed: {', '.join(name for _, name in SIZE_CATEGORIES)}, {LARGEST}"
    for key in ("annotations_creators", "language_creators"):
        for creator in _listed(values.get(key)):
            if creator not in CREATORS:
                yield f"{key}: '{creator}'; allowed: {', '.join(sorted(CREATORS))}"
    for number, config in enumerate(_listed(values.get("configs"))):
        if not isinstance(config, dict) or not config.get("config_name") or not config.get("data_files"):
            yield f"configs[{number}]: needs config_name and data_files"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
