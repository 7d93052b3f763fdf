"""Catches words invented in silence, transcripts that depend on neighbors or shift, and a recognizer that runs code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from speechscale.errors import DataError
from speechscale.evals.generation.heard_words import words_heard
from speechscale.evals.generation.transcribe import PipelineTranscriber, open_transcriber, problem_of, transcribe
from speechscale.evals.weights import weights_sha256
from speechscale.records import Utterance
from speechscale.voices.espeak import speak_shard

RATE = 16_000
SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|transcribe|>", "<|translate|>"]
SPECIAL += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
SPECIAL += [f"<|{tick / 50:.2f}|>" for tick in range(1501)]


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


class Counting:
    """A recognizer that says how long each waveform is, and what it was shown."""

    def __init__(self) -> None:
        self.shown: list[int] = []

    def stamp(self) -> dict[str, Any]:
        return {"asr": "counting"}

    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        self.shown += [len(waveform) for waveform in waveforms]
        return [f" {len(waveform)} " for waveform in waveforms]


def test_silence_is_reported_and_shifts_nobody() -> None:
    recognizer = Counting()
    sounds = [noise(0.5), np.zeros(8000, np.float32), noise(0.01), np.zeros(0, np.float32), noise(0.25)]
    heard = list(transcribe(recognizer, sounds, batch=2))
    assert [one.text for one in heard] == ["8000", "", "", "", "4000"]
    assert [one.problem for one in heard] == ["", "silence", "shorter than 0.1 s", "shorter than 0.1 s", ""]
    assert recognizer.shown == [8000, 4000]
    with pytest.raises(DataError, match="NaN or infinite"):
        problem_of(np.full(8000, np.nan, np.float32))


def test_a_recognizer_that_hears_nothing_or_loses_a_waveform_says_so() -> None:
    class Mute(Counting):
        def __call__(self, waveforms: Sequence[np.ndarray]) -> list[str]:
            return [""] * len(waveforms)

    class Losing(Counting):
        def __call__(self, waveforms: Sequence[np.ndarray]) -> list[str]:
            return ["x"] * (len(waveforms) - 1)

    assert [one.problem for one in transcribe(Mute(), [noise(0.5)])] == ["nothing was recognized"]
    with pytest.raises(DataError, match="fewer texts"):
        list(transcribe(Losing(), [noise(0.5), noise(0.5)]))


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Whisper of the real classes, 30 s of mel frames and all."""
    folder = tmp_path_factory.mktemp("whisper")
    alphabet = [chr(code) for code in range(ord("a"), ord("z") + 1)] + ["Ġ"]
    vocabulary = {token: index for index, token in enumerate([*alphabet, *SPECIAL])}
    tokenizer = WhisperTokenizer(vocab={t: i for t, i in vocabulary.items() if t in alphabet}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_mel_bins=8,
        max_target_positions=40,
        init_std=0.5,
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"],
        pad_token_id=ids["<|endoftext|>"],
        decoder_start_token_id=ids["<|startoftranscript|>"],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WhisperForConditionalGeneration(config)
    known = {
        "_from_model_config": False,
        "begin_suppress_tokens": None,
        "is_multilingual": True,
        "lang_to_id": {"<|en|>": ids["<|en|>"], "<|de|>": ids["<|de|>"]},
        "task_to_id": {"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "decoder_start_token_id": ids["<|startoftranscript|>"],
        "max_length": 16,
        "max_initial_timestamp_index": 50,
    }
    for name, value in known.items():  # `update` would leave out those that only Whisper has
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=8), tokenizer).save_pretrained(folder)
    return folder


