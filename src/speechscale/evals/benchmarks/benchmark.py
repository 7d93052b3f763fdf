"""A benchmark folder: items, their recordings, their units, what was dropped.

Enters: a folder that `prepare` wrote. Leaves: items and, per speech tokenizer, the units of their recordings.
The one decision worth knowing: a benchmark is known by what is in it. Its checksum covers the content of every item and
the bytes of every recording, not where they lie, so that equal checksums mean equal questions on any machine.

    BENCH/benchmark.json   facts, counts, checksums, how it was made; written last
    BENCH/items.parquet    the items
    BENCH/corpus/          the recordings as a corpus folder; absent where only text is known
    BENCH/units/1a2b.../   units by fingerprint of the speech tokenizer, encoded once
    BENCH/units/1a2b...-9f8e.../   the same of chosen items only, by the checksum of the choice
    BENCH/skips.jsonl      what was dropped and why
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechscale.corpus.encode import VoiceLoader, encode_corpus
from speechscale.corpus.imported import open_corpus, write_corpus
from speechscale.corpus.tables import read_items
from speechscale.corpus.unit_corpus import encode_folder
from speechscale.errors import DataError
from speechscale.evals.benchmarks.raw import Facts
from speechscale.evals.benchmarks.speaking import voice_segments
from speechscale.evals.layouts import item_utterances
from speechscale.files import canonical_sha256, read_versioned, write_json
from speechscale.records import Item, UnitTable
from speechscale.skips import SkipLog
from speechscale.speech.audio_files import MEMBER
from speechscale.speech.unit_files import read_units, write_units
from speechscale.speech.units import SpeechTokenizer
from speechscale.voices.engines import PLAIN_ENGINE, Cast

if TYPE_CHECKING:
    from speechscale.progress import Watch
    from speechscale.speech.encoders import Runtime

FORMAT = "speechscale benchmark"
FORMAT_VERSION = 1
FINGERPRINT_LETTERS = 16
_AGAIN = "prepare the benchmark again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """An opened benchmark folder.

    Args:
        sha256: of items and recordings. audio_sha256: of the recordings alone; None where there are none.
        info: recipe, counts, voices.
    """

    folder: Path
    facts: Facts
    sha256: str
    items_sha256: str
    audio_sha256: str | None
    info: dict[str, Any]

    @property
    def has_audio(self) -> bool:
        return self.audio_sha256 is not None

    def items(self) -> list[Item]:
        """The items in their order. Raises DataError: the table is missing or was altered."""
        items = read_items(self.folder / "items.parquet")
        if items_sha256(items) != self.items_sha256:
            raise DataError(f"benchmark {self.folder / 'items.parquet'}: not the items of benchmark.json; {_AGAIN}")
        return items

    def units(
        self,
        tokenizer: Path,
        *,
        items: Sequence[Item] | None = None,
        workers: int = 1,
        runtime: Runtime | None = None,
        watch: Watch | None = None,
    ) -> UnitTable:
        """Units of the recordings, rows "ID/good", "ID/bad" (and parts, see docs); encoded once, then only read.

        Args:
            tokenizer: folder of the speech tokenizer. workers: processes; 0 works in this one.
            items: encode the recordings of these alone; where all are encoded already, all are returned. None: all.

        Raises:
            DataError: no recordings, others than those that were prepared, none can be encoded, or phone labels for
                what no espeak voice spoke.
        """
        if not self.has_audio:
            raise DataError(
                f"benchmark {self.folder}: it is text alone, so it has no units; score it as 'tt', or let a voice "
                "speak it: speechscale eval prepare TASK SOURCE OUT --voice us-f2"
            )
        loaded = SpeechTokenizer.load(tokenizer)
        out = self.folder / "units" / loaded.fingerprint[:FINGERPRINT_LETTERS]
        chosen = None if items is None or _is_encoded(out) else self._choice(items)
        if chosen is not None:
            out = out.with_name(f"{out.name}-{lines_sha256(item.id for item in chosen)[:FINGERPRINT_LETTERS]}")
        if loaded.oracle:
            return self._phones(loaded, out, self.items() if chosen is None else chosen)
        if not _is_encoded(out):
            self._require_files()
        corpus = self.folder / "corpus" if chosen is None else self._part_of_corpus(chosen, out / "corpus")
        return encode_folder(corpus, tokenizer, out, workers=workers, runtime=runtime, watch=watch).table()

    def _choice(self, items: Sequence[Item]) -> list[Item] | None:
        """The chosen items in the benchmark's order; None where they are all of them."""
        own, wanted = self.items(), {item.id for item in items}
        chosen = [item for item in own if item.id in wanted]
        if len(chosen) < len(wanted):
            stray = min(wanted - {item.id for item in chosen})
            raise DataError(f"benchmark {self.folder}: it has no item '{stray}'; choose from its own items")
        if not chosen:
            raise DataError(f"benchmark {self.folder}: no item is chosen; choose at least one")
        return None if len(chosen) == len(own) else chosen

    def _part_of_corpus(self, chosen: Sequence[Item], folder: Path) -> Path:
        """A corpus of the recordings of chosen items, which stay where they are."""
        whole = open_corpus(self.folder / "corpus")
        if (folder / "corpus.json").is_file() and open_corpus(folder).audio_root == whole.audio_root.resolve():
            return folder
        ids = {item.id for item in chosen}
        rows = (row for row in whole.utterances() if row.id.rpartition("/")[0] in ids)
        source = {"source": f"chosen items of {self.folder.name}"}
        return write_corpus(folder, rows, audio_root=whole.audio_root, info=source, skips=SkipLog()).folder

    def _require_files(self) -> None:
        """Raise DataError if files of the recordings are gone or have other sizes than when they were checked."""
        corpus = open_corpus(self.folder / "corpus")
        count, size, missing = files_of(corpus.audio_root, (row.audio for row in corpus.utterances()))
        came = {"count": count, "bytes": size}
        known = self.info.get("files", came)  # Folders of before this was written down have none.
        if came != known:
            gone = f" ({len(missing)} are gone, the first is {missing[0]})" if missing else ""
            raise DataError(
                f"benchmark {self.folder}: its recordings below {corpus.audio_root} are {size:,} bytes, they were "
                f"{known['bytes']:,} when it was prepared{gone}; put them back, or prepare it into a new folder"
            )

    def _phones(self, tokenizer: SpeechTokenizer, out: Path, items: Sequence[Item]) -> UnitTable:
        """Phone labels come from the voice engine and not from audio, so the items are spoken once more."""
        if (out / "units.parquet").is_file():
            return read_units(out / "units.parquet", expect_sha=tokenizer.fingerprint)
        spoken: dict[str, Any] = self.info["voices"]
        if not spoken or any(facts["engine"] != PLAIN_ENGINE for facts in spoken.values()):
            raise DataError(
                f"benchmark {self.folder}: units 'phones' are the voice engine's own events, and these recordings are "
                f"not spoken by {PLAIN_ENGINE} voices; prepare it with --voice us-f2, or use another tokenizer"
            )
        now = {label: facts["version"] for label, facts in Cast(tuple(spoken)).check().items()}
        if changed := [label for label, facts in spoken.items() if facts["version"] != now[label]]:
            raise DataError(f"benchmark {self.folder}: voice '{changed[0]}' is another version here; {_AGAIN}")
        skips = SkipLog()
        utterances = item_utterances(items, voice_segments)
        table = encode_corpus(utterances, tokenizer, loader=VoiceLoader(), skips=skips)
        skips.write(out / "skips.jsonl")
        write_units(out / "units.parquet", table, tokenizer.fingerprint)
        return table


