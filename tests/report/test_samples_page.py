"""Would catch: a page that obeys a sample's text, loses or misplaces a word, shows half of a broken record, reads files
outside its folder, hides missing sound, or grows with its recordings."""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechscale.errors import DataError
from speechscale.report.samples_page import samples_page
from speechscale.report.samples_records import said_in, shown_sample
from speechscale.report.samples_strip import LABEL_ROWS, strip_of
from speechscale.report.samples_text import samples_text

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"' <speech>"
RATE = 16_000


def record(number: int = 0, prompt: str = "p0", **changed: Any) -> dict[str, Any]:
    """4 s of audio, 1 s of them the prompt; "the cat" heard in the prompt's end and the continuation."""
    made = {
        "format": "speechscale.sample.1",
        "id": f"{prompt}-{number}",
        "prompt": {
            "id": prompt,
            "kind": "speech",
            "source": "x.wav",
            "text": "once upon",
            "units": [1, 2, 3],
            "seconds": 1.0,
            "audio": f"audio/{prompt}-prompt.wav",
        },
        "into": "speech",
        "number": number,
        "seed": number,
        "settings": {"temperature": 0.8, "top_k": None},
        "spans": [{"modality": "speech", "text": "", "units": [4, 5], "start_s": 1.0, "end_s": 4.0}],
        "text": "cat",
        "ended": True,
        "audio": f"audio/{prompt}-{number}.wav",
        "seconds": 4.0,
        "sample_rate_hz": RATE,
        "prompt_s": 1.0,
        "words": [{"text": "the", "start_s": 0.5, "end_s": 0.9}, {"text": "cat", "start_s": 1.0, "end_s": 2.0}],
        "words_by": "pocketsphinx",
        "notes": [],
    }
    return {**made, **changed}


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(0, 3000, round(seconds * RATE)).astype(np.int16)
    return (steps / 32_768).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recordings of p0-0, p0-1 and their prompt."""
    (tmp_path / "audio").mkdir()
    for name, seconds in (("p0-prompt", 1.0), ("p0-0", 4.0), ("p0-1", 4.0)):
        soundfile.write(tmp_path / f"audio/{name}.wav", noise(seconds), RATE, subtype="PCM_16")
    return tmp_path


def shown(records: list[dict[str, Any]], folder: Path, **changed: Any) -> str:
    return samples_page(records, folder, **{"title": "t", "facts": {"model": "m"}, **changed})


class Reader(HTMLParser):
    """Tags, scripts, links and the text a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self.said: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.said).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "path"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "path":
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.scripts if self._open[-1:] == ["script"] else self.said).append(data)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


def test_texts_are_shown_and_never_obeyed(folder: Path) -> None:
    evil = record(settings={EVIL: EVIL}, notes=[EVIL], text=EVIL, words_by=EVIL)
    evil["prompt"] |= {"id": EVIL, "source": EVIL, "text": EVIL}
    evil["spans"] = [
        {**evil["spans"][0], "text": EVIL},
        {"modality": "text", "text": EVIL, "units": [], "start_s": None, "end_s": None},
    ]
    evil["words"][1]["text"] = EVIL
    html = shown([evil], folder, title=EVIL, facts={EVIL: EVIL})
    page = Reader(html)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count(EVIL) >= 12
    allowed = next(value for value in page.all("content") if "script-src" in value)
    own = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{own}'" in allowed, "the page's own script would not run, or another one would"
    assert "default-src 'none'" in allowed


def test_a_page_needs_no_other_file_and_sound_is_bit_exact(folder: Path) -> None:
    html = shown([record(0), record(1)], folder)
    page = Reader(html)
    sources = page.all("src")
    assert len(sources) == 3, "one prompt, two continuations"
    assert all(source.startswith("data:audio/flac;base64,") for source in sources)
    assert not re.search(r"https?://(?!www\.w3\.org)", html)
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(sources[1].partition(",")[2])), dtype="float32")
    assert rate == RATE
    np.testing.assert_array_equal(heard, noise(4.0))
    assert html == shown([record(0), record(1)], folder)
    assert "recordings 3 in this page" in page.text


