"""Catches items that vanish without a reason, paths that leave the audio root, and imports that depend on order."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import soundfile
from hypothesis import given

from speechscale.corpus.cutting import cut_long
from speechscale.corpus.imported import Corpus, open_corpus
from speechscale.corpus.importing import Imported, ImportOptions, import_corpus
from speechscale.corpus.readers import read_folder
from speechscale.errors import DataError
from speechscale.progress import Progress
from speechscale.records import Utterance, Word
from speechscale.skips import SkipLog, read_skips
from tests.corpus.sources import sound, sound_bytes, write_lines, write_tar


def run(source: Path, out: Path, **options: Any) -> Imported:
    return import_corpus(source, out, options=ImportOptions(**options))


def rows(corpus: Corpus) -> dict[str, Utterance]:
    return {u.id: u for u in corpus.utterances()}


def manifest(root: Path, items: list[dict[str, Any]]) -> Path:
    for name in ("a", "b", "c"):
        sound(root / f"{name}.wav", 2, seed=ord(name))
    return write_lines(root / "m.jsonl", items)


def reasons(done: Imported) -> dict[str, str]:
    return {skip.id: skip.reason for skip in done.skips}


def test_every_item_is_kept_or_named(tmp_path: Path) -> None:
    root = tmp_path / "src"
    source = manifest(
        root,
        [
            {"audio": "a.wav", "text": "go on", "speaker": "ann", "lang": "en"},
            {"audio": "a.wav", "text": "twice"},
            {"audio": "b.wav", "id": "past", "text": "past", "offset": 1, "duration": 2},
            {"audio": "b.wav", "id": "late", "text": "late", "offset": 5, "duration": 1},
            {"audio": "b.wav", "id": "backwards", "text": "x", "start": 1, "end": 0.5},
            {"audio": "b.wav", "id": "negative", "text": "x", "start": -1, "end": 0.5},
            {"audio": "b.wav", "id": "short", "text": "x", "start": 1, "end": 1.00006},
            {"audio": "b.wav", "id": "channel", "text": "x", "channel": 3},
            {"audio": "none.wav", "text": "x"},
            {"audio": "c.wav", "id": "no text"},
            {"audio": "c.wav", "id": "empty", "text": " "},
            {"audio": "c.wav", "id": "binary", "text": "\u0001\u0002"},
            {"audio": "c.wav", "id": "surrogate", "text": "\ud800 x"},
            {"audio": "c.wav", "id": "bad\ud800name", "text": "x"},
            {"audio": "c.wav", "id": "words", "text": "x", "aligned_text": [["x", 0.5, 9]]},
            {"audio": "c.wav", "id": "overlap", "text": "x y", "aligned_text": [["x", 0.5, 1], ["y", 0.7, 1.2]]},
            {"audio": "c.wav", "id": "before", "text": "x y", "aligned_text": [["x", -0.5, 1], ["y", 1, 1.2]]},
            {"audio": "c.wav", "id": "another", "text": "good day", "aligned_text": [["so", 0.5, 1], ["long", 1, 1.2]]},
            {"audio": "c.wav", "id": "fine", "text": "Good, day", "aligned_text": [["good", 0.5, 1], ["day", 1, 2.02]]},
            {"audio": "b.wav", "id": "part", "text": "a part", "offset": 0.5, "duration": 1},
        ],
    )
    done = run(source, tmp_path / "out", splits="none")
    kept = rows(done.corpus)
    assert kept.keys() == {"a", "fine", "part"}
    assert (kept["a"].speaker, kept["a"].language, kept["a"].end_s) == ("ann", "en", None)
    assert kept["fine"].words == (
        Word(text="Good,", start_s=0.5, end_s=1.0),
        Word(text="day", start_s=1.0, end_s=2.0),
    )
    assert (kept["part"].start_s, kept["part"].end_s) == (0.5, 1.5)
    assert done.read == 20
    assert done.read == len(kept) + len(done.skips)
    for id, sign in {
        "past": "1.000..3.000 s ends outside the audio, which lasts 2.000 s",
        "late": "5.000..6.000 s ends outside",
        "backwards": "empty or negative",
        "negative": "empty or negative",
        "short": "too short",
        "channel": "channel 3 of audio with 1 channels",
        "none": "none.wav: no such file",
        "no text": "no transcript",
        "empty": "transcript is empty",
        "binary": "control characters",
        "surrogate": "not UTF-8",
        "bad?name": "not clean UTF-8",
        "words": "lasts 2.000 s",
        "overlap": "overlaps the word before",
        "before": "starts before",
        "another": "match 0% of the transcript",
    }.items():
        assert sign in reasons(done)[id], id
        assert str(tmp_path) not in reasons(done)[id]
    assert "item 1 has the same id" in next(s for s in done.skips if s.id == "a").reason
    assert read_skips(tmp_path / "out/skips.jsonl").skips == done.skips.skips
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"corpus.json", "skips.jsonl", "utterances.parquet"}
    assert len(run(source, tmp_path / "by-words", words="none", splits="none").skips) < len(done.skips)
    with pytest.raises(DataError, match=r"a: m\.jsonl, line 2: item 1 has the same id.*--on-error skip"):
        run(source, tmp_path / "stop", on_error="stop")
    assert not (tmp_path / "stop/corpus.json").exists()


def test_paths_never_leave_the_audio_root(tmp_path: Path) -> None:
    outside = sound(tmp_path / "outside/secret.wav")
    root = tmp_path / "src"
    sound(root / "in/a.wav")
    (root / "link.wav").symlink_to(outside)
    (root / "dir").symlink_to(outside.parent)
    (root / "alias.wav").symlink_to(root / "in/a.wav")
    write_tar(tmp_path / "outside/x.tar", [("k.flac", sound_bytes())])
    bad = {
        "dots": "../outside/secret.wav",
        "hidden-dots": "in/../../outside/secret.wav",
        "absolute": str(outside),
        "link": "link.wav",
        "folder-link": "dir/secret.wav",
        "absolute-link": str(root / "dir/secret.wav"),
        "url": "https://example.org/a.wav",
        "tar": "../outside/x.tar::k.flac",
        "nul": "a\0.wav",
        "empty": "",
    }
    items = [{"id": id, "audio": audio, "text": "x"} for id, audio in bad.items()]
    good = {"plain": "in/a.wav", "inside": str(root / "in/a.wav"), "alias": "alias.wav", "root": "{data_root}/in/a.wav"}
    items += [{"id": id, "audio": audio, "text": "x"} for id, audio in good.items()]
    done = run(write_lines(root / "m.jsonl", items), tmp_path / "out", splits="none")
    kept = rows(done.corpus)
    assert kept.keys() == good.keys()
    assert {u.audio for u in kept.values()} == {"in/a.wav", "alias.wav"}
    why = reasons(done)
    assert all("'..' in its path" in why[id] for id in ("dots", "hidden-dots", "tar"))
    assert "not below the audio root" in why["absolute"]
    assert all("leads out of the audio root" in why[id] or "not below" in why[id] for id in ("link", "folder-link"))
    assert "not a local file" in why["url"]
    wide = run(root / "m.jsonl", tmp_path / "wide", audio_root=tmp_path, splits="none")
    assert "absolute" in rows(wide.corpus)
    cut = run(root / "m.jsonl", tmp_path / "cut", audio_root=tmp_path, strip="../", splits="none")
    assert rows(cut.corpus)["dots"].audio == "outside/secret.wav"


BROKEN = {
    "zero": b"",
    "text": b"this is no audio at all, whatever its name says",
    "cut": sound_bytes(2, "WAV")[:20_000],
    "cut-flac": sound_bytes(2)[:20_000],
}


def test_bad_audio_is_named_by_header_or_by_decoding(tmp_path: Path) -> None:
    root = tmp_path / "src"
    root.mkdir()
    for name, data in BROKEN.items():
        (root / f"{name}.wav").write_bytes(data)
    (root / "mislabelled.wav").write_bytes(sound_bytes(1, "FLAC"))
    for name, samples in {
        "one-sample": np.zeros(1, np.float32),
        "zeros": np.zeros(16_000, np.float32),
        "nan": np.full(16_000, np.nan, np.float32),
    }.items():
        soundfile.write(root / f"{name}.wav", samples, 16_000, subtype="FLOAT")
    sound(root / "good.wav")
    soundfile.write(root / "seven.wav", np.full((19_200, 7), 0.1, np.float32), 192_000)
    done = run(root, tmp_path / "header", splits="none")
    assert rows(done.corpus).keys() >= {"good", "mislabelled", "seven", "zeros", "nan"}
    assert reasons(done).keys() >= {"zero", "text", "cut", "one-sample"}
    assert "zero bytes" in reasons(done)["zero"]
    decoded = run(root, tmp_path / "decoded", check="decode", splits="none")
    assert rows(decoded.corpus).keys() == {"good", "mislabelled", "seven"}
    assert "all samples are zero" in reasons(decoded)["zeros"]
    assert "NaN" in reasons(decoded)["nan"]
    assert decoded.read == 3 + len(decoded.skips)


def spoken_folder(root: Path, count: int = 12) -> Path:
    for index in range(count):
        sound(root / f"spk{index % 4}/u{index:02}.wav", 0.3).with_suffix(".txt").write_text(f"text {index // 2}")
    return root


def test_splits_are_drawn_kept_or_left_open(tmp_path: Path) -> None:
    root = spoken_folder(tmp_path / "src")
    drawn = run(root, tmp_path / "drawn")
    assert drawn.format == "folder"
    assert set(drawn.splits) == {"train", "select", "test"}
    by_text: dict[str, set[str]] = {}
    for utterance in drawn.corpus.utterances():
        by_text.setdefault(utterance.text, set()).add(utterance.split)
    assert all(len(splits) == 1 for splits in by_text.values())
    speakers = run(root, tmp_path / "speakers", by="speaker", splits=(0.5, 0.25, 0.25), seed=3)
    assert {len({u.split for u in speakers.corpus.utterances() if u.speaker == s}) for s in ("spk0", "spk3")} == {1}
    assert speakers.splits == {"train": 6, "select": 3, "test": 3}
    assert run(root, tmp_path / "open", splits="none").splits == {"": 12}
    with pytest.raises(DataError, match="12 of 12 utterances have no split in the source"):
        run(root, tmp_path / "source", splits="source")
    items = [{"audio": f"{n}.wav", "text": n, "split": s} for n, s in [("a", "train"), ("b", "dev"), ("c", "test")]]
    kept = run(manifest(tmp_path / "m", items), tmp_path / "kept")
    assert kept.splits == {"train": 1, "select": 1, "test": 1}
    assert kept.corpus.info["splits"] == {"from": "source"}


def test_the_order_of_a_manifest_does_not_move_anything(tmp_path: Path) -> None:
    items = [
        {"audio": "a.wav", "id": str(i), "text": f"t{i % 7}", "speaker": f"s{i % 5}", "start": i / 50, "duration": 0.5}
        for i in range(40)
    ]
    for by in ("text", "speaker"):
        one = run(manifest(tmp_path / "m", items), tmp_path / "one", by=by, seed=4)
        first = {id: (u.split, u.start_s) for id, u in rows(one.corpus).items()}
        other = run(manifest(tmp_path / "m", items[::-1]), tmp_path / "other", by=by, seed=4)
        assert {id: (u.split, u.start_s) for id, u in rows(other.corpus).items()} == first
    again = run(manifest(tmp_path / "m", items), tmp_path / "again", by="speaker", seed=4)
    assert (tmp_path / "again/utterances.parquet").read_bytes() == (tmp_path / "one/utterances.parquet").read_bytes()
    assert open_corpus(tmp_path / "again").info == again.corpus.info


def test_text_can_be_optional_or_dropped(tmp_path: Path) -> None:
    items = [{"audio": "a.wav", "text": "go"}, {"audio": "b.wav"}, {"audio": "c.wav", "words": [["yes", 0, 1]]}]
    source = manifest(tmp_path / "m", items)
    assert rows(run(source, tmp_path / "required").corpus).keys() == {"a", "c"}
    optional = rows(run(source, tmp_path / "optional", text="optional").corpus)
    assert [optional[id].text for id in "abc"] == ["go", "", "yes"]
    none = rows(run(source, tmp_path / "none", text="none").corpus)
    assert all(u.text == "" and u.words == () for u in none.values())


def test_limit_and_ids_by_path(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        sound(tmp_path / f"src/{folder}/same.wav").with_suffix(".txt").write_text("hello")
    assert len(run(tmp_path / "src", tmp_path / "stem").skips) == 1
    done = run(tmp_path / "src", tmp_path / "path", ids="path")
    assert rows(done.corpus).keys() == {"x/same", "y/same"}
    assert rows(run(tmp_path / "src", tmp_path / "one", ids="path", limit=1).corpus).keys() == {"x/same"}


def timed(*spans: tuple[float, float] | None) -> tuple[Word, ...]:
    return tuple(
        Word(text=f"w{i}") if span is None else Word(text=f"w{i}", start_s=span[0], end_s=span[1])
        for i, span in enumerate(spans)
    )


def long_utterance(words: tuple[Word, ...], start_s: float = 100.0) -> Utterance:
    text = " ".join(word.text for word in words)
    return Utterance(id="u", text=text, speaker="s", split="", words=words, audio="a.wav", start_s=start_s)


def test_long_utterances_are_cut_in_the_widest_gap_and_words_go_along() -> None:
    words = timed((1.0, 2.0), (2.1, 5.0), (7.0, 8.0), (8.1, 9.0), None, (9.5, 10.0), (12.0, 13.0))
    pieces = cut_long(long_utterance(words), duration_s=14.0, max_s=6.0, path=Path("unused"))
    assert [p.text for p in pieces] == ["w0 w1", "w2 w3 w4 w5", "w6"]
    assert [(p.start_s, p.end_s) for p in pieces] == [(100.5, 105.5), (106.5, 110.5), (111.5, 113.5)]
    assert [(w.start_s, w.end_s) for w in pieces[1].words] == [(0.5, 1.5), (1.6, 2.5), (None, None), (3.0, 3.5)]
    assert [p.id for p in pieces] == ["u-p0000", "u-p0001", "u-p0002"]
    with pytest.raises(DataError, match=r"words have no times to cut at.*--text none"):
        cut_long(long_utterance(timed(None, None)), duration_s=14.0, max_s=8.0, path=Path("unused"))
    with pytest.raises(DataError, match="word 0 to 0 span"):
        cut_long(long_utterance(timed((0.0, 12.0))), duration_s=14.0, max_s=8.0, path=Path("unused"))


@given(
    st.lists(st.tuples(st.floats(0.0, 4.0), st.floats(0.05, 1.5), st.booleans()), min_size=1, max_size=40),
    st.floats(0, 5),
)
def test_pieces_hold_every_word_once_inside_their_range(steps: list[tuple[float, float, bool]], tail: float) -> None:
    at, spans = 0.0, list[tuple[float, float] | None]()
    for gap, length, known in steps:
        spans.append((at + gap, at + gap + length) if known else None)
        at += gap + length
    if not any(spans):
        return
    whole = long_utterance(timed(*spans), start_s=0.0)
    # Without a known start within reach, nothing can be cut; that this is said is tested above.
    try:
        pieces = cut_long(whole, duration_s=at + tail, max_s=10.0, path=Path("unused"))
    except DataError:
        hypothesis.assume(False)
    assert " ".join(p.text for p in pieces) == whole.text
    assert [w.text for p in pieces for w in p.words] == [w.text for w in whole.words]
    if len(pieces) == 1 and pieces[0] is whole:
        return
    for one, other in pairwise(pieces):
        assert (one.end_s or 0) <= other.start_s + 1e-5
    for piece in pieces:
        assert piece.end_s is not None
        assert piece.end_s - piece.start_s <= 10.0 + 1e-5
        for word in piece.words:
            if word.start_s is not None and word.end_s is not None:
                assert -1e-5 <= word.start_s <= word.end_s <= piece.end_s - piece.start_s + 1e-5


def test_untexted_recordings_are_cut_in_silence(tmp_path: Path) -> None:
    rate = 16_000
    noise = 0.2 * np.random.default_rng(0).standard_normal(rate * 6).astype(np.float32)
    quiet = np.zeros(rate, np.float32)
    (tmp_path / "src").mkdir()
    soundfile.write(tmp_path / "src/long.wav", np.concatenate([noise, quiet] * 4), rate)
    done = run(tmp_path / "src", tmp_path / "out", split_long_s=10)
    found = list(done.corpus.utterances())
    assert len(found) == 4
    assert (done.read, done.pieces) == (1, 3)
    for index, utterance in enumerate(found):
        assert utterance.start_s == pytest.approx(7 * index, abs=0.3)
        assert utterance.end_s == pytest.approx(7 * index + 6, abs=0.3)
    soundfile.write(tmp_path / "src/silent.wav", np.zeros(rate * 20, np.float32), rate)
    assert "silent" in reasons(run(tmp_path / "src", tmp_path / "out2", split_long_s=10))


def test_impossible_requests_are_refused(tmp_path: Path) -> None:
    source = manifest(tmp_path / "m", [{"audio": "a.wav", "text": "go"}])
    for options, message in [
        ({"format": "mp4"}, "format 'mp4' is not one of auto, hf"),
        ({"splits": (0.5, 0.5, 0.5)}, "three shares"),
        ({"audio_root": tmp_path / "none"}, "no such folder"),
        ({"split_long_s": 0.1}, "at least 1 second"),
    ]:
        with pytest.raises(DataError, match=message):
            run(source, tmp_path / "out", **options)
    with pytest.raises(DataError, match="no such file or folder"):
        run(tmp_path / "gone", tmp_path / "out", format="kaldi")
    with pytest.raises(DataError, match="not one utterance can be used: x: "):
        run(write_lines(tmp_path / "m/bad.jsonl", [{"audio": "x.wav", "text": "go"}]), tmp_path / "out")


def test_a_corpus_of_another_source_is_not_replaced_unasked(tmp_path: Path) -> None:
    one = manifest(tmp_path / "m", [{"audio": "a.wav", "text": "go"}])
    other = write_lines(tmp_path / "m/other.jsonl", [{"audio": "b.wav", "text": "on"}])
    run(one, tmp_path / "out")
    run(one, tmp_path / "out")
    with pytest.raises(DataError, match=r"holds a corpus made from .*m\.jsonl; give another folder, or --overwrite"):
        run(other, tmp_path / "out")
    assert rows(open_corpus(tmp_path / "out")).keys() == {"a"}
    assert rows(run(other, tmp_path / "out", overwrite=True).corpus).keys() == {"b"}


def test_word_times_from_elsewhere_are_joined_by_item_or_by_recording(tmp_path: Path) -> None:
    items = [
        {"audio": "a.wav", "text": "go on", "id": "u1"},
        {"audio": "b.wav", "text": "yes", "id": "u2", "offset": 1.0, "duration": 1.0},
        {"audio": "c.wav", "text": "alone", "id": "u3"},
    ]
    source = manifest(tmp_path / "m", items)
    ctm = tmp_path / "all.ctm"
    ctm.write_text("u1 1 0.10 0.30 go\nu1 1 0.50 0.40 on\nb 1 0.20 0.30 no\nb 1 1.20 0.30 yes\n")
    done = run(source, tmp_path / "one", times=ctm, splits="none")
    found = rows(done.corpus)
    assert [(w.text, w.start_s, w.end_s) for w in found["u1"].words] == [("go", 0.1, 0.4), ("on", 0.5, 0.9)]
    assert [(w.text, w.start_s, w.end_s) for w in found["u2"].words] == [("yes", 0.2, 0.5)]
    assert found["u3"].words == (Word(text="alone"),)
    assert done.corpus.info["timed"] == 2
    folder = tmp_path / "grids"
    folder.mkdir()
    (folder / "c.json").write_text(json.dumps({"aligned_text": [[" alone", 0.5, 1.0]]}))
    (folder / "u1.json").write_text("{broken")
    done = run(source, tmp_path / "two", times=folder, splits="none")
    assert rows(done.corpus)["u3"].words[0].start_s == 0.5
    assert list(reasons(done)) == ["u1"]
    with pytest.raises(DataError, match="correct --times"):
        run(source, tmp_path / "three", times=tmp_path / "none")


def test_what_a_killed_import_left_is_cleared(tmp_path: Path) -> None:
    source = manifest(tmp_path / "m", [{"audio": "a.wav", "text": "go"}])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/..utterances.draft.parquet.99-abc.tmp").write_bytes(b"half")
    (tmp_path / "out/.utterances.draft.parquet").write_bytes(b"half")
    run(source, tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"corpus.json", "skips.jsonl", "utterances.parquet"}


def test_tar_members_are_imported_in_place(tmp_path: Path) -> None:
    members = [("k1.flac", sound_bytes()), ("k1.txt", b"go on"), ("k2.flac", b""), ("k2.txt", b"gone")]
    done = run(write_tar(tmp_path / "s.tar", members), tmp_path / "out")
    assert [u.audio for u in done.corpus.utterances()] == ["s.tar::k1.flac"]
    assert "zero bytes" in reasons(done)["k2"]


@pytest.mark.parametrize("limit", [None, 50])
def test_progress_goes_by_bytes_and_ends_at_the_end(tmp_path: Path, limit: int | None) -> None:
    """A manifest never says how long it is; an import that stops at its limit must not promise more."""
    items = [{"audio": "a.wav", "id": str(i), "text": "go"} for i in range(200)]
    told: list[Progress] = []
    options = ImportOptions(limit=limit)
    import_corpus(manifest(tmp_path / "m", items), tmp_path / "out", options=options, watch=told.append)
    shares = [progress.share for progress in told[:-1] if progress.share is not None]
    assert len(shares) > 40
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1
    assert (told[-1].items_done, told[-1].left_s, told[-1].note) == (limit or 200, 0.0, "0 dropped")


@pytest.mark.parametrize("name", ["dev-ljspeech", "dev-librivox-aligned"])
def test_import_of_real_folders_agrees_with_read_folder(shared: Path, tmp_path: Path, name: str) -> None:
    log = SkipLog()
    direct = {u.id: (u.text, u.words, u.audio) for u in read_folder(shared / "data" / name, seed=0, on_skip=log.add)}
    done = run(shared / "data" / name, tmp_path / "out", format="folder")
    assert {u.id: (u.text, u.words, u.audio) for u in done.corpus.utterances()} == direct
    assert not done.skips.skips


MEASURE = """
import sys
from pathlib import Path
from speechscale.corpus.importing import ImportOptions, import_corpus
folder = Path(sys.argv[1])
# Not ru_maxrss, which a process inherits from the one that started it.
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
import_corpus(folder / "small.jsonl", folder / "warm", options=ImportOptions())
before = peak()
done = import_corpus(folder / "m.jsonl", folder / "out", options=ImportOptions())
print(sum(done.splits.values()), len(done.skips), peak() - before)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_memory_stays_flat_over_a_thousand_hours(tmp_path: Path) -> None:
    """300,000 lines (1,000 hours at 12 s): the peak of a process of its own grows by less than 300 MB."""
    soundfile.write(tmp_path / "a.wav", np.zeros(8000 * 3600, np.int16), 8000)
    with (tmp_path / "m.jsonl").open("w") as stream:
        for i in range(300_000):
            row = {
                "audio": "a.wav",
                "id": f"utterance-{i:08d}",
                "offset": i % 3580,
                "duration": 12.0,
                "speaker": f"s{i % 2000}",
                "text": f"this is what is said in utterance number {i} of the book",
            }
            stream.write(json.dumps(row) + "\n")
    write_lines(tmp_path / "small.jsonl", [{"audio": "a.wav", "text": "go"}])
    made = subprocess.run([sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True)
    kept, dropped, growth_mb = map(float, made.stdout.split())
    assert (kept, dropped) == (300_000, 0)
    assert 10 < growth_mb < 300