def _is_encoded(out: Path) -> bool:
    """Whether the units of a whole benchmark are there."""
    return (out / "units.json").is_file() or (out / "units.parquet").is_file()


def open_benchmark(folder: Path) -> Benchmark:
    """Open a folder that `prepare` wrote.

    Raises:
        DataError: no benchmark there, another format, or a field that is missing; the message names the file.
    """
    folder = Path(folder)
    path = folder / "benchmark.json"
    if not path.is_file():
        raise DataError(
            f"benchmark {folder}: no benchmark.json in it; make one with: speechscale eval prepare TASK SOURCE {folder}"
        )
    saved = read_versioned(path, "benchmark", _AGAIN, format=FORMAT, version=FORMAT_VERSION)
    wanted = ("facts", "sha256", "items_sha256", "audio_sha256", "info")
    if missing := [key for key in wanted if key not in saved]:
        raise DataError(f"benchmark {path}: field '{missing[0]}' is missing; {_AGAIN}")
    names = {entry.name for entry in fields(Facts)}
    if strange := names ^ saved["facts"].keys():
        raise DataError(f"benchmark {path}: facts lack or do not know '{min(strange)}'; {_AGAIN}")
    found = Benchmark(folder=folder, facts=Facts(**saved["facts"]), **{key: saved[key] for key in wanted[1:]})
    if found.sha256 != _both(found.items_sha256, found.audio_sha256):
        raise DataError(f"benchmark {path}: its checksum is not that of its parts; {_AGAIN}")
    if found.has_audio:
        open_corpus(folder / "corpus")
    return found


def finish_benchmark(
    folder: Path, facts: Facts, items: Sequence[Item], audio_sha256: str | None, info: dict[str, Any]
) -> Benchmark:
    """Write benchmark.json around a finished items table and corpus."""
    items_sum = items_sha256(items)
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "facts": asdict(facts),
        "sha256": _both(items_sum, audio_sha256),
        "items_sha256": items_sum,
        "audio_sha256": audio_sha256,
        "info": {**info, "sets": set_counts(items)},
    }
    write_json(folder / "benchmark.json", content)
    return open_benchmark(folder)


def set_counts(items: Iterable[Item]) -> dict[str, dict[str, int]]:
    """Items, pairs and speakers of each set, in order of appearance."""
    by_set: dict[str, list[Item]] = {}
    for item in items:
        by_set.setdefault(item.set, []).append(item)
    return {
        name: {
            "items": len(group),
            "pairs": len({item.pair for item in group}),
            "speakers": len({item.speaker for item in group if item.speaker}),
            "phenomena": len({item.phenomenon for item in group if item.phenomenon}),
        }
        for name, group in by_set.items()
    }


def files_of(root: Path, paths: Iterable[str]) -> tuple[int, int, list[str]]:
    """Number of distinct files ("FILE" or "TAR::MEMBER"), their bytes, and those that are missing."""
    sizes = file_sizes(root, paths)
    missing = [name for name, size in sizes.items() if size < 0]
    return len(sizes), sum(max(size, 0) for size in sizes.values()), missing


def file_sizes(root: Path, paths: Iterable[str]) -> dict[str, int]:
    """Bytes of each distinct file, -1 for those that are missing."""
    files = {name: root / name for name in dict.fromkeys(path.partition(MEMBER)[0] for path in paths)}
    return {name: path.stat().st_size if path.is_file() else -1 for name, path in files.items()}


def items_sha256(items: Iterable[Item]) -> str:
    """Checksum of the content of items, in order; the same whatever file holds them."""
    return lines_sha256(asdict(item) for item in items)


def lines_sha256(rows: Iterable[Any]) -> str:
    """Checksum of JSON-like rows, one per line with sorted keys."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()


def _both(items_sum: str, audio_sum: str | None) -> str:
    return canonical_sha256({"items": items_sum, "audio": audio_sum})
