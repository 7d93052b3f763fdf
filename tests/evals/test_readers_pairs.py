"""Would catch: a misspelled field ignored, half an item scored, a cut without recording, a path out of the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speechscale.errors import DataError
from speechscale.evals.benchmarks.prepare import prepare
from speechscale.evals.benchmarks.raw import Clip, RawItem
from speechscale.evals.tasks import pairs
from speechscale.records import Word
from speechscale.skips import read_skips
from tests.evals.trees import write_lines, write_sounds

TEXT = {"prompt": "He ran.", "good": "He won.", "bad": "He lost."}
JOINED = {"good_audio": "a/g.wav", "bad_audio": "a/b.wav"}
APART = {"prompt_audio": "a/p.wav", "good_ending_audio": "a/g.wav", "bad_ending_audio": "a/b.wav"}
WORDS = {
    "good": [["He", 0, 0.1], ["ran.", 0.1, 0.4], ["He", 0.5, 0.6], ["won.", 0.6, 1]],
    "bad": [["He", 0, 0.1], ["ran.", 0.1, 0.4], ["He", None, None], ["lost.", 0.6, 1]],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_sounds(tmp_path, [(f"a/{name}.wav", "", "") for name in "gbp"])
    return tmp_path


def read(root: Path, *rows: dict[str, Any], **options: str) -> list[RawItem]:
    return list(pairs(write_lines(root / "mine.jsonl", rows), **options).items)


def test_every_field_arrives(root: Path) -> None:
    labels = {"id": "x/1", "set": "own", "pair": 7, "phenomenon": "tense", "tag": "easy", "speaker": "ann"}
    (raw,) = read(root, {**labels, **TEXT, **JOINED, "good_cut_s": 0.5, "bad_cut_s": 1, "words": WORDS})
    item = raw.item
    assert (item.id, item.set, item.pair, item.phenomenon, item.tag, item.speaker) == (
        *("x_1", "own", "7", "tense"),
        *("easy", "ann"),
    )
    assert (item.prompt, item.good, item.bad, item.good_cut_s, item.bad_cut_s) == (*TEXT.values(), 0.5, 1.0)
    assert (raw.good, raw.bad, raw.prompt) == (Clip(path="a/g.wav"), Clip(path="a/b.wav"), None)
    assert raw.good_words[2] == Word(text="He", start_s=0.5, end_s=0.6)
    assert raw.bad_words[2] == Word(text="He")


def test_text_alone_sound_alone_and_parts_apart_are_items(root: Path) -> None:
    text, sound, apart = read(root, TEXT, JOINED, {**APART, **TEXT})
    assert [raw.item.id for raw in (text, sound, apart)] == ["1", "2", "3"]
    assert text.item.set == "pairs"
    assert text.item.pair == "1"
    assert not sound.item.has_text
    assert apart.bad_ending == Clip(path="a/b.wav")


def test_recordings_may_lie_elsewhere_and_missing_ones_are_dropped(root: Path, tmp_path_factory: Any) -> None:
    other = tmp_path_factory.mktemp("other")
    lines = [{**JOINED, "pair": "p"}, {**JOINED, "good_audio": "a/x.wav", "pair": "p"}, {**JOINED, "pair": "q"}]
    table = write_lines(other / "mine.jsonl", lines)
    made = prepare(pairs(table, audio_root=str(root)), other / "out")
    assert [item.id for item in made.items()] == ["1", "3"]
    (skip,) = read_skips(made.folder / "skips.jsonl")
    assert (skip.id, skip.reason) == ("2", "audio a/x.wav: no such file")
    assert "below audio_root" in skip.remedy
    together = prepare(pairs(table, audio_root=str(root)), other / "together", pairs_together=True)
    assert [item.id for item in together.items()] == ["3"]
    with pytest.raises(DataError, match=r"not one of 3 items .* 1: audio a/g\.wav: no such file"):
        prepare(pairs(table), other / "none")
    with pytest.raises(DataError, match=r"is not a file; give a \.jsonl"):
        pairs(other)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**TEXT, "prompts": "x"}, "field 'prompts' is not known; did you mean 'prompt'"),
        ({**TEXT, "good": 3}, "'good' is 3, a text is needed"),
        ({"good": "He won."}, "only one of good and bad is given"),
        ({"good_audio": "a/g.wav"}, "only one of good_audio and bad_audio"),
        ({"prompt_audio": "a/p.wav", "good_ending_audio": "a/g.wav"}, "only one of good_ending_audio and bad_ending"),
        ({"good_ending_audio": "a/g.wav", "bad_ending_audio": "a/b.wav"}, "prompt_audio and both ending recordings"),
        ({**TEXT, "prompt_audio": "a/p.wav"}, "prompt_audio and both ending recordings belong together"),
        ({"prompt": "He ran.", **JOINED}, "'prompt' has a text, 'good' and 'bad' have none"),
        ({"tag": "x"}, "no candidates"),
        ({**TEXT, "good_cut_s": 1, "bad_cut_s": 1}, "cuts and words are of good_audio and bad_audio"),
        ({**JOINED, "good_cut_s": 1}, "only one of good_cut_s and bad_cut_s"),
        ({**JOINED, "good_cut_s": -1, "bad_cut_s": 1}, "'good_cut_s' is -1, seconds of at least 0"),
        ({**JOINED, "good_cut_s": True, "bad_cut_s": 1}, "'good_cut_s' is True"),
        ({**JOINED, "good_audio": "../g.wav"}, "'../g.wav' is not a path below"),
        ({**JOINED, "good_audio": "."}, "'.' is not a path below"),
        ({**JOINED, "good_audio": f"a/{'x' * 252}.wav"}, "is longer than a file's name can be"),
        ({**JOINED, "good_audio": "/g.wav"}, "'/g.wav' is not a path below"),
        ({**TEXT, **JOINED, "words": {"good": WORDS["good"]}}, "one for bad"),
        ({**TEXT, **JOINED, "words": {**WORDS, "bad": [["He", 1]]}}, "words of bad, number 0"),
        ({**TEXT, **JOINED, "words": {**WORDS, "bad": [["He", 1, 0.5]]}}, "ends at 0.5 s before it starts"),
        ({**TEXT, **JOINED, "words": {**WORDS, "bad": WORDS["good"]}}, "'words' of bad are not the words of prompt"),
    ],
)
def test_what_is_half_or_unknown_is_refused_by_line_and_field(root: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=r"mine\.jsonl, line 2: ") as caught:
        read(root, TEXT, row)
    assert message in str(caught.value)


def test_an_id_that_comes_twice_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match="line 2: id 'x' comes twice"):
        read(root, {**TEXT, "id": "x"}, {**TEXT, "id": "x"})


def test_a_link_out_of_the_folder_is_refused(root: Path, tmp_path_factory: Any) -> None:
    outside = tmp_path_factory.mktemp("outside") / "g.wav"
    outside.write_bytes((root / "a/g.wav").read_bytes())
    (root / "a/link.wav").symlink_to(outside)
    with pytest.raises(DataError, match="a link that leads out of"):
        read(root, {**JOINED, "good_audio": "a/link.wav"})
