"""Would catch a wrong optimum (exponents swapped, the 6 of 6ND lost) and mistyped published constants."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.scaling.fitting.newton import Objective
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.published import LAWS, SIMS_ENVELOPE, SLOPES


def test_cuervo_speech_optimum_equals_the_derived_numbers() -> None:
    law = LAWS["cuervo-speech"].law
    assert round(law.G, 5) == 0.12700
    assert round(law.exp_params, 5) == 0.48980
    assert law.optimum(1e18).params_opt == pytest.approx(3.459e7, rel=2e-4)
    best = law.optimum(1e20)
    assert best.params_opt == pytest.approx(3.301e8, rel=2e-4)
    assert best.tokens_opt == pytest.approx(5.050e10, rel=2e-4)
    assert law.loss_at(1e20) == pytest.approx(1.9405, abs=5e-5)


@settings(deadline=None)
@given(
    E=st.floats(0.1, 3),
    A=st.floats(1, 1e3),
    B=st.floats(1, 1e3),
    alpha=st.floats(0.1, 0.8),
    beta=st.floats(0.1, 0.8),
    log_c=st.floats(10, 22),
)
def test_optimum_spends_the_budget_and_no_neighbor_is_better(
    E: float, A: float, B: float, alpha: float, beta: float, log_c: float
) -> None:
    law, C = LossLaw(E=E, A=A, B=B, alpha=alpha, beta=beta), 10.0**log_c
    best = law.optimum(C)
    assert 6 * best.params_opt * best.tokens_opt == pytest.approx(C, rel=1e-9)
    assert law.exp_params + law.exp_tokens == pytest.approx(1)
    for factor in (0.9, 1.1):
        assert law.predict(best.params_opt * factor, best.tokens_opt / factor) >= best.loss


def test_arrays_of_constants_broadcast() -> None:
    laws = LossLaw(E=np.array([1.7, 1.8]), A=np.array([14.0, 500.0]), B=40.0, alpha=0.25, beta=np.array([0.24, 0.35]))
    one = LossLaw(E=1.8, A=500.0, B=40.0, alpha=0.25, beta=0.35)
    assert laws.optimum(1e18).params_opt[1] == pytest.approx(one.optimum(1e18).params_opt)


@pytest.mark.parametrize(("alpha", "C"), [(-0.1, 1e18), (0.25, 0.0), (0.25, -1.0)])
def test_no_optimum_of_an_impossible_law_or_budget(alpha: float, C: float) -> None:
    with pytest.raises(DataError, match="above 0"):
        LossLaw(E=1.7, A=14.0, B=40.0, alpha=alpha, beta=0.24).optimum(C)


def test_every_published_law_states_source_and_convention() -> None:
    assert {"cuervo-speech", "cuervo-unigram", "cuervo-text", "hoffmann", "epoch-published"} <= set(LAWS)
    assert all(law.source and law.convention and law.name == name for name, law in LAWS.items())
    assert all(slope.source for slope in SLOPES.values())


def test_published_ratios_of_text_to_speech_slopes() -> None:
    ratios = [
        SLOPES[f"cuervo-text-{m}"].gamma / SLOPES[f"cuervo-speech-{m}"].gamma
        for m in ("blimp", "tstorycloze", "sstorycloze")
    ]
    assert ratios == pytest.approx([3.14, 1.56, 2.7], abs=0.01)


def test_published_rows_score_as_recorded_on_epochs_points(shared) -> None:
    """Hoffmann's printed row and Epoch's mixed row are not optima; their scores are known."""
    table = pd.read_csv(shared / "scaling_data/epoch_chinchilla/svg_extracted_data.csv")
    table = table[table["loss"] < np.sort(table["loss"])[-5]]
    N, C, loss = (table[c].to_numpy() for c in ("Model Size", "Training FLOP", "loss"))

    def score(name: str) -> float:
        return Objective().score(LAWS[name].law.predict(N, C / 6 / N), loss)

    assert score("hoffmann") == pytest.approx(0.0041210, abs=5e-8)
    assert score("epoch-published") == pytest.approx(0.0010228, abs=5e-8)
    assert score("epoch-log-huber") == pytest.approx(0.0010182740, abs=1e-9)


def test_sims_points_equal_the_stored_table(shared) -> None:
    table = pd.read_csv(shared / "scaling_data/sims_envelope.csv")
    stored = list(table[["flops_6nd_total", "sstorycloze", "tstorycloze"]].itertuples(index=False, name=None))
    assert list(SIMS_ENVELOPE) == stored


def test_a_wild_replicate_has_its_optimum_at_infinity_without_a_warning() -> None:
    law = LossLaw(E=np.array([1.7, 1.7]), A=np.array([14.0, 1e300]), B=np.array([40.0, 1e-300]), alpha=0.25, beta=0.24)
    best = law.optimum(1e18)
    assert best.params_opt[0] == pytest.approx(3.4e7, rel=0.1)
    assert best.params_opt[1] == np.inf
    assert best.tokens_opt[1] == 0
