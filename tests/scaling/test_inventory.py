"""Inventories: would catch hours taken for units, a scarce stream hidden behind a rich one, and data counted twice."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.scaling.planning.inventory import (
    CORPORA,
    SIMS_THIRDS,
    SPEECH_ONLY,
    STREAMS,
    Mixture,
    make_inventory,
    parse_corpus,
    parse_mixture,
)


def test_published_table_sums_to_its_total() -> None:
    """Cuervo Table 2, its own count of SWC put back: 10.89B units in 160k hours."""
    parts = [CORPORA[n] for n in ("librispeech", "librilight", "ted-lium", "peoplespeech", "voxpopuli", "stinystories")]
    assert sum(c.units for c in parts) + 32e6 == pytest.approx(10.89e9, rel=1e-3)
    assert sum(c.hours for c in parts) + 1e3 == pytest.approx(160e3, rel=5e-3)
    for corpus in CORPORA.values():
        if corpus.name != "SWC":
            assert 18 < corpus.units / corpus.hours / 3600 < 21


def test_hours_become_units() -> None:
    assert parse_corpus("mine:1000").units == pytest.approx(1000 * 3600 * 19.4)
    assert parse_corpus("mine:1000:12.5").units == pytest.approx(4.5e7)
    assert parse_corpus("librispeech").units / 960 / 3600 == pytest.approx(19.4, abs=0.02)


def test_epochs_per_stream() -> None:
    inventory = make_inventory(["LibriLight"], text_tokens=1e11)
    epochs = inventory.epochs(3 * 7.48e9, SIMS_THIRDS)
    assert epochs == pytest.approx({"speech": 2.0, "interleaved": 2.0, "text": 0.0748})
    assert make_inventory(["LibriLight"]).epochs(1e9, SIMS_THIRDS)["text"] == inf
    assert inventory.epochs(3.74e9, SPEECH_ONLY, tokens_per_unit=0.5) == pytest.approx({"speech": 2.0})


@given(speech=st.floats(1, 1e6), text=st.floats(1e6, 1e12), share=st.floats(0.01, 0.99), tokens=st.floats(1e6, 1e13))
def test_unique_tokens_follow_the_scarcest_stream(speech: float, text: float, share: float, tokens: float) -> None:
    mixture = Mixture(name="m", shares={"speech": share, "text": 1 - share})
    inventory = make_inventory([f"mine:{speech}"], text_tokens=text)
    unique, stream = inventory.unique_of(mixture)
    epochs = inventory.epochs(tokens, mixture)
    assert tokens / unique == pytest.approx(max(epochs.values()))
    assert epochs[stream] == pytest.approx(max(epochs.values()))


def test_mixtures() -> None:
    assert parse_mixture("sims") is SIMS_THIRDS
    assert parse_mixture("text:1,interleaved:2,speech:1").share("interleaved") == 0.5
    assert sum(SIMS_THIRDS.share(s) for s in STREAMS) == pytest.approx(1)
    assert not SPEECH_ONLY.has_text
    assert SIMS_THIRDS.has_text


@pytest.mark.parametrize("text", ["txt:1", "text", "text:-1,speech:2", "text:0", "text:nan", "text:x"])
def test_bad_mixtures(text: str) -> None:
    with pytest.raises(DataError, match="mixture"):
        parse_mixture(text)


@pytest.mark.parametrize("text", ["LibriLigth", "mine:0", "mine:-3", "mine:x", "mine:nan", ":3", "mine:1:2:3"])
def test_bad_corpora(text: str) -> None:
    with pytest.raises(DataError, match="corpus"):
        parse_corpus(text)


def test_unique_data_counts_once() -> None:
    with pytest.raises(DataError, match="twice"):
        make_inventory(["mine:3", "Mine:4"])
    with pytest.raises(DataError, match="holds the other"):
        make_inventory(["Cuervo-mixture", "LibriLight"])
    with pytest.raises(DataError, match="needs text"):
        make_inventory(["mine:3"]).unique_of(SIMS_THIRDS)
    with pytest.raises(DataError, match="at least 0"):
        make_inventory(["mine:3"], text_tokens=-1)
