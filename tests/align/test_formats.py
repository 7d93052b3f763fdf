"""Catches files taken for another format, and what cannot be read without a reason."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from speechscale.align.formats import (
    FORMATS,
    Losses,
    read_alignment,
    read_segments,
    sniff_format,
)
from speechscale.errors import DataError
from tests.align.examples import FILES, HELLO, SUPERVISION, saved, triples


@pytest.mark.parametrize(("name", "file", "content"), FILES, ids=[file for _, file, _ in FILES])
def test_every_format_is_recognized_and_gives_the_same_words(
    tmp_path: Path, name: str, file: str, content: Any
) -> None:
    path = saved(tmp_path, file, content)
    assert sniff_format(path) == name
    losses = Losses()
    assert triples(read_alignment(path, losses=losses)) == HELLO
    losses.check()
    assert losses.words == 2
    assert triples(read_alignment(path, format=name)) == HELLO
    renamed = path.rename(tmp_path / "unknown")
    assert sniff_format(renamed) == name, "content decides, not the suffix"


def test_registry_is_complete() -> None:
    """A format without an example here, or a written format that cannot be named, is a hole."""
    assert set(FORMATS) - {name for name, _, _ in FILES} == {"textgrid", "stm", "kaldi-segments"}
    assert {n for n, entry in FORMATS.items() if entry.writer} == {
        "textgrid",
        "ctm",
        "rttm",
        "lhotse",
        "whisperx",
        "slamkit",
    }
    assert all(entry.description and entry.suffixes for entry in FORMATS.values())


@pytest.mark.parametrize(
    ("file", "content", "format", "message"),
    [
        ("a.ctm", "a 1 0.5 0.5 hello\na 1 0.9\n", "ctm", r"a.ctm, line 2: a CTM row has file, channel"),
        ("a.ctm", "a 1 0.5 x hello\n", "ctm", r"a.ctm, line 1: a time is a number of seconds, found 'x'"),
        (
            "a.ctm",
            "a 1 0.5 0.5 b\na 1 0.7 0.5 c\n",
            "auto",
            r"a.ctm, line 2 \('c', 0.7..1.2 s\): overlaps the one before",
        ),
        ("a.ctm", "a 1 2.5 0.5 b\na 1 0.7 0.5 c\n", "auto", r"line 2 \('c', 0.7..1.2 s\): is out of order"),
        ("a.ctm", "a 1 2.5 -0.5 b\n", "auto", r"line 1 \('b', 2.5..2 s\): ends before it starts"),
        ("a.ctm", "a 1 nan 0.5 b\n", "auto", r"line 1 \('b', nan..nan s\): its times are not numbers"),
        ("a.ctm", "a 1 1 1 b\nc 1 1 1 d\n", "auto", r"2 of 2 recordings fit: a, c; name one with recording="),
        ("a.ctm", "", "auto", r"no words in it"),
        ("a.rttm", "SPEAKER a 1 0.5 0.5 <NA> <NA> ann <NA> <NA>\n", "auto", r"no words in it; .*read_segments"),
        ("a.rttm", "WORD a 1 0.5 0.5 x lex ann\n", "rttm", r"a.rttm, line 1: not an RTTM row"),
        ("a.stm", "a 1 ann 0.5\n", "stm", r"a.stm, line 1: an STM row has"),
        (
            "a.json",
            {"segments": [{"words": [{"start": 1}]}]},
            "auto",
            r"segment 1, word 1: has no 'word' and no 'text'",
        ),
        ("a.json", {"segments": [3]}, "whisperx", r"segment 1: expected an object"),
        ("a.json", {"segments": [{"words": 3}]}, "whisperx", r"segment 1: expected a list of words"),
        ("a.json", {"aligned_text": [["a", 1]]}, "auto", r"word 1: expected \[word, start, end\]"),
        ("a.json", {"aligned_text": [["a", "x", 2]]}, "auto", r"word 1: a time is a number of seconds"),
        ("a.json", {"alignments": [["a", 1, 2]]}, "auto", r"word 1: expected \[word, \[start, end\], speaker\]"),
        ("a.json", [{"start_ts": 1, "end_ts": 2}], "auto", r"token 1: has no text"),
        (
            "a.json",
            {"tiers": {"talk": {"type": "interval", "entries": [[0, 1]]}}},
            "auto",
            r"tier 'talk', interval 1: expected",
        ),
        (
            "a.json",
            {"tiers": {"phones": {"type": "interval", "entries": [[0, 1, "A"]]}}},
            "auto",
            "no tier named 'words'",
        ),
        (
            "a.csv",
            "Begin,End,Label,Type,Speaker\n0,1,A,phones,ann\n",
            "auto",
            r"no row of type 'words'; types are phones",
        ),
        ("a.csv", "Begin,End,Label,Type,Speaker\n0,1,A\n", "auto", r"line 2: 3 fields, the header has 5"),
        ("a.jsonl", {**SUPERVISION, "alignment": {"word": [["a"]]}}, "auto", r"item 1 \('s'\): alignment item 1 is"),
        (
            "a.jsonl",
            {"id": "r", "sources": [], "sampling_rate": 16000},
            "auto",
            r"item 1 \('r'\): no supervision and no cut",
        ),
        ("a.matchseg", "a S 0 T 1 A 1 L 1 0 -1 -1 hm\n", "matchseg", r"line 1: not a line of -matchseg"),
        ("a.ali", "a b 3 ; c\n", "kaldi-lengths", r"line 1, pair 2: a label and its frames"),
        ("a.lab", "0.2\t0.2\tspeech\n1\t2\tsilence\n", "auto", r"speech and silence only; it holds no words"),
        ("a.txt", "just a text\n", "auto", r"no alignment format that we know \(textgrid, ctm"),
        ("a.txt", "17 17 296 296 20 20 5 5\n", "auto", r"no alignment format that we know"),
        ("a.json", {"spk1": {"wrd": "A B", "wav": "x.wav"}}, "auto", r"no alignment format .*import it as a corpus"),
        ("a.json", "{", "auto", "no alignment format"),
        ("a.txt", "x", "nonsense", r"format 'nonsense' is not known; take one of textgrid"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, file: str, content: Any, format: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_alignment(saved(tmp_path, file, content), format=format)
    assert "; " in str(caught.value), "a remedy stands behind the last semicolon"


def test_long_files_are_recognized_by_their_head(tmp_path: Path) -> None:
    """A million bytes in: a cut letter or line must not hide the format; a long JSON value is read whole."""
    rows = "".join(f"r 1 {i} 0.5 caf\u00e9\n" for i in range(70_000))
    assert sniff_format(saved(tmp_path, "a.ctm", rows)) == "ctm"
    words = [{"word": f" caf\u00e9{i}", "start": i, "end": i + 0.5} for i in range(20_000)]
    path = saved(tmp_path, "a.json", {"segments": [{"text": "", "words": words}]})
    assert path.stat().st_size > 1 << 20
    assert sniff_format(path) == "whisperx"
    lines = "\n".join(json.dumps({**SUPERVISION, "id": i}) for i in range(8_000))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    assert sniff_format(tmp_path / "a.jsonl.gz") == "lhotse"
    assert next(iter(read_segments(tmp_path / "a.jsonl.gz"))).id == "0"


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.ctm: cannot be read \(No such file"):
        read_alignment(tmp_path / "gone.ctm")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"{}" * 100)[:-9])
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: cannot be read"):
        read_alignment(tmp_path / "a.jsonl.gz", format="lhotse")
    with pytest.raises(DataError, match="holds words only, tier='phones' is not in it"):
        read_alignment(saved(tmp_path, "b.ctm", "a 1 0 1 x\n"), tier="phones")
