"""Catches words at wrong times, words invented in silence, guessed times, and words that no aligner's file can hold."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from types import SimpleNamespace
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
)

from speechscale.align.formats.reading import read_alignment
from speechscale.errors import DataError, MissingExtra
from speechscale.evals.generation.heard_words import WordsHeard, in_order, words_heard, write_words
from speechscale.evals.generation.transcribe import PipelineTranscriber, open_transcriber
from speechscale.records import Utterance, Word
from speechscale.speech.audio import resample
from speechscale.voices.espeak import speak_shard

RATE = 16_000
TEXTS = (
    "the small cat sleeps on the table.",
    "tom walked to the garden with ann.",
    "the old man gave the red ball to the happy dog.",
    "we found seven green apples under the big tree.",
)
VOICES = ("us-m1", "us-f2", "gb-m3")
LABELS = ["<pad>", "<unk>", "|", "a", "b", "c"]


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


class Plain:
    """A recognizer that knows words and nothing of time."""

    def __init__(self) -> None:
        self.shown = 0

    def stamp(self) -> dict[str, Any]:
        return {"asr": "plain"}

    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        self.shown += len(waveforms)
        return ["two words" for _ in waveforms]


def test_words_of_spoken_sentences_are_where_they_sound(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx", reason="needs the extra asr")
    recognizer = open_transcriber("pocketsphinx", folder=tmp_path, texts=TEXTS)
    utterances = [
        Utterance(id=f"{voice}-{text}", text=text, speaker=voice, split="", segments=(text,))
        for text in TEXTS
        for voice in VOICES
    ]
    off: list[float] = []
    said = 0
    for spoken in speak_shard(utterances, timeout_s=60.0, on_error=lambda *_: None):
        heard = words_heard(recognizer, spoken.audio, RATE)
        assert (heard.by, heard.note) == ("pocketsphinx", "")
        known = [(text.strip(".,"), start / RATE, stop / RATE) for text, start, stop in spoken.words]
        said += len(known)
        texts = [[text for text, _, _ in known], [word.text for word in heard.words]]
        for first, second, length in SequenceMatcher(None, *texts, autojunk=False).get_matching_blocks():
            for (_, start_s, end_s), word in zip(
                known[first : first + length], heard.words[second : second + length], strict=True
            ):
                assert None not in (word.start_s, word.end_s, word.score)
                assert 0 <= word.score <= 1
                off += [abs(word.start_s - start_s), abs(word.end_s - end_s)]
    median, most = np.median(off), np.quantile(off, 0.9)
    print(f"{len(off) // 2} of {said} words heard; borders off by {1000 * median:.0f} ms (90 %: {1000 * most:.0f} ms)")
    assert len(off) / 2 > 0.7 * said, "too few words were recognized to say anything about times"
    assert median < 0.08


def test_another_rate_gives_the_same_times(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx", reason="needs the extra asr")
    recognizer = open_transcriber("pocketsphinx", folder=tmp_path, texts=TEXTS)
    one = Utterance(id="a", text=TEXTS[0], speaker="us-m1", split="", segments=(TEXTS[0],))
    (spoken,) = speak_shard([one], timeout_s=60.0, on_error=lambda *_: None)
    first = words_heard(recognizer, spoken.audio, RATE)
    again = words_heard(recognizer, resample(spoken.audio, RATE, 24_000), 24_000)
    assert [word.text for word in first.words] == [word.text for word in again.words]
    for a, b in zip(first.words, again.words, strict=True):
        assert abs(a.start_s - b.start_s) <= 0.031
    texts = [word.text for word in first.words]
    assert texts == recognizer([spoken.audio])[0].split(), "not the words of the transcript"


@pytest.mark.parametrize("audio", [np.zeros(RATE, np.float32), noise(0.09), np.zeros(0, np.float32)])
def test_silence_and_short_clips_have_no_words(audio: np.ndarray) -> None:
    recognizer = Plain()
    heard = words_heard(recognizer, audio, RATE)
    assert heard.words == ()
    assert heard.note in ("silence", "shorter than 0.1 s")
    assert recognizer.shown == 0
    with pytest.raises(DataError, match="NaN or infinite"):
        words_heard(recognizer, np.full(RATE, np.nan, np.float32), RATE)


def test_a_recognizer_without_times_says_so_and_guesses_none() -> None:
    heard = words_heard(Plain(), noise(1.0), RATE)
    assert [(word.text, word.start_s, word.end_s) for word in heard.words] == [
        ("two", None, None),
        ("words", None, None),
    ]
    assert heard.note == "plain gives no times of words: they have none"
    assert heard.records() == []


@pytest.fixture(scope="module")
def ctc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ctc")
    (folder / "vocab.json").write_text(str({label: id for id, label in enumerate(LABELS)}).replace("'", '"'))
    tokenizer = Wav2Vec2CTCTokenizer(
        str(folder / "vocab.json"), pad_token="<pad>", unk_token="<unk>", word_delimiter_token="|"
    )
    config = Wav2Vec2Config(
        vocab_size=len(LABELS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8), conv_stride=(20, 16), conv_kernel=(20, 16), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Wav2Vec2ForCTC(config).save_pretrained(folder)
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


def test_frames_of_a_ctc_model_become_seconds(ctc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: silence to 0.2 s, "ab" to 0.3 s, a pause, "c" from 0.5 to 0.54 s; frames of 20 ms."""
    recognizer = PipelineTranscriber(ctc)
    spelled = [0] * 10 + [3, 0, 0, 4, 4] + [0] * 4 + [2] + [0] * 5 + [5, 5] + [0] * 23
    logits = torch.full((1, len(spelled), len(LABELS)), -20.0)
    logits[0, torch.arange(len(spelled)), spelled] = 20.0
    logits[0, 25:27] = torch.tensor([0.0, -20, -20, -20, -20, 0.4055])  # "c" at 0.6
    monkeypatch.setattr(recognizer.pipe.model, "forward", lambda **_: SimpleNamespace(logits=logits))
    heard = words_heard(recognizer, noise(1.0), RATE)
    assert [(word.text, word.start_s, word.end_s) for word in heard.words] == [("ab", 0.2, 0.3), ("c", 0.5, 0.54)]
    assert [word.score for word in heard.words] == [pytest.approx(1.0, abs=1e-3), pytest.approx(0.6, abs=1e-3)]
    assert heard.records()[1] == {"text": "c", "start_s": 0.5, "end_s": 0.54}


