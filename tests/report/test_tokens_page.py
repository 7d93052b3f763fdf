"""Would catch: a page or a terminal that obeys a transcript, loads something, loses sound, or draws it elsewhere."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.console import Console

from speechscale.report.sounds import peaks
from speechscale.report.tokens_page import PageDocument, write_tokens_page
from speechscale.report.tokens_stats_page import stats_notes, stats_tables, table_lines, write_stats_page
from speechscale.report.tokens_text import legend, plain_document, printable, rich_document
from speechscale.tokens.look_records import Part, Seen, SeenSpan, SeenUnit, SeenWord, plural

EVIL = "</script><script>alert(1)</script>"


def seen(word: str = "cat") -> Seen:
    """`the* CAT(1 2=) <pause 2=> sat^`, ten frames at 25 Hz."""

    def made(text: str, **values: Any) -> SeenWord:
        base: dict[str, Any] = {"start_s": None, "end_s": None, "exact": True, "heard": False, "read": True}
        return SeenWord(text=text, **{**base, "timed": False, "demoted": False, **values})

    return Seen(
        id="one",
        stream="interleaved",
        number=4,
        drawn="spans fixed(1)",
        frame_rate_hz=25.0,
        words=(
            made("the"),
            made(word, timed=True, start_s=0.1, end_s=0.2, heard=True, read=False, spoken="Cat,"),
            made("sat", timed=True, start_s=0.3, end_s=0.36, exact=False, demoted=True),
        ),
        units=(
            SeenUnit(unit=9, start_frame=0, stop_frame=2, spans=0),
            SeenUnit(unit=1, start_frame=2, stop_frame=5, spans=1),
            SeenUnit(unit=2, start_frame=5, stop_frame=8, spans=2),
            SeenUnit(unit=3, start_frame=8, stop_frame=10, spans=1),
        ),
        spans=(
            SeenSpan(
                modality="text",
                parts=(Part(kind="word", word=0, text="the", ids=(5,), names=("the",)),),
                marker="<text>",
                marker_id=41,
            ),
            SeenSpan(
                modality="speech",
                parts=(
                    Part(kind="word", word=1, text=word, ids=(33,), names=("1+2",), start_frame=2, stop_frame=8),
                    Part(kind="pause", word=None, text="", ids=(24,), names=("3",), start_frame=8, stop_frame=10),
                ),
                marker="<speech>",
                marker_id=40,
                first_unit=1,
                stop_unit=4,
                start_frame=2,
                stop_frame=10,
                doubled=1,
            ),
            SeenSpan(modality="text", parts=(Part(kind="word", word=2, text="sat", ids=(6, 7), names=("s", "at")),)),
        ),
        ids=(41, 5, 40, 33, 24, 6, 7),
        notes=("A note.",),
    )


def test_plain_text_says_all() -> None:
    head, drawn, facts, text, note = plain_document(seen()).split("\n")
    assert head == "one (interleaved 4)"
    assert drawn == "  spans fixed(1)"
    assert text == "<text> the* <speech> [speech: cat (pause 0.08 s) | 1+2= 3] sat^"
    assert facts == (
        "  0.40 s; 7 tokens: 2 speech, 3 text, 2 markers; 3 words, 33% heard; 4 units, 1 in no span; "
        "1 word without time; 1 demoted word; 1 doubled unit"
    )
    assert note == "  note: A note."
    with_ids = plain_document(seen(), ids=True).split("\n")[3]
    assert with_ids == "<text>/41 the*/5 <speech>/40 [speech: cat (pause 0.08 s) | 1+2=/33 3/24] sat^/6,7"
    empty = replace(seen().spans[1], parts=(replace(seen().spans[1].parts[0], ids=(), names=()),))
    assert "[speech: cat | no unit]" in plain_document(replace(seen(), spans=(empty,)))
    assert plain_document(replace(seen(), frame_rate_hz=None)).count("(pause)") == 1


def test_colored_text_has_the_same_words() -> None:
    text = rich_document(seen())
    assert "<text> the* <speech> cat 1+2= (pause 0.08 s) 3 sat^" in text.plain
    styles = {text.plain[s.start : s.end].strip(): str(s.style) for s in text.spans}
    assert styles["cat"] != styles["the*"] != styles["sat^"]
    assert legend(color=False).plain.startswith("[speech: words | units]")
    buffer = io.StringIO()
    Console(file=buffer, force_terminal=True, width=200).print(text)
    assert "\x1b[" in buffer.getvalue()


def test_no_text_moves_the_cursor_or_is_markup() -> None:
    nasty = seen("\x1b[31m[red]x\r\x9b2J")
    for shown in (plain_document(nasty), rich_document(nasty).plain):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown)
        assert r"\x1b[31m[red]x\r\x9b2J" in shown
    assert printable("na\u00efve \u732b") == "na\u00efve \u732b"


class Links(HTMLParser):
    """Everything that a browser would load, and the texts of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.scripts: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [str(value) for name, value in attrs if name in ("src", "href", "data", "action", "poster")]
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "script"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts[-1] += data