def test_samples_are_grouped_by_prompt_and_say_what_they_share_once(folder: Path) -> None:
    records = [
        record(0, notes=["one voice"]),
        record(0, "p1", notes=["one voice"]),
        record(1, notes=["one voice", "odd"]),
    ]
    records[2]["settings"] = {"temperature": 1.2, "top_k": None}
    page = Reader(shown(records, folder))
    assert page.tags.count("section") == 2
    assert page.text.index("p0-0") < page.text.index("p0-1") < page.text.index("p1-0")
    assert page.text.count("one voice") == 1
    records[1]["notes"] = []  # now only both samples of p0 share it
    assert Reader(shown(records, folder)).text.count("one voice") == 1
    assert Reader(shown([records[0], records[1]], folder)).text.count("one voice") == 1
    assert page.text.count("odd") == 1
    assert "settings of all top_k off" in page.text
    assert "temperature 0.8" in page.text
    assert "temperature 1.2" in page.text


def test_sound_beyond_the_limit_is_linked_and_said(folder: Path) -> None:
    room = len(next(src for src in Reader(shown([record(0)], folder)).all("src"))) + 100
    page = Reader(shown([record(0), record(1)], folder, audio_bytes=room))
    sources = page.all("src")
    assert sources[0].startswith("data:")
    assert sources[1:] == ["audio/p0-0.wav", "audio/p0-1.wav"]
    assert all((folder / source).is_file() for source in sources[1:])
    assert "only where this page lies in the folder of its samples: audio/p0-0.wav, audio/p0-1.wav" in page.text
    assert "1 in this page, 2 linked" in page.text
    assert "file:" in next(value for value in page.all("content") if "media-src" in value)
    assert "path" in page.tags, "a linked sample still has its waveform"


def test_links_survive_odd_names(folder: Path) -> None:
    name = "audio/a b#1?%20:.wav"
    (folder / "audio/p0-0.wav").rename(folder / name)
    (source,) = [src for src in Reader(shown([record(audio=name)], folder, audio_bytes=0)).all("src") if "%23" in src]
    assert source == "audio/a%20b%231%3F%2520%3A.wav"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_bytes(b"RIFF no sound"), "cannot be decoded"),
        (lambda file: soundfile.write(file, np.full(100, np.nan), RATE, subtype="FLOAT"), "holds NaN"),
        (lambda file: soundfile.write(file, np.zeros(0), RATE), "holds no samples"),
        (lambda file: (file.unlink(), file.mkdir()), "is missing"),
    ],
)
def test_sound_that_cannot_be_had_is_named(folder: Path, spoil: Callable[[Path], Any], said: str) -> None:
    spoil(folder / "audio/p0-0.wav")
    page = Reader(shown([record(0), record(1)], folder))
    assert len(page.all("src")) == 2
    assert page.text.count(f"audio/p0-0.wav {said}") == 2, "beside the sample and at the end"
    assert "2 in this page, 1 missing" in page.text


@pytest.mark.parametrize("name", ["../secret.wav", "/etc/passwd", "audio/../../secret.wav", "link.wav", "a\0b.wav"])
def test_audio_outside_the_folder_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    secret = tmp_path_factory.mktemp("other") / "secret.wav"
    soundfile.write(secret, noise(1.0), RATE)
    soundfile.write(folder.parent / "secret.wav", noise(1.0), RATE)
    (folder / "link.wav").symlink_to(secret)
    with pytest.raises(DataError, match=r"sample in line 2: audio .* lies outside"):
        shown([record(0), record(1, audio=name)], folder)


