"""Catches word times that are read wrongly, silently reordered, or given to the wrong word of the transcript."""

from __future__ import annotations

import json
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from speechscale.align.formats import clip_words, read_alignment, read_pocketsphinx, read_textgrid
from speechscale.align.spelling import spell, tokens_of
from speechscale.errors import DataError
from speechscale.records import Word

Row = tuple[float | str, float | str, str]


def long_grid(rows: list[Row], name: str = "words", extra: str = "") -> str:
    """A TextGrid in Praat's long format."""
    intervals = "".join(
        f'        intervals [{i}]:\n            xmin = {a}\n            xmax = {b}\n            text = "{text}"\n'
        for i, (a, b, text) in enumerate(rows, start=1)
    )
    return (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 3\ntiers? <exists>\n'
        f'size = {2 if extra else 1}\nitem []:\n{extra}    item [1]:\n        class = "IntervalTier"\n'
        f'        name = "{name}"\n        xmin = 0\n        xmax = 3\n'
        f"        intervals: size = {len(rows)}\n{intervals}"
    )


def short_grid(rows: list[Row], name: str = "words") -> str:
    body = "".join(f'{a}\n{b}\n"{text}"\n' for a, b, text in rows)
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n3\n<exists>\n1\n'
    return f'{head}"IntervalTier"\n"{name}"\n0\n3\n{len(rows)}\n{body}'


ROWS: list[Row] = [(0, 0.5, ""), (0.5, 1, "hello"), (1, 1.25, "sp"), (1.25, 2, 'th""ere'), (2, 3, "sil")]
WORDS = [("hello", 0.5, 1.0), ('th"ere', 1.25, 2.0)]


def triples(words: list[Word]) -> list[tuple[str, float | None, float | None]]:
    return [(w.text, w.start_s, w.end_s) for w in words]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
@pytest.mark.parametrize("layout", [long_grid, short_grid])
def test_formats_and_encodings_give_the_same_words(tmp_path: Path, layout: object, encoding: str) -> None:
    assert callable(layout)
    path = tmp_path / "a.TextGrid"
    text = layout([*ROWS[:1], (0.5, 1, "caf\u00e9"), *ROWS[2:]])
    path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
    assert triples(read_textgrid(path)) == [("caf\u00e9", 0.5, 1.0), WORDS[1]]


def test_word_tier_is_found_by_name_and_points_are_passed_over(tmp_path: Path) -> None:
    points = (
        '    item [1]:\n        class = "TextTier"\n        name = "words"\n        xmin = 0\n        xmax = 3\n'
        '        points: size = 1\n        points [1]:\n            number = 1.5\n            mark = "x"\n'
    )
    path = tmp_path / "a.TextGrid"
    path.write_text(long_grid(ROWS, name="Words", extra=points))
    assert triples(read_textgrid(path)) == WORDS
    path.write_text(long_grid(ROWS, name="ann - words"))
    assert triples(read_textgrid(path)) == WORDS
    path.write_text(long_grid(ROWS, name="talker"))
    assert triples(read_textgrid(path, tier="talker")) == WORDS
    assert triples(read_textgrid(path)) == WORDS, "the only tier is taken for what was said"
    path.write_text(long_grid(ROWS, name="phones"))
    with pytest.raises(DataError, match=r"no tier named 'words' or 'word'; interval tiers: 'phones'; rename"):
        read_textgrid(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(-0.5, 1, "a")], r"tier 'words', interval 1 \('a', -0.5..1 s\): starts before the audio; correct it"),
        ([(0, 1, "a"), (0.9, 2, "b")], r"interval 2 \('b', 0.9..2 s\): overlaps the one before, which ends at 1 s"),
        ([(1, 2, "a"), (0, 1, "b")], r"interval 2 \('b', 0..1 s\): is out of order"),
        ([(1, 0.5, "a")], r"interval 1 .*: ends before it starts"),
        ([("1", "--undefined--", "a")], r"tier 'words', entry 1, end time: expected a number, found"),
        ([(0, 1, 'a "quoted" word')], r"a\.TextGrid, .*expected"),
    ],
)
@pytest.mark.parametrize("layout", [long_grid, short_grid])
def test_bad_intervals_are_named(tmp_path: Path, layout: object, rows: list[Row], message: str) -> None:
    assert callable(layout)
    path = tmp_path / "a.TextGrid"
    path.write_text(layout([*rows, (2.5, 3, "z")]))
    with pytest.raises(DataError, match=message):
        read_textgrid(path)


@pytest.mark.parametrize("content", [b"", b"\0\0", b"hello", b"RIFF\x88\0WAVE", short_grid(ROWS)[:-30].encode()])
def test_broken_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.TextGrid"):
        read_textgrid(path)
    path.write_bytes(b"ooBinaryFile\x08TextGrid\0\0")
    with pytest.raises(DataError, match="Save as text file"):
        read_textgrid(path)


def test_rounding_overlap_is_snapped_so_that_words_stay_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(long_grid([(0, 1.0000004, "a"), (1, 2, "b"), (2, 2, "c")]))
    assert triples(read_textgrid(path)) == [("a", 0.0, 1.0000004), ("b", 1.0000004, 2.0), ("c", 2.0, 2.0)]


def sphinx(path: Path, words: list[dict[str, object]]) -> Path:
    path.write_text(json.dumps({"b": 0, "d": 3, "p": 1, "t": "x", "w": words}))
    return path


