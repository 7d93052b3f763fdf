"""Catches what only one format can do wrong: readings, cuts, tiers, pieces of words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speechscale.align.formats import (
    Losses,
    read_alignment,
    read_alignments,
    read_segments,
    shift,
    shift_to_recordings,
    sniff_format,
)
from speechscale.align.formats.entries import Entry, join_pieces
from speechscale.errors import DataError
from speechscale.records import Word
from tests.align.examples import HELLO, SUPERVISION, saved, triples


def test_ctm_takes_first_readings_and_scoring_marks_off(tmp_path: Path) -> None:
    text = (
        "r A 0 1 I've;tag1\nr A * * <ALT_BEGIN>\nr A 1 1 um\nr A * * <ALT>\nr A 1 0.5 uh\nr A 1.5 0.5 eh\n"
        "r A * * <ALT_END>\n"
        "r A 2 1 a\\;s;x\nr A 3 1 (it)\nr A 4 1 @\nr A 5 1 <unk>\nr B 0 1 other\nq 1 0 1 new<space>york\nq 1 1 1 NA\n"
    )
    losses = Losses()
    words = read_alignments(saved(tmp_path, "a.ctm", text), losses=losses)
    assert {key: [w.text for w in value] for key, value in words.items()} == {
        "r/A": ["I've", "um", "a;s", "it"],
        "r/B": ["other"],
        "q": ["new", "york", "NA"],
    }
    assert words["q"][0].start_s is None, "a row of several words says nothing about each"
    losses.check()
    assert (losses.alternatives, losses.silence, losses.split) == (2, 2, 1)
    path = tmp_path / "a.ctm"
    assert read_alignment(path, recording="r", channel="a")[0].text == "I've"
    with pytest.raises(DataError, match=r"0 of 3 recordings fit recording 'x': r/A, r/B, q; name one"):
        read_alignment(path, recording="x")
    with pytest.raises(DataError, match=r"2 of 3 recordings fit recording 'r'"):
        read_alignment(path, recording="r")


def test_stm_segments_have_text_and_no_word_times(tmp_path: Path) -> None:
    text = (
        ";; c\nr a ann 1.0 3.4 <O,F> i've { um / uh / { oh / ah } } seen { @ / it } all\n"
        "r a inter_segment_gap 3.4 4.0\nr a bob 4.0 5 IGNORE_TIME_SEGMENT_IN_SCORING\nr a bob 5 6 (yes)\n"
    )
    segments = list(read_segments(saved(tmp_path, "a.stm", text)))
    assert [(s.speaker, s.start_s, s.end_s, s.text) for s in segments] == [
        ("ann", 1.0, 3.4, "i've um seen all"),
        ("inter_segment_gap", 3.4, 4.0, ""),
        ("bob", 4.0, 5.0, ""),
        ("bob", 5.0, 6.0, "yes"),
    ]
    assert [w.text for w in read_alignment(tmp_path / "a.stm")] == ["i've", "um", "seen", "all", "yes"]


def test_rttm_turns_and_words_of_speakers_who_overlap(tmp_path: Path) -> None:
    text = (
        "SPKR-INFO r 1 <NA> <NA> <NA> unknown ann <NA>\nSPEAKER r 1 0 3 <NA> <NA> ann <NA> <NA>\n"
        "LEXEME r 1 0 2 hello lex ann 0.9 <NA>\nLEXEME r 1 1 1 hey lex bob 0.8 <NA>\n"
        "NON-LEX r 1 2 1 cough laugh ann <NA>\n"
        "LEXEME r 1 <NA> <NA> well lex ann <NA> <NA>\n"
    )
    path = saved(tmp_path, "a.rttm", text)
    segments = list(read_segments(path))
    assert [(s.speaker, s.start_s, s.end_s, len(s.words)) for s in segments] == [
        ("ann", 0.0, 3.0, 0),
        ("ann", None, None, 2),
        ("bob", None, None, 1),
    ]
    with pytest.raises(DataError, match="overlaps the one before"):
        read_alignment(path)
    assert triples(read_alignment(path, speaker="ann")) == [("hello", 0.0, 2.0), ("well", None, None)]
    assert len(read_alignment(path, repair="drop_times")) == 3


def test_whisper_words_without_times_keep_their_place(tmp_path: Path) -> None:
    """WhisperX leaves digits without times; whisper cuts "forty-two" in pieces."""
    words: list[dict[str, Any]] = [
        {"word": " In", "start": 0.0, "end": 0.5, "score": 0.9},
        {"word": " 1455,"},
        {"word": " forty", "start": 1.0, "end": 1.5, "score": 0.8},
        {"word": "-two", "start": 1.5, "end": 2.0, "score": 0.6},
        {"word": " lines", "start": 2.0, "end": None},
    ]
    segments = [{"start": 0, "end": 2, "text": "", "words": words}, {"start": 3, "end": 4, "text": " no times here"}]
    losses = Losses()
    read = read_alignment(saved(tmp_path, "a.json", {"segments": segments, "language": "en"}), losses=losses)
    losses.check()
    assert triples(read)[:4] == [
        ("In", 0.0, 0.5),
        ("1455,", None, None),
        ("forty-two", 1.0, 2.0),
        ("lines", None, None),
    ]
    assert read[2].score == 0.6
    assert [w.text for w in read[4:]] == ["no", "times", "here"]
    assert (losses.untimed, losses.merged) == (5, 1)


def test_faster_whisper_named_tuples(tmp_path: Path) -> None:
    """`json.dump` of faster-whisper's segments gives lists instead of objects."""
    segment = [
        1,
        0,
        0.5,
        2.0,
        " hello there",
        [1, 2],
        0.1,
        1.0,
        0.0,
        [[0.5, 1.0, " hello", 0.9], [1.25, 2.0, " there", 0.8]],
        0,
    ]
    path = saved(tmp_path, "a.json", {"segments": [segment]})
    assert triples(read_alignment(path, format="whisperx")) == HELLO


