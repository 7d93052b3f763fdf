"""Published constants: would catch a mistyped constant, a swapped R pair, and a law without source or units."""

from __future__ import annotations

from math import prod

import numpy as np
import pandas as pd
import pytest

from speechscale.errors import DataError
from speechscale.scaling.fitting.newton import Objective
from speechscale.scaling.published import LAWS, SIMS_AT_2E20, SIMS_ENVELOPE, get_law, law_of


def test_speech_mixture_is_consumed_once_where_the_law_says() -> None:
    """Cuervo's 10.89B units: one epoch at C = 4.95e18 with N_opt = 7.57e7, which is U_N."""
    published = get_law("cuervo-speech")
    best = published.law.optimum(4.95e18)
    assert best.tokens_opt == pytest.approx(10.89e9, rel=2e-3)
    assert best.params_opt == pytest.approx(7.57e7, rel=2e-3)
    assert published.repeat_law.params_for(10.89e9) == pytest.approx(7.57e7, rel=2e-3)


def test_derived_numbers_of_the_other_rows() -> None:
    """Cuervo fact sheet: G and a of each row; text has 20 tokens per parameter."""
    unigram, text = get_law("cuervo-unigram").law, get_law("cuervo-text").law
    assert pytest.approx(0.05440, abs=5e-6) == unigram.G
    assert unigram.exp_params == pytest.approx(0.51613, abs=5e-6)
    assert pytest.approx(0.22331, abs=5e-6) == text.G
    best = text.optimum(1e20)
    assert best.tokens_opt / best.params_opt == pytest.approx(20.05, abs=0.01)


def test_rounded_and_unrounded_rows_agree() -> None:
    for rounded, exact in (("cuervo-text", "muennighoff"), ("hoffmann", "hoffmann-unrounded")):
        N, D = np.geomspace(1e8, 1e10, 5), np.geomspace(1e10, 1e12, 5)
        assert get_law(rounded).law.predict(N, D) == pytest.approx(get_law(exact).law.predict(N, D), rel=0.03)
    assert get_law("muennighoff").repeat_constants == pytest.approx(get_law("cuervo-text").repeat_constants, rel=2e-3)


def test_scores_on_epochs_points(shared) -> None:
    table = pd.read_csv(shared / "scaling_data/epoch_chinchilla/svg_extracted_data.csv")
    table = table[table["loss"] < np.sort(table["loss"])[-5]]
    N, C, loss = (table[c].to_numpy() for c in ("Model Size", "Training FLOP", "loss"))
    scores = {
        name: Objective().score(get_law(name).law.predict(N, C / 6 / N), loss) for name in LAWS if "epoch" in name
    }
    assert min(scores, key=scores.__getitem__) == "epoch-log-huber"
    unrounded = Objective().score(get_law("hoffmann-unrounded").law.predict(N, C / 6 / N), loss)
    assert unrounded == pytest.approx(0.0012312, abs=5e-8)


def test_both_optima_of_repeats_on_their_runs(shared) -> None:
    """The second pair is 0.13 % lower on the 182 runs; a swapped pair would be far off."""
    runs = pd.read_csv(shared / "scaling_data/muennighoff_datablations/runs_used_in_fit.csv")
    N, D, U, loss = (runs[c].to_numpy(float) for c in ("params", "tokens", "unique_tokens", "val_loss"))

    def score(name: str) -> float:
        predicted = get_law(name).repeat_law.predict(N, D, U)
        size = np.abs(np.log(loss / predicted))
        inner = np.minimum(size, 1e-3)
        return float((inner * (size - inner / 2)).sum())

    assert score("muennighoff") / score("muennighoff-second") == pytest.approx(0.0158259353 / 0.0158046647, rel=2e-4)


def test_sims_counts_compute_with_embeddings() -> None:
    """6 N_total D is the printed C: 7.6B parameters on 15B tokens are 6.86e20 FLOPs."""
    assert pytest.approx(SIMS_ENVELOPE[-1][0], rel=0.01) == 6 * 7.6e9 * 15e9
    for N, D, *_ in SIMS_AT_2E20:
        assert prod((6, N, D)) == pytest.approx(2e20, rel=0.04)
    assert [row[2:] for row in SIMS_AT_2E20] == sorted((row[2:] for row in SIMS_AT_2E20), reverse=True)


def test_every_law_says_what_it_counts() -> None:
    for law in LAWS.values():
        assert all((law.units, law.convention, law.source))
        assert law.compute_range_flops is None or law.compute_range_flops[0] < law.compute_range_flops[1]
        assert (law.tokens_per_unit is not None) == (law.modality == "speech")
    assert get_law("soda").verified == "secondary"
    assert get_law("soda").law.exp_params == pytest.approx(0.391, abs=5e-4)


def test_names_and_numbers() -> None:
    assert law_of("cuervo-speech") == get_law("cuervo-speech").law
    assert law_of("1.73, 13.9, 39.8, .25, .24") == get_law("cuervo-speech").law
    with pytest.raises(DataError, match="did you mean 'cuervo-speech'"):
        get_law("cuervo-speach")
    for bad in ("1,2,3", "1,2,3,4,x", "1,2,3,4,nan"):
        with pytest.raises(DataError, match="five numbers"):
            law_of(bad)
