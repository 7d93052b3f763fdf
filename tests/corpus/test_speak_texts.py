"""Catches bytes that depend on workers or kills, words without audio, and utterances that vanish without a reason."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from speechscale.cli.corpus_speak import speak_texts as command
from speechscale.corpus import speak_texts as module
from speechscale.corpus.imported import open_corpus
from speechscale.corpus.judge import PocketsphinxJudge, arpa_lines, prepare_judge, word_error_rate
from speechscale.corpus.speak_plan import SpeakOptions, plan_utterances
from speechscale.corpus.speak_texts import speak_texts
from speechscale.corpus.spoken_shards import Line, ShardJob, read_journal, speak_shard_job
from speechscale.corpus.texts import TextOptions
from speechscale.errors import DataError, StaleStep
from speechscale.files import held_alone
from speechscale.progress import Progress
from speechscale.records import NO_TIME, Utterance
from speechscale.skips import SkipLog
from speechscale.speech.audio import load_audio
from speechscale.voices import engines
from speechscale.voices.engines import Cast, VoiceOptions
from speechscale.voices.segments import EngineDown, OnError
from speechscale.voices.spoken import Spoken

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="the extra 'voices' is not installed"
)
needs_pocketsphinx = pytest.mark.skipif(
    importlib.util.find_spec("pocketsphinx") is None, reason="the extra 'align' is not installed"
)
STORIES = [f"Tom has {n} cats. He said, “cat {n} is mine!” They ran home -- fast. The end of {n}." for n in range(150)]


class Beeper:
    """An engine of beeps, one per word; `broken` texts fail, and it can be gone."""

    name, voices, sample_rate_hz = "beep", ("a", "b"), 16_000
    gives_word_times, gives_phone_times, deterministic = True, False, True
    gone_after = 10**9
    broken = "broken"
    said: list[str] = []  # noqa: RUF012

    def check_voice(self, voice: str) -> None:
        if voice not in self.voices:
            raise DataError(f"no voice '{voice}'; choose a or b")

    def voice_version(self, voice: str) -> str:
        return "1"

    def licence(self, voice: str) -> str:
        return "public domain"

    def speak(self, utterances: Sequence[Utterance], on_error: OnError | None) -> Iterator[Spoken]:
        for utterance in utterances:
            if len(self.said) >= self.gone_after:
                raise EngineDown("the server is gone; start it")
            if self.broken in utterance.text:
                assert on_error is not None
                on_error(utterance.id, "it cannot be said; write it otherwise")
                continue
            self.said.append(utterance.id)
            words = utterance.text.split()
            audio = np.full(1600 * len(words), 0.25 if utterance.speaker == "a" else -0.25, np.float32)
            spans = [(word, 1600 * i, 1600 * i + 1600) for i, word in enumerate(words)]
            yield Spoken(id=utterance.id, audio=audio, words=spans, phones=[])


@pytest.fixture(autouse=True)
def beeper(monkeypatch: pytest.MonkeyPatch) -> type[Beeper]:
    class Fresh(Beeper):
        said: list[str] = []  # noqa: RUF012

    monkeypatch.setitem(engines.ENGINES, "beep", lambda options: Fresh())
    return Fresh


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 8 utterances, so that few texts make several."""
    monkeypatch.setattr(module, "SHARD_UTTERANCES", 8)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "tales.txt"
    path.write_text("\n<|endoftext|>\n".join(STORIES), encoding="utf-8")
    return path


BEEPS = ("beep:a", "beep:b")


def beeps(**changes: Any) -> SpeakOptions:
    return SpeakOptions(**{"voices": BEEPS, **changes})


