"""Catches samples that change after a stop, metrics over the wrong span, prompts lost without a word, and NaN."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from speechscale.cli import cli
from speechscale.cli.eval_generate import generate as generate_command
from speechscale.corpus.imported import write_corpus
from speechscale.errors import DataError, StaleStep
from speechscale.evals.generation.generating import generate_samples
from speechscale.evals.generation.kept import Kept
from speechscale.evals.generation.listening import Heard, listen
from speechscale.evals.generation.llm_judge import ChatJudge
from speechscale.evals.generation.measures import Judged, unit_metrics, write_generation
from speechscale.evals.generation.perplexity import TextJudge
from speechscale.evals.generation.prompts import cut_prompt, open_prompts
from speechscale.evals.generation.samples import Sample, Sampling, Speaker
from speechscale.evals.generation.transcribe import Transcript
from speechscale.model.slm import save_model
from speechscale.records import NO_TIME, UnitTableBuilder, Utterance, Word, dedup
from speechscale.skips import SkipLog
from speechscale.speech.audio import load_audio, write_audio
from speechscale.speech.units import SpeechTokenizer, fit_tokenizer
from speechscale.speech.vocoder import Vocoder, train_vocoder
from speechscale.study.generating import Asked, _text_judge, _transcriber
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.voices.espeak import Spoken, speak_shard
from speechscale.voices.http_client import HttpClient

TEXTS = ["tom ran . he won rome .", "ann won . tom lost rome .", "he ran . ann lost .", "tom won . he ran . ann won ."]
SHORT = "tom"
RATE = 16_000
SAMPLING = Sampling(prompt_s=0.6, max_new=20, batch=2)


@pytest.fixture(scope="session")
def spoken() -> list[Spoken]:
    utterances = [
        Utterance(id=f"u{i}", text=text, speaker="us-m1", split="test", segments=tuple(f"{s}." for s in said))
        for i, text in enumerate([*TEXTS, SHORT])
        for said in [[piece.strip() for piece in text.split(".") if piece.strip()]]
    ]
    return list(speak_shard(utterances, timeout_s=60.0))


@pytest.fixture(scope="session")
def corpus(spoken: list[Spoken], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sentences with word times and one word that is shorter than any prompt."""
    folder = tmp_path_factory.mktemp("corpus")
    utterances = []
    for one, text in zip(spoken, [*TEXTS, SHORT], strict=True):
        write_audio(folder / "audio" / f"{one.id}.wav", one.audio, one.sample_rate_hz)
        words = tuple(
            Word(text=word, start_s=start / RATE, end_s=end / RATE)
            for word, start, end in one.words
            if NO_TIME not in (start, end)
        )
        said = text.replace(" .", "")
        utterances.append(
            Utterance(id=one.id, text=said, speaker="us-m1", split="test", words=words, audio=f"{one.id}.wav")
        )
    write_corpus(folder, utterances, audio_root=folder / "audio", info={}, skips=SkipLog())
    return folder


