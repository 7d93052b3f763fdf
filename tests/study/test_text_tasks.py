"""The TextLM that retention compares with: its ids come from the revision whose weights are loaded."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from speechscale.errors import DataError
from speechscale.study import text_tasks
from speechscale.tokens.text_tokenizer import build_text_tokenizer
from speechscale.tokens.vocabulary import Vocabulary

TEXTS = {"v1": "the cat sat on the mat", "main": "a dog ran"}


def test_ids_and_weights_of_a_text_lm_are_of_one_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizers = {name: build_text_tokenizer([text], "words", 20) for name, text in TEXTS.items()}
    loaded: list[tuple[str, str | None]] = []

    def tokenizer_of(_: str, *, revision: str, **__: Any) -> PreTrainedTokenizerFast:
        return PreTrainedTokenizerFast(tokenizer_object=tokenizers[revision], eos_token="<eos>")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", tokenizer_of)
    monkeypatch.setattr(text_tasks, "load_text_lm", lambda name, revision: loaded.append((name, revision)))
    vocabulary = Vocabulary.joint(tokenizers["v1"], 5)
    text_tasks._own_text_lm("owner/model", "v1", vocabulary)()
    assert loaded == [("owner/model", "v1")]
    with pytest.raises(DataError, match=r"has the id .* there and .* in the SLM"):
        text_tasks._own_text_lm("owner/model", None, vocabulary)