def page_of(path: Path, documents: list[PageDocument], **settings: Any) -> tuple[str, Links, list[str]]:
    left_out = write_tokens_page(path, documents, title="A & B", facts={"store": "<x>"}, **settings)
    text = path.read_text(encoding="utf-8")
    links = Links()
    links.feed(text)
    return text, links, left_out


def test_page_loads_nothing_and_escapes_everything(tmp_path: Path) -> None:
    audio = np.zeros(6400, np.float32)
    evil = replace(seen(EVIL), id=EVIL, notes=(EVIL,))
    text, links, _ = page_of(tmp_path / "a.html", [PageDocument(seen=evil, audio=audio, silence="")])
    assert all(load.startswith("data:audio/flac;base64,") for load in links.loads)
    assert len(links.loads) == 1
    assert len(links.scripts) == 2, "the data of one document and the page's own code"
    assert "alert(1)" not in links.scripts[1]
    assert json.loads(links.scripts[0])["words"][1]["text"] == "Cat,"
    assert json.loads(links.scripts[0])["words"][1]["hint"].startswith(EVIL)
    assert "default-src 'none'" in text
    assert not re.search(r"https?://", text)
    assert "<dd>&lt;x&gt;</dd>" in text


def test_page_holds_exact_sound_and_places(tmp_path: Path) -> None:
    steps = np.random.default_rng(0).integers(-30_000, 30_000, 6500)
    audio = (steps / 32_768).astype(np.float32)
    text, links, left_out = page_of(tmp_path / "a.html", [PageDocument(seen=seen(), audio=audio)])
    assert left_out == []
    data, rate = soundfile.read(io.BytesIO(base64.b64decode(links.loads[0].partition(",")[2])), dtype="int16")
    assert rate == 16_000
    assert np.array_equal(data, steps)
    drawn = json.loads(links.scripts[0])
    assert (drawn["rate"], drawn["frames"]) == (25.0, 10)
    assert drawn["units"] == [[9, 0, 2, 0], [1, 2, 5, 1], [2, 5, 8, 2], [3, 8, 10, 1]]
    assert [(s["speech"], s["a"], s["b"]) for s in drawn["spans"]] == [
        (False, 0, 0),
        (True, 2, 10),
        (False, pytest.approx(7.5), pytest.approx(9.0)),
    ]
    assert [w["hint"] for w in drawn["words"]] == [
        "the: no time",
        "cat (corpus: Cat,): 0.100..0.200 s",
        "sat: about 0.300..0.360 s, drawn as speech, got no unit",
    ]
    low_high = np.frombuffer(base64.b64decode(drawn["peaks"]), np.int8).reshape(-1, 2)
    assert np.array_equal(low_high, peaks(audio, 16_000))
    assert text.count('<button data-do="span"') == 1
    assert 'class="heard"' in text
    assert 'class="read untimed"' in text
    assert 'class="read demoted"' in text
    assert '<span class="doubled" title="id 33, frames 2..8">1+2</span>' in text


