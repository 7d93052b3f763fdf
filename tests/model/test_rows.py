"""Catches new rows at another scale than asked for, near centroids with rows far apart, markers that are no copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from speechscale.errors import DataError
from speechscale.model.anatomy import embedding_of, output_layer_of
from speechscale.model.rows import (
    POLICIES,
    TRAINED_SHARE,
    from_centroids,
    gaussian,
    like_text,
    near_mean,
    trained_scale,
)
from speechscale.model.sizes import get_size
from speechscale.model.slm import drop_text, extend, new_model

DIM, MANY = 24, 4000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def text() -> torch.Tensor:
    """Rows with a mean and a covariance of their own."""
    return torch.randn(300, DIM, generator=seeded()) @ torch.randn(DIM, DIM, generator=seeded(1)) * 0.05 + 0.3


@pytest.fixture(scope="module", params=["llama:0.02M", "phi:0.02M"], ids=["tied", "untied with bias"])
def text_lm(request: pytest.FixtureRequest) -> Any:
    model = new_model(get_size(request.param), 50, 32, seed=0)
    generator = seeded(3)
    with torch.no_grad():
        for table in (embedding_of(model).weight, *output_layer_of(model).parameters()):
            table.copy_(torch.randn(table.shape, generator=generator) * 0.1)
    return model


def test_like_text_has_the_covariance_of_text(text: torch.Tensor) -> None:
    """transformers' own resizing divides it by 1e9."""
    rows = like_text(text, 40_000, seeded())
    torch.testing.assert_close(rows.mean(0), text.mean(0), atol=0.01, rtol=0)
    assert (rows.T.cov() - text.T.cov()).norm() < 0.03 * text.T.cov().norm()


def test_like_text_with_fewer_rows_than_columns(text: torch.Tensor) -> None:
    """A covariance that is singular, as of a small table in a wide model: eigenvalues a hair below 0 are no NaN."""
    rows = like_text(text[:5], MANY, seeded())
    away = rows - text[:5].mean(0)
    assert torch.linalg.matrix_rank(away, rtol=1e-3) == 4
    assert rows.isfinite().all()


def test_scales(text: torch.Tensor) -> None:
    assert gaussian(text, MANY, seeded()).std().item() == pytest.approx(0.02, rel=0.02)
    assert trained_scale(text, MANY, seeded()).std().item() == pytest.approx(
        TRAINED_SHARE * text.std().item(), rel=0.02
    )
    assert (near_mean(text, MANY, seeded()) - text.mean(0)).std().item() == pytest.approx(
        0.1 * text.std().item(), rel=0.02
    )


def test_near_units_get_near_rows(text: torch.Tensor) -> None:
    rng = np.random.default_rng(0)
    centroids = np.repeat(rng.normal(5, 1, (100, 400)), 2, axis=0) + rng.normal(0, 0.1, (200, 400))  # pairs
    rows = from_centroids(centroids)(text, 210, seeded())
    assert rows.shape == (210, DIM)
    assert rows[:200].std().item() == pytest.approx(TRAINED_SHARE * text.std().item(), rel=0.05)
    assert rows[200:].std().item() == pytest.approx(TRAINED_SHARE * text.std().item(), rel=0.2)
    distances = torch.cdist(rows[:200], rows[:200]).fill_diagonal_(torch.inf)
    assert torch.equal(distances.argmin(1), torch.arange(200) ^ 1)


def test_units_of_a_model_follow_their_centroids(text_lm: Any) -> None:
    """Embedding and untied head; the calibrating shift is the same for all."""
    centroids = np.random.default_rng(0).normal(0, 1, (4, 8)).repeat(2, axis=0)
    slm = extend(text_lm, 50, 60, seed=0, policy="centroid", centroids=centroids)
    for table in (embedding_of(slm).weight, output_layer_of(slm).weight):
        torch.testing.assert_close(table[50:58:2], table[51:58:2])
        assert (table[50] - table[52]).norm() > 0.1
    again = extend(text_lm, 50, 60, seed=0, policy="centroid", centroids=centroids)
    assert torch.equal(embedding_of(again).weight, embedding_of(slm).weight)


@pytest.mark.parametrize("policy", ["calibrated", "mean_cov"])
def test_markers_start_as_exact_copies(text_lm: Any, policy: str) -> None:
    slm = extend(text_lm, 50, 60, seed=0, policy=policy, copies={58: 3, 59: 7})
    plain = extend(text_lm, 50, 60, seed=0, policy=policy)
    tables = [embedding_of(slm).weight, *output_layer_of(slm).parameters()]
    others = [embedding_of(plain).weight, *output_layer_of(plain).parameters()]
    for table, other in zip(tables, others, strict=True):
        assert torch.equal(table[[58, 59]], table[[3, 7]])
        assert torch.equal(table[:58], other[:58]), "copies are no part of the drawing"
    logits = slm(torch.arange(20)[None], use_cache=False).logits
    torch.testing.assert_close(logits[..., 58], logits[..., 3])


def test_bias_of_the_head_gets_rows_too() -> None:
    model = new_model(get_size("phi:0.02M"), 50, 32, seed=0)
    with torch.no_grad():
        output_layer_of(model).bias.copy_(torch.arange(50.0))
    slm = extend(model, 40, 60, seed=0)
    assert torch.equal(output_layer_of(slm).bias, torch.cat([torch.arange(40.0), torch.full((20,), 19.5)]))
    assert torch.equal(output_layer_of(drop_text(model, 11, seed=0)).bias, torch.zeros(11))


CENTROIDS = np.eye(8, dtype=np.float32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "fancy"}, f"allowed: {', '.join(POLICIES)}"),
        ({"policy": "centroid"}, "belong to the policy 'centroid', and it needs them"),
        ({"policy": "mean", "centroids": CENTROIDS}, "belong to the policy 'centroid'"),
        ({"policy": "centroid", "centroids": np.eye(11)}, r"shape \(11, 11\) for 10 new ids"),
        ({"policy": "centroid", "centroids": CENTROIDS * np.nan}, "a finite row"),
        ({"policy": "centroid", "centroids": np.ones((8, 3))}, "not all equal"),
        ({"copies": {49: 3}}, "copies: 49 <- 3; a new id"),
        ({"copies": {50: 50}}, r"starts as a text id \(0 to 49\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused(text_lm: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        extend(text_lm, 50, 60, seed=0, **options)
