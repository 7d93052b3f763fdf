"""Would catch: prompts that are lost or taken for another kind, ids that leave their folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechscale.errors import DataError
from speechscale.speak.prompts import Prompt, prompt_of, read_prompts
from tests.speak.conftest import RATE, tones


def test_files_and_texts_in_order(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", tones(1.0, 1), RATE)
    soundfile.write(tmp_path / "b.mp3", tones(1.0, 2), 24_000)
    (tmp_path / "c.txt").write_text("one\n\n two <speech> \n")
    lines = [{"id": "x", "text": "three.wav"}, {"audio": "a.flac"}]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    files = [tmp_path / name for name in ("a.flac", "c.txt", "d.jsonl", "b.mp3")]
    prompts = [waiting.read() for waiting in read_prompts(files, ["y.wav"], prompt_s=0.5)]
    assert [p.id for p in prompts] == ["p0", "p1", "p2", "x", "p4", "p5", "p6"]
    assert [p.kind for p in prompts] == ["speech", "text", "text", "text", "speech", "speech", "text"]
    assert [p.text for p in prompts if p.text is not None] == ["one", " two <speech> ", "three.wav", "y.wav"]
    assert [p.seconds for p in prompts if p.audio is not None] == [0.5, 0.5, 0.5]
    assert prompts[0].notes == ("the first 0.5 s of 1.00 s",)
    assert any("downsampled from 24000" in note for note in prompts[5].notes)
    assert prompts[4].source.endswith("a.flac")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "line 1: needs exactly one"),
        ('{"text": "a", "audio": "b.wav"}', "line 1: needs exactly one"),
        ('{"text": 3}', "line 1: needs exactly one"),
        ("[1]", "line 1: needs exactly one"),
        ('{"text": "a"}\n{"text": "', "line 2: no JSON"),
        ('{"id": "../up", "text": "a"}', "cannot be part of a file's name"),
        ('{"id": ".hidden", "text": "a"}', "cannot be part of a file's name"),
        ('{"id": null, "text": "a"}', "id null cannot be part"),
        ('{"id": ["a"], "text": "a"}', "cannot be part"),
        ('{"id": "a\\u0000b", "text": "a"}', "cannot be part"),
        ('{"id": "\\ud800", "text": "a"}', "cannot be part"),
        ('{"id": "' + 300 * "x" + '", "text": "a"}', "at most 150 bytes"),
        ('{"text": "a \\ud800"}', "half of a character"),
        ('{"id": "p1", "text": "a"}\n{"text": "b"}', "id 'p1' occurs twice"),
        ('{"text": " "}', "the text is empty"),
        ("", "no prompt"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        read_prompts([tmp_path / "x.jsonl"])


def test_what_is_no_prompt(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"\x00")
    (tmp_path / "x.wav").write_bytes(b"RIFFnothing")
    (tmp_path / "x.txt").write_bytes("é".encode("latin1"))
    for name, message in (("x.bin", "not known by its ending"), ("x.txt", "not UTF-8"),
                          ("no.txt", "no such file"), ("no.mp3", r"no\.mp3")):  # fmt: skip
        with pytest.raises(DataError, match=message):
            read_prompts([tmp_path / name])
    (waiting,) = read_prompts([tmp_path / "x.wav"])  # its turn may never come
    with pytest.raises(DataError, match=r"x\.wav"):
        waiting.read()
    for seconds in (0.0, -1.0, float("nan")):
        with pytest.raises(DataError, match="prompt_s"):
            prompt_of("a", prompt_s=seconds)
        with pytest.raises(DataError, match="prompt_s"):
            read_prompts([tmp_path / "x.wav"], prompt_s=seconds)


def test_a_string_is_a_text_unless_it_ends_like_sound() -> None:
    assert prompt_of("once upon a time.").text == "once upon a time."
    with pytest.raises(DataError, match=r"nothing\.MP3"):
        prompt_of("nothing.MP3")
    assert prompt_of(tones(0.2, 0)).seconds == pytest.approx(0.2)
    assert prompt_of(np.zeros(8000, np.float64), rate_hz=8000).seconds == 1.0


def test_marks_of_other_systems_are_no_text(tmp_path: Path) -> None:
    row = {"id": "ä 日", "text": "one\u2028two"}
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(row, ensure_ascii=False).encode() + b"\r\n")
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfthree\r\n\r\nfour\x0cfive\r\n")
    prompts = read_prompts([tmp_path / "a.jsonl", tmp_path / "b.txt"])
    assert [(p.id, p.text) for p in prompts] == [("ä 日", "one\u2028two"), ("p1", "three"), ("p2", "four\x0cfive")]


def test_what_is_neither_text_nor_sound() -> None:
    for source in (None, [0.1] * 100, 3):
        with pytest.raises(DataError, match="give a text, a file or a numpy array"):
            prompt_of(source)  # type: ignore[arg-type]
    for both in ({}, {"text": "a", "audio": tones(0.2, 0)}):
        with pytest.raises(DataError, match="exactly one of text and audio"):
            Prompt(id="x", **both)  # type: ignore[arg-type]
    for samples in (np.full(100, 1e300), np.array(["a"]), np.zeros(100, np.int16)):
        with pytest.raises(DataError, match="give finite mono samples"):
            prompt_of(samples)
