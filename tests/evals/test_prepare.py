"""Would catch: an item kept that cannot be heard or decided, one lost without a reason, a cut at the wrong second, a
resumed run with other bytes, a finished folder that is taken for another recipe's."""

from __future__ import annotations

import hashlib
import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechscale.corpus.imported import open_corpus
from speechscale.errors import DataError, StaleStep
from speechscale.evals.benchmarks import joining
from speechscale.evals.benchmarks.benchmark import Benchmark, items_sha256
from speechscale.evals.benchmarks.prepare import prepare, prepared, read_source
from speechscale.evals.benchmarks.raw import Clip, RawItem, Source, Task
from speechscale.evals.benchmarks.splitting import split_at_ending, split_last_sentence, words_of_text
from speechscale.records import Utterance, Word
from speechscale.skips import SkipLog, read_skips
from tests.evals.benchmarks import BAD_WORDS, FACTS, GOOD_WORDS, apart, item, joined, noise, source, texts

VOICES = ("us-f2", "gb-m3")


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows(benchmark: Benchmark) -> dict[str, Utterance]:
    return {u.id: u for u in open_corpus(benchmark.folder / "corpus").utterances()}


def reasons(folder: Path) -> dict[str, str]:
    return {skip.id: skip.reason for skip in read_skips(folder / "skips.jsonl")}


def test_joined_recordings_stay_where_they_are(tmp_path: Path) -> None:
    root, skips = tmp_path / "src", SkipLog()
    first = joined(root, "a", 0, prompt="Tom ran", good="home.", bad="Rome.", speaker="ann", phenomenon="place")
    first = replace(first, good_words=GOOD_WORDS, bad_words=BAD_WORDS)
    second = joined(root, "b", 1, good_cut_s=0.25, bad_cut_s=0.5)
    skips.add("c", "no partner", "complete the list")
    made = prepare(source([first, second], root, skips), tmp_path / "out")
    found = rows(made)
    assert list(found) == ["a/good", "a/bad", "b/good", "b/bad"]
    assert open_corpus(tmp_path / "out/corpus").audio_root == root
    assert found["a/good"].audio == "a-good.wav"
    assert [(w.text, w.start_s) for w in found["a/good"].words] == [("Tom", 0.0), ("ran", 0.3), ("home.", 0.6)]
    assert found["b/good"].words == ()
    assert made.items() == [first.item, second.item]  # Times at all edges say the cut; nothing is written twice.
    assert made.info["sets"] == {"toy": {"items": 2, "pairs": 2, "speakers": 1, "phenomena": 1}}
    assert (made.info["read"], made.info["kept"], made.info["dropped"]) == (3, 2, 1)
    assert made.info["hours"] == pytest.approx(4 / 3600, abs=1e-6)
    assert reasons(made.folder) == {"c": "no partner"}
    assert not (tmp_path / "out/.work").exists()


def test_the_cut_is_written_down_where_an_edge_has_no_time(tmp_path: Path) -> None:
    raw = joined(tmp_path, "a", prompt="Tom ran", good="home.", bad="Rome.")
    open_edge = (GOOD_WORDS[0], Word(text="ran"), GOOD_WORDS[2])
    made = prepare(source([replace(raw, good_words=open_edge, bad_words=BAD_WORDS)], tmp_path), tmp_path / "out")
    (found,) = made.items()
    assert (found.good_cut_s, found.bad_cut_s) == (0.6, None)


def test_parts_recorded_apart_are_joined_at_one_rate(tmp_path: Path) -> None:
    root = tmp_path / "src"
    sources = [apart(root, "a"), apart(root, "b", 1, ending_hz=24_000)]
    made = prepare(source(sources, root), tmp_path / "out", pause_s=0.1)
    found = rows(made)
    assert list(found) == [f"{i}/{r}" for i in "ab" for r in ("good", "bad", "prompt", "good-ending", "bad-ending")]
    audio_root = tmp_path / "out/corpus/audio"
    assert open_corpus(tmp_path / "out/corpus").audio_root.resolve() == audio_root
    heard, rate_hz = soundfile.read(audio_root / found["a/good"].audio, dtype="int16")
    parts = [soundfile.read(root / f"a-{part}.wav", dtype="int16")[0] for part in "pg"]
    assert rate_hz == 16_000
    assert np.array_equal(heard, np.concatenate([parts[0], np.zeros(1_600, np.int16), parts[1]]))
    heard, rate_hz = soundfile.read(audio_root / found["b/bad"].audio)
    assert (rate_hz, len(heard)) == (24_000, 0.85 * 24_000)
    assert [(i.good_cut_s, i.bad_cut_s) for i in made.items()] == [(0.6, 0.6)] * 2
    assert found["a/good"].text == "Tom ran. he won."
    assert found["b/bad-ending"].text == "he lost."
    assert soundfile.info(audio_root / found["b/prompt"].audio).frames == 8_000


