"""Small trees in the layouts of the published benchmarks: for tests, without any of their data.

Recordings are a tenth of a second of noise, or spoken by our voices (`voiced=True`, about 0.1 s of one core each).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from speechscale.align.formats import write_alignment
from speechscale.corpus.sentences import split_sentences
from speechscale.records import Utterance, Word
from speechscale.speech.audio import write_audio
from speechscale.voices.espeak import EspeakEngine

RATE_HZ = 16_000
VOICES = ("us-f2", "gb-m3")
WORDS = (("harbor", "harket", 12), ("market", "marbor", 0), ("window", "wintow", 3))
SENTENCES = (
    ("agreement", "noun", "The dogs run.", "The dogs runs."),
    ("agreement", "verb", "She sees him.", "She see him."),
    ("islands", "noun", "Who does he know?", "Who does know he?"),
)
STORIES = (
    (
        "s1",
        ("Tom had a dog.", "It ran away.", "He looked for it.", "A boy found it."),
        "Tom was glad.",
        "Tom ate soup.",
    ),
    (
        "s2",
        ("Ann was hungry.", "She went home.", "She made a soup.", "It was hot."),
        "Ann waited a bit.",
        "Ann ran a race.",
    ),
    (
        "s3",
        ("Max can swim.", "He went to the lake.", "The sun was hot.", "He jumped in."),
        "Max got wet.",
        "Max read a map.",
    ),
)
SALMON_PARTS = ("bg_alignment", "gender_consistency")

Line = tuple[str, str, str]  # path below the root, text, voice


def write_sounds(root: Path, lines: Iterable[Line], *, voiced: bool = False) -> dict[str, list[Word]]:
    """Write a recording per line; returns the word times of spoken ones by path."""
    lines = list(lines)
    if not voiced:
        for path, _, _ in lines:
            rng = np.random.default_rng(crc32(path.encode()))
            write_audio(root / path, rng.uniform(-0.1, 0.1, RATE_HZ // 10).astype(np.float32), RATE_HZ)
        return {}
    utterances = [
        Utterance(id=path, text=text, speaker=voice, split="items", segments=tuple(split_sentences(text)))
        for path, text, voice in lines
    ]
    times = {}
    for spoken in EspeakEngine().speak(utterances, None):
        write_audio(root / spoken.id, spoken.audio, spoken.sample_rate_hz)
        times[spoken.id] = [
            Word(text=text, start_s=start / spoken.sample_rate_hz, end_s=end / spoken.sample_rate_hz)
            for text, start, end in spoken.words
        ]
    return times


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_lines(path: Path, rows: Iterable[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def lexical_tree(root: Path, *, voiced: bool = False, order: Sequence[int] | None = None, split: str = "dev") -> Path:
    """sWUGGY: `lexical/SPLIT`, three pairs in two voices; `order` permutes the twelve rows of gold.csv."""
    header = ("id", "filename", "voice", "frequency", "word", "phones", "length", "correct")
    rows, lines = [], []
    for number, (word, other, frequency) in enumerate(WORDS):
        for voice in VOICES:
            for text, correct in ((word, 1), (other, 0)):
                name = f"x{number}{voice.replace('-', '')}{correct}"
                rows.append((number, name, voice, frequency, text, "AA B", 4, correct))
                lines.append((f"lexical/{split}/{name}.wav", text, voice))
    return _gold(root, f"lexical/{split}", header, rows, lines, voiced, order)


def syntactic_tree(root: Path, *, voiced: bool = False, order: Sequence[int] | None = None, split: str = "dev") -> Path:
    """sBLIMP: `syntactic/SPLIT`, three pairs of two types in two voices; ids repeat between types, as subtypes do."""
    header = ("id", "filename", "voice", "type", "subtype", "transcription", "correct")
    rows, lines = [], []
    for number, (kind, subtype, good, bad) in enumerate(SENTENCES):
        for voice in VOICES:
            for text, correct in ((good, 1), (bad, 0)):
                name = f"y{number}{voice.replace('-', '')}{correct}"
                rows.append((7, name, voice, kind, subtype, text, correct))
                lines.append((f"syntactic/{split}/{name}.wav", text, voice))
    return _gold(root, f"syntactic/{split}", header, rows, lines, voiced, order)


def _gold(
    root: Path,
    folder: str,
    header: Sequence[str],
    rows: list[tuple],
    lines: list[Line],
    voiced: bool,
    order: Sequence[int] | None,
) -> Path:
    write_table(root / folder / "gold.csv", header, rows if order is None else [rows[i] for i in order])
    write_sounds(root, lines, voiced=voiced)
    return root


def zerospeech_tree(root: Path, *, voiced: bool = False) -> Path:
    """Both parts of ZeroSpeech 2021 that are choices."""
    lexical_tree(root, voiced=voiced)
    return syntactic_tree(root, voiced=voiced)


def story_table(path: Path, *, answers: bool = True) -> Path:
    """The StoryCloze table of 2016; the right ending takes turns between both places."""
    sentences, quiz = [f"InputSentence{k}" for k in range(1, 5)], [f"RandomFifthSentenceQuiz{k}" for k in (1, 2)]
    header = ["InputStoryid", *sentences, *quiz, *(["AnswerRightEnding"] if answers else [])]
    rows: list[list[object]] = []
    for number, (id, told, good, bad) in enumerate(STORIES):
        endings = [good, bad] if number % 2 == 0 else [bad, good]
        rows.append([id, *told, *endings, *([number % 2 + 1] if answers else [])])
    return write_table(path, header, rows)


def story_parts_table(path: Path) -> Path:
    """Three rows per story: pair_id, text, type, correctness; wrong endings are those of the next story."""
    rows = []
    for number, (id, told, good, _) in enumerate(STORIES):
        foreign = STORIES[(number + 1) % len(STORIES)][2]
        rows += [
            (id, " ".join(told), "prompt", ""),
            (id, good, "ending", "correct"),
            (id, foreign, "ending", "incorrect"),
        ]
    return write_table(path, ("pair_id", "text", "type", "correctness"), rows)


def storycloze_tree(root: Path, *, voiced: bool = False, numbered: bool = False) -> Path:
    """Joined stories in one voice, named by label or by number; with voices, word times in `root.parent/times`."""
    lines = []
    for number, (id, told, good, bad) in enumerate(STORIES):
        names = (f"{2 * number}_a", f"{2 * number + 1}_b") if numbered else (f"{id}_correct", f"{id}_incorrect")
        for name, ending in zip(names, (good, bad), strict=True):
            lines.append((f"{name}.wav", f"{' '.join(told)} {ending}", VOICES[0]))
    for path, words in write_sounds(root, lines, voiced=voiced).items():
        place = root.parent / "times" / Path(path).with_suffix(".TextGrid")
        place.parent.mkdir(exist_ok=True)
        write_alignment(place, words, duration_s=(words[-1].end_s or 0) + 0.01)
    return root


def multi_speaker_tree(
    root: Path, kind: str = "wav", *, part: str = "sSC", voices: Sequence[str] = ("af", "bm")
) -> Path:
    """`sSC/VOICE` as recordings ("wav"), with paths in JSON lines ("jsonl"), or sound in Parquet ("parquet")."""
    for voice in voices:
        folder, rows = root / part / voice, []
        for id, told, good, bad in STORIES:
            row: dict[str, object] = {"id": id}
            for side, ending in (("correct", good), ("negative", bad)):
                write_sounds(folder, [(f"{id}_{side}.wav", "", voice)])
                row[f"{side}_text"] = f"{' '.join(told)} {ending}"
                row[f"{side}_audio"] = f"{id}_{side}.wav"
            rows.append(row)
        if kind == "jsonl":
            write_lines(folder / "data.jsonl", rows)
        elif kind == "parquet":
            for row in rows:
                for side in ("correct", "negative"):
                    file = folder / str(row[f"{side}_audio"])
                    row[f"{side}_audio"] = {"bytes": file.read_bytes(), "path": f"../../{file.name}"}
                    file.unlink()
            pq.write_table(pa.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")
    return root


def cross_modal_tree(root: Path, *, voiced: bool = False, sounds: bool = True) -> Path:
    """ID_mutual, ID_correct, ID_incorrect as .wav and .txt."""
    root.mkdir(parents=True, exist_ok=True)
    lines = []
    for id, told, good, bad in STORIES:
        for role, text in (("mutual", " ".join(told)), ("correct", good), ("incorrect", bad)):
            (root / f"{id}_{role}.txt").write_text(f"{text}\n", encoding="utf-8")
            lines.append((f"{id}_{role}.wav", text, VOICES[0]))
    if sounds:
        write_sounds(root, lines, voiced=voiced)
    return root


def slamkit_tree(root: Path, *, count: int = 6, first: int = 0, separator: str = "_") -> Path:
    """NUMBER_word.wav, numbers from `first` on."""
    write_sounds(root, [(f"{first + k}{separator}word{k}.wav", "", "") for k in range(count)])
    return root


def salmon_tree(root: Path, parts: Sequence[str] = SALMON_PARTS, samples: int = 2) -> Path:
    """PART/sample_<i>_<k>.wav."""
    for part in parts:
        write_sounds(root, [(f"{part}/sample_{i}_{k}.wav", "", "") for i in range(samples) for k in range(2)])
    return root


def blimp_file(path: Path, uid: str = "anaphor", pairs: int = 3, **more: object) -> Path:
    """One paradigm of BLiMP."""
    return write_lines(
        path,
        [
            {
                "sentence_good": f"Ann saw herself {k} times.",
                "sentence_bad": f"Ann saw himself {k} times.",
                "field": "morphology",
                "linguistics_term": "anaphor_agreement",
                "UID": uid,
                "pairID": str(k),
                **more,
            }
            for k in range(pairs)
        ],
    )


SWAG_HEADER = (
    *("", "video-id", "fold-ind", "startphrase", "sent1", "sent2", "gold-source"),
    *("ending0", "ending1", "ending2", "ending3", "label"),
)
SWAG_ROW = (
    0,
    "v1",
    17,
    "He lifts the lid. He",
    "He lifts the lid.",
    "He",
    "gold",
    "sings.",
    "flies.",
    "looks in.",
    "naps.",
    2,
)


def swag_table(path: Path, rows: Sequence[Sequence[object]] = (SWAG_ROW,)) -> Path:
    """SWAG's val.csv."""
    return write_table(path, SWAG_HEADER, rows)


HELLASWAG_ROW = {
    "ind": 24,
    "activity_label": "Cutting the grass",
    "ctx_a": "[header] How to cut grass [title] Mow it.",
    "ctx_b": "then he",
    "endings": ["[step] rests.", "sings.", "flies.", "naps."],
    "label": 0,
    "split_type": "indomain",
}