def _without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda row: row.pop(key)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda row: row.update(format="speechscale.sample.2"), "line 2: format 'speechscale.sample.2'"),
        (_without("format"), "line 2: format 'None'"),
        (_without("spans"), "line 2, 'spans'"),
        (lambda row: row.update(seconds="4"), "line 2, 'seconds': a number of seconds"),
        (lambda row: row.update(seconds=float("nan")), "line 2, 'seconds'"),
        (lambda row: row.update(seed=True), "line 2, 'seed': a whole number"),
        (lambda row: row.update(into="song"), "line 2, 'into': speech or text or free"),
        (lambda row: row["prompt"].update(units=[1, "2"]), "line 2, 'prompt', 'units'"),
        (lambda row: row["spans"][0].update(end_s=0.5), "line 2, 'spans' 1, 'end_s'"),
        (lambda row: row["spans"][0].update(end_s=None), "line 2, 'spans' 1, 'end_s'"),
        (lambda row: row["words"].append("cat"), "line 2, 'words' 3"),
        (lambda row: row.update(notes="no"), "line 2, 'notes'"),
    ],
)
def test_broken_records_are_refused_by_line_and_field(
    folder: Path, spoil: Callable[[dict[str, Any]], Any], message: str
) -> None:
    broken = copy.deepcopy(record(1))
    spoil(broken)
    with pytest.raises(DataError, match=message):
        shown([record(0), broken], folder)


def test_a_line_that_is_no_object_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="line 1: format"):
        shown([["speechscale.sample.1"]], folder)  # type: ignore[list-item]


def test_boxes_stand_where_words_and_spans_sound() -> None:
    strip = strip_of(shown_sample(record()), noise(4.0), RATE)
    assert strip is not None
    assert [(box.left, box.width, box.kind) for box in strip.blocks] == [(0, 25, "prompt"), (25, 75, "speech")]
    assert [(box.left, box.width, box.kind, box.text) for box in strip.words] == [
        (12.5, 10, "prompt", "the"),
        (25, 25, "speech", "cat"),
    ]
    assert [(label, left) for left, label in strip.ticks][:3] == [("0.0 s", 0), ("0.5 s", 12.5), ("1.0 s", 25)]
    assert all(left < 98 for left, _ in strip.ticks)
    assert strip.wave_width == 100


def test_labels_of_one_row_never_overlap_and_fast_words_take_more_rows() -> None:
    words = [{"text": f"word{k}", "start_s": 0.1 * k, "end_s": 0.1 * k + 0.1} for k in range(40)]
    strip = strip_of(shown_sample(record(words=words)))
    assert strip is not None
    assert strip.rows == LABEL_ROWS
    assert [box.text for box in strip.labels] == [word["text"] for word in words]
    for row in range(LABEL_ROWS):
        line = [box for box in strip.labels if box.row == row]
        assert len(line) > 5
        assert all(a.left + a.width <= b.left + 1e-6 for a, b in pairwise(line))


def test_texts_without_time_stand_behind_the_speech_before_them() -> None:
    spans = [
        {"modality": "text", "text": "a", "units": [], "start_s": None, "end_s": None},
        {"modality": "speech", "text": "", "units": [4], "start_s": 1.0, "end_s": 2.0},
        {"modality": "text", "text": "b", "units": [], "start_s": None, "end_s": None},
        {"modality": "speech", "text": "", "units": [5], "start_s": 2.0, "end_s": 4.0},
        {"modality": "text", "text": "c", "units": [], "start_s": None, "end_s": None},
    ]
    strip = strip_of(shown_sample(record(spans=spans)))
    assert strip is not None
    assert [(flag.text, flag.kind) for flag in strip.flags] == [("a", "text"), ("b", "text"), ("c", "text end")]
    a, b, c = strip.flags
    assert (a.left, b.left, c.left + c.width) == (25, 50, 100)
    assert a.left + a.width <= c.left, "they share a row"
    assert (a.row, b.row, c.row) == (0, 1, 0)


def test_every_heard_word_of_the_continuation_is_said_in_one_span() -> None:
    """Between stretches of speech there is a pause in which a recognizer's word may have its middle."""
    spans = [
        {"modality": "speech", "text": "", "units": [4], "start_s": 1.0, "end_s": 2.0},
        {"modality": "text", "text": "b", "units": [], "start_s": None, "end_s": None},
        {"modality": "speech", "text": "", "units": [5], "start_s": 2.2, "end_s": 4.0},
        {"modality": "speech", "text": "known", "units": [5], "start_s": 4.0, "end_s": 4.2},
    ]
    times = {"prompt": (0.8, 1.1), "one": (1.1, 1.9), "two": (1.98, 2.1), "three": (2.1, 2.24), "four": (3.9, 4.0)}
    words = [{"text": text, "start_s": start, "end_s": end} for text, (start, end) in times.items()]
    said = said_in(shown_sample(record(spans=spans, words=words)))
    assert said == ["one two", "b", "three four", "known"]