def test_endings_without_a_prompt_are_simply_the_recordings(tmp_path: Path) -> None:
    raw = apart(tmp_path, "a")
    raw = replace(raw, prompt=None, item=replace(raw.item, prompt=""))
    made = prepare(source([raw], tmp_path), tmp_path / "out")
    assert list(rows(made)) == ["a/good", "a/bad"]
    assert made.info["recipe"]["root"] == str(tmp_path)


def test_text_alone_has_no_corpus(tmp_path: Path) -> None:
    made = prepare(source(texts()), tmp_path / "out")
    assert made.has_audio is False
    assert sorted(path.name for path in made.folder.iterdir()) == ["benchmark.json", "items.parquet", "skips.jsonl"]
    assert [i.id for i in made.items()] == ["t0", "t1", "t2"]
    with pytest.raises(DataError, match=r"text alone.*--voice us-f2"):
        made.units(tmp_path)


def test_texts_are_spoken_in_turns(tmp_path: Path) -> None:
    made = prepare(source(texts()), tmp_path / "out", voices=VOICES)
    found = rows(made)
    assert [i.speaker for i in made.items()] == ["us-f2", "gb-m3", "us-f2"]
    assert list(found)[:2] == ["t0/good", "t0/bad"]
    words = found["t0/good"].words
    assert [word.text for word in words] == ["Tom", "ran.", "It", "was", "late.", "the", "end", "came"]
    bad = found["t0/bad"].words
    assert words[5].start_s == bad[5].start_s > words[4].end_s + 0.1  # A pause, then the ending, at one place in both.
    assert found["t0/good"].licence.startswith("voice: espeak-ng formant voice us-f2")
    turned = prepare(source(texts()), tmp_path / "turned", voices=VOICES, seed=1)
    assert [i.speaker for i in turned.items()] == ["gb-m3", "us-f2", "gb-m3"]
    assert turned.sha256 != made.sha256


def test_every_voice_speaks_every_pair_and_a_broken_row_stays_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from speechscale.voices import espeak

    real = espeak._speak_segment

    def hoarse(engine: Any, voice: Any, segment: str) -> Any:
        if voice.name == "gb-m3" and "dog" in segment:
            raise DataError("the voice is hoarse; let it rest")
        return real(engine, voice, segment)

    monkeypatch.setattr(espeak, "_speak_segment", hoarse)
    raws = [*texts(1), RawItem(item=item("dog", good="a cat", bad="a dog")), RawItem(item=item("x", good="!", bad="a"))]
    made = prepare(source(raws), tmp_path / "out", voices=VOICES, each_voice=True)
    assert [(i.id, i.pair, i.speaker) for i in made.items()] == [
        ("t0/us-f2", "t0", "us-f2"),
        ("t0/gb-m3", "t0", "gb-m3"),
        ("dog/us-f2", "dog", "us-f2"),
    ]
    assert next(iter(rows(made))) == "t0/us-f2/good"
    assert reasons(made.folder) == {"x": "'!' has no letters or digits to speak", "dog/gb-m3": "the voice is hoarse"}
    used = {row.audio for row in rows(made).values()}
    audio = tmp_path / "out/corpus/audio"
    assert {p.relative_to(audio).as_posix() for p in audio.rglob("*.flac")} == used


def test_an_engine_without_word_times_speaks_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from speechscale.voices.espeak import EspeakEngine

    monkeypatch.setattr(EspeakEngine, "gives_word_times", False)
    made = prepare(source(texts(1)), tmp_path / "out", voices=VOICES[:1])
    found, audio = rows(made), tmp_path / "out/corpus/audio"
    assert list(found) == ["t0/good", "t0/bad", "t0/prompt", "t0/good-ending", "t0/bad-ending"]
    length = soundfile.info(audio / found["t0/prompt"].audio).duration
    (kept,) = made.items()
    assert kept.good_cut_s == kept.bad_cut_s == pytest.approx(length + 0.15)
    assert found["t0/bad-ending"].text == "the cat came"


