"""Catches models that cannot be loaded, words on wrong times, unknown characters that break an utterance, seams."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    HubertConfig,
    HubertForCTC,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
    WavLMConfig,
    WavLMForCTC,
)

from speechscale.align.aligner import Aligned, build_aligner
from speechscale.align.alphabet import Alphabet
from speechscale.align.ctc import CtcAligner
from speechscale.align.phones import ARPABET
from speechscale.align.viterbi import STAR
from speechscale.errors import DataError

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAOINHSRDLUMWCFGYPBVKXJQZ'"]
"""The order of facebook/wav2vec2-base-960h."""
SMALL = {
    "vocab_size": len(LETTERS),
    "pad_token_id": 0,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
CONV = {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
MODELS = {
    "wav2vec2": (Wav2Vec2ForCTC, Wav2Vec2Config(**SMALL, **CONV)),
    "hubert": (HubertForCTC, HubertConfig(**SMALL, **CONV)),
    "wavlm": (WavLMForCTC, WavLMConfig(**SMALL, **CONV)),
    "w2v-bert": (
        Wav2Vec2BertForCTC,
        Wav2Vec2BertConfig(
            **SMALL, feature_projection_input_dim=160, output_hidden_size=16, conv_depthwise_kernel_size=5
        ),
    ),
}


def save_model(folder: Path, kind: str = "wav2vec2", labels: list[str] | None = None) -> Path:
    """A randomly initialized model of a real class, with tokenizer and feature extractor, as on the hub."""
    labels = labels or LETTERS
    make, config = MODELS[kind]
    config.vocab_size = len(labels)
    torch.manual_seed(0)
    make(config).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({label: id for id, label in enumerate(labels)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    if kind == "w2v-bert":
        SeamlessM4TFeatureExtractor().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    else:
        Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(16_000 * seconds)).astype(np.float32)


def check(aligned: Aligned, text: str, seconds: float) -> None:
    """Words of the text, in order, inside the audio."""
    assert [word.text for word in aligned.words] == text.split()
    times = [time for word in aligned.words for time in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] <= seconds
    assert all(0 <= word.score <= 1 for word in aligned.words)


@pytest.mark.parametrize("kind", list(MODELS))
def test_every_class_of_model_aligns(tmp_path: Path, kind: str) -> None:
    """Waveform and feature models differ in inputs and frame counts; each must give ordered words inside the audio."""
    aligner = build_aligner("ctc", model=str(save_model(tmp_path, kind)), low_score=0.0)
    assert aligner.hop_samples == 320
    check(aligner.align(noise(3.0), 16_000, "Paid $5 in café, “X”"), "Paid $5 in café, “X”", 3.0)
    assert aligner.config()["model_class"] == MODELS[kind][0].__name__


def planted(aligner: CtcAligner, text: str, at: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the model say each character of the text at a known time (character index -> seconds)."""
    ids = {label: id for id, label in enumerate(LETTERS)}

    def forward(audio: np.ndarray) -> torch.Tensor:
        frames = len(audio) // 320
        logits = torch.zeros(frames, len(LETTERS))
        logits[:, 0] = 8.0
        for index, second in at.items():
            logits[round(second * 50), ids[text[index].upper()]] = 16.0
        return torch.log_softmax(logits, dim=1)

    monkeypatch.setattr(aligner, "_forward", forward)


def test_words_lie_where_the_model_says_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong hop, a frame off by one or characters given to the next word would show."""
    aligner = CtcAligner(model=str(folder))
    planted(aligner, "go cat", {0: 0.5, 1: 0.6, 3: 1.2, 4: 1.4, 5: 1.5}, monkeypatch)
    aligned = aligner.align(noise(2.0), 16_000, "Go, cat!")
    assert aligned.failed == ""
    (go, cat) = aligned.words
    assert (go.text, go.start_s, go.end_s) == ("Go,", 0.5, 0.62)
    assert (cat.text, cat.start_s, cat.end_s) == ("cat!", 1.2, 1.52)
    assert go.score > 0.99


def test_another_files_transcript_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path always exists; the score must tell that the model said something else."""
    aligner = CtcAligner(model=str(folder))
    planted(aligner, "go cat", {0: 0.5, 1: 0.6, 3: 1.2, 4: 1.4, 5: 1.5}, monkeypatch)
    aligned = aligner.align(noise(2.0), 16_000, "red hen")
    assert "transcript" in aligned.failed
    assert aligned.flagged == (0, 1)