def folder_hash(folder: Path) -> str:
    """All files of a folder with their names, empty folders too."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


@needs_espeak
def test_a_spoken_corpus_has_every_word_with_its_time_and_sound(texts: Path, tmp_path: Path) -> None:
    options = SpeakOptions(voices=("us-f2", "gb-m3"), voice_per="round-robin", documents=3, text_licence="CC0")
    speak_texts(texts, tmp_path / "out", options)
    corpus = open_corpus(tmp_path / "out")
    utterances = list(corpus.utterances())
    assert [u.speaker for u in utterances] == ["us-f2", "gb-m3", "us-f2"]
    for utterance, story in zip(utterances, STORIES, strict=False):
        assert [word.text for word in utterance.words] == story.split() == utterance.text.split()
        assert (
            utterance.licence
            == f"voice: espeak-ng formant voice {utterance.speaker} (engine GPL-3.0-or-later); text: CC0"
        )
        loaded = load_audio(corpus.audio_root / utterance.audio)
        assert loaded.source_rate_hz == 16_000
        flat = [time for word in utterance.words for time in (word.start_s, word.end_s)]
        assert None not in flat
        assert flat == sorted(flat)
        assert 3 < flat[-1] <= len(loaded.audio) / 16_000
    assert corpus.info["by_voice"]["gb-m3"]["words"] == len(STORIES[1].split())
    # The loader of every later step reads the same words and samples.
    errors: list[str] = []
    spoken = list(corpus.loader()(utterances, lambda id, message: errors.append(message)))
    assert not errors
    assert [len(one.words) for one in spoken] == [len(story.split()) for story in STORIES[:3]]


@needs_espeak
@pytest.mark.slow
def test_one_and_two_workers_give_the_same_folder(texts: Path, tmp_path: Path) -> None:
    options = SpeakOptions(voices=("us-f2", "gb-m3", "us-m1"), documents=140, hours=0.12)
    speak_texts(texts, tmp_path / "one", options)
    speak_texts(texts, tmp_path / "two", options, workers=2)
    assert folder_hash(tmp_path / "one") == folder_hash(tmp_path / "two")
    assert open_corpus(tmp_path / "one").info["hours"] == pytest.approx(0.12, abs=0.01)


SCRIPT = "import sys; from speechscale.cli import main; sys.argv[0] = 'speechscale'; main()"


@needs_espeak
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(workers: int, texts: Path, tmp_path: Path) -> None:
    """kill -9 at several moments; then the same command in the same folder."""
    arguments = ["corpus", "speak", str(texts), str(tmp_path / "killed"), "--voices", "us-f2,gb-m3", "--seed", "3"]
    arguments += ["--documents", "140", "--workers", str(workers)]
    reached = []
    for lines in (1, 30, 90):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline and _lines(tmp_path / "killed") < lines:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        reached.append(_lines(tmp_path / "killed"))
        assert not (tmp_path / "killed" / "corpus.json").exists()
    assert 1 <= reached[0] < reached[-1] < 140
    subprocess.run([sys.executable, "-c", SCRIPT, *arguments], check=True, stderr=subprocess.DEVNULL)
    speak_texts(
        texts, tmp_path / "whole", SpeakOptions(voices=("us-f2", "gb-m3"), documents=140, seed=3, hours=None), workers=1
    )
    assert folder_hash(tmp_path / "killed") == folder_hash(tmp_path / "whole")


def _lines(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in out.glob("journal/*.jsonl"))


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("damage", ["torn line", "lost audio", "draft", "stray"])
def test_what_a_kill_leaves_is_repaired(damage: str, beeper: type[Beeper], texts: Path, tmp_path: Path) -> None:
    speak_texts(texts, tmp_path / "whole", beeps(documents=12))
    out = tmp_path / "out"
    speak_texts(texts, out, beeps(documents=12))
    (out / "corpus.json").unlink()
    journal = out / "journal" / "000000.jsonl"
    lost = 1
    if damage == "torn line":
        journal.write_bytes(journal.read_bytes()[:-7])
    elif damage == "lost audio":
        (out / "audio" / "000000" / "tales-0000005.flac").unlink()
    elif damage == "draft":
        (out / "audio" / "000000" / ".tales-0000003.flac.12-ab.tmp").write_bytes(b"half")
        (out / "journal" / ".000001.jsonl.12-ab.tmp").write_bytes(b"half")
        (out / ".utterances.parquet.12-ab.tmp").write_bytes(b"half")
        lost = 0
    else:
        (out / "audio" / "000001" / "tales-0000099.flac").write_bytes(b"audio without a line")
        lost = 0
    beeper.said.clear()
    speak_texts(texts, out, beeps(documents=12))
    assert len(beeper.said) == lost
    assert folder_hash(out) == folder_hash(tmp_path / "whole")


@pytest.mark.usefixtures("small_shards")
def test_a_finished_folder_is_left_alone(beeper: type[Beeper], texts: Path, tmp_path: Path) -> None:
    speak_texts(texts, tmp_path / "out", beeps(hours=0.01))
    before = folder_hash(tmp_path / "out")
    beeper.said.clear()
    corpus = speak_texts(texts, tmp_path / "out", beeps(hours=0.01))
    assert not beeper.said
    assert folder_hash(tmp_path / "out") == before
    assert corpus.info["hours"] >= 0.01


@pytest.mark.usefixtures("small_shards")
def test_hours_end_with_the_utterance_that_reaches_them_and_grow_later(
    beeper: type[Beeper], texts: Path, tmp_path: Path
) -> None:
    """Catches hours that depend on shards, and an extension that differs from one long run."""
    corpus = speak_texts(texts, tmp_path / "out", beeps(hours=0.01))
    samples = [round(u.words[-1].end_s * 16_000) for u in corpus.utterances() if u.words[-1].end_s]
    assert sum(samples[:-1]) < 0.01 * 3600 * 16_000 <= sum(samples)
    first = {u.id for u in corpus.utterances()}
    assert len(list((tmp_path / "out" / "audio").rglob("*.flac"))) == len(first)
    beeper.said.clear()
    speak_texts(texts, tmp_path / "out", beeps(hours=0.014))
    assert not first & set(beeper.said)
    speak_texts(texts, tmp_path / "long", beeps(hours=0.014))
    assert folder_hash(tmp_path / "out") == folder_hash(tmp_path / "long")
    with pytest.raises(DataError, match=r"holds 0\.014 hours"):
        speak_texts(texts, tmp_path / "out", beeps(hours=0.005))


def test_another_recipe_is_refused_with_what_differs(texts: Path, tmp_path: Path) -> None:
    speak_texts(texts, tmp_path / "out", beeps(documents=3))
    with pytest.raises(StaleStep, match="seed: 0 -> 1"):
        speak_texts(texts, tmp_path / "out", beeps(documents=3, seed=1))
    texts.write_text("Other words.")
    with pytest.raises(StaleStep, match="texts: "):
        speak_texts(texts, tmp_path / "out", beeps(documents=3))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").write_text("x")
    with pytest.raises(DataError, match=r"other files in it \(thesis.doc\)"):
        speak_texts(texts, tmp_path / "mine", beeps(documents=3))
    assert (tmp_path / "mine" / "thesis.doc").exists()


def test_two_runs_in_one_folder_are_refused(texts: Path, tmp_path: Path) -> None:
    with held_alone(tmp_path / "out", "is speaking into it"), pytest.raises(DataError, match="another run"):
        speak_texts(texts, tmp_path / "out", beeps())


def test_every_drop_has_a_reason_and_nothing_is_lost(beeper: type[Beeper], tmp_path: Path) -> None:
    texts = tmp_path / "t.txt"
    texts.write_bytes(b"One fine.\n\n***\n\nThis is broken.\n\nCaf\xe9.\n\nLast one.\n\n...")
    corpus = speak_texts(texts, tmp_path / "out", beeps())
    assert [u.id for u in corpus.utterances()] == ["t-0000000", "t-0000004"]
    rows = [json.loads(line) for line in (tmp_path / "out" / "skips.jsonl").read_text().splitlines()]
    reasons = {row["id"]: (row["reason"], row["remedy"]) for row in rows}
    assert reasons.keys() == {"t-0000001", "t-0000002", "t-0000003", "t-0000005"}
    assert reasons["t-0000002"] == ("it cannot be said", "write it otherwise")
    assert (corpus.info["utterances"], corpus.info["dropped"]) == (2, 4)
    assert sum(row["dropped"] for row in corpus.info["by_voice"].values()) == 1


def test_on_error_stop_stops_and_skipped_ones_can_be_tried_again(beeper: type[Beeper], tmp_path: Path) -> None:
    texts = tmp_path / "t.txt"
    texts.write_text("One.\n\nA broken one.\n\nThree.")
    with pytest.raises(DataError, match="utterance t-0000001: it cannot be said"):
        speak_texts(texts, tmp_path / "stop", beeps(on_error="stop"))
    speak_texts(texts, tmp_path / "skip", beeps())
    beeper.broken = "nothing"
    speak_texts(texts, tmp_path / "again", beeps())
    corpus = speak_texts(texts, tmp_path / "skip", beeps(retry_skipped=True))
    assert corpus.info["dropped"] == 0
    assert folder_hash(tmp_path / "skip") == folder_hash(tmp_path / "again")


@pytest.mark.usefixtures("small_shards")
def test_an_engine_that_goes_away_stops_and_the_next_run_goes_on(
    beeper: type[Beeper], texts: Path, tmp_path: Path
) -> None:
    beeper.gone_after = 20
    with pytest.raises(DataError, match="the server is gone") as caught:
        speak_texts(texts, tmp_path / "out", beeps(documents=30))
    assert type(caught.value) is DataError  # Which the command line tells without a traceback.
    assert _lines(tmp_path / "out") == 20
    beeper.gone_after = 10**9
    beeper.said.clear()
    speak_texts(texts, tmp_path / "out", beeps(documents=30))
    assert len(beeper.said) == 10


def test_words_without_time_stay_without(monkeypatch: pytest.MonkeyPatch, texts: Path, tmp_path: Path) -> None:
    class Timeless(Beeper):
        def speak(self, utterances: Sequence[Utterance], on_error: OnError | None) -> Iterator[Spoken]:
            for one in super().speak(utterances, on_error):
                words = [(word, NO_TIME, NO_TIME) for word, _, _ in one.words]
                yield Spoken(id=one.id, audio=one.audio, words=words, phones=[])

    monkeypatch.setitem(engines.ENGINES, "beep", lambda options: Timeless())
    corpus = speak_texts(texts, tmp_path / "out", beeps(documents=2, audio_format="wav"))
    assert all(word.start_s is None for u in corpus.utterances() for word in u.words)
    assert [row["timed_words"] for row in corpus.info["by_voice"].values()] == [0, 0]
    assert all(u.audio.endswith(".wav") for u in corpus.utterances())


def plan(texts: Path, **changes: Any) -> list[Utterance]:
    return [utterance for utterance, _ in plan_utterances(texts, beeps(**changes), BEEPS, SkipLog())]


def test_voices_are_drawn_by_document_or_utterance(texts: Path) -> None:
    turns = plan(texts, voice_per="round-robin", max_words=8)
    assert [u.speaker for u in turns[:4]] == ["beep:a", "beep:b"] * 2
    by_document: dict[str, set[str]] = {}
    for utterance in plan(texts, max_words=8):
        by_document.setdefault(utterance.id.split("-p")[0], set()).add(utterance.speaker)
    assert len(by_document) == 150
    assert all(len(speakers) == 1 for speakers in by_document.values())
    drawn = plan(texts, voice_per="random", max_words=8)
    assert 0.4 < np.mean([u.speaker == "beep:a" for u in drawn]) < 0.6
    assert [u.speaker for u in drawn] != [u.speaker for u in plan(texts, voice_per="random", max_words=8, seed=1)]


@given(st.integers(1, 40))
def test_long_documents_are_cut_and_no_word_is_lost(max_words: int) -> None:
    path = Path(__file__)
    options = beeps(max_words=max_words, texts=TextOptions(format="paragraphs"), documents=5)
    log = SkipLog()
    planned = [u for u, _ in plan_utterances(path, options, BEEPS, log)]
    blocks = path.read_text(encoding="utf-8").split("\n\n")[:5]
    assert " ".join(u.text for u in planned).split() == " ".join(blocks).split()
    assert all(len(u.text.split()) <= max(max_words, 60) for u in planned)
    assert len({u.id for u in planned}) == len(planned)


def test_a_document_limit_counts_dropped_ones_and_no_later_ones(tmp_path: Path) -> None:
    texts = tmp_path / "t.txt"
    texts.write_text("***\n\nOne.\n\n---\n\n...\n\nTwo.")
    for limit, kept, dropped in ((1, 0, 1), (2, 1, 1), (3, 1, 2), (9, 2, 3)):
        log = SkipLog()
        planned = list(plan_utterances(texts, beeps(documents=limit), BEEPS, log))
        assert (len(planned), len(log)) == (kept, dropped), limit


def _half(audio: np.ndarray, text: str) -> float:
    return 0.6 if "7" in text else 0.1


def test_a_judge_drops_what_it_does_not_understand(texts: Path, tmp_path: Path) -> None:
    corpus = speak_texts(texts, tmp_path / "out", beeps(documents=9, max_wer=0.5), judge=_half)
    assert corpus.info["dropped"] == 1
    skip = json.loads((tmp_path / "out" / "skips.jsonl").read_text())
    assert skip["reason"] == "word error rate 0.6 is above 0.5"
    assert not (tmp_path / "out" / "audio" / "000000" / "tales-0000007.flac").exists()
    assert {row["mean_wer"] for row in corpus.info["by_voice"].values()} == {0.1}


@given(st.lists(st.sampled_from("abc"), max_size=7), st.lists(st.sampled_from("abc"), max_size=7))
def test_word_error_rate_is_the_edit_distance(reference: list[str], heard: list[str]) -> None:
    table = np.zeros((len(reference) + 1, len(heard) + 1))
    table[:, 0], table[0] = range(len(reference) + 1), range(len(heard) + 1)
    for i, a in enumerate(reference, 1):
        for j, b in enumerate(heard, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a != b))
    expected = table[-1, -1] / len(reference) if reference else float(bool(heard))
    assert word_error_rate(reference, heard) == expected


@needs_espeak
@needs_pocketsphinx
@pytest.mark.slow
def test_pocketsphinx_understands_the_right_text_better_than_another(tmp_path: Path) -> None:
    """Also: what was judged before does not matter."""
    sentences = ["The cat sat on the mat.", "A dog ran home in the rain.", "She had 12 red balls."]
    judge = prepare_judge(tmp_path, iter(sentences))
    assert isinstance(judge, PocketsphinxJudge)
    said = [Utterance(id=s, text=s, speaker="us-f2", split="", segments=(s,)) for s in sentences]
    audio = [one.audio for one in Cast(["us-f2"]).speak(said)]
    right = [judge(sound, text) for sound, text in zip(audio, sentences, strict=True)]
    wrong = [judge(sound, text) for sound, text in zip(audio, sentences[::-1], strict=True)]
    assert max(right) < 0.35
    assert wrong[0] > 0.6
    assert [judge(sound, text) for sound, text in zip(audio[::-1], sentences[::-1], strict=True)] == right[::-1]
    assert (tmp_path / "words.arpa").read_text().startswith("\\data\\")


def test_bigram_model_sums_to_one() -> None:
    """Catches a backoff that loses probability."""
    words = ["<s>", "a", "b", "a", "c", "</s>"]
    one, two = Counter(words), Counter(pairwise(words))
    lines = [line.split("\t")[0].split() for line in "".join(arpa_lines(one, two)).splitlines()]
    singles = {
        row[1]: (10 ** float(row[0]), 10 ** float(row[2]))
        for row in lines
        if len(row) == 3 and row[1] in one and row[2] not in one
    }
    pairs = {(row[1], row[2]): 10 ** float(row[0]) for row in lines if len(row) == 3 and (row[1], row[2]) in two}
    for first in ("<s>", "a", "b", "c"):
        total = sum(
            pairs.get((first, second), singles[first][1] * singles[second][0]) for second in one if second != "<s>"
        )
        assert total == pytest.approx(1, abs=1e-3)


def test_journal_lines_come_back(tmp_path: Path) -> None:
    for line in (
        Line(id="a", samples=5, times=((0, 2), (-1, -1)), wer=0.25),
        Line(id="b", reason="é; x", remedy="drop"),
    ):
        assert Line.load(line.dump()) == line


def test_a_shard_of_another_plan_is_not_believed(texts: Path, tmp_path: Path) -> None:
    job = ShardJob(audio=tmp_path / "a", journal=tmp_path / "j", addresses=BEEPS, options=VoiceOptions())
    shard = plan(texts)[:4]
    speak_shard_job(Cast(BEEPS), job, 0, shard[:2])
    speak_shard_job(Cast(BEEPS), job, 0, shard[1:])
    assert [line.id for line in read_journal(tmp_path / "j", 0)] == [u.id for u in shard[1:]]
    assert sorted(path.stem for path in (tmp_path / "a" / "000000").iterdir()) == [u.id for u in shard[1:]]


def test_progress_tells_share_and_speech_of_this_run(texts: Path, tmp_path: Path) -> None:
    """What an earlier run spoke is done, but says nothing about speed."""
    told: list[Progress] = []
    corpus = speak_texts(texts, tmp_path / "out", beeps(), watch=told.append)
    assert len(told) == 3
    assert told[-1].share is not None
    assert told[-1].share > 0.8
    assert (told[-1].items_done, told[-1].items_kept) == (corpus.info["utterances"], 0)
    assert told[-1].audio_s == pytest.approx(corpus.info["hours"] * 3600, abs=0.01)
    again: list[Progress] = []
    (tmp_path / "out" / "corpus.json").unlink()
    speak_texts(texts, tmp_path / "out", beeps(), watch=again.append)
    assert (again[-1].items_done, again[-1].items_kept, again[-1].audio_s) == (0, told[-1].items_done, 0.0)
    assert again[-1].left_s is None


def test_command_line_speaks_and_tells_what_is_missing(texts: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke(
        command,
        [str(texts), str(tmp_path / "out"), "--voices", "beep:a, beep:b", "--documents", "4", "--max-seconds", "4"],
    )
    assert run.exit_code == 0, run.output
    assert "8 utterances, 0 dropped" in run.output
    assert "beep:a" in run.output
    refused = CliRunner().invoke(command, [str(texts), str(tmp_path / "x"), "--voices", "us-f2", "--max-wer", "0.3"])
    assert "--judge pocketsphinx" in str(refused.exception)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"voice_per": "day"}, "voice_per"),
        ({"audio_format": "mp3"}, "audio_format"),
        ({"hours": 0.0}, "positive"),
        ({"max_words": 0}, "max_words"),
        ({"judge": "me"}, "judge"),
    ],
)
def test_options_that_cannot_be_are_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(DataError, match=what):
        beeps(**changes)