def test_a_ctc_model_gives_the_words_of_its_transcript(ctc: Path) -> None:
    recognizer = PipelineTranscriber(ctc)
    audio = noise(1.5, 3)
    heard = words_heard(recognizer, audio, RATE)
    assert " ".join(word.text for word in heard.words) == " ".join(recognizer([audio])[0].split())
    assert heard.words
    assert all(word.start_s is not None for word in heard.words)


def test_a_ctc_tokenizer_without_offsets_gives_words_without_times(ctc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = PipelineTranscriber(ctc)
    monkeypatch.setattr(recognizer.pipe.tokenizer, "decode", lambda *_, **__: "ab c")
    heard = words_heard(recognizer, noise(0.5), RATE)
    assert [word.text for word in heard.words] == ["ab", "c"]
    assert "no times" in heard.note


def test_times_are_put_in_order_and_inside_the_audio(tmp_path: Path) -> None:
    """Whisper's words overlap and end behind the audio; files of words hold neither."""
    words = [
        Word(text="a", start_s=0.5, end_s=0.9, score=0.5),
        Word(text="b", start_s=0.8, end_s=1.3),
        Word(text="c"),
        Word(text="d", start_s=1.4, end_s=1.5),
    ]
    settled = in_order(words, duration_s=1.2)
    assert [(word.start_s, word.end_s) for word in settled] == [(0.5, 0.9), (0.9, 1.2), (None, None), (1.2, 1.2)]
    write_words(tmp_path / "x.wav", settled, duration_s=1.2, formats=("textgrid", "ctm", "whisperx"))


def test_words_written_beside_a_recording_are_read_back(tmp_path: Path) -> None:
    words = in_order(
        [Word(text="the", start_s=0.03, end_s=0.11), Word(text="cat", start_s=0.46, end_s=0.64)], duration_s=1.0
    )
    files = write_words(tmp_path / "p0-0.wav", words, duration_s=1.0, formats=("textgrid", "ctm"))
    assert [file.name for file in files] == ["p0-0.TextGrid", "p0-0.ctm"]
    for file in files:
        read = [word for word in read_alignment(file) if word.text]
        assert [(word.text, word.start_s, word.end_s) for word in read] == [("the", 0.03, 0.11), ("cat", 0.46, 0.64)]
    with pytest.raises(DataError, match="one suffix"):
        write_words(tmp_path / "p0-0.wav", words, duration_s=1.0, formats=("whisperx", "slamkit"))
    with pytest.raises(DataError, match="not written"):
        write_words(tmp_path / "p0-0.wav", words, duration_s=1.0, formats=("praat",))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["p0-0.TextGrid", "p0-0.ctm"]


def test_a_missing_recognizer_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(MissingExtra, match=r"speechscale\[a"):
        open_transcriber("pocketsphinx", folder=tmp_path, texts=TEXTS)


def test_nothing_recognized_is_said() -> None:
    class Mute(Plain):
        def __call__(self, waveforms: Sequence[np.ndarray]) -> list[str]:
            return ["" for _ in waveforms]

    assert words_heard(Mute(), noise(0.5), RATE) == WordsHeard(words=(), by="plain", note="nothing was recognized")
