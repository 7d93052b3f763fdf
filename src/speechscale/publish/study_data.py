"""What a study's run was trained on: speech and text, how made, how much, under which licence.

Enters: `StudyRecords`. Leaves: `DataFacts`. The one decision worth knowing: a licence is what the utterances carry. The
storyworld's utterances carry none, because this package made both text and voice: there it is the package's own word.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from speechscale.corpus.tables import read_utterances
from speechscale.files import read_json
from speechscale.publish.speech_hours import speech_hours
from speechscale.publish.study_records import StudyRecords
from speechscale.report.card_facts import DataFacts
from speechscale.report.card_rules import language_code
from speechscale.report.cards import hours
from speechscale.report.numbers import short_count

STORY_VOICES = "espeak-ng formant voices (engine GPL-3.0-or-later)"
STORY_TEXTS = "Apache-2.0 (templates of speechscale)"


def opening_texts(records: StudyRecords, most: int = 5) -> list[str]:
    """The first texts of the training split."""
    record = records.first("corpus/")
    if record is None:
        return []
    path = records.root / f"corpus/{record['config']['corpus']['name']}" / "utterances.parquet"
    return list(islice((u.text for u in read_utterances(path) if u.split == "train" and u.text), most))


def study_data(records: StudyRecords) -> tuple[DataFacts, ...]:
    record = records.first("corpus/")
    if record is None:
        return ()
    config, row = record["config"]["corpus"], records.own["results"]["row"]
    sources = []
    if records.named("units/"):
        sources.append(_speech(records, record, config, row))
    text = records.first("text/")
    mixture = records.own["config"]["mixture"]
    if text is not None and (set(mixture) - {"speech"} or records.first("text_lm/")):
        sources.append(_text(text, config, row, records.first("text_lm/")))
    return tuple(sources)


def _speech(
    records: StudyRecords, corpus: Mapping[str, Any], config: Mapping[str, Any], row: Mapping[str, Any]
) -> DataFacts:
    units = records.named("units/")
    folder = records.root / f"corpus/{config['name']}"
    found = speech_hours(folder, [records.root / name / "units.parquet" for name in units])
    synthetic = config["kind"] == "storyworld"
    made, source, hub = _made(config, corpus)
    seen = []
    if row.get("speech_hours_unique"):
        seen.append(f"{hours(row['speech_hours_unique'])} h of it")
    if row.get("speech_epochs") is not None:
        seen.append(f"{hours(row['speech_epochs'])} passes")
    codes = {language_code(language) for language in found.languages} - {None}
    licences = dict(found.licences) if any(found.licences) else {}
    if synthetic and not licences:
        licences = {STORY_VOICES: found.splits.get("train", 0.0)}
    return DataFacts(
        what="speech",
        name=source,
        made=made,
        hours=found.splits.get("train"),
        amount=f"{sum(r['results']['kept'] for r in units.values()):,} utterances in all splits",
        seen=", ".join(seen),
        licences=tuple(sorted(licences.items())),
        voices=tuple(sorted(found.speakers)),
        synthetic=synthetic or None,
        languages=("en",) if synthetic else tuple(sorted(code for code in codes if code)),
        split_hours=tuple(sorted(found.splits.items())),
        hub_name=hub,
        dropped=sum(r["results"]["dropped"] for r in units.values()) + corpus["results"].get("dropped", 0),
    )


def _made(config: Mapping[str, Any], record: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """How a corpus came about, its name, and its name on the hub."""
    name = str(config["name"])
    if config["kind"] == "storyworld":
        return (
            f"stories from templates about {config['characters']} invented people, spoken by {_engine(record)}",
            name,
            None,
        )
    path = Path(str(config.get("path", "")))
    info: dict[str, Any] = {}
    if (path / "corpus.json").is_file():
        info = dict(read_json(path / "corpus.json", "corpus", "import it again").get("info", {}))
    origin = str(info.get("source") or path.name)
    hub = origin.removeprefix("hf:") if origin.startswith("hf:") else None
    kind = f" (format {info['format']})" if info.get("format") else ""
    return f"imported from {hub or Path(origin).name}{kind}", name, hub


def _engine(record: Mapping[str, Any]) -> str:
    version = record.get("versions", {}).get("espeakng-loader")
    return f"espeak-ng (espeakng-loader {version})" if version else "espeak-ng"


def _text(
    text: Mapping[str, Any], config: Mapping[str, Any], row: Mapping[str, Any], text_lm: Mapping[str, Any] | None
) -> DataFacts:
    found = text["results"]
    synthetic = config["kind"] == "storyworld"
    seen = [f"{hours(row['text_epochs'])} passes"] if row.get("text_epochs") else []
    if text_lm is not None:
        seen.append(f"{hours(text_lm['results']['text_epochs'])} passes by the TextLM before it")
    amount = f"{short_count(found['text_tokens'])} tokens" if found.get("text_tokens") else ""
    return DataFacts(
        what="text",
        name=str(config["name"]),
        made="stories from the same templates, read only" if synthetic else "the transcripts",
        amount=amount,
        seen=", ".join(seen),
        terms=STORY_TEXTS if synthetic else "",
        synthetic=synthetic or None,
        languages=("en",) if synthetic else (),
    )
