"""One small file of every format, all telling the same two words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HELLO = [("hello", 0.5, 1.0), ("there", 1.25, 2.0)]


def triples(words: Any) -> list[tuple[str, float | None, float | None]]:
    return [(w.text, w.start_s, w.end_s) for w in words]


def saved(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


WORDS_JSON = [
    {"word": " hello", "start": 0.5, "end": 1.0, "probability": 0.9},
    {"word": " there", "start": 1.25, "end": 2},
]
SUPERVISION = {"id": "s", "recording_id": "a", "start": 0.4, "duration": 2.0, "channel": 0, "text": "hello there"}
FILES: list[tuple[str, str, Any]] = [
    ("ctm", "a.ctm", ";; by hand\na 1 0.5 0.5 hello\na 1 1.25 0.75 there 0.9\n"),
    ("ctm", "nemo.ctm", "a 1 0.5 0.5 hello NA lex NA\na 1 1.25 0.75 there NA lex NA\n"),
    (
        "ctm",
        "full.ctm",
        "a A 0.5 0.5 hello 0.8 lex ann\na A 1.0 0.25 [cough] 0.8 non-lex ann\na A 1.25 0.75 there 1 lex ann",
    ),
    ("rttm", "a.rttm", "LEXEME a 1 0.5 0.5 hello lex ann 0.9 <NA>\nLEXEME a 1 1.25 0.75 there lex ann <NA>\n"),
    ("lhotse", "a.jsonl", {**SUPERVISION, "alignment": {"word": [["hello", 0.5, 0.5, 0.9], ["there", 1.25, 0.75]]}}),
    ("whisperx", "openai.json", {"text": "", "segments": [{"start": 0.5, "end": 2, "text": "x", "words": WORDS_JSON}]}),
    ("whisperx", "api.json", {"task": "transcribe", "text": "x", "words": WORDS_JSON}),
    ("whisperx", "list.json", [{"start": 0.5, "end": 2, "text": "x", "words": WORDS_JSON}]),
    ("whisperx", "only.json", {"word_segments": WORDS_JSON}),
    (
        "whisperx",
        "pipeline.json",
        {
            "text": "x",
            "chunks": [{"text": " hello", "timestamp": [0.5, 1]}, {"text": " there", "timestamp": [1.25, 2]}],
        },
    ),
    (
        "slamkit",
        "meta.json",
        {"aligned_text": [[" hello", 0.5, 1.0], [" there", 1.25, 2.0, 0.9]], "text": "hello there"},
    ),
    (
        "slamkit",
        "dicts.json",
        {"aligned_text": [{"w": " hello", "s": 0.5, "e": 1.0}, {"w": " there", "s": 1.25, "e": 2.0}]},
    ),
    (
        "moshi",
        "moshi.json",
        {"alignments": [["hello", [0.5, 1.0], "SPEAKER_MAIN"], ["there", [1.25, 2.0], "SPEAKER_MAIN"]]},
    ),
    ("moshi", "bare.json", [["hello", [0.5, 1.0]], ["there", [1.25, 2.0]]]),
    (
        "tts",
        "kokoro.json",
        [
            {"text": "hello", "whitespace": " ", "start_ts": 0.5, "end_ts": 1.0},
            {"text": "there", "whitespace": "", "start_ts": 1.25, "end_ts": 2.0},
        ],
    ),
    ("tts", "server.json", {"timestamps": [{"word": w, "start_time": a, "end_time": b} for w, a, b in HELLO]}),
    (
        "mfa-json",
        "mfa.json",
        {
            "start": 0,
            "end": 3,
            "tiers": {"words": {"type": "interval", "entries": [[0.5, 1.0, "hello"], [1.25, 2.0, "there"]]}},
        },
    ),
    (
        "mfa-csv",
        "mfa.csv",
        "Begin,End,Label,Type,Speaker\n0.5,1.0,hello,words,ann\n1.25,2.0,there,words,ann\n0.5,1.0,HH,phones,ann\n",
    ),
    (
        "pocketsphinx",
        "ps.json",
        {
            "b": 0,
            "d": 3,
            "p": 1,
            "t": "x",
            "w": [{"b": 0.5, "d": 0.5, "p": 0.9, "t": "hello(2)"}, {"b": 1.25, "d": 0.75, "t": "there"}],
        },
    ),
    (
        "matchseg",
        "a.matchseg",
        "a S 0 T -9 A -7 L -2 0 -1 -1 <sil> 50 -1 0 hello(2) 100 -1 -1 <sil> 125 -1 0 there 200\n",
    ),
    ("labels", "a.txt", "0.5\t1.0\thello\n1.0\t1.25\t\n1.25\t2.0\tthere\n"),
    ("kaldi-lengths", "a.ali", "a SIL 50 ; hello 50 ; sil 25 ; there 75\n"),
]