def test_pieces_without_any_blank_are_words() -> None:
    """WhisperX strips blanks; Japanese has none: nothing may be glued together."""
    entries = [Entry(text, i, i + 1, None, i) for i, text in enumerate(["forty", "-two", "lines"])]
    assert [e.text for e in join_pieces(entries)[0]] == ["forty", "-two", "lines"]
    assert join_pieces([]) == ([], 0)


def test_kokoro_punctuation_joins_its_word_and_its_pause_does_not(tmp_path: Path) -> None:
    tokens = [
        {"text": "“", "whitespace": "", "start_ts": 0.0, "end_ts": 0.2},
        {"text": "Don", "whitespace": "", "start_ts": 0.2, "end_ts": 0.4},
        {"text": "'t", "whitespace": "", "start_ts": 0.4, "end_ts": 0.5},
        {"text": ",", "whitespace": " ", "start_ts": 0.5, "end_ts": 0.9},
        {"text": "–", "whitespace": " ", "start_ts": None, "end_ts": None},
        {"text": "go", "whitespace": "", "start_ts": 0.9, "end_ts": 1.2},
        {"text": "!", "whitespace": "", "start_ts": 1.2, "end_ts": 2.0},
    ]
    losses = Losses()
    words = read_alignment(saved(tmp_path, "a.json", {"tokens": tokens}), losses=losses)
    assert triples(words) == [("“Don't,", 0.2, 0.5), ("– go!", 0.9, 1.2)]
    losses.check()


def test_moshi_speakers_are_kept_apart(tmp_path: Path) -> None:
    content = {
        "alignments": [["hi", [0, 1], "MAIN"], ["yes", [0.5, 1], "OTHER"], ["so", [1, 2], "MAIN"], ["um", None, "MAIN"]]
    }
    path = saved(tmp_path, "a.json", content)
    assert triples(read_alignment(path, speaker="MAIN")) == [("hi", 0.0, 1.0), ("so", 1.0, 2.0), ("um", None, None)]
    assert set(read_alignments(path)) == {"a/MAIN", "a/OTHER"}


def lhotse_cut(start: float, supervision: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "c",
        "start": start,
        "duration": 9,
        "channel": 0,
        "supervisions": [supervision],
        "recording": {"id": "a"},
    }


def test_lhotse_alignments_count_from_the_recording_also_inside_a_cut(tmp_path: Path) -> None:
    """The supervision starts 1 s into a cut that starts at 4 s; lhotse 1.33 leaves the alignment where it was."""
    words = [["hello", 5.2, 0.5, 0.9], ["there", 6.0, 0.5, None]]
    supervision = {**SUPERVISION, "start": 1.0, "alignment": {"word": words, "phone": [["HH", 5.2, 0.1]]}}
    path = saved(tmp_path, "a.jsonl", lhotse_cut(4.0, supervision))
    segment = next(iter(read_segments(path)))
    assert (segment.id, segment.recording, segment.start_s, segment.end_s) == ("s", "a", 5.0, 7.0)
    assert triples(segment.words) == [("hello", 5.2, 5.7), ("there", 6.0, 6.5)]
    assert segment.words[0].score == 0.9
    assert triples(read_alignment(path, tier="phones")) == [("HH", 5.2, 5.3)]
    old = [{"symbol": "hello", "start": 1.2, "duration": 0.5}, {"symbol": "there", "start": 2.0, "duration": 0.5}]
    path = saved(tmp_path, "b.jsonl", lhotse_cut(4.0, {**supervision, "alignment": {"word": old}}))
    assert triples(read_alignment(path)) == triples(segment.words), "files that count from the cut are recognized"


