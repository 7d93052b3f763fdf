"""Would catch: streamed text that is lost, doubled or run together, a decoding of all text at every token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from speechscale.speak.spoken import new_spans
from speechscale.speak.streaming import _Written
from speechscale.tokens.vocabulary import Vocabulary
from tests.speak.test_speech_lm import _letters


def _streamed(vocabulary: Vocabulary, ids: list[int]) -> str:
    written = _Written(vocabulary)
    pieces = []
    for id in ids:
        speech = vocabulary.unit_start <= id < vocabulary.speech_stop
        pieces.append(written.rest() if speech else written.add(id))
    return "".join([*pieces, written.rest()])


def _joined(vocabulary: Vocabulary, ids: list[int]) -> str:
    return " ".join(span.text.strip() for span in new_spans(vocabulary, ids) if span.text.strip())


def test_spans_of_text_are_parted_by_a_blank(vocabulary: Vocabulary) -> None:
    ids = [2, 3, 20, 12, 13, 21, 4, 5, 20, 14, 21, 6]
    assert _streamed(vocabulary, ids) == _joined(vocabulary, ids)
    assert len(_joined(vocabulary, ids).split()) == 5


@pytest.mark.parametrize("text", ["grüße, 日本 \U0001f600!", "a  b\n c", "\ufffd x", "é"])
def test_half_characters_wait(text: str) -> None:
    letters = Vocabulary.from_pretrained(_letters(), 10)
    ids = letters.encode_text([text]).flat.tolist()
    assert _streamed(letters, ids) == text
    assert _streamed(letters, ids[:-1]) == letters.text_tokenizer.decode(ids[:-1], skip_special_tokens=False)
    noise = np.random.default_rng(0).integers(1, letters.text_size, 200).tolist()
    assert _streamed(letters, noise).strip() == _joined(letters, noise)


def test_only_the_newest_tokens_are_decoded(vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    written, lengths = _Written(vocabulary), []
    decoded = _Written._decoded

    def counted(self: Any, ids: list[int]) -> str:
        lengths.append(len(ids))
        return decoded(self, ids)

    monkeypatch.setattr(_Written, "_decoded", counted)
    text = "".join(written.add(2 + number % 8) for number in range(300))
    assert text == vocabulary.text_tokenizer.decode([2 + number % 8 for number in range(300)])
    assert max(lengths) <= 3
