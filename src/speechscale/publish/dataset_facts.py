"""Facts of a data set: a corpus of recordings, or of units.

Enters: a corpus folder or a folder of units. Leaves: `DatasetFacts` without files. The one decision worth knowing:
hours of a corpus are those of the headers of its audio, hours of units are frames over their rate; a licence that no
utterance names is "not recorded", never the one that the publisher would like.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechscale.corpus.imported import open_corpus
from speechscale.corpus.statistics import corpus_stats
from speechscale.corpus.unit_corpus import open_units
from speechscale.errors import DataError
from speechscale.report.card_facts import NOT_RECORDED, DatasetFacts, Lines, Terms, UnitFacts
from speechscale.report.card_rules import language_code
from speechscale.skips import read_skips
from speechscale.speech.tokenizer_files import centroids_sha256

NOT_SAID = "not said"
"""How `corpus_stats` calls a group without a name."""
CORPUS_COLUMNS: Lines = (
    ("id, text, speaker, split", "one utterance"),
    ("words", "list of text, start_s, end_s, score; times are null where they are not known"),
    ("segments", "the pieces a voice speaks one by one"),
    ("audio, start_s, end_s, channel", "file below the audio root and the part of it"),
    ("licence, language", "as the source names them"),
)
UNIT_COLUMNS: Lines = (
    ("id, speaker, split, text", "one utterance"),
    ("units", "deduplicated units, int16"),
    ("durations_frames", "frames that each unit lasted"),
    ("words, word_start_frames, word_end_frames", "words and their half-open frame ranges; -1 where not known"),
)


def corpus_facts(folder: Path, terms: Terms, name: str) -> DatasetFacts:
    """Facts of a corpus folder. Raises DataError: no corpus there, or an altered table."""
    corpus = open_corpus(folder)
    stats = corpus_stats(corpus)
    info = corpus.info
    spoken = bool(info.get("voices"))
    return DatasetFacts(
        name=name,
        kind="corpus",
        terms=terms,
        made=_made(info),
        utterances=stats["utterances"],
        hours=stats["hours"],
        speakers=stats["speakers"],
        splits=tuple((split, found["utterances"], found["hours"]) for split, found in stats["splits"].items()),
        licences=_named(stats["licences"]),
        languages=_codes(stats["languages"]),
        dropped=info.get("dropped"),
        files=(),
        synthetic=spoken or None,
        options=_options(info, stats),
        columns=CORPUS_COLUMNS,
        words_timed_share=stats["words_timed_share"],
        reasons=_reasons(folder / "skips.jsonl"),
    )


def units_facts(folder: Path, terms: Terms, name: str, corpus: Path | None) -> DatasetFacts:
    """Facts of a folder of `units encode`.

    Args:
        corpus: the corpus they were made of, for licences and languages; None leaves these not recorded.

    Raises:
        DataError: no units there, an altered part, or a corpus of other units.
    """
    units = open_units(folder)
    opened = None if corpus is None else open_corpus(corpus)
    if opened is not None and opened.sha256 != units.info["recipe"]["corpus_sha256"]:
        raise DataError(f"{corpus} is not the corpus that {folder} was made of; give that one, or leave it out")
    known = {} if opened is None else {u.id: (u.licence, u.language) for u in opened.utterances()}
    splits: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    licences: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    languages, speakers = set(), set()
    for table in units.tables():
        for row, frames in enumerate(table.frames):
            hours = float(frames) / table.frame_rate_hz / 3600
            licence, language = known.get(table.ids[row], ("", ""))
            for group in (splits[table.splits[row] or "none"], licences[licence or NOT_RECORDED]):
                group[0] += 1
                group[1] += hours
            speakers.add(table.speakers[row])
            if language:
                languages.add(language)
    codes = {code for code in map(language_code, languages) if code}
    tokenizer, layer = units.tokenizer, units.tokenizer.encoder_config.get("layer")
    return DatasetFacts(
        name=name,
        kind="units",
        terms=terms,
        made="Encoded by speechscale units encode." + (f" Its corpus: {_made(opened.info)}" if opened else ""),
        utterances=units.info["kept"],
        hours=units.info["hours"],
        speakers=len(speakers - {""}) or None,
        splits=tuple((split, int(found[0]), found[1]) for split, found in sorted(splits.items())),
        licences=tuple((licence, int(found[0]), found[1]) for licence, found in sorted(licences.items())),
        languages=tuple(sorted(codes)),
        dropped=units.info["dropped"],
        files=(),
        synthetic=bool(opened.info.get("voices")) or None if opened else None,
        units=UnitFacts(
            count=tokenizer.num_units,
            encoder=str(tokenizer.encoder_config.get("model") or tokenizer.encoder_name),
            revision=tokenizer.encoder_config.get("revision") or None,
            layer=layer if isinstance(layer, int) else None,
            kmeans_sha256=centroids_sha256(tokenizer.centroids) if len(tokenizer.centroids) else None,
            frame_rate_hz=tokenizer.frame_rate_hz,
            per_second=units.info["units_per_second"],
            oracle=tokenizer.oracle,
            tokenizer_included=True,
        ),
        columns=UNIT_COLUMNS,
        reasons=_reasons(folder / "skips.jsonl"),
    )


def _made(info: Mapping[str, Any]) -> str:
    source = str(info.get("source") or "")
    if info.get("voices"):
        voices = "; ".join(f"{name}: {facts.get('version', '')}" for name, facts in sorted(info["voices"].items()))
        return f"Texts spoken by machine voices ({voices})."
    if source.startswith("hf:"):
        return f"Imported from the hub's data set {source.removeprefix('hf:')}."
    kind = f" (format {info['format']})" if info.get("format") else ""
    return f"Imported from {Path(source).name or NOT_RECORDED}{kind}."


def _options(info: Mapping[str, Any], stats: Mapping[str, Any]) -> Lines:
    lines = {
        "different texts": f"{stats['texts']:,}" if stats.get("texts") else "",
        "words": f"{stats['words']:,}" if stats.get("words") else "",
        "splits drawn": str(info.get("splits") or ""),
        "licence of the texts": str(info.get("text_licence") or ""),
        "audio that cannot be opened": f"{stats['unreadable']:,} utterances" if stats.get("unreadable") else "",
    }
    return tuple((label, value) for label, value in lines.items() if value)


def _named(licences: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, int, float | None], ...]:
    return tuple(
        (NOT_RECORDED if name == NOT_SAID else name, found["utterances"], found["hours"])
        for name, found in licences.items()
    )


def _codes(languages: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(sorted({code for name in languages if name != NOT_SAID and (code := language_code(name))}))


def _reasons(path: Path, most: int = 10) -> tuple[tuple[str, int], ...]:
    """Remedies of dropped utterances and how often each is given."""
    counts: dict[str, int] = defaultdict(int)
    if path.is_file():
        for skip in read_skips(path):
            counts[skip.remedy or NOT_RECORDED] += 1
    return tuple(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:most])