@pytest.mark.parametrize("kind", ["apart", "spoken"])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    root = tmp_path / "src"
    raws = texts() if kind == "spoken" else [apart(root, f"i{n}", n) for n in range(3)]
    options: dict[str, Any] = {"voices": VOICES} if kind == "spoken" else {}

    def run(out: str) -> Benchmark:
        return prepare(source(raws, root), tmp_path / out, **options)

    whole = run("whole")
    calls: list[int] = []

    def counted(place: str, dies_at: int) -> None:
        module, _, name = place.rpartition(".")
        real = getattr(importlib.import_module(module), name)

        def call(*arguments: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) == dies_at:
                raise KeyboardInterrupt
            return real(*arguments, **named)

        calls.clear()
        patch.setattr(place, call)

    hear = "speechscale.evals.benchmarks.hearing.hear"
    spoken, join = "speechscale.corpus.spoken_shards.write_audio", "speechscale.evals.benchmarks.joining.join"
    for place, dies_at in ((spoken, 4), (hear, 3)) if kind == "spoken" else ((hear, 3), (join, 4)):
        with monkeypatch.context() as patch:
            counted(place, dies_at)
            with pytest.raises(KeyboardInterrupt):
                run("torn")
            assert not (tmp_path / "torn/benchmark.json").exists()
    with monkeypatch.context() as patch:
        counted(hear if kind == "spoken" else join, 0)
        torn = run("torn")
        # Of 6 recordings 2 were heard, of 15 files 3 were written; nothing is done twice.
        assert len(calls) == (4 if kind == "spoken" else 12)
    assert contents(torn.folder) == contents(whole.folder)


def test_a_finished_folder_is_returned_and_another_recipe_refused(tmp_path: Path) -> None:
    root, out = tmp_path / "src", tmp_path / "out"
    raws = [joined(root, "a", 0), joined(root, "b", 1)]
    made = prepare(source(raws, root), out)
    before = contents(out)
    assert prepare(source(raws, root), out, workers=2) == made
    assert contents(out) == before
    with pytest.raises(StaleStep, match=r"pairs_together: False -> True"):
        prepare(source(raws, root), out, pairs_together=True)
    noise(root / "a-good.wav", 1.5)
    with pytest.raises(StaleStep, match=r"recordings: '.*' -> '"):
        prepare(source(raws, root), out)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("mine")
    with pytest.raises(DataError, match=r"other files in it \(thesis\.tex\)"):
        prepare(source(raws, root), tmp_path / "other")