@pytest.fixture(scope="session")
def tools(spoken: list[Spoken], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tokenizer/ of ten units and vocoder/, hardly trained."""
    folder = tmp_path_factory.mktemp("tools")
    sounds = [one.audio for one in spoken]
    tokenizer = fit_tokenizer(sounds, encoder="mfcc", clusters=10, seed=0)
    tokenizer.save(folder / "tokenizer")
    table = UnitTableBuilder(frame_rate_hz=tokenizer.frame_rate_hz, num_units=10)
    for one, frames in zip(spoken, tokenizer.units(sounds), strict=True):
        units, durations = dedup(frames)
        table.add(
            id=one.id, speaker="a", split="train", text="", units=units, durations_frames=durations, words=[],
            word_frames=np.zeros((0, 2), np.int32),
        )  # fmt: skip
    samples = [len(frames) * RATE // round(tokenizer.frame_rate_hz) for frames in tokenizer.units(sounds)]
    cut = [np.resize(sound, length) for sound, length in zip(sounds, samples, strict=True)]
    train_vocoder(table.build(), cut, seed=0, steps=2, batch=2, crop_mel_frames=32).save(folder / "vocoder")
    return folder


@pytest.fixture
def speaker(vocabulary: Vocabulary, make_model: Callable[..., Any], tools: Path) -> Speaker:
    return Speaker(
        model=make_model(),
        vocabulary=vocabulary,
        tokenizer=SpeechTokenizer.load(tools / "tokenizer"),
        vocoder=Vocoder.load(tools / "vocoder"),
        name="tiny",
    )


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_same_seed_same_bytes_also_after_a_stop(speaker: Speaker, corpus: Path, tmp_path: Path) -> None:
    source = open_prompts(corpus)
    first, skips = generate_samples(speaker, source, SAMPLING, tmp_path / "a")
    assert [sample.id for sample in first] == ["u0", "u1", "u2", "u3"]
    assert (skips.ids, len(source.utterances)) == (["u4"], 5)
    assert "nothing is left behind a prompt of 0.6 s" in skips.first()
    generate_samples(speaker, source, SAMPLING, tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    # A stop in the middle of a batch: one of its two samples is kept, the last line is torn.
    kept = tmp_path / "b" / "generated.jsonl"
    lines = kept.read_bytes().splitlines(keepends=True)
    kept.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    again, _ = generate_samples(speaker, source, SAMPLING, tmp_path / "b")
    assert again == [Sample.from_record(json.loads(json.dumps(line))) for line in map(_value, lines[:4])]
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert len({sample.units for sample in first}) == 4, "each prompt has random numbers of its own"
    other, _ = generate_samples(speaker, source, replace(SAMPLING, seed=1), tmp_path / "c")
    assert [s.units for s in other] != [s.units for s in first]
    with pytest.raises(StaleStep, match="another sampling"):
        generate_samples(speaker, source, replace(SAMPLING, seed=1), tmp_path / "a")


def _value(line: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line)["value"]
    return found


def test_a_sample_is_prompt_and_continuation_as_units_and_as_sound(
    speaker: Speaker, corpus: Path, tmp_path: Path
) -> None:
    source = open_prompts(corpus, count=2, seed=3)
    samples, _ = generate_samples(speaker, source, SAMPLING, tmp_path)
    assert speaker.tokenizer is not None
    assert speaker.vocoder is not None
    for sample in samples:
        recording = load_audio(corpus / "audio" / f"{sample.id}.wav").audio
        heard = speaker.tokenizer.units([recording[: round(0.6 * RATE)], recording])
        assert sample.prompt_units == tuple(dedup(heard[0])[0].tolist())
        assert sample.reference_units == tuple(dedup(heard[1])[0].tolist())
        assert sample.reference_s == pytest.approx(len(recording) / RATE)
        whole = load_audio(tmp_path / sample.audio).audio
        made = speaker.vocoder.synthesize(np.array([*sample.prompt_units, *sample.units]))
        assert np.abs(whole - made).max() < 1e-4
        assert sample.seconds == pytest.approx(len(whole) / RATE)
        assert sample.seconds > sample.continuation_s > 0


def test_prompts_are_cut_at_the_nearest_word_end_or_at_seconds(corpus: Path) -> None:
    source = open_prompts(corpus)
    utterance = source.utterances[0]
    ends = [word.end_s for word in utterance.words if word.end_s is not None]
    at = (ends[1] + ends[2]) / 2 - 0.01
    by_word = cut_prompt(source, utterance, prompt_s=at, cut="word", rate_hz=RATE)
    assert by_word.cut_s == pytest.approx(ends[1], abs=1e-3)
    assert by_word.text == "tom ran."
    by_time = cut_prompt(source, utterance, prompt_s=at, cut="seconds", rate_hz=RATE)
    with pytest.raises(DataError, match="last word is the one nearest"):
        cut_prompt(source, utterance, prompt_s=ends[-1], cut="word", rate_hz=RATE)
    with pytest.raises(DataError, match="nothing is left behind a prompt"):
        cut_prompt(source, source.utterances[4], prompt_s=0.6, cut="seconds", rate_hz=RATE)
    assert (by_time.cut_s, len(by_time.audio)) == (pytest.approx(at, abs=1e-3), round(at * RATE))


def test_sources_of_prompts(corpus: Path, tmp_path: Path) -> None:
    audio = open_prompts(corpus / "audio")
    assert (audio.kind, [u.id for u in audio.utterances][:2]) == ("audio", ["u0.wav", "u1.wav"])
    drawn = open_prompts(corpus, count=3, seed=1)
    assert [u.id for u in drawn.utterances] == [u.id for u in open_prompts(corpus, count=3, seed=1).utterances]
    assert (len(drawn.utterances), drawn.read) == (3, 5)
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"id": "b", "text": "ann  ran"}\n\n{"id": "a", "text": "tom"}\n')
    assert [(u.id, u.text) for u in open_prompts(texts).utterances] == [("a", "tom"), ("b", "ann ran")]
    for line in ("{}", '{"text": " "}', "[]", '{"id": "b", "text": "x"}\n{"id": "b", "text": "y"}'):
        texts.write_text(line)
        with pytest.raises(DataError, match="line"):
            open_prompts(texts)
    with pytest.raises(DataError, match="nothing there in split train"):
        open_prompts(corpus, split="train")


def test_text_to_speech_and_speech_to_text(speaker: Speaker, corpus: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"id": "a", "text": "Tom ran ."}\n{"id": "b", "text": "zebra"}\n')
    source = open_prompts(texts)
    (sample,), skips = generate_samples(speaker, source, replace(SAMPLING, direction="ts"), tmp_path / "ts")
    assert (sample.prompt_text, sample.prompt_units, skips.ids) == ("Tom ran .", (), ["b"])
    assert sample.units
    assert sample.audio == sample.continuation_audio
    with pytest.raises(DataError, match="needs spoken prompts"):
        generate_samples(speaker, source, SAMPLING, tmp_path / "ss")
    spoken = open_prompts(corpus)
    samples, _ = generate_samples(speaker, spoken, replace(SAMPLING, direction="st"), tmp_path / "st")
    assert any(sample.text for sample in samples)
    assert all(sample.audio == "" and not sample.units for sample in samples)
    heard = listen(samples, spoken, tmp_path / "st", None, direction="st", span="whole")
    assert heard[0].whole is not None
    assert heard[0].whole.text == f"{samples[0].prompt_text} {samples[0].text}".strip()


def test_what_is_missing_is_said_before_anything_is_made(
    speaker: Speaker, corpus: Path, tmp_path: Path, vocabulary: Vocabulary
) -> None:
    source = open_prompts(corpus)
    textless, twelve = replace(speaker, vocabulary=Vocabulary.textless(10)), vocabulary.text_subset().with_units(12)
    for broken, sampling, message in (
        (replace(speaker, tokenizer=None), SAMPLING, "give --tokenizer"),
        (textless, replace(SAMPLING, direction="st"), "needs a model of speech and text"),
        (replace(speaker, vocabulary=twelve), SAMPLING, "tokenizer of 10 units, model of 12"),
        (speaker, replace(SAMPLING, max_new=250), "none of 5 prompts can be used"),
    ):
        with pytest.raises(DataError, match=message):
            generate_samples(broken, source, sampling, tmp_path / message.split()[0])
    for wrong in ({"max_new": 0}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_k": 0}):
        with pytest.raises(DataError, match=f"{next(iter(wrong))} {next(iter(wrong.values()))}"):
            Sampling(**wrong)  # type: ignore[arg-type]


def test_a_prompt_that_just_fits_the_context_is_taken(speaker: Speaker, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"id": "a\u2028b", "text": "tom ran\u2028."}\n', encoding="utf-8")  # one line of JSON
    just = replace(SAMPLING, direction="ts", max_new=256 - len(["<eos>", "<text>", "tom", "ran", ".", "<speech>"]))
    samples, _ = generate_samples(speaker, open_prompts(texts), just, tmp_path / "fits")
    assert [sample.prompt_text for sample in samples] == ["tom ran ."]
    with pytest.raises(DataError, match="do not fit the model's context of 256"):
        generate_samples(speaker, open_prompts(texts), replace(just, max_new=just.max_new + 1), tmp_path / "more")


def test_another_recording_under_the_same_name_is_another_prompt(
    speaker: Speaker, corpus: Path, tmp_path: Path
) -> None:
    shutil.copytree(corpus / "audio", tmp_path / "audio")
    generate_samples(speaker, open_prompts(tmp_path / "audio"), SAMPLING, tmp_path / "out")
    write_audio(tmp_path / "audio" / "u0.wav", load_audio(corpus / "audio" / "u1.wav").audio, RATE)
    with pytest.raises(StaleStep, match="another prompts"):
        generate_samples(speaker, open_prompts(tmp_path / "audio"), SAMPLING, tmp_path / "out")


def sample(**values: Any) -> Sample:
    base = {
        "id": "a", "number": 0, "cut_s": 1.0, "prompt_units": (1, 2), "prompt_text": "", "units": (3, 4, 3, 4),
        "text": "", "ended": True, "audio": "x", "seconds": 3.0, "continuation_s": 2.0, "reference_s": 5.0,
        "reference_units": (1, 2, 5, 6, 7), "reference_rest_units": (5, 6, 7),
    }  # fmt: skip
    return Sample(**{**base, **values})


def test_the_span_holds_for_units_and_time() -> None:
    samples = [sample(), sample(id="b", units=(), continuation_s=0.0)]
    whole, beside = unit_metrics(samples, Judged(direction="ss"))
    assert whole["duration_s"]["generated"]["estimate"] == 3.0
    assert whole["duration_s"]["reference"]["estimate"] == 5.0
    assert whole["units_per_s"]["generated"]["estimate"] == pytest.approx((6 / 3 + 2 / 3) / 2)
    assert whole["units_per_s"]["reference"]["estimate"] == pytest.approx(1.0)
    assert whole["auto_bleu_units"]["estimate"] == pytest.approx((2 / 5 + 0) / 2)
    assert beside["diversity"]["units"] == 10
    rest, beside = unit_metrics(samples, Judged(direction="ss", span="continuation"))
    assert rest["duration_s"]["generated"]["estimate"] == 2.0
    assert rest["duration_s"]["reference"]["estimate"] == 4.0
    assert (rest["auto_bleu_units"]["short"], rest["diversity"]["empty"]) == (1, 1)
    assert beside["diversity"]["units"] == 6
    assert rest["new_units"]["estimate"] == 2.0
    spoken, _ = unit_metrics(samples[:1], Judged(direction="ts"))
    assert spoken["duration_s"]["reference"]["estimate"] == 4.0, "behind a text there is no spoken prompt"


def test_nothing_is_recognized_twice(speaker: Speaker, corpus: Path, tmp_path: Path) -> None:
    class Recognizer:
        shown = 0

        def stamp(self) -> dict[str, Any]:
            return {"asr": "fake"}

        def __call__(self, waveforms: Any) -> list[str]:
            self.shown += len(waveforms)
            return [f"heard {len(waveform)}" for waveform in waveforms]

    recognizer, source = Recognizer(), open_prompts(corpus)
    samples, _ = generate_samples(speaker, source, SAMPLING, tmp_path)
    first = listen(samples, source, tmp_path, recognizer, direction="ss", span="whole")
    assert recognizer.shown == 8
    assert first == listen(samples, source, tmp_path, recognizer, direction="ss", span="whole")
    assert recognizer.shown == 8
    parts = listen(samples, source, tmp_path, recognizer, direction="ss", span="whole", parts=True)
    assert recognizer.shown == 12, "prompts are known by their words, continuations are not"
    for one, made in zip(parts, samples, strict=True):
        assert one.whole is not None
        assert one.continuation is not None
        assert one.whole.text == f"heard {round(made.seconds * RATE)}"
        assert one.continuation.text == f"heard {round(made.continuation_s * RATE)}"
    assert len(Kept(tmp_path / "transcripts.jsonl")) == 12
    silent = [replace(samples[0], units=(), prompt_units=(), audio="", continuation_audio="")]
    (none,) = listen(silent, source, tmp_path, recognizer, direction="ss", span="whole")
    assert none.whole is not None
    assert none.whole.problem == "no sound was made"


def test_grades_and_perplexities_stand_in_the_row_of_their_sample(
    vocabulary: Vocabulary, make_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One continuation is silence, one grade is refused: neither may shift the rest."""

    def post(client: HttpClient, body: dict[str, Any]) -> bytes:
        said = body["messages"][0]["content"].removeprefix("T ")
        prompt, continuation = said.split("|")
        assert (prompt, continuation) == (f"prompt {continuation[-1]}", f"words {continuation[-1]}")
        if continuation.endswith("2"):
            raise DataError("no; later")
        return json.dumps({"choices": [{"message": {"content": str(1 + int(continuation[-1]))}}]}).encode()

    monkeypatch.setattr(HttpClient, "post", post)
    judge = ChatJudge(base="https://x", model="m", kept=Kept(tmp_path / "j"), template="T {prompt}|{continuation}")
    samples = [sample(id=f"s{i}", number=i) for i in range(4)]
    texts = ["words 0", "", "words 2", "words 3"]
    heard = [
        Heard(
            whole=Transcript(text=f"prompt {i} {text}".strip()),
            continuation=Transcript(text=text, problem="" if text else "silence"),
            prompt=Transcript(text=f"prompt {i}"),
        )
        for i, text in enumerate(texts)
    ]
    lm = TextJudge(
        model=make_model(),
        encode=lambda said: [row.tolist() for row in vocabulary.encode_text(said).rows()],
        start_id=vocabulary.eos_id,
        context=256,
        name="tiny",
    )
    how = Judged(direction="ss", span="alone", judge=judge, lm=lm)
    content = write_generation(tmp_path, samples, heard, SkipLog(), how, recipe={}, asr=None)
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [row["judge"]["grade"] for row in rows] == [1, None, None, 4]
    assert [row["judge"]["problem"] for row in rows] == ["", "empty", "no; later", ""]
    assert [(row["lm"]["tokens"], row["lm"]["problem"]) for row in rows] == [(2, ""), (0, "empty"), (2, ""), (2, "")]
    assert content["metrics"]["perplexity"]["perplexity"]["n"] == 3
    assert [row["auto_bleu_words"] for row in rows] == [0.0, None, 0.0, 0.0]
    assert (content["metrics"]["judge"]["estimate"], content["metrics"]["judge"]["n"]) == (2.5, 2)
    assert content["metrics"]["transcripts"] == {"n": 4, "empty": 1, "empty_because": {"silence": 1}}
    assert content["metrics"]["words_per_s"]["generated"]["estimate"] == pytest.approx(3 * 2 / 2.0 / 4)


def test_the_recognizer_knows_the_whole_corpus_however_few_prompts_are_drawn(corpus: Path, tmp_path: Path) -> None:
    """Or its words, and with them every number on texts, would depend on --count."""
    one, every = (
        _transcriber(open_prompts(corpus, count=count), tmp_path, Asked(asr="pocketsphinx")) for count in (1, None)
    )
    assert one is not None
    assert every is not None
    assert one.stamp() == every.stamp()
    assert one.stamp()["language_model"]["sentences"] == 5


def test_a_run_is_a_language_model_too(vocabulary: Vocabulary, make_model: Callable[..., Any], tmp_path: Path) -> None:
    text = vocabulary.text_subset()
    save_model(make_model(vocab_size=text.size), tmp_path / "big" / "model")
    text.save(tmp_path / "big" / "model")
    stamps = [_text_judge(Asked(lm=str(tmp_path / name), device="cpu")).stamp() for name in ("big", "big/model")]
    assert (stamps[0]["lm"], stamps[0]["lm_sha256"]) == ("big", stamps[1]["lm_sha256"])


def test_what_will_fail_fails_before_anything_is_generated(
    vocabulary: Vocabulary, make_model: Callable[..., Any], corpus: Path, tools: Path, tmp_path: Path
) -> None:
    save_model(make_model(), tmp_path / "model")
    vocabulary.save(tmp_path / "model")
    (tmp_path / "texts").write_text("tom ran\n")
    said = ["--asr", "pocketsphinx", "--asr-texts", tmp_path / "texts", "--resynthesis"]
    for prompts, more, message in (
        (corpus / "audio", [*said, "--vocoder", tools / "vocoder"], "recordings with known words"),
        (corpus, said, "needs a vocoder and a recognizer"),
        (corpus / "audio", ["--direction", "st"], "the words of these prompts are not known"),
        (corpus, ["--lm", tmp_path / "model"], "name a recognizer"),
        (corpus, ["--judge", "http://127.0.0.1:9"], "--judge-model"),
        (corpus, ["--temperature", "nan"], "temperature nan"),
    ):
        command = ["eval", "generate", tmp_path / "model", "--prompts", prompts, "--tokenizer", tools / "tokenizer",
                   "--out", tmp_path / "out", "--prompt-s", "0.6", "--max-new", "5", *more]  # fmt: skip
        result = CliRunner().invoke(cli, list(map(str, command)))
        assert (result.exit_code, message in result.output) == (2, True), result.output
        assert not (tmp_path / "out" / "generated.jsonl").exists()


def test_the_command_asks_for_what_the_code_asks_for_by_default() -> None:
    """The command names its defaults itself, so that its help needs no torch."""
    given = {option.name: option.default for option in generate_command.params if option.name is not None}
    named = {"order": "auto_bleu_n", "orders": "auto_bleu_mean", "judge_url": "judge", "prices": "judge_prices"}
    default = Asked()
    wanted = {field.name: getattr(default, field.name) for field in fields(Asked) if field.name != "sampling"}
    wanted |= asdict(default.sampling)
    optional = {name for name, value in wanted.items() if value is None or value is False or value == ()}
    for name in wanted.keys() - optional:
        assert given[named.get(name, name)] == wanted[name], name
    assert {named.get(name, name) for name in wanted} <= given.keys()
    assert len(wanted) - len(optional) > 10


@pytest.mark.slow
def test_one_command_from_prompts_to_results(
    vocabulary: Vocabulary, make_model: Callable[..., Any], corpus: Path, tools: Path, tmp_path: Path
) -> None:
    model, lm, out = tmp_path / "model", tmp_path / "lm", tmp_path / "out"
    save_model(make_model(), model)
    vocabulary.save(model)
    text = vocabulary.text_subset()
    save_model(make_model(vocab_size=text.size), lm)
    text.save(lm)
    command = [
        "eval", "generate", model, "--prompts", corpus, "--tokenizer", tools / "tokenizer", "--vocoder",
        tools / "vocoder", "--out", out, "--prompt-s", "0.6", "--max-new", "20", "--asr", "pocketsphinx", "--lm", lm,
        "--resynthesis", "--device", "cpu",
    ]  # fmt: skip
    result = CliRunner().invoke(cli, list(map(str, command)))
    assert result.exit_code == 0, result.output
    assert "4 of 5 prompts" in result.output
    assert "1 dropped, skips.jsonl says why" in result.output
    saved = json.loads((out / "results.json").read_text(), parse_constant=lambda name: pytest.fail(f"holds {name}"))
    assert saved["counts"] == {"prompts": 5, "dropped": 1, "samples": 4, "ended_by_themselves": pytest.approx(2, abs=2)}
    metrics = saved["metrics"]
    assert {"diversity", "auto_bleu_words", "auto_bleu_units", "perplexity", "words_per_s", "units_per_s"} <= set(
        metrics
    )
    assert metrics["resynthesis"]["wer_original"]["n"] == 4
    assert metrics["resynthesis"]["wer_original"]["estimate"] < 1
    assert saved["reference"]["perplexity"]["perplexity"]["n"] == 4
    assert saved["stamp"]["asr"]["asr"] == "pocketsphinx"
    assert saved["stamp"]["recipe"]["sampling"]["top_k"] == 25
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["u0", "u1", "u2", "u3"]
    assert all((out / row["audio"]).is_file() for row in rows)
    before = files(out)
    assert CliRunner().invoke(cli, list(map(str, command))).exit_code == 0
    assert files(out) == before
    result = CliRunner().invoke(cli, [*map(str, command), "--seed", "1"])
    assert result.exit_code == 2
    assert "holds samples made with another" in result.output
