"""Would catch: compiled steps that differ from plain ones, rows that leak into each other, weights compiled anew."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from speechscale.decode.compiled import CAPACITY_STEP, CompiledSteps
from speechscale.decode.generate import continuations
from speechscale.decode.settings import Decoding
from speechscale.errors import DataError
from speechscale.tokens.vocabulary import Vocabulary


@pytest.mark.slow  # compiling
@pytest.mark.timeout(300)
def test_compiled_steps_say_what_plain_ones_say(make_model: Callable[..., Any], vocabulary: Vocabulary) -> None:
    model = make_model("qwen2")
    compiled = CompiledSteps(model)
    two, other = [[0, 12, 13, 14], [0, 5]], [[0, 3], [0, 21, 4, 4]]
    for prompts, settings in itertools.product(
        (two, other),
        (
            Decoding(max_new_tokens=40, temperature=0.7, seed=3),
            Decoding(max_new_tokens=60, modality="speech", temperature=0, stop="never", window=32),
        ),
    ):
        assert continuations(model, vocabulary, prompts, settings, compiled=compiled) == continuations(
            model, vocabulary, prompts, settings
        )
    many = Decoding(max_new_tokens=20, temperature=0.7, samples=2)
    assert continuations(model, vocabulary, two[:1], many, compiled=compiled) == continuations(
        model, vocabulary, two[:1], many
    )
    assert list(compiled.made) == [CAPACITY_STEP]


def test_kinds_without_a_lean_reading_are_refused(make_model: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="kind 'granite' cannot be compiled"):
        CompiledSteps(make_model("granite"))