def test_checksums_know_content_and_not_places(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    sums = [prepare(source([joined(root, "a")], root), tmp_path / f"out-{root.name}") for root in (one, two)]
    assert sums[0].sha256 == sums[1].sha256
    noise(two / "a-bad.wav", seed=9)
    changed = prepare(source([replace(joined(one, "a"))], two), tmp_path / "changed")
    assert changed.items_sha256 == sums[0].items_sha256
    assert changed.audio_sha256 != sums[0].audio_sha256
    assert changed.sha256 != sums[0].sha256
    expected = hashlib.sha256(
        b'{"bad":"","bad_cut_s":null,"good":"","good_cut_s":null,"id":"a","pair":"a","phenomenon":"","prompt":"",'
        b'"set":"toy","speaker":"","tag":""}\n'
    ).hexdigest()
    assert items_sha256([item("a")]) == sums[0].items_sha256 == expected


def bad_items(root: Path) -> list[tuple[RawItem, str]]:
    """Every bad input with the reason that must be filed."""
    noise(root / "silent.wav", level=0.0)
    noise(root / "quiet.wav", level=1e-4)
    noise(root / "short.wav", 0.05)
    (root / "text.wav").write_text("not audio")
    (root / "empty.wav").write_bytes(b"")
    soundfile.write(root / "nan.wav", np.array([0.1, np.nan] * 4_000, np.float32), 16_000, subtype="FLOAT")
    late = np.concatenate([0.1 * np.random.default_rng(0).standard_normal(8_000), np.zeros(8_000)])
    soundfile.write(root / "late.wav", late, 16_000)
    soundfile.write(root / "early.wav", late[::-1], 16_000)

    def with_bad(id: str, path: str, **fields: Any) -> RawItem:
        return replace(joined(root, id, **fields), bad=Clip(path=path))

    plain = joined(root, "x")
    cut = {"good_cut_s": 0.5, "bad_cut_s": 0.5}
    worded = replace(joined(root, "w", prompt="Tom ran", good="home.", bad="Rome."), bad_words=BAD_WORDS)
    return [
        (with_bad("missing", "gone.wav"), "audio gone.wav: no such file"),
        (with_bad("outside", "../gone.wav"), "audio '../gone.wav' is not inside the benchmark's folder"),
        (with_bad("damaged", "text.wav"), "audio text.wav: cannot be decoded"),
        (with_bad("zero", "empty.wav"), "audio empty.wav: the file has zero bytes"),
        (with_bad("nan", "nan.wav"), "audio nan.wav: 4000 of 8000 samples are NaN"),
        (with_bad("silent", "silent.wav"), "silent audio, the bad peaks at digital zero"),
        (with_bad("quiet", "quiet.wav"), "silent audio, the bad peaks at -6"),
        (with_bad("late", "late.wav", **cut), "silent audio, the bad recording peaks at digital zero behind 0.500 s"),
        (with_bad("early", "early.wav", **cut), "silent audio, the bad recording peaks at digital zero before 0.500 s"),
        (with_bad("short", "short.wav"), "too short, the bad lasts 0.050 s"),
        (joined(root, "cut", good_cut_s=0.5, bad_cut_s=0.95), "the ending is empty, the bad candidate begins at 0.950"),
        (joined(root, "nocut", good_cut_s=0.5, bad_cut_s=0.0), "the prompt is empty, the bad candidate begins at 0 s"),
        (joined(root, "onecut", good_cut_s=0.5), "only one candidate says where it begins"),
        (joined(root, "half", good="a", bad=""), "the ending is empty, the bad candidate has no words"),
        (joined(root, "none", prompt="a"), "the ending is empty, it has no candidate"),
        (joined(root, "same", good="a b", bad=" a  b"), "identical candidates, both are 'a b'"),
        (replace(plain, item=item("copy"), bad=plain.good), "identical candidates, both are the same recording"),
        (replace(plain, item=item("x0", pair="")), "it is unpaired, it names no pair"),
        (replace(plain, item=item("kept")), "an earlier item has the same id"),
        (replace(plain, item=item(" ", pair="p")), "its id is empty"),
        (replace(plain, item=item("alone"), bad=None), "the recording of the bad is missing"),
        (replace(plain, item=item("mute"), good=None, bad=None), "the ending is empty, it has no candidate"),
        (
            replace(plain, item=item("mute2", good="a", bad="b"), good=None, bad=None),
            "it has no recording, others have",
        ),
        (replace(apart(root, "p"), prompt=None), "the recording of the prompt is missing, its endings"),
        (
            replace(
                worded, item=replace(worded.item, id="other"), good_words=(Word(text="quite", start_s=0, end_s=1),)
            ),
            "its word times are of another text",
        ),
        (
            replace(worded, item=replace(worded.item, id="untimed"), good_words=(*GOOD_WORDS[:2], Word(text="home"))),
            "the first word of the ending, 'home.', has no time",
        ),
        (
            replace(
                worded,
                item=replace(worded.item, id="long"),
                good_words=(*GOOD_WORDS[:2], Word(text="home", start_s=0.6, end_s=1.4)),
            ),
            "good recording: word 2 ('home.') spans 0.600..1.400 s",
        ),
    ]


def test_every_bad_item_is_dropped_with_its_reason(tmp_path: Path) -> None:
    root = tmp_path / "src"
    wrong = bad_items(root)
    raws = [joined(root, "kept", 50), *(raw for raw, _ in wrong), joined(root, "also", 60)]
    made = prepare(source(raws, root), tmp_path / "out")
    assert [i.id for i in made.items()] == ["kept", "also"]
    log = [(skip.id, skip.reason) for skip in read_skips(made.folder / "skips.jsonl")]
    assert len(log) == len(wrong) == made.info["dropped"]
    for raw, reason in wrong:
        assert any(id == raw.item.id and found.startswith(reason) for id, found in log), (raw.item.id, reason, log)
    remedies = {skip.id: skip.remedy for skip in read_skips(made.folder / "skips.jsonl")}
    assert remedies["missing"] == "put the file there (download https://example.org/toy.zip)"


def test_nothing_usable_is_an_error_that_names_files_and_origin(tmp_path: Path) -> None:
    root, out = tmp_path / "src", tmp_path / "out"
    raws = [replace(joined(root, name), good=Clip(path=f"{name}/gone.wav")) for name in "abcd"]
    with pytest.raises(DataError, match=r"not one of 4 items.*a: audio a/gone.wav: no such file.*example\.org/toy"):
        prepare(source(raws, root), out)
    assert len(read_skips(out / "skips.jsonl")) == 4
    for name in "abcd":  # The data is completed; the same call then works.
        noise(root / f"{name}/gone.wav", seed=ord(name))
    assert len(prepare(source(raws, root), out).items()) == 4


def test_partners_leave_together_when_asked(tmp_path: Path) -> None:
    root = tmp_path / "src"
    fields = {"pair": "p"}
    raws = [
        joined(root, "p1@x", 0, speaker="x", **fields),
        joined(root, "p2@x", 1, speaker="x", **fields),
        joined(root, "p1@y", 2, speaker="y", **fields),
        joined(root, "p2@y", 3, speaker="y", **fields),
    ]
    noise(root / "p2@x-bad.wav", level=0.0)
    single = prepare(source(raws, root), tmp_path / "single")
    assert [i.id for i in single.items()] == ["p1@x", "p1@y", "p2@y"]
    paired = prepare(source(raws, root), tmp_path / "paired", pairs_together=True)
    assert [i.id for i in paired.items()] == ["p1@y", "p2@y"]
    assert reasons(paired.folder)["p1@x"] == "its partner p2@x was dropped"


def test_partners_of_what_cannot_be_spoken_leave_too(tmp_path: Path) -> None:
    raws = [
        RawItem(item=item("p1", pair="p", good="a dog", bad="a cat")),
        RawItem(item=item("p2", pair="p", prompt="...", good="a cat", bad="a dog")),
        RawItem(item=item("q", good="a cow", bad="a hen")),
    ]
    made = prepare(source(raws), tmp_path / "out", voices=VOICES[:1], pairs_together=True)
    assert [i.id for i in made.items()] == ["q"]
    assert reasons(made.folder)["p1"] == "its partner p2 was dropped"
    assert made.info["read"] == 3


def test_an_item_with_one_cut_only_is_counted_as_without(tmp_path: Path) -> None:
    raw = joined(tmp_path, "a", prompt="Tom ran", good="home.", bad="Rome.")
    made = prepare(source([replace(raw, good_words=GOOD_WORDS)], tmp_path), tmp_path / "out")
    assert made.info["without_cut"] == 1


def test_whole_stories_are_split_at_their_last_sentence(tmp_path: Path) -> None:
    raw = joined(tmp_path, "a", good="Tom. Ran. Home.", bad="Tom. Ran. Rome.")
    raw = replace(raw, good_words=GOOD_WORDS, bad_words=BAD_WORDS)
    other = replace(raw, item=item("b", good="Tom. Ran. Home.", bad="Ann. Ran. Rome."))
    one = RawItem(item=item("c", good="Tom ran home.", bad="Tom ran to Rome."), good=raw.good, bad=raw.bad)
    made = prepare(source([raw, other, one], tmp_path), tmp_path / "out", split="last-sentence")
    (kept,) = made.items()
    assert (kept.prompt, kept.good, kept.bad) == ("Tom. Ran.", "Home.", "Rome.")
    assert made.info["without_cut"] == 0
    assert reasons(made.folder)["b"] == "the two stories differ before their last sentence"
    assert reasons(made.folder)["c"].startswith("a candidate has a single sentence")
    with pytest.raises(DataError, match="has a prompt already"):
        split_last_sentence(replace(kept, prompt="x"))


def test_split_at_ending_matches_letters_and_guesses_nothing() -> None:
    words = [Word(text=text, start_s=i, end_s=i + 1) for i, text in enumerate(("I", "do", "n't", "-", "run", "home"))]
    assert split_at_ending(words, "I don't") == 4
    assert split_at_ending(words, "i DON'T run.") == 5
    with pytest.raises(DataError, match="does not begin with the words of the prompt"):
        split_at_ending(words, "I d")
    with pytest.raises(DataError, match="no word follows"):
        split_at_ending(words, "I don't run home.")
    with pytest.raises(DataError, match="'home', has no time"):
        split_at_ending([*words[:5], Word(text="home")], "I don't run")
    fitted = words_of_text("I don't run home.", words)
    assert [(w.text, w.start_s, w.end_s) for w in fitted] == [
        ("I", 0, 1),
        ("don't", 1, 4),
        ("run", 4, 5),
        ("home.", 5, 6),
    ]
    with pytest.raises(DataError, match="of another text"):
        words_of_text("quite other things were said here", words)


def test_recordings_are_not_used_where_voices_speak(tmp_path: Path) -> None:
    raws = [joined(tmp_path, "a", good="a dog ran", bad="a dog flew"), joined(tmp_path, "b", 1)]
    made = prepare(source(raws, tmp_path), tmp_path / "out", voices=VOICES[:1])
    assert list(rows(made)) == ["a/good", "a/bad"]
    assert rows(made)["a/good"].words[0].start_s == 0.0
    assert reasons(made.folder) == {"b": "it has no text to speak"}


def test_joining_clips_nothing_silently(tmp_path: Path) -> None:
    raw = apart(tmp_path, "a")
    soundfile.write(tmp_path / "a-g.wav", np.array([0.1, 1.5] * 4_000, np.float32), 16_000, subtype="FLOAT")
    assert prepare(source([raw], tmp_path), tmp_path / "out").info["clipped"] == 1


def test_the_same_prompt_is_written_once(tmp_path: Path) -> None:
    first, second = apart(tmp_path, "a"), apart(tmp_path, "b", 1)
    raws = [first, replace(second, prompt=first.prompt)]
    made = prepare(source(raws, tmp_path), tmp_path / "out")
    assert rows(made)["a/prompt"].audio == rows(made)["b/prompt"].audio
    assert joining.PART_FILES > 9
    assert len(list((tmp_path / "out/corpus/audio").rglob("*.flac"))) == 9


def toy_task(root_seen: list[Path]) -> dict[str, Task]:
    def read(root: Path, split: str = "dev") -> Source:
        root_seen.append(root)
        raws = texts(2 if split == "dev" else 3)
        return Source(facts=FACTS, root=root, items=raws, skips=SkipLog())

    task = Task(
        name="toy",
        about="toys",
        paper="nobody",
        read=read,
        options={"split": "dev or test"},
        example_layout="toys.json",
    )
    return {"toy": task}


def test_benchmarks_by_one_word(tmp_path: Path) -> None:
    seen: list[Path] = []
    tasks, data, cache = toy_task(seen), tmp_path / "da=ta,1", tmp_path / "cache"
    data.mkdir()
    dev = prepared(f"toy={data}", cache, tasks=tasks)
    test = prepared(f"toy:split=test={data}", cache, tasks=tasks)
    assert (len(dev.items()), len(test.items())) == (2, 3)
    assert seen == [data, data]
    assert dev.folder.name.startswith("toy-")
    assert prepared(f"toy={data}", cache, tasks=tasks) == dev
    assert prepared(str(dev.folder), cache, tasks=tasks) == dev
    for spec, message in (
        ("tox=/", "task 'tox' is not known; did you mean 'toy'"),
        (f"toy:spilt=test={data}", "no option 'spilt'; it has: split"),
        ("toy=/nowhere/at/all", "does not exist; it needs toys.json"),
        ("nowhere", "no such folder"),
        (str(data), r"no benchmark\.json in it|not known"),
    ):
        with pytest.raises(DataError, match=message):
            prepared(spec, cache, tasks=tasks)
    assert read_source("toy", data, {}, tasks).facts == FACTS


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    import fcntl
    import os

    (tmp_path / "out").mkdir()
    folder = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(DataError, match="another run is preparing it"):
        prepare(source(texts()), tmp_path / "out")
    os.close(folder)


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pause_s = -1"):
        prepare(source(texts()), tmp_path / "out", pause_s=-1)
    with pytest.raises(DataError, match="no espeak voice 'nobody'"):
        prepare(source(texts()), tmp_path / "out", voices=("nobody",))
    with pytest.raises(DataError, match="not one of 0 items can be used: none was found"):
        prepare(source([]), tmp_path / "out")
    assert json.loads((tmp_path / "out/skips.jsonl").read_text() or "[]") == []


@pytest.mark.slow
def test_workers_change_no_byte(tmp_path: Path) -> None:
    root = tmp_path / "src"
    raws = [apart(root, f"i{n}", n) for n in range(40)]
    one = prepare(source(raws, root), tmp_path / "one")
    two = prepare(source(raws, root), tmp_path / "two", workers=2)
    assert contents(one.folder) == contents(two.folder)
    spoken = [prepare(source(texts(4)), tmp_path / f"spoken{n}", voices=VOICES, workers=n) for n in (1, 2)]
    assert contents(spoken[0].folder) == contents(spoken[1].folder)
