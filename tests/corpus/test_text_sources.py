"""Catches texts that are lost, doubled or renamed when a source is cut, and bad ones that pass unseen."""

from __future__ import annotations

import builtins
import gzip
import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speechscale.corpus import text_sources
from speechscale.corpus.text_quality import QualityRules
from speechscale.corpus.text_sources import TextSource, drawn_split
from speechscale.errors import DataError, MissingExtra

TEXTS = [f"story {k} of caf\u00e9 " + "word " * (k % 7) for k in range(50)]
Found = tuple[list[tuple[str, str]], list[tuple[str, str]]]


def write(folder: Path) -> dict[str, Path]:
    folder.mkdir()
    jsonl = "".join(json.dumps({"text": text, "key": f"k{k}"}) + "\n" * (1 + k % 2) for k, text in enumerate(TEXTS))
    contents = {
        "a.jsonl": jsonl,
        "lines.txt": "\n".join(TEXTS),
        "tales.txt": "\n<|endoftext|>\n".join(TEXTS) + "\n",
        "blocks.txt": "\n\n".join(text.replace(" of ", "\nof ") for text in TEXTS) + "\n\n\n",
        "c.csv": "text,key\n" + "".join(f'"{text}\n",k{k}\n' for k, text in enumerate(TEXTS)),
    }
    for name, content in contents.items():
        (folder / name).write_text(content)
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(jsonl.encode()))
    table = pa.table({"text": TEXTS, "key": [f"k{k}" for k in range(50)]})
    pq.write_table(table, folder / "p.parquet", row_group_size=9)
    return {path.name: path for path in folder.iterdir()}


def read(source: TextSource, cut: bool) -> Found:
    skips: list[tuple[str, str]] = []
    parts = source.slices() if cut else [None]
    kept = [row for part in parts for row in source.documents(lambda *skip: skips.append(skip[:2]), part)]
    return kept, skips


@pytest.mark.parametrize("size", [1, 60, 500])
def test_cut_or_whole_a_source_gives_the_same_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(text_sources, "SLICE_BYTES", size)
    for name, path in write(tmp_path / "in").items():
        source = TextSource(path=path, format="lines" if name == "lines.txt" else "auto")
        whole, skips = read(source, cut=False)
        assert read(pickle.loads(pickle.dumps(source)), cut=True) == (whole, skips)
        assert skips == []
        assert [" ".join(text.split()) for _, text in whole] == [" ".join(text.split()) for text in TEXTS]
        assert len({id for id, _ in whole}) == 50
        whole_file = name in ("c.csv", "a.jsonl.gz")
        assert (len(source.slices()) > 1) != whole_file
        assert sum(part.bytes for part in source.slices()) > 0
    first, last = TextSource(path=tmp_path / "in" / "a.jsonl"), TextSource(path=tmp_path / "in" / "p.parquet", name="P")
    assert [read(source, cut=True)[0][3][0] for source in (first, last)] == ["a.jsonl/5", "P/4"]
    by_key = TextSource(path=tmp_path / "in" / "p.parquet", id_field="key")
    assert [id for id, _ in read(by_key, cut=True)[0]] == [f"p.parquet/k{k}" for k in range(50)]


def test_a_folder_is_its_files_in_order(tmp_path: Path) -> None:
    for name in ("b/two.jsonl", "a.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text('{"story": "x y"}\n' if name.endswith("l") else "p q\n\nr s\n")
    source = TextSource(path=tmp_path / "in", name="web")
    assert read(source, cut=True)[0] == [("web/a.txt/1", "p q"), ("web/a.txt/3", "r s"), ("web/b/two.jsonl/1", "x y")]
    assert read(source, cut=True) == read(source, cut=False)
    before = source.recipe()
    hashes = {"web/a.txt": b"p q\n\nr s\n", "web/b/two.jsonl": b'{"story": "x y"}\n'}
    assert before["files"] == {name: hashlib.sha256(data).hexdigest() for name, data in hashes.items()}
    assert json.loads(json.dumps(before)) == before
    (tmp_path / "in" / "a.txt").write_text("p q\n\nr t\n")
    assert source.recipe() != before, "another text of the same size"
    (tmp_path / "in" / "a.txt").write_text("p q\n\nr\n")
    assert read(replace(source, max_documents=2), cut=True)[0] == [("web/a.txt/1", "p q"), ("web/a.txt/3", "r")]


def test_bad_documents_are_named_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bad.jsonl"
    rows = [b'{"text": "good one"}', b'{"text": "bad \xff"}', b"{", b'{"text": 5}']
    rows += [b'{"text": "word"}', b'{"text": "a b"}']
    path.write_bytes(b"\n".join(rows))
    source = TextSource(path=path, quality=QualityRules(min_words=2))
    for size in (1 << 20, 10):
        monkeypatch.setattr(text_sources, "SLICE_BYTES", size)
        kept, skips = read(source, cut=True)
        assert kept == [("bad.jsonl/1", "good one"), ("bad.jsonl/6", "a b")]
        assert [id for id, _ in skips] == [f"bad.jsonl/{line}" for line in (2, 3, 4, 5)]
        assert skips[0][1] == "not UTF-8"
        assert skips[3][1] == "1 words, at least 2"
    pq.write_table(pa.table({"text": ["x", None], "n": [1, 2]}), tmp_path / "p.parquet")
    assert read(TextSource(path=tmp_path / "p.parquet"), cut=True) == (
        [("p.parquet/1", "x")],
        [("p.parquet/2", "no text in field 'text'")],
    )
    with pytest.raises(DataError, match="no column 'body', it has: text, n"):
        read(TextSource(path=tmp_path / "p.parquet", field="body"), cut=True)
    (tmp_path / "p.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match=r"p\.parquet: not a readable Parquet file"):
        TextSource(path=tmp_path / "p.parquet").slices()


def test_splits_of_files_are_drawn_by_the_text_itself(tmp_path: Path) -> None:
    path = tmp_path / "many.txt"
    texts = [f"text number {k % 2000}" for k in range(4000)]
    path.write_text("\n".join(texts))
    source = TextSource(path=path, format="lines")
    names = ("train", "select", "test")
    drawn = {split: [text for _, text in read(replace(source, split=split), cut=True)[0]] for split in names}
    assert sorted(text for found in drawn.values() for text in found) == sorted(texts)
    assert not set(drawn["train"]) & (set(drawn["select"]) | set(drawn["test"]))
    assert 15 <= len(set(drawn["select"])) <= 35
    others: list[None] = []
    kept = list(replace(source, split="test").documents(lambda *skip: None, None, lambda: others.append(None)))
    assert (len(kept), len(others)) == (len(drawn["test"]), 4000 - len(drawn["test"]))
    assert drawn_split(b"text number 0") == drawn_split(b"text number 0")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"split": "dev"}, "split 'dev', allowed: all, train, select, test"),
        ({"format": "pdf"}, "format 'pdf', allowed: auto, stories"),
        ({"max_documents": 0}, "give at least 1"),
    ],
)
def test_wrong_options(options: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=why):
        TextSource(path="x.txt", **options)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("offline")
