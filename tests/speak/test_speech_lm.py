"""Would catch: a lost direction, markers that a user can type, parts that do not fit, sound at the wrong time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import speechscale
from speechscale.errors import DataError
from speechscale.model.folders import save_model
from speechscale.speak.prompts import prompt_of
from speechscale.speak.speech_lm import SpeechLM
from speechscale.speech.units import SpeechTokenizer, phone_tokenizer
from speechscale.tokens.vocabulary import Vocabulary
from tests.speak.conftest import RATE, tones

TEXT = "tom ran . he won"
EOS, SPEECH, MARK_TEXT = 0, 20, 21


@pytest.mark.parametrize("into", ["speech", "text", "free"])
@pytest.mark.parametrize("kind", ["speech", "text"])
def test_every_direction(slm: SpeechLM, recording: Path, kind: str, into: Any) -> None:
    source = recording if kind == "speech" else TEXT
    said = slm.continue_(source, into, max_new_tokens=40, temperature=2.0, stop="never", seed=1)
    assert len(said.ids) == 40
    modalities = {span.modality for span in said.spans}
    assert modalities == ({"speech", "text"} if into == "free" else {into})
    assert said.prompt.kind == kind
    assert (len(said.prompt_units) > 0) == (kind == "speech")
    assert (len(said.audio) > 0) == (into != "text")
    assert [span.units for span in said.spans if span.units] or into == "text"
    assert bool(said.text) == (into != "speech")


def test_prompts_open_as_in_training(slm: SpeechLM, recording: Path) -> None:
    units = slm.units(recording) + 10
    words = slm.vocabulary.encode_words(TEXT.split()).flat
    alone = slm.vocabulary.encode_text([TEXT]).flat
    expected = {
        ("speech", "speech"): [EOS, *units],
        ("speech", "text"): [EOS, SPEECH, *units, MARK_TEXT],
        ("speech", "free"): [EOS, SPEECH, *units],
        ("text", "text"): [EOS, *alone],
        ("text", "speech"): [EOS, MARK_TEXT, *words, SPEECH],
        ("text", "free"): [EOS, MARK_TEXT, *words],
    }
    for (kind, into), ids in expected.items():
        assert slm.encode(recording if kind == "speech" else TEXT, into).tolist() == ids  # type: ignore[arg-type]
    assert slm.decode(expected["text", "speech"]) == "<eos> <text> tom ran . he won <speech>"


def test_a_typed_marker_is_text(make_model: Callable[..., Any], slm: SpeechLM) -> None:
    letters = Vocabulary.from_pretrained(_letters(), 10)
    typed = replace(slm, vocabulary=letters, model=make_model(vocab_size=letters.size))
    ids = typed.encode("a<speech><Un3><eos>b", "text")
    assert ids[0] == letters.eos_id
    assert (ids[1:] < letters.unit_start).all()
    assert letters.eos_id not in ids[1:]
    assert letters.text_tokenizer.decode(ids[1:].tolist()).replace(" ", "") == "a<speech><Un3><eos>b"
    with pytest.raises(DataError, match="does not know '<speech>'"):
        slm.encode("tom <speech> ran")


def _letters() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i + 1 for i, letter in enumerate(alphabet)} | {"<eos>": 0}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<eos>"])
    return _saved(tokenizer)


def _saved(tokenizer: Any) -> Path:
    import tempfile

    path = Path(tempfile.mkdtemp()) / "tokenizer.json"
    path.write_text(tokenizer.to_str())
    (path.parent / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>"}))
    return path.parent


def test_sound_is_that_of_the_units_and_spans_know_when(slm: SpeechLM, recording: Path) -> None:
    assert slm.vocoder is not None
    said = slm.continue_(recording, "speech", max_new_tokens=30, seed=2)
    whole = np.concatenate([said.prompt_units, said.units])
    assert np.array_equal(said.audio, slm.vocoder.synthesize(whole))
    (span,) = said.spans
    assert span.start_s == said.prompt_s
    assert span.end_s == pytest.approx(said.seconds)
    durations = slm.vocoder.predict_durations(whole)
    share = durations[: len(said.prompt_units)].sum() / durations.sum()
    assert said.prompt_s == pytest.approx(share * said.seconds)
    free = slm.continue_(TEXT, "free", max_new_tokens=60, temperature=2.0, stop="never", seed=3)
    timed = [(s.start_s, s.end_s) for s in free.spans if s.modality == "speech"]
    assert len(timed) > 1
    for (_, end), (start, _) in itertools.pairwise(timed):
        assert start == pytest.approx(end + 0.2, abs=1e-3), "text between: a pause"
    assert timed[-1][1] == pytest.approx(free.seconds)


def test_streaming_gives_what_continuing_gives(slm: SpeechLM, recording: Path) -> None:
    for source, into in ((recording, "speech"), (TEXT, "speech"), (recording, "free"), (TEXT, "text")):
        settings: dict[str, Any] = {"max_new_tokens": 60, "seed": 5, "temperature": 1.5}
        chunks = list(slm.stream(source, into, **settings))  # type: ignore[arg-type]
        said = slm.continue_(source, into, **settings)  # type: ignore[arg-type]
        assert tuple(id for chunk in chunks for id in chunk.ids) == said.ids
        assert np.array_equal(np.concatenate([chunk.units for chunk in chunks]), said.units)
        assert np.array_equal(np.concatenate([chunk.audio for chunk in chunks]), said.audio)
        assert "".join(chunk.text for chunk in chunks).split() == said.text.split()
        assert chunks[-1].ended == said.ended
        assert all(len(chunk.ids) == 1 for chunk in chunks[:-1] if not chunk.prompt)


def test_a_prompt_need_not_be_heard(slm: SpeechLM, recording: Path) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 60, "seed": 5, "stop": "never"}
    both, alone = (slm.continue_(recording, prompt_sound=sound, **settings) for sound in (True, False))
    assert slm.vocoder is not None
    assert both.ids == alone.ids
    assert np.array_equal(alone.audio, slm.vocoder.synthesize(alone.units))
    assert (alone.prompt_s, alone.spans[0].start_s) == (0.0, 0.0)
    chunks = list(slm.stream(recording, prompt_sound=False, **settings))
    assert not any(chunk.prompt for chunk in chunks)
    assert np.array_equal(np.concatenate([chunk.audio for chunk in chunks]), alone.audio)
    pieces = [chunk for chunk in slm.stream(recording, **settings) if chunk.prompt]
    assert sum(len(chunk.audio) > 0 for chunk in pieces) > 1, "a long prompt is heard little by little"


def test_scores_are_those_of_the_whole_softmax(slm: SpeechLM, recording: Path) -> None:
    ids = slm.encode(TEXT, "text")
    with torch.inference_mode():
        logs = torch.log_softmax(slm.model(input_ids=torch.from_numpy(ids)[None]).logits[0].double(), -1)
    expected = float(sum(logs[i, ids[i + 1]] for i in range(len(ids) - 1)))
    found = slm.score(TEXT)
    assert found.log_likelihood_nats == pytest.approx(expected, abs=1e-4)
    assert (found.tokens, found.units) == (len(ids) - 1, 0)
    assert found.nats_per_token == pytest.approx(-expected / (len(ids) - 1), abs=1e-5)
    behind = slm.score("he won", given=recording)
    assert (behind.tokens, behind.units) == (2, 0)
    heard = slm.score(recording, given=TEXT)
    assert heard.units == heard.tokens == len(slm.units(recording))
    assert heard.log_likelihood_nats != slm.score(recording).log_likelihood_nats


def test_without_a_vocoder_units_and_text_remain(slm: SpeechLM, recording: Path, tmp_path: Path) -> None:
    said = replace(slm, vocoder=None).continue_(recording, "free", max_new_tokens=20, seed=1)
    assert len(said.ids) > 0
    assert not len(said.audio)
    assert any("no vocoder" in note for note in said.notes)
    with pytest.raises(DataError, match="no sound to write"):
        said.save(tmp_path / "x.wav")


def test_odd_sounds_are_continued_or_refused(slm: SpeechLM) -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, RATE).astype(np.float32)
    for sound in (np.zeros(RATE, np.float32), noise, tones(0.1, 0), 1e-9 * noise):
        assert len(slm.continue_(sound, "speech", max_new_tokens=5, stop="never").units) == 5
    with pytest.raises(DataError, match="shorter than one frame"):
        slm.continue_(tones(0.01, 0))
    with pytest.raises(DataError, match="give finite mono samples"):
        slm.continue_(np.full(RATE, np.nan))
    with pytest.raises(DataError, match="give finite mono samples"):
        slm.continue_(np.zeros((2, RATE)))
    with pytest.raises(DataError, match="the text is empty"):
        slm.continue_("  ")
    with pytest.raises(DataError, match=r"no\.wav"):
        slm.continue_("no.wav")


def test_a_prompt_of_ten_minutes(slm: SpeechLM) -> None:
    long = tones(600.0, 1)
    with pytest.raises(DataError, match=r"do not fit the model's context of 256; use its first seconds"):
        slm.continue_(long, "speech")
    short = slm.continue_(prompt_of(long, prompt_s=2.0), "speech", max_new_tokens=10, stop="never")
    assert short.prompt.notes == ("the first 2 s of 600.00 s",)
    assert 10 < len(short.prompt_units) < 60
    windowed = slm.continue_(prompt_of(long, prompt_s=20.0), "speech", max_new_tokens=300, stop="never", window=128)
    assert len(windowed.units) == 300


def test_parts_that_do_not_fit_are_named(
    slm: SpeechLM, folder: Path, make_model: Callable[..., Any], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    twelve = Vocabulary.textless(12)
    save_model(make_model(vocab_size=twelve.size), tmp_path / "a")
    twelve.save(tmp_path / "a")
    with pytest.raises(DataError, match=r"speech tokenizer .*: it has 10 units, the model's vocabulary 12"):
        SpeechLM.from_pretrained(tmp_path / "a", tokenizer=folder / "speech_tokenizer")
    with pytest.raises(DataError, match=r"vocoder .*: speaks 10 units, the vocabulary has 12"):
        SpeechLM.from_pretrained(tmp_path / "a", vocoder=folder / "vocoder")
    Vocabulary.textless(7).save(tmp_path / "a")
    with pytest.raises(DataError, match=r"the model has 13 ids, vocabulary\.json 8"):
        SpeechLM.from_pretrained(tmp_path / "a")
    (tmp_path / "a" / "vocabulary.json").unlink()
    with pytest.raises(DataError, match=r"a model without vocabulary\.json"):
        SpeechLM.from_pretrained(tmp_path / "a")
    with pytest.raises(DataError, match="no such folder"):
        SpeechLM.from_pretrained(tmp_path / "none")
    oracle = replace(slm, tokenizer=phone_tokenizer([f"p{i}" for i in range(9)]))
    with pytest.raises(DataError, match="no recording has; give a text"):
        oracle.continue_(tones(1.0, 0))
    with pytest.raises(DataError, match="which speech tokenizer makes this model's units is not known"):
        replace(slm, tokenizer=None).continue_(tones(1.0, 0))


def test_a_model_of_units_alone(make_model: Callable[..., Any], tools: Path, recording: Path) -> None:
    units = Vocabulary.textless(10)
    slm = SpeechLM(
        name="units",
        model=make_model(vocab_size=units.size),
        vocabulary=units,
        tokenizer=SpeechTokenizer.load(tools / "tokenizer"),
    )
    for into in ("speech", "free"):
        assert len(slm.continue_(recording, into, max_new_tokens=9, stop="never").units) == 9  # type: ignore[arg-type]
    with pytest.raises(DataError, match="knows no text"):
        slm.continue_(recording, "text")
    with pytest.raises(DataError, match="knows no text"):
        slm.continue_("tom ran", "speech")


def test_the_package_offers_it_and_stays_light() -> None:
    assert speechscale.SpeechLM is SpeechLM
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = speechscale.nothing_such


def test_seconds_become_tokens(slm: SpeechLM) -> None:
    assert slm.settings("speech", seconds=2.0).max_new_tokens == round(2 * slm.units_per_second)
    assert slm.settings("text").max_new_tokens == 60
    with pytest.raises(DataError, match="seconds 0"):
        slm.settings("speech", seconds=0.0)


def test_an_ending_is_spelled_as_behind_a_prompt(
    make_model: Callable[..., Any], slm: SpeechLM, recording: Path
) -> None:
    # Where blanks are tokens, a text behind a marker or another text begins with one, as in training.
    letters = Vocabulary.from_pretrained(_letters(), 10)
    typed = replace(slm, vocabulary=letters, model=make_model(vocab_size=letters.size))
    for given in (recording, "tom"):
        ids = np.concatenate([typed.encode(given, "text"), letters.encode_text([" ran on"]).flat])
        with torch.inference_mode():
            logs = torch.log_softmax(typed.model(input_ids=torch.from_numpy(ids)[None]).logits[0].double(), -1)
        expected = float(sum(logs[i - 1, ids[i]] for i in range(len(ids) - 7, len(ids))))
        found = typed.score("ran on", given=given)
        assert found.tokens == 7
        assert found.log_likelihood_nats == pytest.approx(expected, abs=1e-3)
    units = slm.units(recording)
    behind = slm.score(prompt_of(recording), given=prompt_of(recording))
    assert behind.units == len(units) - int(units[0] == units[-1])


def test_no_endless_seconds(slm: SpeechLM) -> None:
    for seconds in (float("inf"), float("nan"), 0.0):
        with pytest.raises(DataError, match="seconds"):
            slm.continue_(TEXT, seconds=seconds)
