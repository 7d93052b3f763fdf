"""Catches labels that do not cover the audio, and held-out voices that are heard in training."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest

from speechscale.voices import labeled_speech as module
from speechscale.voices.espeak import INVENTORY_TEXT, VOICES
from speechscale.voices.labeled_speech import labeled_speech


def test_phones_tile_the_audio() -> None:
    for audio, phones in islice(labeled_speech(["us-f2"]), 2):
        assert phones[0][1] == 0
        assert phones[-1][2] == len(audio)
        assert all(before[2] == after[1] for before, after in pairwise(phones))
        assert len({label for label, _, _ in phones}) > 10


def test_only_training_voices_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(module, "speak_shard", lambda shard: asked.extend(u.speaker for u in shard) or [])
    assert list(labeled_speech()) == []
    assert set(asked) == {name for name, voice in VOICES.items() if not voice.held_out}
    assert len(asked) == len(set(asked)) * len(INVENTORY_TEXT)
