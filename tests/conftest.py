"""Shared fixtures: the folder of real data beside the repository, and one thread for torch."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
import torch

# CI replays the same examples every time; elsewhere each run looks at new ones.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Keep sums in one order and the machine free for other work."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository; tests of real recordings skip without it."""
    path = Path(__file__).resolve().parents[1].parent / "shared"
    if not (path / "data").is_dir():
        pytest.skip("no real recordings: ../shared/data is not there")
    return path