def test_datasets_are_streamed_from_local_folders(tmp_path: Path) -> None:
    import datasets

    folder = tmp_path / "set"
    folder.mkdir()
    for shard in range(2):
        rows = ({"body": text, "key": f"{shard}-{k}"} for k, text in enumerate(TEXTS[:5]))
        (folder / f"train-{shard}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = TextSource(path=f"hf:{folder}", field="body")
    assert len(source.slices()) == 2
    kept, skips = read(source, cut=True)
    assert [text for _, text in kept] == TEXTS[:5] * 2
    assert [kept[0][0], kept[9][0], skips] == ["set/0/1", "set/1/5", []]
    assert [text for _, text in read(replace(source, max_documents=7), cut=True)[0]] == (TEXTS[:5] * 2)[:7]
    assert read(TextSource(path=f"hf:{folder}"), cut=False)[1][0] == ("set/1", "no text in field 'text'")
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "saved")
    saved = TextSource(path=f"hf:{tmp_path / 'saved'}")
    assert [text for _, text in read(saved, cut=True)[0]] == TEXTS
    with pytest.raises(DataError, match=r"cannot be loaded, split 'dev'.*'train'"):
        read(replace(source, split="dev"), cut=True)
    for there, wrong in ((source, "train"), (saved, "none")):
        with pytest.raises(DataError, match=rf"split 'dev' is not there; splits: {wrong}; choose one, or all"):
            replace(there, split="dev").recipe()
    before = [source.recipe(), saved.recipe()]
    assert before == [source.recipe(), saved.recipe()]
    data = (folder / "train-1.jsonl").read_text()
    (folder / "train-1.jsonl").write_text(data.replace("story 0", "Story 0"))
    datasets.Dataset.from_dict({"text": TEXTS[::-1]}).save_to_disk(tmp_path / "other")
    assert source.recipe()["revision"] != before[0]["revision"]
    assert TextSource(path=f"hf:{tmp_path / 'other'}").recipe()["revision"] != before[1]["revision"]
    parts = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": TEXTS})})
    parts.save_to_disk(tmp_path / "parts")
    with pytest.raises(DataError, match="split 'dev' is not there; splits: train"):
        read(TextSource(path=f"hf:{tmp_path / 'parts'}", split="dev"), cut=True)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtra, match=r"speechscale\[hf\]"):
        TextSource(path="hf:some/name").slices()


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_stories_lose_the_line_breaks_of_their_separators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(text_sources, "SLICE_BYTES", size)
    (tmp_path / "tales.txt").write_text(" Tom ran.\n\nAnn sat. \n<|endoftext|>\nThe end.\n<|endoftext|>\n")
    (tmp_path / "blocks.txt").write_text("  a b\n  c \n\n d\n")
    (tmp_path / "lines.jsonl").write_text('{"text": " kept as it is\\n"}\n')
    found = {name: read(TextSource(path=tmp_path / name), cut=True)[0] for name in ("tales.txt", "blocks.txt")}
    assert [text for _, text in found["tales.txt"]] == ["Tom ran.\n\nAnn sat.", "The end."]
    assert [text for _, text in found["blocks.txt"]] == ["a b\n  c", "d"]
    assert read(TextSource(path=tmp_path / "lines.jsonl"), cut=True)[0] == [("lines.jsonl/1", " kept as it is\n")]


def test_a_file_without_documents_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in {"a.txt": "", "b.jsonl": "\n\n", "c.csv": "text\n", "d.txt": "word\n"}.items():
        (folder / name).write_text(content)
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), folder / "e.parquet")
    why = "the file has no documents"
    for cut in (False, True):
        for split in ("all", "train"):
            kept, skips = read(TextSource(path=folder, split=split), cut=cut)
            assert len(kept) == 1
            assert skips == [(f"in/{name}/0", why) for name in ("a.txt", "b.jsonl", "c.csv", "e.parquet")]