def test_what_is_not_in_the_text_is_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A false start before the first word must not become the first word; without stars it does cost."""
    said = "xqgo cat"
    times = {0: 0.2, 1: 0.3, 2: 0.5, 3: 0.6, 5: 1.2, 6: 1.4, 7: 1.5}
    aligner = CtcAligner(model=str(folder))
    planted(aligner, said, times, monkeypatch)
    assert [word.start_s for word in aligner.align(noise(2.0), 16_000, "go cat").words] == [0.5, 1.2]


def test_unknown_characters_are_stars_and_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A letter the model lacks must cost its place only, and be told."""
    aligner = CtcAligner(model=str(folder), language="el")
    planted(aligner, "goxcat", {0: 0.5, 1: 0.6, 2: 0.9, 3: 1.2, 4: 1.4, 5: 1.5}, monkeypatch)
    aligned = aligner.align(noise(2.0), 16_000, "go λ cat")
    assert [(word.text, word.start_s) for word in aligned.words] == [("go", 0.5), ("λ", 0.9), ("cat", 1.2)]
    assert aligned.guessed == ("λ",)
    assert aligned.flagged == (1,)


def test_windows_are_stitched_without_seams(folder: Path) -> None:
    """Every frame once, in order: interior frames of windowed and whole emissions agree away from the borders."""
    audio = noise(7.3)
    whole = CtcAligner(model=str(folder), window_s=30.0).emissions(audio, [0, 5, 6])
    parts = CtcAligner(model=str(folder), window_s=2.0).emissions(audio, [0, 5, 6])
    assert whole.columns.shape == parts.columns.shape
    # The tiny model attends to its whole window, so frames agree about, not exactly; a shift by one frame would not.
    error = np.abs(whole.columns - parts.columns).mean()
    shifted = np.abs(whole.columns[1:] - parts.columns[:-1]).mean()
    assert error < 0.5 * shifted


def test_windows_and_one_pass_put_words_at_the_same_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The offset of each window must be that of its audio: each window is asked for its own stretch."""
    aligner = CtcAligner(model=str(folder), window_s=2.0)
    audio = np.arange(round(7.3 * 16_000), dtype=np.float32)

    def forward(part: np.ndarray) -> torch.Tensor:
        # Frame i says where its audio starts.
        starts = torch.from_numpy(part[: len(part) // 320 * 320 : 320].copy())
        return torch.stack([starts] + [torch.zeros_like(starts)] * (len(LETTERS) - 1), dim=1)

    monkeypatch.setattr(aligner, "_forward", forward)
    said = aligner.emissions(audio, [0])
    assert said.columns[:, 0].tolist() == [320.0 * i for i in range(len(audio) // 320)]


def test_another_rate_is_resampled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Audio at 44.1 kHz taken for 16 kHz would stretch every time."""
    aligner = CtcAligner(model=str(folder))
    planted(aligner, "go", {0: 0.5, 1: 0.6}, monkeypatch)
    audio = np.random.default_rng(0).normal(0, 0.1, 44_100).astype(np.float32)
    assert aligner.align(audio, 44_100, "go").words[0].start_s == 0.5


def test_results_repeat(folder: Path) -> None:
    """Same audio, same text, same bytes; whatever was aligned before."""
    aligner = CtcAligner(model=str(folder), low_score=0.0)
    first = aligner.align(noise(2.0), 16_000, "good day to you")
    aligner.align(noise(1.0, seed=1), 16_000, "something else")
    assert aligner.align(noise(2.0), 16_000, "good day to you") == first


