"""Catches stores that depend on workers, kills or the order of additions, and documents lost on the way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechscale.corpus.imported import write_corpus
from speechscale.corpus.text_quality import QualityRules
from speechscale.corpus.text_sources import TextSource
from speechscale.corpus.unit_corpus import encode_folder, fit_on_corpus
from speechscale.errors import DataError, StaleStep
from speechscale.records import UnitTable, Utterance, concat_tables
from speechscale.skips import SkipLog, read_skips
from speechscale.speech.unit_files import write_unit_tables, write_units
from speechscale.tokens import building
from speechscale.tokens.building import UnitSource, build_tokens
from speechscale.tokens.store import TokenStore, build_store
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

MakeTable = Callable[..., UnitTable]
SHA = "a" * 64


def named(table: UnitTable, prefix: str) -> UnitTable:
    return replace(table, ids=[f"{prefix}-{id}" for id in table.ids])


def tree(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture
def corpora(tmp_path: Path, make_table: MakeTable, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two unit files, a folder of JSONL and a story file; slices small enough to make several parts of each text."""
    monkeypatch.setattr("speechscale.corpus.text_sources.SLICE_BYTES", 300)
    root = tmp_path / "corpora"
    root.mkdir()
    tables = [named(make_table(4, seed=k), f"t{k}") for k in range(3)]
    write_unit_tables(root / "a.parquet", tables, SHA, frame_rate_hz=25.0, num_units=20)
    other = named(make_table(6, seed=9, untimed=0.5), "b")
    write_units(root / "b.parquet", replace(other, splits=["train", "test"] * 3), SHA)
    (root / "web").mkdir()
    for name in ("x", "y"):
        lines = [json.dumps({"text": f"the cat {name} sat {'home ' * (k % 9)}"}) for k in range(30)]
        lines[7], lines[11], lines[13] = "{broken", json.dumps({"text": "  "}), json.dumps({"other": 1})
        (root / "web" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (root / "tales.txt").write_text("\n<|endoftext|>\n".join(f"tom likes jam {k}\nann ran" for k in range(40)))
    return root


def sources(root: Path) -> tuple[list[UnitSource], list[TextSource]]:
    units = [UnitSource(path=root / "a.parquet"), UnitSource(path=root / "b.parquet", split="train")]
    return units, [TextSource(path=root / "web"), TextSource(path=root / "tales.txt")]


def test_any_number_of_workers_gives_the_same_bytes(
    tmp_path: Path, corpora: Path, vocabulary: Vocabulary, make_table: MakeTable
) -> None:
    units, texts = sources(corpora)
    store = build_tokens(tmp_path / "0", vocabulary, units=units, texts=texts, workers=0)
    for workers in (1, 2, 4):
        build_tokens(tmp_path / str(workers), vocabulary, units=units, texts=texts, workers=workers)
        assert tree(tmp_path / str(workers)) == tree(tmp_path / "0")
    assert sorted(path.name for path in (tmp_path / "0").iterdir()) == ["skips.jsonl", "store", "vocabulary"]
    by_name = {source["name"]: source for source in store.meta["sources"]}
    assert {name: (s["read"], s["kept"], sum(s["dropped"].values())) for name, s in by_name.items()} == {
        "a.parquet": (12, 12, 0),
        "b.parquet": (3, 3, 0),
        "web": (60, 54, 6),
        "tales.txt": (40, 40, 0),
    }
    skips = read_skips(tmp_path / "0" / "skips.jsonl")
    assert sorted(skips.ids) == sorted(f"web/{name}.jsonl/{line}" for name in ("x", "y") for line in (8, 12, 14))
    reasons = {skip.id: skip.reason.split(" (")[0] for skip in skips}
    wanted = {8: "not JSON", 12: "the text has no token", 14: "no text in field 'text'"}
    assert {line: reasons[f"web/y.jsonl/{line}"] for line in wanted} == wanted
    tables = [named(make_table(4, seed=k), f"t{k}") for k in range(3)]
    tables.append(named(make_table(6, seed=9, untimed=0.5), "b").take([0, 2, 4]))
    told = (corpora / "web" / "x.jsonl").read_text().splitlines()[:7]
    texts_alone = [json.loads(line)["text"] for line in told]
    direct = build_store(tmp_path / "direct", vocabulary, table=concat_tables(tables), texts=texts_alone)
    for column, array in direct.arrays.items():
        if not column.startswith("text"):
            assert np.array_equal(array, store.arrays[column]) or column == "skips", column
    assert np.array_equal(direct.read("text", np.arange(7)).flat, store.read("text", np.arange(7)).flat)


def test_what_is_added_later_is_as_if_it_had_been_there(tmp_path: Path, corpora: Path, vocabulary: Vocabulary) -> None:
    units, texts = sources(corpora)
    build_tokens(tmp_path / "whole", vocabulary, units=units, texts=texts, workers=0)
    grown = tmp_path / "grown"
    build_tokens(grown, vocabulary, units=units, workers=0)
    old = TokenStore.open(grown / "store", vocabulary)
    for text in texts:
        build_tokens(grown, vocabulary, texts=[text], append=True, workers=0)
        build_tokens(grown, vocabulary, texts=[text], append=True, workers=0)  # done: nothing happens
    assert tree(grown) == tree(tmp_path / "whole")
    assert (old.documents("text"), old.documents("speech")) == (0, 15)
    with pytest.raises(DataError, match=r"holds web already; give only what is new"):
        build_tokens(grown, vocabulary, texts=[texts[0]], append=True)
    with pytest.raises(DataError, match=r"holds other sources \(a.parquet, b.parquet, web, tales.txt\)"):
        build_tokens(grown, vocabulary, texts=[texts[0]])
    before = tree(tmp_path / "whole")
    build_tokens(tmp_path / "whole", vocabulary, units=units, texts=texts)
    assert tree(tmp_path / "whole") == before
    with pytest.raises(DataError, match="no store to add to"):
        build_tokens(tmp_path / "none", vocabulary, texts=[texts[0]], append=True)


@pytest.mark.parametrize("moment", ["commit", "skips", "cleanup"])
def test_a_kill_while_parts_are_joined_counts_nothing_twice(
    tmp_path: Path, corpora: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    units, texts = sources(corpora)
    for name in ("whole", "killed"):
        build_tokens(tmp_path / name, vocabulary, units=units, workers=0)
    build_tokens(tmp_path / "whole", vocabulary, texts=texts, append=True, workers=0)

    def die(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    commit = building.StoreWriter.commit

    def die_at_the_end(writer: Any, **options: bool) -> None:
        if writer.name == tmp_path / "killed" / "store":
            writer._columns.close()
            raise KeyboardInterrupt
        commit(writer, **options)

    def after(name: str) -> None:
        """Die when this is done."""
        real = getattr(building, name)
        patched.setattr(building, name, lambda *args: (real(*args), die()))

    with monkeypatch.context() as patched:
        if moment == "commit":
            patched.setattr(building.StoreWriter, "commit", die_at_the_end)
        else:
            after("_merge" if moment == "skips" else "_write_skips")
        with pytest.raises(KeyboardInterrupt):
            build_tokens(tmp_path / "killed", vocabulary, texts=texts, append=True, workers=0)
    torn = TokenStore.open(tmp_path / "killed" / "store", vocabulary, verify=True)
    assert torn.documents("text") == (0 if moment == "commit" else 94)
    build_tokens(tmp_path / "killed", vocabulary, texts=texts, append=True, workers=0)
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


KILLED = """
import sys, time
from pathlib import Path
from speechscale.corpus import text_sources
from speechscale.tokens import building
from speechscale.tokens.vocabulary import Vocabulary
from tests.tokens.test_building import sources

class Slow(building.BuildWork):
    def start(self):
        text_sources.SLICE_BYTES = 300
    def rows(self, items):
        for row in super().rows(items):
            time.sleep(0.1)
            yield row

if __name__ == "__main__":
    text_sources.SLICE_BYTES = 300
    building.BuildWork = Slow
    units, texts = sources(Path(sys.argv[1]))
    building.build_tokens(Path(sys.argv[2]), Vocabulary.load(sys.argv[3]), units=units, texts=texts, workers=2)
"""


def test_kill_nine_in_the_middle_changes_nothing(tmp_path: Path, corpora: Path, vocabulary: Vocabulary) -> None:
    units, texts = sources(corpora)
    build_tokens(tmp_path / "whole", vocabulary, units=units, texts=texts, workers=0)
    script, out = tmp_path / "run.py", tmp_path / "killed"
    script.write_text(KILLED)
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"}
    command = [sys.executable, str(script), str(corpora), str(out), str(tmp_path / "whole" / "vocabulary")]
    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in (out / ".journal").glob("part-*.jsonl")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = sum(path.stat().st_size > 0 for path in (out / ".journal").glob("part-*.jsonl"))
    assert 0 < done < 15
    assert not (out / "store").exists()
    with pytest.raises(StaleStep, match="begun with another recipe") as caught:
        build_tokens(out, vocabulary, units=units, texts=texts[:1], workers=0)
    told = str(caught.value)
    assert re.search(
        rf"\(source 4 tales\.txt: [0-9a-f]{{12}} -> none\).* or delete {out}/.journal and {out}/vocabulary, or ", told
    )
    assert "{" not in told
    with pytest.raises(StaleStep, match=r"\(vocabulary: [0-9a-f]{12} -> [0-9a-f]{12}\)"):
        build_tokens(out, Vocabulary.joint(build_text_tokenizer(["a b"], "words", 9), 20), units=units, texts=texts)
    while True:  # orphans notice that their parent is gone
        try:
            build_tokens(out, vocabulary, units=units, texts=texts, workers=2)
            break
        except DataError as error:
            assert "in use" in str(error)  # noqa: PT017
            time.sleep(0.1)
    assert tree(out) == tree(tmp_path / "whole")


def test_sources_that_do_not_go_together_are_refused(
    tmp_path: Path, corpora: Path, vocabulary: Vocabulary, make_table: MakeTable
) -> None:
    units, texts = sources(corpora)
    write_units(corpora / "c.parquet", named(make_table(2), "c"), "b" * 64)
    stranger = UnitSource(path=corpora / "c.parquet")
    with pytest.raises(DataError, match=r"two speech tokenizers \(a.parquet: a{12}, c.parquet: b{12}\)"):
        build_tokens(tmp_path / "out", vocabulary, units=[units[0], stranger])
    build_tokens(tmp_path / "out", vocabulary, units=[units[0]], workers=0)
    with pytest.raises(DataError, match="two speech tokenizers"):
        build_tokens(tmp_path / "out", vocabulary, units=[stranger], append=True)
    other = Vocabulary.joint(build_text_tokenizer(["some other words"], "words", 100), 20)
    with pytest.raises(DataError, match="made with the text block"):
        build_tokens(tmp_path / "out", other, texts=texts, append=True)
    with pytest.raises(DataError, match="give folders of units, texts, or both"):
        build_tokens(tmp_path / "new", vocabulary)
    with pytest.raises(DataError, match="the vocabulary has no text"):
        build_tokens(tmp_path / "new", Vocabulary.textless(20), texts=texts)
    with pytest.raises(DataError, match="the vocabulary has no units"):
        build_tokens(tmp_path / "new", vocabulary.text_subset(), units=units)
    with pytest.raises(DataError, match="unit table has 20 units, the vocabulary 30"):
        build_tokens(tmp_path / "new", Vocabulary.textless(30), units=units, workers=0)
    strict = replace(texts[1], quality=QualityRules(min_words=500))
    with pytest.raises(DataError, match=r"none of 40 documents is left; dropped by remedy: 40: .*min_words = 500"):
        build_tokens(tmp_path / "strict", vocabulary, texts=[strict], workers=0)
    write_units(corpora / "d.parquet", named(make_table(4), "t0"), SHA)
    with pytest.raises(DataError, match=r"'t0-utterance-0' comes twice, in a.parquet and in d.parquet"):
        build_tokens(tmp_path / "twice", vocabulary, units=[corpora / "a.parquet", corpora / "d.parquet"], workers=0)


def test_a_damaged_unit_file_is_named(tmp_path: Path, corpora: Path, vocabulary: Vocabulary) -> None:
    path = corpora / "b.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for workers in (0, 1):
        with pytest.raises(DataError, match=r"b\.parquet"):
            build_tokens(tmp_path / "out", vocabulary, units=[path], workers=workers)


def test_a_folder_of_units_is_its_parts(tmp_path: Path) -> None:
    """From recordings on, as `units encode` writes it."""
    root, utterances = tmp_path / "audio", []
    root.mkdir()
    for index in range(5):
        sound = np.random.default_rng(index).standard_normal(8000 + 800 * index) * 0.1
        soundfile.write(root / f"u{index}.wav", sound, 16_000, subtype="FLOAT")
        utterances.append(Utterance(id=f"u{index}", text="hi", speaker="s", split="train", audio=f"u{index}.wav"))
    corpus = write_corpus(tmp_path / "corpus", utterances, audio_root=root, info={"source": "test"}, skips=SkipLog())
    fit_on_corpus(corpus, encoder="mfcc", clusters=8, hours=1, split="train", seed=0).save(tmp_path / "tokenizer")
    made = encode_folder(corpus.folder, tmp_path / "tokenizer", tmp_path / "units", part_utterances=2, workers=0)
    store = build_tokens(tmp_path / "out", Vocabulary.textless(8), units=[tmp_path / "units"], workers=1)
    table = made.table()
    assert [store.utterance_id(row) for row in range(5)] == table.ids
    assert np.array_equal(store.arrays["units"], table.units)
    assert np.array_equal(store.arrays["durations"], table.durations_frames)
    assert store.meta["speech_tokenizer"] == made.tokenizer.fingerprint
    part = tmp_path / "units" / "parts" / made.parts[1]
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"part-00001\.parquet: missing or not the part"):
        build_tokens(tmp_path / "again", Vocabulary.textless(8), units=[tmp_path / "units"])


def test_what_failed_for_good_leaves_nothing_and_what_was_interrupted_goes_on(
    tmp_path: Path, corpora: Path, vocabulary: Vocabulary, make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, texts = sources(corpora)
    write_units(corpora / "d.parquet", named(make_table(4), "t0"), SHA)
    twice = [corpora / "a.parquet", corpora / "d.parquet"]
    strict = replace(texts[1], quality=QualityRules(min_words=500))
    damaged = corpora / "damaged.parquet"
    data = bytearray((corpora / "a.parquet").read_bytes())
    data[len(data) // 4] ^= 1
    damaged.write_bytes(data)
    out = tmp_path / "out"
    for wrong in ({"units": twice}, {"texts": [strict]}, {"units": [damaged]}):
        for workers in (0, 2):
            with pytest.raises(DataError):
                build_tokens(out, vocabulary, workers=workers, **wrong)
            assert list(out.iterdir()) == []
    other = Vocabulary.joint(build_text_tokenizer(["the cat"], "words", 9), 20)
    build_tokens(out, other, texts=texts[1:], workers=0)
    before = tree(out)
    with pytest.raises(DataError, match="none of 40 documents is left"):
        build_tokens(out, other, texts=[strict], append=True, workers=0)
    assert tree(out) == before
    build_tokens(out, other, units=[twice[0]], append=True, workers=0)
    with pytest.raises(DataError, match=r"comes twice, in a.parquet and in d.parquet"):
        build_tokens(out, other, units=[twice[1]], append=True, workers=0)

    def die(*args: object) -> None:
        raise KeyboardInterrupt

    killed = tmp_path / "killed"
    with monkeypatch.context() as patched:
        patched.setattr(building, "_merge", die)
        with pytest.raises(KeyboardInterrupt):
            build_tokens(killed, vocabulary, texts=texts[1:], workers=0)
    assert sorted(path.name for path in killed.iterdir()) == [".journal", "vocabulary"]
    with pytest.raises(StaleStep, match=f"or delete {killed}/.journal and {killed}/vocabulary, or"):
        build_tokens(killed, vocabulary, texts=texts[:1], workers=0)
    with monkeypatch.context() as patched:
        patched.setattr(building, "_add_texts", die)  # nothing is done again
        build_tokens(killed, vocabulary, texts=texts[1:], workers=0)


def test_a_worker_that_dies_is_no_reason_to_forget(
    tmp_path: Path, corpora: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*args: object, **kwargs: object) -> None:
        raise DataError("part-00000: its worker died (or go on without it: --on-error skip)")

    monkeypatch.setattr(building, "run_parts", lost)
    with pytest.raises(DataError, match=r"its worker died$"):
        build_tokens(tmp_path / "out", vocabulary, texts=sources(corpora)[1])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".journal", "vocabulary"]


def test_another_text_of_the_same_size_is_another_source(tmp_path: Path, corpora: Path, vocabulary: Vocabulary) -> None:
    _, (_, tales) = sources(corpora)
    build_tokens(tmp_path / "texts", vocabulary, texts=[tales], workers=0)
    path = corpora / "tales.txt"
    path.write_text(path.read_text().replace("tom likes", "ann likes", 1))
    with pytest.raises(DataError, match=r"holds other sources \(tales.txt\); other now or new: tales.txt; choose"):
        build_tokens(tmp_path / "texts", vocabulary, texts=[tales], workers=0)
    build_tokens(tmp_path / "units", vocabulary, units=[corpora / "b.parquet"], workers=0)
    data = bytearray((corpora / "b.parquet").read_bytes())
    data[10] ^= 1  # the header at the end of the file stays as it was
    (corpora / "b.parquet").write_bytes(data)
    with pytest.raises(DataError, match="holds other sources"):
        build_tokens(tmp_path / "units", vocabulary, units=[corpora / "b.parquet"], workers=0)


def test_nothing_is_written_into_folders_of_others(tmp_path: Path, corpora: Path, vocabulary: Vocabulary) -> None:
    texts = sources(corpora)[1]
    out = tmp_path / "out"
    out.write_text("a file")
    with pytest.raises(DataError, match="out: a file, a folder is needed"):
        build_tokens(out, vocabulary, texts=texts)
    out.unlink()
    out.mkdir()
    (out / "skips.jsonl").write_text("of a corpus\n")
    with pytest.raises(DataError, match=r"something else than a token store \(skips.jsonl\); choose another output"):
        build_tokens(out, vocabulary, texts=texts)
    assert tree(out) == {"skips.jsonl": b"of a corpus\n"}
    (out / "skips.jsonl").rename(out / "vocabulary")
    (out / "vocabulary").unlink()
    (out / "vocabulary").mkdir()
    (out / "vocabulary" / "tokenizer.json").write_text("mine")
    with pytest.raises(DataError, match=r"vocabulary \(without vocabulary.json\)"):
        build_tokens(out, vocabulary, texts=texts)
    (out / "vocabulary" / "tokenizer.json").unlink()
    vocabulary.save(out / "vocabulary")
    strict = replace(texts[1], quality=QualityRules(min_words=500))
    with pytest.raises(DataError, match="none of 40"):
        build_tokens(out, vocabulary, texts=[strict], workers=0)
    assert Vocabulary.load(out / "vocabulary") == vocabulary, "it was there before"


def test_splits_are_checked_before_any_work(tmp_path: Path, corpora: Path, vocabulary: Vocabulary) -> None:
    source = UnitSource(path=corpora / "b.parquet", split="trian")
    with pytest.raises(DataError, match="no utterance in split 'trian'; splits: test, train; choose one, or all"):
        build_tokens(tmp_path / "out", vocabulary, units=[source])
    assert not (tmp_path / "out").exists()
    store = build_tokens(tmp_path / "out", vocabulary, units=[replace(source, split="test")], workers=0)
    (counts,) = store.meta["sources"]
    assert (counts["read"], counts["kept"], counts["other_splits"]) == (3, 3, 3)
