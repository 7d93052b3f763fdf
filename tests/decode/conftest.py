"""The vocabulary and the random models of the tests of evals."""

from __future__ import annotations

from tests.evals.conftest import make_model, vocabulary

__all__ = ["make_model", "vocabulary"]