def test_lhotse_words_of_the_text_without_alignment_stay_without_time(tmp_path: Path) -> None:
    part = {
        **SUPERVISION,
        "text": "oh hello my there",
        "alignment": {"word": [["hello", 0.5, 0.5], ["there", 1.25, 0.75]]},
    }
    other = {"id": "t", "recording_id": "a", "start": 0.0, "duration": 0.3, "text": "no times"}
    path = saved(tmp_path, "a.json", [part, other])
    expected = [("no", None, None), ("times", None, None), ("oh", None, None), HELLO[0], ("my", None, None), HELLO[1]]
    assert triples(read_alignment(path)) == expected, "supervisions follow each other by their start"
    part = {**part, "text": "hello hello there"}
    path = saved(tmp_path, "b.json", [part])
    unknown = ("hello", None, None)
    assert triples(read_alignment(path)) == [unknown, unknown, HELLO[1]], "no time may go to the wrong hello"


def test_kaldi_segments_move_words_to_the_recording(tmp_path: Path) -> None:
    segments = saved(tmp_path, "segments", "u2 r 10.0 12.0\nu1 r 1.5 4\nu3 q 0 -1\n")
    ctm = saved(tmp_path, "ctm", "u2 1 0.25 0.5 late 0.9\nu1 1 0.1 0.2 early\nu9 1 0 1 lost\nu3 1 1 1 x\n")
    assert sniff_format(segments) == "kaldi-segments"
    assert [(s.id, s.recording, s.start_s, s.end_s) for s in read_segments(segments)] == [
        ("u2", "r", 10.0, 12.0),
        ("u1", "r", 1.5, 4.0),
        ("u3", "q", 0.0, None),
    ]
    words, unknown = shift_to_recordings(read_alignments(ctm), segments)
    assert {key: triples(value) for key, value in words.items()} == {
        "r": [("early", 1.6, 1.8), ("late", 10.25, 10.75)],
        "q": [("x", 1.0, 2.0)],
    }
    assert unknown == ["u9"]
    assert shift([Word(text="a")], 1.0) == [Word(text="a")]
    with pytest.raises(DataError, match=r"line 1: 'u' spans 3..2 s"):
        list(read_segments(saved(tmp_path, "bad", "u r 3 2\n"), format="kaldi-segments"))


def grid(*tiers: tuple[str, list[tuple[float, float, str]]]) -> str:
    body = ""
    for name, rows in tiers:
        body += f'"IntervalTier"\n"{name}"\n0\n9\n{len(rows)}\n' + "".join(f'{a}\n{b}\n"{t}"\n' for a, b, t in rows)
    return f'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n9\n<exists>\n{len(tiers)}\n{body}'


def test_textgrid_of_two_speakers(tmp_path: Path) -> None:
    ann: tuple[str, Any] = ("ann - words", [(0, 1, "hi"), (1, 9, "")])
    bob: tuple[str, Any] = ("bob - words", [(0.5, 1, "yo")])
    path = saved(tmp_path, "a.TextGrid", grid(ann, ("ann - phones", [(0, 1, "AY")]), bob))
    assert {k: triples(v) for k, v in read_alignments(path).items()} == {
        "a/ann": [("hi", 0.0, 1.0)],
        "a/bob": [("yo", 0.5, 1.0)],
    }
    for tier in ("bob", "bob - words", "BOB - Words"):
        assert triples(read_alignment(path, tier=tier)) == [("yo", 0.5, 1.0)]
    assert triples(read_alignment(path, channel="bob")) == [("yo", 0.5, 1.0)]
    assert triples(read_alignment(path, tier="ann - phones")) == [("AY", 0.0, 1.0)]
    with pytest.raises(DataError, match=r"2 of 2 recordings fit: a/ann, a/bob; name one with .*tier="):
        read_alignment(path)


def test_textgrid_of_sentences_gives_words_without_times(tmp_path: Path) -> None:
    """A tier of sentences says nothing about single words; a sentence of one word does."""
    path = saved(tmp_path, "a.TextGrid", grid(("talk", [(0, 2, "good day\nann"), (2, 3, ""), (3, 4, "bye")])))
    losses = Losses()
    words = read_alignment(path, losses=losses)
    assert triples(words) == [("good", None, None), ("day", None, None), ("ann", None, None), ("bye", 3.0, 4.0)]
    losses.check()
    assert (losses.untimed, losses.split, losses.silence) == (3, 2, 1)
    two = saved(tmp_path, "b.TextGrid", grid(("word", [(0, 1, "wood cutters\nNoun")]), ("phrase", [(0, 1, "x y")])))
    assert triples(read_alignment(two)) == [("wood cutters Noun", 0.0, 1.0)], "a word tier's label is one word"


def test_textgrid_tiers_of_one_name(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.TextGrid", grid(("Mary", [(0, 1, "one")]), ("Mary", [(0, 1, "two")])))
    with pytest.raises(DataError, match=r"2 tiers named 'Mary'; .*such as tier='Mary#2'"):
        read_alignment(path, tier="Mary")
    assert read_alignment(path, tier="Mary#2")[0].text == "two"