def test_pocketsphinx_words_without_variants_and_noise(tmp_path: Path) -> None:
    words: list[dict[str, object]] = [
        {"b": 0.0, "d": 0.2, "p": 0.9, "t": "<sil>"},
        {"b": 0.2, "d": 0.17, "p": 0.8, "t": "and(2)"},
        {"b": 0.37, "d": 0.1, "p": 0.9, "t": "[NOISE]"},
        {"b": 0.47, "d": 0.3, "p": 0.7, "t": "so"},
    ]
    path = sphinx(tmp_path / "a.json", words)
    expected = [
        Word(text="and", start_s=0.2, end_s=0.37, score=0.8),
        Word(text="so", start_s=0.47, end_s=0.77, score=0.7),
    ]
    assert read_alignment(path) == expected
    halves = [json.dumps({"w": words[:2]}), json.dumps({"w": words[2:]})]
    path.write_text("\n".join(halves))
    assert read_pocketsphinx(path) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"w": [{"b": 1, "d": 1, "t": "a"}, {"b": 1.5, "d": 1, "t": "b"}]}', r"interval 2 \('b', .*overlaps"),
        ('{"w": [{"b": 1, "d": -1, "t": "a"}]}', "ends before it starts"),
        ('{"w": [{"b": -1, "d": 1, "t": "a"}]}', "starts before the audio"),
        ('{"w": [{"b": NaN, "d": 1, "t": "a"}]}', "not numbers"),
        ('{"w": [{"b": "0", "d": 1, "t": "a"}]}', "entry 1 of 'w': needs numbers b and d"),
        ('{"w": [3]}', "entry 1 of 'w': expected an object"),
        ('{"speaker": "ann"}', "no word list 'w'"),
        ("{", "not JSON"),
        ("[[" * 5000, "not JSON"),
    ],
)
def test_bad_json_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_pocketsphinx(path)


def test_clip_words_takes_rounding_and_refuses_more() -> None:
    words = [Word(text="a", start_s=0.0, end_s=1.0), Word(text="b"), Word(text="c", start_s=1.0, end_s=2.04)]
    assert [w.end_s for w in clip_words(words, 2.0)] == [1.0, None, 2.0]
    with pytest.raises(DataError, match=r"word 2 \('c'\) spans 1.000..2.040 s, the audio lasts 1.900 s"):
        clip_words(words, 1.9)


def timed(text: str) -> list[Word]:
    return [Word(text=word, start_s=float(i), end_s=float(i + 1)) for i, word in enumerate(text.split())]


@pytest.mark.parametrize(
    ("text", "aligned", "expected", "share"),
    [
        ("Good day, Ann.", "good day ann", "Good:0-1 day,:1-2 Ann.:2-3", 1.0),
        ("Good day, Ann.", "good day", "Good:0-1 day,:1-2 Ann.:?", 2 / 3),
        ("Good day, Ann.", "good ann", "Good:0-1 day,:? Ann.:1-2", 2 / 3),
        ("the Wood-cutters, too", "the wood cutters too", "the:0-1 Wood-cutters,:1-3 too:3-4", 1.0),
        ("the Wood-cutters", "the wood carvers", "the:0-1 wood:1-2 carvers:2-3", 2 / 3),
        ("wood cutters too", "wood-cutters too", "wood cutters:0-1 too:1-2", 1.0),
        ("in 1455 he", "in fourteen fifty he", "in:0-1 fourteen:1-2 fifty:2-3 he:3-4", 4 / 5),
        ("In 1455, he", "in fourteen fifty five he", "In:0-1 1455,:1-4 he:4-5", 1.0),
        ("fourteen fifty-five -- it", "1455 it", "fourteen fifty-five --:0-1 it:1-2", 1.0),
        ("Mr. St. John & I", "mister saint john and i", "Mr.:0-1 St.:1-2 John:2-3 &:3-4 I:4-5", 1.0),
        ("so -- he said", "so he said", "so --:0-1 he:1-2 said:2-3", 1.0),
        ("It's Don't", "its dont", "It's:0-1 Don't:1-2", 1.0),
        ("a b", "a um b", "a:0-1 um:1-2 b:2-3", 2 / 3),
        ("one two", "three", "three:0-1", 0.0),
        ("one two", "", "one:? two:?", 0.0),
    ],
)
def test_spelling_of_the_transcript(text: str, aligned: str, expected: str, share: float) -> None:
    words, found = spell(text, timed(aligned))

    def show(word: Word) -> str:
        return f"{word.text}:?" if word.start_s is None else f"{word.text}:{word.start_s:.0f}-{word.end_s:.0f}"

    assert " ".join(show(word) for word in words) == expected
    assert found == pytest.approx(share)


def test_a_group_without_start_or_end_has_no_time() -> None:
    """Half a time would be a wrong time."""
    words = [Word(text="wood"), Word(text="cutters", start_s=1.0, end_s=2.0)]
    assert spell("wood-cutters", words) == ((Word(text="wood-cutters"),), 1.0)


@given(st.lists(st.sampled_from(["a", "b-c", "b", "c", "--", "D.", "b'c"]), max_size=12), st.data())
def test_spelling_keeps_order_and_every_aligned_second(written: list[str], data: st.DataObject) -> None:
    tokens = [token for word in written for token in tokens_of(word)]
    heard = [token for token in tokens if data.draw(st.booleans())]
    aligned = timed(" ".join(heard))
    words, share = spell(" ".join(written), aligned)
    times = [(w.start_s, w.end_s) for w in words if w.start_s is not None]
    assert times == sorted(times)
    assert sum(end - start for start, end in times if start is not None and end is not None) == len(aligned)
    assert 0 <= share <= 1
    if len(heard) == len(tokens) > 0:
        assert share == 1
        assert " ".join(word.text for word in words) == " ".join(written)
