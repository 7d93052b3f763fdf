"""Would catch a floor that is invented, one that is missed, and an envelope taken for the law under it."""

from __future__ import annotations

import numpy as np
import pytest

from speechscale.scaling.fitting.fit import fit_loss_law
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.optima.envelope_law import EnvelopeLaw, envelope_law
from speechscale.scaling.optima.slopes import fit_power_law
from speechscale.scaling.published import LAWS
from speechscale.scaling.tables.run_table import RunTable, run_table

TEXT = LossLaw(E=1.82, A=478.0, B=2143.0, alpha=0.347, beta=0.367)


def sweep(law: LossLaw, noise: float = 0.0, budgets: int = 8) -> RunTable:
    C = np.repeat(np.geomspace(1e17, 1e21, budgets), 7)
    N = law.optimum(C).params_opt * np.tile(np.geomspace(1 / 8, 8, 7), budgets)
    D = C / 6 / N
    return run_table(N, D, law.predict(N, D) * np.exp(noise * np.random.default_rng(0).standard_normal(len(C))))


def enveloped(table: RunTable) -> EnvelopeLaw:
    assert table.loss is not None
    return envelope_law(table, fit_loss_law(table.params, table.tokens, table.loss), replicates=200)


def test_the_floor_and_exponent_of_a_law_are_found_on_its_envelope() -> None:
    """Along the optimum L - E falls as C^-(alpha beta / (alpha + beta))."""
    found = enveloped(sweep(TEXT))
    floor = found.forms[1].constants
    assert floor["E"].value == pytest.approx(TEXT.E, abs=1e-3)
    assert floor["gamma"].value == pytest.approx(TEXT.alpha * TEXT.beta / (TEXT.alpha + TEXT.beta), abs=1e-3)
    assert "the floor fits clearly better" in found.message
    noisy = enveloped(sweep(TEXT, 0.003)).forms[1].constants["E"]
    assert noisy.low <= TEXT.E <= noisy.high


def test_a_world_without_a_floor_gets_none() -> None:
    flat = LossLaw(E=1e-9, A=20.0, B=30.0, alpha=0.1, beta=0.1)
    found = enveloped(sweep(flat))
    plain = found.forms[0].constants
    assert plain["gamma"].value == pytest.approx(0.05, abs=1e-4)
    assert plain["k"].value * 1e19 ** -plain["gamma"].value == pytest.approx(flat.loss_at(1e19), rel=1e-3)
    assert (plain["C0"].value / 1e19) ** plain["gamma"].value == pytest.approx(flat.loss_at(1e19), rel=1e-3)
    floor = found.forms[1]
    assert floor.reason or floor.constants["E"].value < 0.05


def test_cuervos_line_without_a_floor() -> None:
    """A log-log line through the optimum of the printed law, 1e17 to 4e20, is 4.467 C^-.0181 (printed: 4.83 C^-.02)."""
    C = np.geomspace(1e17, 4e20, 200)
    fit = fit_power_law(C, LAWS["cuervo-speech"].law.loss_at(C))
    assert float(fit.law.k) == pytest.approx(4.467, abs=5e-3)
    assert float(fit.law.gamma) == pytest.approx(-0.0181, abs=5e-5)


def test_scattered_runs_use_records_and_few_are_refused() -> None:
    rng = np.random.default_rng(1)
    N, D = 10 ** rng.uniform(6, 9, 200), 10 ** rng.uniform(8, 11, 200)
    found = enveloped(run_table(N, D, TEXT.predict(N, D)))
    assert list(found.losses) == sorted(found.losses, reverse=True)
    assert list(found.flops) == sorted(found.flops)
    few = sweep(TEXT, budgets=3)
    assert "at least 4" in enveloped(few).reason
