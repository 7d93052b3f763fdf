"""The data-constrained law: would catch a wrong clamp, swapped R_N and R_D, or an optimum that is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechscale.errors import DataError
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.repeat import RepeatLaw

SPEECH = RepeatLaw(base=LossLaw(E=1.73, A=13.9, B=39.8, alpha=0.25, beta=0.24), R_N=31.0, R_D=25.0)
TEXT = RepeatLaw(
    base=LossLaw(E=np.exp(0.6254804), A=np.exp(6.255414), B=np.exp(7.3049974), alpha=0.3526596, beta=0.3526596),
    R_N=5.309743,
    R_D=15.387756,
)
UNITS = 10.89e9


def test_published_losses() -> None:
    """Muennighoff et al. 2023: their two models for 25B unique tokens, from their own notebook."""
    assert TEXT.predict(6.34e9, 242e9, 25e9) == pytest.approx(2.2256440889984477, rel=1e-12)
    assert TEXT.predict(8.67e9, 178e9, 25e9) == pytest.approx(2.2269634075087867, rel=1e-12)


def test_size_that_fits_the_unique_tokens() -> None:
    assert SPEECH.params_for(UNITS) == pytest.approx(7.57e7, rel=1e-3)
    assert TEXT.params_for(1e9) / 1e9 == pytest.approx(0.051, abs=0.0005)  # Muennighoff: U_N = 0.051 U_D


def test_is_the_base_law_where_nothing_repeats() -> None:
    N, D = np.geomspace(1e6, 7e7, 7), np.geomspace(1e8, 1e10, 7)
    assert SPEECH.predict(N, D, UNITS) == pytest.approx(SPEECH.base.predict(N, D), rel=1e-14)
    base, repeat = SPEECH.base.optimum(1e18), SPEECH.optimum(1e18, UNITS)
    assert repeat.params_opt == pytest.approx(base.params_opt, rel=1e-4)
    assert repeat.loss == pytest.approx(base.loss, rel=1e-9)


def test_repeats_and_excess_saturate() -> None:
    params, tokens = SPEECH.worth(1e20, 1e20, UNITS)
    assert tokens == pytest.approx(UNITS * 26)
    assert params == pytest.approx(SPEECH.params_for(UNITS) * 32)


@settings(deadline=None, max_examples=40)
@given(log_c=st.floats(17, 23), log_u=st.floats(7, 11), epochs=st.sampled_from([None, 1.0, 4.0, 40.0]))
def test_no_other_size_is_better(log_c: float, log_u: float, epochs: float | None) -> None:
    C, U = 10**log_c, 10**log_u
    found = SPEECH.optimum(C, U, epochs)
    assert 6 * found.params_opt * found.tokens_opt == pytest.approx(C, rel=1e-12)
    N = found.params_opt * np.geomspace(1e-2, 1e2, 4001)
    D = C / 6 / N
    allowed = np.full(len(N), True) if epochs is None else epochs * U >= D
    assert SPEECH.predict(N, D, U)[allowed].min() >= found.loss - 1e-9
    if epochs is not None:
        assert found.tokens_opt <= epochs * U * (1 + 1e-12)


def test_speech_prefers_parameters_and_text_prefers_epochs() -> None:
    """Cuervo & Marxer 2024, section 5: R_N > R_D in speech, the other way around in text."""
    for law, larger in ((SPEECH, True), (TEXT, False)):
        C = 30 * 6 * law.params_for(1e9) * 1e9
        constrained, free = law.optimum(C, 1e9), law.base.optimum(C)
        assert (constrained.params_opt > free.params_opt) == larger


def test_replicates_broadcast() -> None:
    scale = np.array([0.9, 1.0, 1.1])
    many = RepeatLaw(
        base=LossLaw(E=1.73, A=13.9 * scale, B=np.full(3, 39.8), alpha=0.25, beta=0.24), R_N=31.0 * scale, R_D=25.0
    )
    for C in (1e18, 1e21):
        assert many.optimum(C, UNITS).params_opt[1] == pytest.approx(SPEECH.optimum(C, UNITS).params_opt)
    budgets = np.array([1e18, 1e20, 1e22])
    together = SPEECH.optimum(budgets, UNITS, 4.0)
    assert together.loss == pytest.approx([SPEECH.optimum(C, UNITS, 4.0).loss for C in budgets], rel=1e-12)


@pytest.mark.parametrize(("C", "U", "epochs"), [(0, 1e9, None), (1e18, -1, None), (1e18, 1e9, 0), (1e18, 1e9, -1)])
def test_refuses_what_has_no_optimum(C: float, U: float, epochs: float | None) -> None:
    with pytest.raises(DataError, match="must be above 0"):
        SPEECH.optimum(C, U, epochs)