@pytest.mark.parametrize("seconds", [0.05, 0.4, 4.0, 31.0, 130.0, 3600.0])
def test_ticks_have_room_at_any_length(seconds: float) -> None:
    strip = strip_of(shown_sample(record(seconds=seconds, spans=[], words=[], prompt_s=0.0)))
    assert strip is not None
    places = [left / 100 * max(strip.pixels, 1000) for left, _ in strip.ticks]
    assert all(b - a >= 69 for a, b in pairwise(places))
    assert places[-1] <= max(strip.pixels, 1000) - 34 or len(places) == 1
    assert len(places) >= 2 or seconds < 0.4


def test_the_outline_is_the_waveform() -> None:
    """A click at 3 s of 4: flat before, up to the full height there."""
    audio = np.zeros(4 * RATE, np.float32)
    audio[3 * RATE] = 0.5
    strip = strip_of(shown_sample(record()), audio, RATE)
    assert strip is not None
    points = [tuple(map(int, point.split())) for point in re.findall(r"[ML](\d+ \d+)", strip.wave)]
    upper = points[: len(points) // 2]
    assert [x for x, y in upper if y == 0] == [3 * 200]
    assert {y for x, y in points if x != 3 * 200} == {126, 128}


def test_text_alone_has_no_strip_and_units_alone_are_shown(folder: Path) -> None:
    spans = [{"modality": "speech", "text": "", "units": [4, 5], "start_s": None, "end_s": None}]
    silent = record(
        spans=spans, audio="", seconds=0.0, prompt_s=0.0, words=[], notes=["no vocoder: units and text only"]
    )
    assert strip_of(shown_sample(silent)) is None
    page = Reader(shown([silent], folder))
    assert "svg" not in page.tags
    assert "2 units, words not known" in page.text
    assert "no vocoder: units and text only" in page.text
    assert "4 5" in page.text
    nothing = Reader(shown([{**silent, "spans": []}], folder))
    assert "nothing was generated" in nothing.text


@pytest.mark.parametrize("seconds", [30, 600])
def test_a_sample_is_light(folder: Path, seconds: int) -> None:
    """Besides what is said in it: 3 words a second in the strip and in the list."""
    soundfile.write(folder / "audio/p0-0.wav", noise(seconds), RATE)
    empty = len(shown([], folder))
    long = record(seconds=float(seconds), words=[])
    long["spans"][0]["end_s"] = float(seconds)
    assert len(shown([long], folder, audio_bytes=0)) - empty < 40_000
    words = [{"text": "some", "start_s": k / 3, "end_s": (k + 1) / 3} for k in range(90)]
    assert len(shown([{**long, "words": words}], folder, audio_bytes=0)) - empty < 75_000


def test_no_samples_make_a_page(folder: Path) -> None:
    assert "samples 0 of 0 prompts" in Reader(shown([], folder)).text


def test_terminal_text_says_all_and_obeys_nothing() -> None:
    said = samples_text(record(notes=["\x1b[2Jgone"]))
    assert said.split("\n") == [
        "p0-0: speech into speech, seed 0, 4.00 s, ended by itself",
        "  prompt 1.00 s of x.wav: once upon",
        "  speech 1.00-4.00 s, 2 units: cat",
        "  words by pocketsphinx, start in s: cat@1.00",
        "  audio: audio/p0-0.wav",
        "  note: \\x1b[2Jgone",
    ]
    spans = [{"modality": "text", "text": "<speech> no\nline", "units": [], "start_s": None, "end_s": None}]
    made = samples_text(record(into="free", spans=spans, words=[], audio="", seconds=0.0, ended=False)).split("\n")
    assert made[0] == "p0-0: speech into speech and text, seed 0, cut at the limit"
    assert made[2:] == ["  text: <speech> no\\nline"]
    with pytest.raises(DataError, match="format"):
        samples_text({"format": "other"})