def test_peaks_hold_every_sample() -> None:
    audio = np.zeros(1001, np.float32)
    audio[[0, 79, 80, 1000]] = [0.5, -1.0, 1.0, -0.5]
    found = peaks(audio, 16_000)
    assert found.shape == (13, 2)
    assert found[0].tolist() == [-127, 64]
    assert found[1].tolist() == [0, 127]
    assert found[12].tolist() == [-64, 0]
    assert peaks(np.zeros(0, np.float32), 16_000).tolist() == [[0, 0]]
    assert peaks(np.full(11_025, 2.0, np.float32), 11_025).max() == 127


def test_without_sound_or_durations_the_page_says_so(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, 6400).astype(np.float32)
    silent = PageDocument(seen=replace(seen(), id="two"), silence="no voice")
    bare = PageDocument(seen=replace(seen(), id="three", frame_rate_hz=None))
    many = [PageDocument(seen=seen(), audio=noise), PageDocument(seen=replace(seen(), id="late"), audio=noise)]
    text, links, left_out = page_of(tmp_path / "a.html", [*many, silent, bare], audio_bytes=20_000)
    assert len(links.loads) == 1
    assert left_out == [
        "No sound for two: no voice",
        "Sound of 1 document is left out, because a page holds 0.02 MB of it: late. Show fewer at a time.",
    ]
    assert all(line in text for line in left_out)
    drawn = [json.loads(script) for script in links.scripts[:-1]]
    assert [bool(data["peaks"]) for data in drawn] == [True, True, False], "the third has no time axis"
    assert text.count("<canvas") == 3
    assert text.count('<button data-do="span"') == 1


def report() -> dict[str, Any]:
    kinds = {"speech": 6, "text": 3, "marker": 1}
    interleave = {
        "share_asked": 0.3,
        "share_kind": "floor",
        "speech_word_share": 0.4,
        "mean_speech_span_words": 2.5,
        "mean_text_span_words": None,
        "mean_speech_spans": 1.0,
        "by_length": [{"words": "1-5", "utterances": 2, "speech_word_share": None}],
        "span_words": {"speech": [0, 3, 1], "text": [0, 0, 0]},
        **dict.fromkeys(("utterances", "short_utterances", "words", "untimed_words"), 1234),
        **dict.fromkeys(("demoted_words", "lost_words", "doubled_units"), 0),
    }
    store = {
        "name": EVIL,
        "folder": "f",
        "hours": 1.5,
        "bytes": 2_000_000,
        "counts": {"units": 10},
        "interleaving": "x",
        "interleave": interleave,
        "streams": {"interleaved": {"documents": 5, "looked_at": 2, "tokens": 25, "kinds": kinds}},
    }
    source = {"name": EVIL, "share": 1.0, "delivered": 1.0, "tokens_seen": 5, "tokens_unique": 5, "epochs": 0.5}
    mixture = {
        "context": 8,
        "batch_rows": 2,
        "batches": 3,
        "fill": 0.5,
        "fill_bins": [0, 1],
        "speech_hours_unique": 1.0,
        "sources": [{**source, "documents": 1, "split_documents": 0, "rows": 6}],
        "prefixes": {"tokens": [2, 3, 5], "shares": {EVIL: [1.0, 1.0, 1.0]}, "largest_difference": [0.0, 0.0, 0.0]},
    }
    return {"facts": {"stores": EVIL}, "stores": [store], "mixture": mixture}


def test_stats_page_shows_the_tables_and_four_pictures(tmp_path: Path) -> None:
    write_stats_page(tmp_path / "s.html", report(), title=EVIL)
    text = (tmp_path / "s.html").read_text(encoding="utf-8")
    body = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert EVIL not in body
    assert "alert(1)" in body
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", body)
    assert text.count("Plotly.newPlot") >= 4
    for _, rows in stats_tables(report()):
        assert len({len(row) for row in rows}) == 1
        assert len({len(line) for line in table_lines(rows)}) == 1
    assert stats_notes(report())[0].endswith("first 2 of 5 documents; tokens of all are estimated from them.")
    lone = {**report(), "mixture": None}
    lone["stores"][0]["interleave"] = None
    write_stats_page(tmp_path / "t.html", lone, title="t")
    assert (tmp_path / "t.html").read_text(encoding="utf-8").count("<h2>") == 2


def test_plural() -> None:
    assert [plural(count, "word") for count in (0, 1, 1200)] == ["0 words", "1 word", "1,200 words"]