def test_whisper_is_greedy_and_alone_with_each_waveform(whisper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = PipelineTranscriber(whisper, language="en")
    asked: list[dict[str, Any]] = []
    model = recognizer.pipe.model
    plain = model.generate
    monkeypatch.setattr(model, "generate", lambda *args, **more: asked.append(more) or plain(*args, **more))
    sounds = [noise(1.0, 1), np.zeros(RATE, np.float32), noise(2.0, 2)]
    first = list(transcribe(recognizer, sounds))
    assert first == list(transcribe(recognizer, sounds, batch=1))
    assert first[1].problem == "silence"
    assert all("<|" not in one.text for one in first)
    assert len(asked) == 4, "silence was shown to the recognizer"
    assert all(more["language"] == "en" and not more["do_sample"] for more in asked)
    (long,) = recognizer([noise(31.0)])  # beyond what Whisper hears at once
    assert "<|" not in long
    stamp = recognizer.stamp()
    assert (stamp["asr"], stamp["language"], len(stamp["sha256"])) == (whisper.name, "en", 64)


@pytest.mark.parametrize("seconds", [20.0, 31.0])
def test_whisper_times_words_where_its_config_names_the_heads(whisper: Path, seconds: float) -> None:
    """Which heads attend to sound is a fact of each released Whisper; without it no time may be made up."""
    recognizer = PipelineTranscriber(whisper, language="en")
    untimed = words_heard(recognizer, noise(seconds, 1), RATE)
    assert {word.start_s for word in untimed.words} == {None}
    assert untimed.note.endswith("gives no times of words: they have none")
    recognizer.pipe.model.generation_config.alignment_heads = [[0, 0], [0, 1]]
    recognizer.pipe.model.generation_config.median_filter_width = 3
    timed = words_heard(recognizer, noise(seconds, 1), RATE)
    assert timed.words
    assert timed.note == ""
    borders = [time for word in timed.words for time in (word.start_s, word.end_s)]
    assert borders == sorted(borders)
    assert 0 <= borders[0] < borders[-1] <= seconds


def test_a_ctc_model_is_opened_by_its_config(tmp_path: Path) -> None:
    vocabulary = tmp_path / "vocab.json"
    vocabulary.write_text('{"<pad>": 0, "<unk>": 1, "|": 2, "a": 3, "b": 4}')
    tokenizer = Wav2Vec2CTCTokenizer(str(vocabulary), pad_token="<pad>", unk_token="<unk>", word_delimiter_token="|")
    config = Wav2Vec2Config(
        vocab_size=5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8), conv_stride=(20, 16), conv_kernel=(20, 16), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Wav2Vec2ForCTC(config)
    model.save_pretrained(tmp_path / "ctc")
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(tmp_path / "ctc")
    recognizer = PipelineTranscriber(tmp_path / "ctc")
    (heard,) = recognizer([noise(0.5)])
    assert set(heard.replace("<unk>", "")) <= set("ab ")
    assert recognizer.stamp()["sha256"] == weights_sha256(model), "or other weights would get the kept transcripts"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "cannot be read"),
    ],
)
def test_folders_without_config_or_safetensors_are_refused(
    whisper: Path, tmp_path: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    """Weights that are pickled may run code when they are read."""
    for file in whisper.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        PipelineTranscriber(tmp_path)


def test_pocketsphinx_hears_the_words_of_its_texts(tmp_path: Path) -> None:
    texts = ["the small cat sleeps on the table.", "tom walked to the garden with ann."]
    with pytest.raises(DataError, match="--asr-texts"):
        open_transcriber("pocketsphinx", folder=tmp_path)
    recognizer = open_transcriber("pocketsphinx", folder=tmp_path / "a", texts=texts)
    utterances = [
        Utterance(id=str(i), text=text, speaker="us-m1", split="", segments=(text,)) for i, text in enumerate(texts)
    ]
    sounds = [spoken.audio for spoken in speak_shard(utterances, timeout_s=60.0, on_error=lambda *_: None)]
    heard = [one.text for one in transcribe(recognizer, [*sounds, sounds[0]])]
    assert heard[0] == heard[2], "what came before must not matter"
    assert heard[0].split()[-1] == "table"
    again = open_transcriber("pocketsphinx", folder=tmp_path / "b", texts=texts)
    assert recognizer.stamp() == again.stamp()
    other = open_transcriber("pocketsphinx", folder=tmp_path / "c", texts=texts[:1])
    assert recognizer.stamp()["language_model"]["sha256"] != other.stamp()["language_model"]["sha256"]
