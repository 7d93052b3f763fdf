"""Would catch: a paradigm lost or mixed up, a zip that writes elsewhere, a wrong answer taken for the right one."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from speechscale.errors import DataError
from speechscale.evals.benchmarks.raw import RawItem, Source
from speechscale.evals.benchmarks.readers.tables import TextFile, table_rows
from speechscale.evals.tasks import blimp, hellaswag, swag
from tests.evals.trees import HELLASWAG_ROW, SWAG_HEADER, SWAG_ROW, blimp_file, swag_table, write_lines, write_table

SIX_PARADIGMS = Path(__file__).parents[3] / "shared/data/dev-blimp/blimp_6_paradigms.zip"


def read(source: Source) -> list[RawItem]:
    return list(source.items)


def packed(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def test_six_real_paradigms_are_read_from_their_zip() -> None:
    if not SIX_PARADIGMS.is_file():
        pytest.skip("the six BLiMP paradigms of shared/data are not here")
    items = read(blimp(SIX_PARADIGMS))
    assert Counter(raw.item.tag for raw in items) == {
        "anaphor_gender_agreement": 1000,
        "determiner_noun_agreement_1": 1000,
        "npi_present_1": 1000,
        "regular_plural_subject_verb_agreement_1": 1000,
        "transitive": 1000,
        "wh_island": 1000,
    }
    assert len({raw.item.phenomenon for raw in items}) == 6
    assert len({raw.item.id for raw in items}) == len(items)
    first = items[0].item
    assert (first.good, first.bad) == ("Katherine can't help herself.", "Katherine can't help himself.")


def test_file_folder_and_zip_give_the_same_items(tmp_path: Path) -> None:
    a = blimp_file(tmp_path / "data/a.jsonl", "first")
    b = blimp_file(tmp_path / "data/sub/b.jsonl", "second", linguistics_term="binding")
    together = read(blimp(tmp_path / "data"))
    assert read(blimp(a)) + read(blimp(b)) == together
    archive = packed(
        tmp_path / "d.zip", {"a.jsonl": a.read_text(), "sub/b.jsonl": b.read_text(), "__MACOSX/._a.jsonl": "x"}
    )
    assert read(blimp(archive)) == together
    assert [raw.item.phenomenon for raw in together] == ["anaphor_agreement"] * 3 + ["binding"] * 3
    assert together[0].item.id == "first-0"


@pytest.mark.parametrize("member", ["../evil.jsonl", "/tmp/evil.jsonl", "a/../../evil.jsonl", "..\\evil.jsonl"])
def test_a_zip_whose_paths_lead_out_is_refused(tmp_path: Path, member: str) -> None:
    with pytest.raises(DataError, match="leads out of the zip"):
        blimp(packed(tmp_path / "d.zip", {member: "{}"}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.zip"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{not json\n", r"a\.jsonl, line 1: not JSON"),
        ("[1]\n", r"a\.jsonl, line 1: holds a list"),
        ('{"sentence_good": "A."}\n', r"line 1: no field sentence_bad, UID"),
        ('{"sentence_good": "", "sentence_bad": "B.", "UID": "u"}\n', r"line 1: 'sentencegood' is empty"),
        ('{"sentence_good": 3, "sentence_bad": "B.", "UID": "u"}\n', r"line 1: 'sentencegood' is 3, a text is needed"),
        ("", "no item can be used"),
    ],
)
def test_lines_that_are_no_pairs_are_refused_by_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        read(blimp(tmp_path / "a.jsonl"))


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file or folder; take data/\*\.jsonl"):
        blimp(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no file ending in \.jsonl in it"):
        blimp(tmp_path)
    (tmp_path / "b.zip").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match="not a readable zip"):
        blimp(tmp_path / "b.zip")
    (tmp_path / "a.jsonl").write_bytes(b'{"sentence_good": "caf\xe9"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl: not UTF-8"):
        read(blimp(tmp_path / "a.jsonl"))
    (tmp_path / "long.csv").write_text("a,b\n" + "x" * (1 << 20))
    with pytest.raises(DataError, match=r"long\.csv, line 2: longer than 1 MiB"):
        list(table_rows(TextFile(path=tmp_path / "long.csv", name="long.csv"), columns=("a",)))
    blimp_file(tmp_path / "two/a.jsonl")
    blimp_file(tmp_path / "two/b.jsonl")
    with pytest.raises(DataError, match=r"b\.jsonl, line 1: pair 'anaphor-0' comes twice"):
        read(blimp(tmp_path / "two"))


def test_a_swag_question_is_three_pairs_of_one_cluster(tmp_path: Path) -> None:
    items = [raw.item for raw in read(swag(swag_table(tmp_path / "val.csv")))]
    assert [(item.id, item.good, item.bad) for item in items] == [
        ("val-2-0", "looks in.", "sings."),
        ("val-2-1", "looks in.", "flies."),
        ("val-2-3", "looks in.", "naps."),
    ]
    assert {(item.pair, item.prompt, item.tag) for item in items} == {("val-2", "He lifts the lid. He", "gold")}
    write_lines(tmp_path / "val.jsonl", [dict(zip(SWAG_HEADER[1:], SWAG_ROW[1:], strict=True))])
    again = [raw.item for raw in read(swag(tmp_path / "val.jsonl"))]
    assert [(item.good, item.bad) for item in again] == [(item.good, item.bad) for item in items]
    row = {**dict(zip(SWAG_HEADER[1:], SWAG_ROW[1:], strict=True)), "sent2": None, "gold-source": None}
    bare = [raw.item for raw in read(swag(write_lines(tmp_path / "bare.jsonl", [row])))]
    assert {(item.prompt, item.tag) for item in bare} == {("He lifts the lid.", "")}
    with pytest.raises(DataError, match="'sent2' is 7, a text is needed"):
        read(swag(write_lines(tmp_path / "bare.jsonl", [{**row, "sent2": 7}])))


def test_swag_without_labels_or_endings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2: label = '-1', allowed are 0 to 3; take a split with labels"):
        read(swag(swag_table(tmp_path / "a.csv", [(*SWAG_ROW[:-1], -1)])))
    with pytest.raises(DataError, match="line 2: 'ending1' is empty"):
        read(swag(swag_table(tmp_path / "b.csv", [(*SWAG_ROW[:8], "", *SWAG_ROW[9:])])))
    with pytest.raises(DataError, match="column label missing"):
        read(swag(write_table(tmp_path / "c.csv", SWAG_HEADER[:-1], [SWAG_ROW[:-1]])))


def test_hellaswag_loses_its_brackets_and_keeps_its_answer(tmp_path: Path) -> None:
    items = [raw.item for raw in read(hellaswag(write_lines(tmp_path / "val.jsonl", [HELLASWAG_ROW])))]
    assert items[0].prompt == "Cutting the grass: How to cut grass. Mow it. Then he"
    assert [(item.good, item.bad) for item in items] == [
        ("rests.", "sings."),
        ("rests.", "flies."),
        ("rests.", "naps."),
    ]
    assert items[0].pair == items[2].pair == "val-24"
    (bare, *_) = read(hellaswag(write_lines(tmp_path / "null.jsonl", [{**HELLASWAG_ROW, "ctx_b": None}])))
    assert bare.item.prompt == "Cutting the grass: How to cut grass. Mow it."
    for change, message in (
        ({"endings": ["a", "b"]}, "'endings' is not a list of 4 texts"),
        ({"label": ""}, "label = ''"),
        ({"endings": ["a", "b", "c", "[x]"]}, "an ending is empty"),
    ):
        broken = write_lines(tmp_path / "b.jsonl", [json.loads(json.dumps({**HELLASWAG_ROW, **change}))])
        with pytest.raises(DataError, match=rf"b\.jsonl, line 1: .*{message}"):
            read(hellaswag(broken))