def test_bf16_runs(folder: Path) -> None:
    """Inputs must follow the weights' type."""
    check(CtcAligner(model=str(folder), dtype="bf16", low_score=0.0).align(noise(1.0), 16_000, "a b"), "a b", 1.0)


@pytest.mark.parametrize(
    ("audio", "text", "message"),
    [
        (noise(1.0), "... --", "no words"),
        (noise(0.01), "a word", "too short"),
        (np.full(16_000, np.nan, np.float32), "a word", "NaN"),
        (noise(0.2), "many more words than fit into a fifth of a second", "frames cannot hold"),
    ],
)
def test_what_cannot_be_aligned_fails_with_a_reason(folder: Path, audio: np.ndarray, text: str, message: str) -> None:
    """Bad input fails its utterance and keeps the words."""
    aligned = CtcAligner(model=str(folder)).align(audio, 16_000, text)
    assert message in aligned.failed
    assert "; " in aligned.failed
    assert all(word.start_s is None for word in aligned.words)


def test_phone_models_get_phones(tmp_path: Path) -> None:
    """ARPAbet and IPA vocabularies are recognized and take the dictionary's pronunciations."""
    pytest.importorskip("pocketsphinx")
    labels = ["<pad>", *ARPABET]
    aligner = CtcAligner(model=str(save_model(tmp_path, labels=labels)), low_score=0.0, guess="letters")
    assert aligner.config()["units"] == "arpabet"
    tokens, owners, guessed = aligner.tokens(["dogs", "zyxomma"])
    assert [labels[token] for token in tokens[:4]] == ["D", "AA", "G", "Z"]
    assert owners[:5] == [0, 0, 0, 0, 1]
    assert guessed == ("zyxomma",)
    check(aligner.align(noise(2.0), 16_000, "Dogs bark."), "Dogs bark.", 2.0)


def test_alphabets() -> None:
    """Case, accents, apostrophes, missing phones and delimiters; a wrong reading maps words to nothing."""
    letters = Alphabet.of({"<pad>": 0, "|": 1, "a": 2, "e": 3, "'": 4}, blank=0)
    assert (letters.kind, letters.delimiter) == ("characters", 1)
    assert letters.spell("Aé'x") == [2, 3, 4, STAR]
    assert Alphabet.of({"<pad>": 0, "d": 1, "o": 2, "n": 3, "t": 4}, blank=0).spell("don't") == [1, 2, 3, 4]
    ipa = Alphabet.of({"<pad>": 0, **{s: i for i, s in enumerate("ʃŋɪθðʊh", 1)}, "aʊ": 9}, blank=0)
    assert ipa.kind == "ipa"
    assert ipa.sound("HH AW ZH") == [7, 9, STAR]
    stressed = Alphabet.of({"[PAD]": 0, **{f"{p}0": i for i, p in enumerate(ARPABET, 1)}}, blank=0)
    assert stressed.sound("AA ZH") == [1, 39]
    with pytest.raises(DataError, match="no ARPAbet or IPA"):
        Alphabet.of({"<pad>": 0, "a": 1}, blank=0, units="phones")


def test_models_that_cannot_be_used_are_named(tmp_path: Path, folder: Path) -> None:
    """Nothing there, pickled weights, or a tokenizer of another model: told before any work."""
    with pytest.raises(DataError, match="cannot be loaded"):
        CtcAligner(model=str(tmp_path / "none"))
    pickled = save_model(tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(DataError, match="safetensors"):
        CtcAligner(model=str(pickled))
    other = save_model(tmp_path / "other")
    (other / "vocab.json").write_text(json.dumps({"a": 0, "b": 99}))
    with pytest.raises(DataError, match="ids up to 99"):
        CtcAligner(model=str(other))
    for setting in ({"dtype": "int4"}, {"units": "words"}, {"device": "abacus"}, {"window_s": 0.0}):
        with pytest.raises(DataError, match=next(iter(setting))):
            CtcAligner(model=str(folder), **setting)
